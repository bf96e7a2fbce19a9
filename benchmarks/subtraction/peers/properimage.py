"""properimage 0.7.2 (Sanchez et al. 2019), proper subtraction with a fitted Gaussian PSF for each frame, its default.

Masks are given by masked arrays; flux ratio fitted, no shift. Its corrected statistic is used, divided by its robust
width, since it comes without a unit. It works in double precision on the whole frame.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from benchmarks.subtraction.peers.products import Products, bad, grown


def available() -> str:
    """Why it cannot be called, empty if it can."""
    return "" if importlib.util.find_spec("properimage") else "the package 'properimage' is not installed"


def run(planes: Any, threads: int) -> Products:
    """Subtract arrays."""
    from properimage.operations import subtract

    wrong = bad(planes, "science") | bad(planes, "template")
    frames = [np.ma.masked_array(planes[f"{name}_data"].astype(float), wrong) for name in ("template", "science")]
    done = subtract(*frames, align=False, smooth_psf=False, beta=True, shift=False, fitted_psf=True)
    difference, statistic = done[0], done[2]
    difference, statistic = (np.real(np.asarray(np.ma.filled(one, 0.0))) for one in (difference, statistic))
    mask = grown(wrong, 8) | ~np.isfinite(difference) | ~np.isfinite(statistic)
    score = statistic / (1.4826 * np.median(abs(statistic[~mask] - np.median(statistic[~mask]))))
    width = 1.4826 * np.median(abs(difference[~mask]))
    # It carries no noise map: the shape of the sky and source variance at the level of its noise.
    variance = planes["science_variance"] / np.median(planes["science_variance"]) * width**2
    return Products(
        difference.astype(np.float32),
        variance.astype(np.float32),
        mask,
        np.where(mask, 0, score).astype(np.float32),
        convolved="both",
    )
