"""Random generators that depend on what is drawn, never on the order in which it is drawn."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """Return the random generator of an aspect of a thing: PCG64 on a SeedSequence of seed and key.

    The same seed (not negative) and key (from coarse to fine: unit, field, exposure, aspect) give the same numbers
    whatever was drawn before, in any process, so that frames can be made in any order and in parallel.
    """
    words = [zlib.crc32(str(part).encode()) for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=words)))
