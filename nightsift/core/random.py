"""Random generators that depend on what is drawn, never on the order in which it is drawn."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """Random generator of one aspect of one thing.

    The same seed and key give the same numbers whatever else was drawn before, in this process or another
    one, so that frames can be made in any order and in parallel.

    Parameters
    ----------
    seed : int
        Seed of the survey, not negative.
    *key : str or int
        What is drawn, from coarse to fine: unit, field, exposure, aspect.

    Returns
    -------
    numpy.random.Generator
        A PCG64 generator on a SeedSequence of seed and key.
    """
    words = [zlib.crc32(str(part).encode()) for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=words)))
