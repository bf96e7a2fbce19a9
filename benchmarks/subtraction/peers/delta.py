"""`delta` 1.1.1 (Killestein 2026), a C++20 library with Python bindings: its own pipeline with its defaults.

Variances, masks and saturation level are given; decorrelation, score and catalogue are on, as its authors run it. Its
score is taken as it is. The cost is that of `delta.subtract` in process, without any file.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from benchmarks.subtraction.peers.products import Products, bad, pair_facts


def available() -> str:
    """Why it cannot be called, empty if it can."""
    return "" if importlib.util.find_spec("delta") else "the package 'delta' is not installed"


def run(planes: Any, threads: int) -> Products:
    """Run its pipeline."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import delta

    done = delta.subtract(
        planes["science_data"],
        planes["template_data"],
        science_var=planes["science_variance"],
        reference_var=planes["template_variance"],
        science_mask=bad(planes, "science"),
        reference_mask=bad(planes, "template"),
        saturation=float(pair_facts(planes)["science"]["saturation"]) * 0.98,
        decorrelate=True,
        score=True,
    )
    mask = done.mask != 0
    score = np.where(mask | ~np.isfinite(done.score), 0, done.score).astype(np.float32)
    psf = None if done.psf is None else np.asarray(done.psf)
    convolved = "template" if done.solution.direction == "reference" else "science"
    return Products(done.difference, done.variance, mask, score, psf, convolved)
