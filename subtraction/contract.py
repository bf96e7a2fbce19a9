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

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.errors import SubtractionFailed
from nightsift.core.flags import HARD
from nightsift.core.frames import Difference, Pair
from nightsift.core.parallel import over_rows

METRICS = ("noise_scale", "sky_pull", "usable_fraction", "coverage", "anchors_used", "star_residual")
"""Figures of merit that every method must give where it could measure them."""


def check(difference: Difference, pair: Pair) -> Difference:
    """Return a difference of `pair` if it holds all promises; SubtractionFailed names one that it breaks."""
    for promise, holds in _promises(difference, pair):
        if not holds:
            path = pair.science.meta.path or pair.science.meta.exposure_id
            raise SubtractionFailed(where=path, method=difference.method, what=promise)
    return difference


def _promises(difference: Difference, pair: Pair) -> list[tuple[str, bool]]:
    if difference.shape != pair.science.shape:
        return [(f"its shape {difference.shape} is not that of the science frame {pair.science.shape}", False)]
    usable, spoilt, wild, marked, flat, bare = _broken(difference, pair)
    wings = difference.psf.wings
    total = difference.psf.terms[0].sum() + wings
    return [
        ("no pixel is usable", usable > 0),
        ("data outside the mask are not finite", spoilt == 0),
        ("the score is not finite", wild == 0),
        ("the score is not zero on masked pixels", marked == 0),
        ("the variance is not positive outside the mask", flat == 0),
        ("the mask does not cover those of both inputs", bare == 0),
        (
            f"its PSF and what lies beyond it sum to {total:.3f}",
            bool(abs(total - 1.0) < 0.01 + abs(wings)),
        ),
        (
            f"the kernel has the sum {difference.kernel_sum}",
            bool(0 < difference.kernel_sum < np.inf),
        ),
        ("it has a background", not difference.metrics.get("sky_pull", 0.0) > 3.0),
    ]


def _broken(difference: Difference, pair: Pair) -> npt.NDArray[np.int64]:
    """Pixels that are usable, and those that break each promise in turn."""
    bands: list[npt.NDArray[np.int64]] = []

    def band(first: int, last: int) -> None:
        counts = np.zeros(6, dtype=np.int64)
        planes = (difference.data, difference.variance, difference.score, difference.mask)
        _count_broken(*planes, pair.science.mask, pair.template.mask, np.uint16(HARD), first, last, counts)
        bands.append(counts)

    over_rows(band, difference.shape[0], 64)
    return np.asarray(np.sum(bands, axis=0))


@nb.njit(cache=True, nogil=True)
def _count_broken(  # type: ignore[no-untyped-def]
    data, variance, score, mask, science, template, bits, first, last, counts
):
    for y in range(first, last):
        usable = spoilt = wild = marked = flat = bare = 0
        for x in range(data.shape[1]):
            wild += not np.isfinite(score[y, x])
            if (mask[y, x] & bits) != 0:
                marked += score[y, x] != 0
                continue
            usable += 1
            spoilt += not np.isfinite(data[y, x])
            flat += not variance[y, x] > 0
            bare += ((science[y, x] | template[y, x]) & bits) != 0
        counts[0] += usable
        counts[1] += spoilt
        counts[2] += wild
        counts[3] += marked
        counts[4] += flat
        counts[5] += bare
