"""Sources of both signs in a signal-to-noise map, each by its peak.

Pixels under masks that hold data count as well, so that nothing bright hides behind a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.images.detection.segmentation import segment
from nightsift.images.photometry.psf_grid import psf_grid

# Pixels down to this much below the threshold join peaks together, so that noise does not split one source in two.
SKIRT = 1.5

# Least part of an area's signal that a peak of its own has above the saddle: below it noise splits wide sources, above
# it faint neighbours of bright ones are lost.
CONTRAST = 0.001

_ABSENT = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)

# Share of the PSF's weight that must hold data for a value to mean anything.
_LEAST_WEIGHT = 0.25

_BAND = 64
_RUN = 32


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of both signs, highest first.

    Attributes
    ----------
    column, row : ndarray of int64, shape (n,)
        Pixel of the peak.
    sign : ndarray of int8, shape (n,)
        +1 for peaks, -1 for troughs.
    value : ndarray of float32, shape (n,)
        Height of the peak, positive for both signs.
    n_pixels : ndarray of int32, shape (n,)
        Pixels above the threshold that belong to it.
    """

    column: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    sign: npt.NDArray[np.int8]
    value: npt.NDArray[np.float32]
    n_pixels: npt.NDArray[np.int32]

    def __getitem__(self, chosen: npt.NDArray[Any]) -> Peaks:
        """Return some of the peaks, by their numbers or a mask of shape (n,)."""
        return Peaks(
            self.column[chosen], self.row[chosen], self.sign[chosen], self.value[chosen], self.n_pixels[chosen]
        )


def floor_of(threshold: float) -> float:
    """Return the lowest value (sigma) that matters to peaks above a threshold (sigma): their skirts."""
    return max(threshold - SKIRT, 0.5 * threshold)


def find_peaks(high: Significant, threshold: float, min_pixels: int = 1, *, where: str = "the difference") -> Peaks:
    """Find the peaks of both signs at or above a threshold, by `sep.extract` on the map itself.

    Parameters
    ----------
    high : Significant
        Signal-to-noise map, and its pixels of either sign above the floor (`floor_of`).
    threshold : float
        Least height of a peak (sigma).
    min_pixels : int, optional
        Least number of pixels above the skirt, 1.5 sigma below the threshold: the map is matched-filtered already, and
        a faint point source has but one pixel above the threshold itself.
    where : str, optional
        What the map is of, for errors.

    Returns
    -------
    Peaks
        The peaks, highest first.
    """
    values = high.score.ravel()[high.indices]
    parts = []
    for sign in (1, -1):
        n_above = int(np.count_nonzero(values * sign > 0))
        sources, labels = segment(
            high.score, floor_of(threshold), n_above=n_above, where=where, min_pixels=min_pixels, contrast=CONTRAST
        )
        np.negative(high.score, out=high.score)  # for the other sign, then as it was: a copy takes much memory
        owners = labels.ravel()[high.indices[values * np.float32(sign) >= threshold]]
        n_pixels = np.bincount(owners, minlength=len(sources) + 1)[1:]
        parts.append((sources["xcpeak"], sources["ycpeak"], np.full(len(sources), sign), sources["cpeak"], n_pixels))
    column, row, signs, height, n_pixels = (np.concatenate(part) for part in zip(*parts, strict=True))
    every = Peaks(column, row, signs.astype(np.int8), height.astype(np.float32), n_pixels.astype(np.int32))
    order = np.argsort(-every.value, kind="stable")
    return every[order[every.value[order] >= threshold]]


@dataclass(frozen=True, slots=True, eq=False)
class Significant:
    """The score of a difference everywhere, and where it is high.

    Attributes
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise ratio, finite everywhere; 0 where there are no data.
    indices : ndarray of int64, shape (n,)
        Pixels of the flattened score whose absolute value exceeds the floor, in order.
    """

    score: FloatImage
    indices: npt.NDArray[np.int64]


