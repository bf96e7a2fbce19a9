"""The opposite lobe beside a candidate: what a misregistered star leaves in a difference."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage

# How far the other lobe may lie, in FWHM of the PSF: lobes of a small shift stand about one FWHM apart.
REACH = 1.5


def opposite_lobes(
    score: FloatImage, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], fwhm: float
) -> npt.NDArray[np.float32]:
    """Highest signal-to-noise ratio of the opposite sign near each peak.

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map.
    columns, rows : ndarray of int64, shape (n,)
        Pixels of the peaks, of either sign.
    fwhm : float
        Full width at half maximum of the PSF (pixel).

    Returns
    -------
    ndarray of float32, shape (n,)
        Absolute value of the opposite extreme within 1.5 FWHM, 0 where there is none.
    """
    opposite = np.zeros(len(columns), dtype=np.float32)
    _opposite(score, columns, rows, max(REACH * fwhm, 2.0), opposite)
    return opposite


@njit(cache=True, nogil=True)
def _opposite(
    score: FloatImage,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    radius: float,
    opposite: npt.NDArray[np.float32],
) -> None:
    ny, nx = score.shape
    reach = math.floor(radius)
    for n in range(len(columns)):
        column, row = columns[n], rows[n]
        sign = np.float32(1.0) if score[row, column] >= 0 else np.float32(-1.0)
        highest = np.float32(0.0)
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                if (i - column) ** 2 + (j - row) ** 2 <= radius * radius:
                    value = -sign * score[j, i]
                    if value > highest:
                        highest = value
        opposite[n] = highest
