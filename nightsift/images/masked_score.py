"""Signal-to-noise ratio on masked pixels that hold data, so that nothing bright hides behind a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.flags import Mask
from nightsift.frames import Difference, FloatImage, MaskImage
from nightsift.images.psf_grid import psf_grid

_ABSENT = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)
# Share of the PSF's weight that must hold data for a value to mean anything.
_LEAST_WEIGHT = 0.25


def score_everywhere(difference: Difference, factor: float) -> FloatImage:
    """Copy of the score in which masked pixels that hold data have one too.

    Where the score of the difference is 0 under a mask it is replaced by the matched filter of whatever data there
    are, within one FWHM: ``sum(p d / v) / sqrt(sum(p^2 / v))``.

    Parameters
    ----------
    difference : Difference
        The difference.
    factor : float
        Factor on the noise for correlation between pixels (`nightsift.images.photometry.noise_factor`).

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Finite everywhere; 0 where there are no data.
    """
    score = np.where(np.isfinite(difference.score), difference.score, np.float32(0)).astype(np.float32, copy=False)
    rows, columns = np.nonzero((difference.mask != 0) & (score == 0) & ((difference.mask & _ABSENT) == 0))
    if len(rows):
        psf = difference.psf
        grid = psf_grid(psf, difference.shape)
        half = min(psf.size // 2, max(1, round(psf.fwhm)))
        middle = psf.size // 2
        cores = np.ascontiguousarray(
            grid.images[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
        )
        nodes = grid.nodes(columns, rows)
        _fill(difference.data, difference.variance, difference.mask, cores, nodes, columns, rows, factor, score)
    return score


@njit(cache=True, nogil=True)
def _fill(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    cores: FloatImage,
    nodes: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    factor: float,
    score: FloatImage,
) -> None:
    ny, nx = data.shape
    size = cores.shape[1]
    half = size // 2
    for n in range(len(columns)):
        column, row = columns[n], rows[n]
        pd = pp = weight = whole = 0.0
        for j in range(size):
            y = row + j - half
            for i in range(size):
                p = cores[nodes[n], j, i]
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
        if weight > _LEAST_WEIGHT * whole:
            score[row, column] = pd / (np.sqrt(pp) * factor)