def significant(difference: Difference, factor: float, floor: float, *, threads: int = 0) -> Significant:
    """Copy the score, give masked pixels that hold data one too, and collect what stands out: one pass over the frame.

    Where the score of the difference is 0 under a mask it is replaced by the matched filter of whatever data there
    are, within one FWHM: ``sum(p d / v) / sqrt(sum(p^2 / v))``.

    Parameters
    ----------
    difference : Difference
        The difference.
    factor : float
        Factor on the noise for correlation between pixels, from `noise_factor`.
    floor : float
        Absolute value above which a pixel is collected (sigma).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    Significant
        Score and pixels.
    """
    psf, (ny, nx) = difference.psf, difference.shape
    grid = psf_grid(psf, difference.shape)
    half = min(psf.size // 2, max(1, round(psf.fwhm)))
    middle, step = grid.images.shape[1] // 2, grid.step
    near = slice(middle - step * half, middle + step * half + 1, step)
    cores = np.ascontiguousarray(grid.images[:, near, near])
    node_of_column = grid.nodes(np.arange(nx), np.zeros(nx))
    node_of_row = grid.nodes(np.zeros(ny), np.arange(ny))
    score = np.empty(difference.shape, dtype=np.float32)
    found: dict[int, npt.NDArray[np.int64]] = {}

    def band(first: int, last: int) -> None:
        found[first] = _scan(
            difference.data, difference.variance, difference.mask, difference.score, cores, node_of_column,
            node_of_row, factor, floor, first, last, score,
        )  # fmt: skip

    over_rows(band, ny, _BAND, threads=threads)
    parts = [found[first] for first in sorted(found)]
    return Significant(score, np.concatenate(parts) if parts else np.empty(0, dtype=np.int64))


@njit(cache=True, nogil=True)
def _copy_finite(given: FloatImage, out: FloatImage) -> None:
    """Copy a row; NaN, which compares false, and infinite values become 0."""
    infinite, zero = np.float32(np.inf), np.float32(0.0)
    for x in range(len(given)):
        out[x] = given[x] if abs(given[x]) < infinite else zero


@njit(cache=True, nogil=True, fastmath={"nnan", "reassoc"})
def _highest(values: FloatImage) -> np.float32:
    """Largest absolute value; without a NaN among them this needs no branch."""
    highest = np.float32(0.0)
    for x in range(len(values)):
        highest = max(highest, abs(values[x]))
    return highest


@njit(cache=True, nogil=True)
def _any_bit(bits: MaskImage) -> np.uint16:
    masked = np.uint16(0)
    for x in range(len(bits)):
        masked |= bits[x]
    return masked


@njit(cache=True, nogil=True)
def _scan(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    given: FloatImage,
    cores: FloatImage,
    node_of_column: npt.NDArray[np.int64],
    node_of_row: npt.NDArray[np.int64],
    factor: float,
    floor: float,
    first: int,
    last: int,
    score: FloatImage,
) -> npt.NDArray[np.int64]:
    """Fill rows of the score; return the flat indices of what stands out in them.

    Rows go through small functions that the compiler turns into vector instructions; single pixels are looked at only
    in the few runs of `_RUN` pixels where one is high or masked.
    """
    nx = data.shape[1]
    indices = np.empty(1024, np.int64)
    count = 0
    limit, zero = np.float32(floor), np.float32(0.0)
    for y in range(first, last):
        bits, out = mask[y], score[y]
        _copy_finite(given[y], out)
        for start in range(0, nx, _RUN):
            end = min(start + _RUN, nx)
            masked = _any_bit(bits[start:end])
            if masked == 0 and _highest(out[start:end]) <= limit:
                continue
            for x in range(start, end):
                if bits[x] != 0 and out[x] == zero and (bits[x] & _ABSENT) == 0:
                    core = cores[node_of_row[y] + node_of_column[x]]
                    out[x] = _filtered(data, variance, mask, core, x, y, factor)
                if abs(out[x]) > limit:
                    if count == len(indices):
                        longer = np.empty(2 * count, np.int64)
                        longer[:count] = indices
                        indices = longer
                    indices[count] = y * nx + x
                    count += 1
    return indices[:count].copy()


@njit(cache=True, nogil=True)
def _filtered(
    data: FloatImage, variance: FloatImage, mask: MaskImage, core: FloatImage, column: int, row: int, factor: float
) -> float:
    """Matched filter of the data around a pixel, whatever masks say; 0 where too few are there."""
    ny, nx = data.shape
    size = core.shape[0]
    half = size // 2
    pd = pp = weight = whole = 0.0
    for j in range(size):
        y = row + j - half
        for i in range(size):
            p = core[j, i]
            whole += p * p
            x = column + i - half
            if y < 0 or x < 0 or y >= ny or x >= nx or (mask[y, x] & _ABSENT) != 0:
                continue
            d, v = data[y, x], variance[y, x]
            # exactly 0 under a mask: the subtraction has blanked the pixel
            if v > 0 and np.isfinite(d + v) and (d != 0 or mask[y, x] == 0):
                pd += p * d / v
                pp += p * p / v
                weight += p * p
    return pd / (np.sqrt(pp) * factor) if weight > _LEAST_WEIGHT * whole else 0.0
