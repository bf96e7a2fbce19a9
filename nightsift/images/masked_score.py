"""Significant pixels of a difference, also under masks that hold data, so that nothing bright hides behind one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.flags import Mask
from nightsift.frames import Difference, FloatImage, MaskImage
from nightsift.images.psf_grid import psf_grid
from nightsift.parallel import over_rows

_ABSENT = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)
# Share of the PSF's weight that must hold data for a value to mean anything.
_LEAST_WEIGHT = 0.25
_BAND = 64


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


def significant(difference: Difference, factor: float, floor: float, threads: int = 0) -> Significant:
    """Copy the score, give masked pixels that hold data one too, and collect what stands out: one pass over the frame.

    Where the score of the difference is 0 under a mask it is replaced by the matched filter of whatever data there
    are, within one FWHM: ``sum(p d / v) / sqrt(sum(p^2 / v))``.

    Parameters
    ----------
    difference : Difference
        The difference.
    factor : float
        Factor on the noise for correlation between pixels (`nightsift.images.photometry.noise_factor`).
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

    over_rows(band, ny, _BAND, threads)
    parts = [found[first] for first in sorted(found)]
    return Significant(score, np.concatenate(parts) if parts else np.empty(0, dtype=np.int64))


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
    """Fill rows of the score; return the flat indices of what stands out in them."""
    nx = data.shape[1]
    indices = np.empty(1024, np.int64)
    count = 0
    limit, zero, infinite = np.float32(floor), np.float32(0.0), np.float32(np.inf)
    for y in range(first, last):
        row, bits, out = given[y], mask[y], score[y]
        highest, masked = zero, np.uint16(0)
        for x in range(nx):
            value = row[x]
            # NaN compares false: it becomes 0
            value = value if abs(value) < infinite else zero
            out[x] = value
            highest = max(highest, abs(value))
        for x in range(nx):
            masked |= bits[x]
        if highest <= limit and masked == 0:
            continue
        for x in range(nx):
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
