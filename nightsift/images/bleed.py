"""Bleed trails of saturated stars, along columns and rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage
from nightsift.images.saturation import SaturatedStars

# Brightness of a trail over what lies beside it, and the length from which it counts (pixel).
TRAIL_CONTRAST = 2.0
TRAIL_SNR = 3.0
LEAST_TRAIL = 8
_GAP = 6


def bleed_trails(stars: SaturatedStars, residual: FloatImage, sigma: float, fwhm: float) -> npt.NDArray[np.bool_]:
    """Follow bleed trails of saturated stars along columns and rows, on either side.

    Within the saturated area a trail is what lies farther along one axis than the core is wide; beyond it a trail is
    followed as long as it is twice as bright as the pixels beside it.

    Parameters
    ----------
    stars : SaturatedStars
        The saturated stars.
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image (ADU).
    sigma : float
        Noise of the sky (ADU).
    fwhm : float
        Width of the stars (pixel).

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True on trails.
    """
    trails = np.zeros(residual.shape, dtype=np.bool_)
    if len(stars.x):
        _trails(residual, stars.labels, stars.boxes, stars.number, sigma, fwhm, trails)
        across = stars.boxes[:, [2, 3, 0, 1]]
        _trails(residual.T, stars.labels.T, across, stars.number, sigma, fwhm, trails.T)
    return trails


@njit(cache=True, nogil=True)
def _trails(
    residual: FloatImage,
    labels: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.int64],
    number: npt.NDArray[np.int32],
    sigma: float,
    fwhm: float,
    trails: npt.NDArray[np.bool_],
) -> None:
    """Trails along columns."""
    ny, nx = residual.shape
    for n in range(len(boxes)):
        top, bottom, left, right = boxes[n]
        height, width = bottom - top + 1, right - left + 1
        widest, widest_row = 0, top
        for j in range(top, bottom + 1):
            run = 0
            for i in range(left, right + 1):
                run += 1 if labels[j, i] == number[n] else 0
            if run > widest:
                widest, widest_row = run, j
        if height > 1.5 * width + 4:
            for j in range(top, bottom + 1):
                if abs(j - widest_row) > 0.75 * widest + 1:
                    for i in range(left, right + 1):
                        if labels[j, i] == number[n]:
                            trails[j, max(0, i - 1) : min(nx, i + 2)] = True
        beside = int(max(0.5 * width, fwhm)) + 3
        for i in range(left, right + 1):
            for step in (-1, 1):
                j = top if step < 0 else bottom
                while top <= j <= bottom and labels[j, i] != number[n]:
                    j -= step
                if j < top or j > bottom:
                    continue
                # close to the core the halo outshines the trail: a first gap as wide as the core is granted
                start, last, missed = j, j, -beside
                while 2 <= j + step < ny - 2 and missed < _GAP:
                    j += step
                    own = side = 0.0
                    for k in range(-2, 3):
                        own += residual[j + k, i]
                        side += residual[j + k, max(0, i - beside)] + residual[j + k, min(nx - 1, i + beside)]
                    own, side = own / 5.0, max(side / 10.0, 0.0)
                    if own > TRAIL_CONTRAST * side + TRAIL_SNR * sigma / 2.0:
                        last, missed = j, 0
                    else:
                        missed += 1
                length = abs(last - start)
                if length >= LEAST_TRAIL + 0.5 * width + fwhm:
                    for j in range(min(start, last), max(start, last) + 1):
                        trails[j, max(0, i - 1) : min(nx, i + 2)] = True
