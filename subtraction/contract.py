"""What every subtraction method promises, and the check that every Difference must pass.

A method is a module of `subtraction.methods` with

- ``Options``: a frozen dataclass of documented fields with defaults;
- ``subtract(pair, options) -> Difference``.

It promises that transients that brightened are positive, on the flux scale of the science frame; that the noise of
the difference is white and its variance positive, so that ``sum(p d) / sqrt(sum(p^2 v))`` is a unit Gaussian on
empty sky, which is the score; that no pixel outside the mask is NaN; that the mask covers those of both inputs,
grown by the kernels; that the background is zero.
"""

from __future__ import annotations

import numpy as np

from nightsift.errors import SubtractionFailed
from nightsift.frames import Difference, Pair
from subtraction.masks import HARD

METRICS = ("noise_scale", "sky_pull", "usable_fraction", "coverage", "anchors_used", "star_residual")
"""Figures of merit that every method must give where it could measure them."""


def check(difference: Difference, pair: Pair) -> Difference:
    """Check what can be checked on every difference.

    Parameters
    ----------
    difference : Difference
        What a method returned.
    pair : Pair
        What it was given.

    Returns
    -------
    Difference
        The same difference.

    Raises
    ------
    SubtractionFailed
        If a promise is broken; the message names it.
    """
    for promise, kept in _promises(difference, pair):
        if not kept:
            path = pair.science.meta.path or pair.science.meta.exposure_id
            raise SubtractionFailed(where=path, method=difference.method, what=promise)
    return difference


def _promises(difference: Difference, pair: Pair) -> list[tuple[str, bool]]:
    if difference.shape != pair.science.shape:
        return [(f"its shape {difference.shape} is not that of the science frame {pair.science.shape}", False)]
    hard = (difference.mask & HARD) != 0
    inputs = ((pair.science.mask | pair.template.mask) & HARD) != 0
    total = difference.psf.terms[0].sum()
    return [
        ("no pixel is usable", not bool(hard.all())),
        ("data outside the mask are not finite", bool(np.isfinite(difference.data[~hard]).all())),
        ("the score is not finite", bool(np.isfinite(difference.score).all())),
        ("the score is not zero on masked pixels", not bool(difference.score[hard].any())),
        ("the variance is not positive outside the mask", bool((difference.variance[~hard] > 0).all())),
        ("the mask does not cover those of both inputs", bool(hard[inputs].all())),
        ("the PSF is not normalised", bool(np.isfinite(total) and abs(total - 1.0) < 0.01)),
        (
            f"the kernel has the sum {difference.kernel_sum}",
            bool(0 < difference.kernel_sum < np.inf),
        ),
        ("it has a background", not difference.metrics.get("sky_pull", 0.0) > 3.0),
    ]
