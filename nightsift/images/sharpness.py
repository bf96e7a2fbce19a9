"""How sharp the stars of a frame are, before its PSF is known: the yardstick that tells cosmic rays from stars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage, MaskImage
from nightsift.images.shapes import widths
from nightsift.images.standing import bright_pixels

# Opposite neighbours: along x, along y and along both diagonals.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Where too few stars are seen: ratios of a Gaussian of 1.4 pixel FWHM, sharper than which hardly any optics is.
_SHARPEST = np.array([0.25, 0.25, 0.07, 0.07], dtype=np.float32)
_SHARPEST_FWHM = 2.0
_LEAST_STARS = 8
_MOST_STARS = 1000
_PEAK_SNR = 12.0
_MOST_ELONGATED = 4.0  # crests of streaks and trails are no stars


@dataclass(frozen=True, slots=True, eq=False)
class Sharpness:
    """Sharpness of the stars of a frame.

    Attributes
    ----------
    ratios : ndarray of float32, shape (4,)
        Mean of two opposite neighbours of a star's peak pixel over the peak, along x, y and the diagonals: a low
        percentile over the stars, so that nearly no star is sharper.
    fwhm : float
        Median full width at half maximum (pixel).
    n_stars : int
        Stars measured; below eight the ratios are those of the sharpest PSF to be expected.
    """

    ratios: npt.NDArray[np.float32]
    fwhm: float
    n_stars: int


def star_sharpness(
    residual: FloatImage, noise: FloatImage, mask: MaskImage, bright: npt.NDArray[np.int64] | None = None
) -> Sharpness:
    """Measure the sharpness of the bright, unmasked stars.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image.
    noise : ndarray of float32, shape (ny, nx)
        Standard deviation of each pixel.
    mask : ndarray of uint16, shape (ny, nx)
        Only peaks whose nine pixels are unmasked count.
    bright : ndarray of int64, shape (n,), optional
        Flat indices of pixels among which all above twelve sigma are, where they are known.

    Returns
    -------
    Sharpness
        Ratios and width. A peak counts as a star if all its eight neighbours hold light, which keeps single hot
        pixels and most tracks of cosmic rays out.
    """
    bright = bright_pixels(residual, noise, _PEAK_SNR) if bright is None else bright
    columns, rows, peaks = _bright_peaks(residual, noise, mask, _PEAK_SNR, bright)
    brightest = np.argsort(-peaks, kind="stable")[:_MOST_STARS]
    columns, rows = columns[brightest], rows[brightest]
    round_ones = np.zeros(len(columns), dtype=np.bool_)
    fwhm, sign = _SHARPEST_FWHM, np.ones(len(columns), dtype=np.int8)
    for _ in range(3):  # the window follows the width
        measured, elongation = widths(residual, columns.astype(np.float64), rows.astype(np.float64), sign, 1.5 * fwhm)
        round_ones = np.isfinite(measured) & (elongation < _MOST_ELONGATED)
        if round_ones.sum() < _LEAST_STARS:
            return Sharpness(_SHARPEST, _SHARPEST_FWHM, int(round_ones.sum()))
        fwhm = float(np.median(measured[round_ones]))
    columns, rows = columns[round_ones], rows[round_ones]
    ratios = np.empty((len(DIRECTIONS), len(columns)), dtype=np.float32)
    centre = residual[rows, columns]
    for k, (dy, dx) in enumerate(DIRECTIONS):
        ratios[k] = 0.5 * (residual[rows + dy, columns + dx] + residual[rows - dy, columns - dx]) / centre
    return Sharpness(np.percentile(ratios, 15, axis=1).astype(np.float32), max(fwhm, 1.0), len(columns))


@njit(cache=True, nogil=True)
def _bright_peaks(
    residual: FloatImage, noise: FloatImage, mask: MaskImage, snr: float, bright: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    ny, nx = residual.shape
    columns, rows = np.empty(len(bright), np.int64), np.empty(len(bright), np.int64)
    peaks = np.empty(len(bright), np.float32)
    found = 0
    for place in bright:
        j, i = place // nx, place % nx
        centre = residual[j, i]
        star = 0 < j < ny - 1 and 0 < i < nx - 1 and centre > snr * noise[j, i]
        for b in range(j - 1, j + 2):
            for a in range(i - 1, i + 2):
                if not star:
                    break
                value = residual[b, a]
                if mask[b, a] != 0 or value > centre or value < 0.05 * centre or value < 2.0 * noise[b, a]:
                    star = False
        if star:
            columns[found], rows[found], peaks[found] = i, j, centre
            found += 1
    return columns[:found], rows[:found], peaks[:found]
