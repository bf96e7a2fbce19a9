"""Cosmic rays and hot pixels: light sharper than the stars of the same frame can be.

The sharpness of the stars is measured first, before the PSF of the frame is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.images.artefacts.pixel_passes import bright_pixels
from nightsift.images.stars.shapes import widths

# Opposite neighbours: along x, along y and along both diagonals.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))

# Where too few stars are seen: ratios of a Gaussian of 1.4 pixel FWHM, sharper than which hardly any optics is.
_SHARPEST = np.array([0.25, 0.25, 0.07, 0.07], dtype=np.float32)

_SHARPEST_FWHM = 2.0
_LEAST_STARS = 8
_MOST_STARS = 1000
_PEAK_SNR = 12.0
_MOST_ELONGATED = 4.0  # crests of streaks and trails are no stars

# Height above the sky, and above the mean of the four neighbours, that starts a hit (sigma).
SEED_SNR = 6.0

# Height above the sky at which a neighbour of a hit is tested as well (sigma).
GROW_SNR = 3.0

# Share of the sharpest star's neighbour-to-peak ratio below which a pixel is no star, and the benefit of the doubt
# given to the noise of both (sigma).
SHARE = 0.6

DOUBT = 2.0
_ROUNDS = 4

# Light here is no light of a star, or its neighbours are cut off.
_SKIP = np.uint16(
    Mask.NONFINITE.value | Mask.SATURATED.value | Mask.BLEED.value | Mask.DEFECT.value | Mask.NO_DATA.value
)


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
    residual: FloatImage, noise: FloatImage, mask: MaskImage, *, bright: npt.NDArray[np.int64] | None = None
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
        measured, elongation = widths(
            residual, columns.astype(np.float64), rows.astype(np.float64), sign=sign, fwhm=1.5 * fwhm
        )
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


def find_cosmic_rays(
    residual: FloatImage,
    noise: FloatImage,
    mask: MaskImage,
    *,
    sharpness: Sharpness,
    bright: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.bool_]:
    """Find pixels hit by cosmic rays, and hot pixels.

    A pixel is hit if in one of four directions the mean of its two opposite neighbours is smaller than a point source
    allows, with the noise of both granted:
    ``mean + 2 sigma_mean < 0.6 ratio (value - 2 sigma)``, the test of the SDSS photometric pipeline (Lupton et al.
    2001, ASP Conf. 238, 269) with the ratio taken from the stars of the frame; so it is safe for undersampled
    PSFs. Only pixels whose Laplacian is significant (van Dokkum 2001) are tested; from the hits it grows along tracks.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image (ADU).
    noise : ndarray of float32, shape (ny, nx)
        Standard deviation of each pixel (ADU).
    mask : ndarray of uint16, shape (ny, nx)
        Saturated, bleeding, defective and missing pixels are not tested.
    sharpness : Sharpness
        Sharpness of the stars of the frame.
    bright : ndarray of int64, shape (n,), optional
        Flat indices of the pixels above `SEED_SNR`, where they are known.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True on hit pixels.
    """
    hits = np.zeros(residual.shape, dtype=np.bool_)
    ratios = sharpness.ratios * np.float32(SHARE)
    bright = bright_pixels(residual, noise, SEED_SNR) if bright is None else bright
    rows, columns = _seed(residual, noise, mask, ratios, hits, bright)
    for _ in range(_ROUNDS):
        if len(rows) == 0:
            break
        rows, columns = _grow(residual, noise, mask, ratios, rows, columns, hits)
    return hits


@njit(cache=True, nogil=True, inline="always")
def _is_sharp(
    residual: FloatImage,
    noise: FloatImage,
    mask: MaskImage,
    ratios: npt.NDArray[np.float32],
    hits: npt.NDArray[np.bool_],
    j: int,
    i: int,
) -> bool:
    for k in range(4):
        dy = 0 if k == 0 else 1
        dx = (1, 0, 1, -1)[k]
        total, variance, used = 0.0, 0.0, 0
        for side in (-1, 1):
            y, x = j + side * dy, i + side * dx
            if hits[y, x] or (mask[y, x] & _SKIP) != 0:
                continue
            total += residual[y, x]
            variance += noise[y, x] * noise[y, x]
            used += 1
        # a pixel that has lost its neighbours on one side can be the flank of a star
        if used < 2:
            continue
        allowed = ratios[k] * (residual[j, i] - DOUBT * noise[j, i])
        if total / used + DOUBT * np.sqrt(variance) / used < allowed:
            return True
    return False


@njit(cache=True, nogil=True)
def _seed(
    residual: FloatImage,
    noise: FloatImage,
    mask: MaskImage,
    ratios: npt.NDArray[np.float32],
    hits: npt.NDArray[np.bool_],
    bright: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    ny, nx = residual.shape
    rows, columns = np.empty(len(bright), np.int64), np.empty(len(bright), np.int64)
    found = 0
    for place in bright:
        j, i = place // nx, place % nx
        if not (0 < j < ny - 1 and 0 < i < nx - 1) or (mask[j, i] & _SKIP) != 0:
            continue
        around = 0.25 * (residual[j - 1, i] + residual[j + 1, i] + residual[j, i - 1] + residual[j, i + 1])
        if residual[j, i] - around > SEED_SNR * noise[j, i] * 0.75:
            rows[found], columns[found] = j, i
            found += 1
    hit_rows, hit_columns = np.empty(found, np.int64), np.empty(found, np.int64)
    n_hits = 0
    for n in range(found):  # all are tested on the image as it is, hits of this round do not count yet
        if _is_sharp(residual, noise, mask, ratios, hits, rows[n], columns[n]):
            hit_rows[n_hits], hit_columns[n_hits] = rows[n], columns[n]
            n_hits += 1
    for n in range(n_hits):
        hits[hit_rows[n], hit_columns[n]] = True
    return hit_rows[:n_hits], hit_columns[:n_hits]


@njit(cache=True, nogil=True)
def _grow(
    residual: FloatImage,
    noise: FloatImage,
    mask: MaskImage,
    ratios: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Test the neighbours of the newest hits; return those that were hit, too."""
    ny, nx = residual.shape
    new_rows, new_columns = np.empty(8 * len(rows), np.int64), np.empty(8 * len(rows), np.int64)
    found = 0
    for n in range(len(rows)):
        for j in range(max(1, rows[n] - 1), min(ny - 1, rows[n] + 2)):
            for i in range(max(1, columns[n] - 1), min(nx - 1, columns[n] + 2)):
                if hits[j, i] or (mask[j, i] & _SKIP) != 0 or not residual[j, i] > GROW_SNR * noise[j, i]:
                    continue
                if _is_sharp(residual, noise, mask, ratios, hits, j, i):
                    hits[j, i] = True
                    new_rows[found], new_columns[found] = j, i
                    found += 1
    return new_rows[:found], new_columns[:found]
