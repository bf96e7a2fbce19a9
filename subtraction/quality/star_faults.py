"""What subtracted stars leave behind: a part of their flux, and the dipole of a shift.

See docs/algorithms.md, section 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.psf import Psf, polynomial_terms
from subtraction.psf.moffat import shift_image

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class StarFaults:
    """Residuals of stars in a difference, star by star; NaN where masked.

    Attributes
    ----------
    flux : ndarray of float64, shape (n,)
        Flux of the star in the matched template (ADU).
    left, left_error : ndarray of float64, shape (n,)
        Part of the flux that is left over, negative where too much was subtracted, and its standard error.
    dx, dy, shift_error : ndarray of float64, shape (n,)
        Shift of the science frame against the matched template and the standard error of a component (pixel).
    """

    flux: Float64
    left: Float64
    left_error: Float64
    dx: Float64
    dy: Float64
    shift_error: Float64


def fit_star_faults(
    data: FloatImage, variance: FloatImage, model: FloatImage, *, mask: MaskImage, psf: Psf, x: Float64, y: Float64
) -> StarFaults:
    """Fit what is left of each star by its PSF and the two slopes of that.

    A star of flux f that was subtracted with the part a of it missing and the shift s leaves
    ``f (a p - s . grad p)``, to first order.

    Parameters
    ----------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance and the matched template on its scale.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    psf : Psf
        PSF of the difference.
    x, y : ndarray of float64, shape (n,)
        Positions of stars (pixel).

    Returns
    -------
    StarFaults
        A row a star.
    """
    n = len(x)
    terms = polynomial_terms(x, y, psf.shape, psf.order)
    stamps = (terms @ psf.terms.reshape(len(psf.terms), -1).astype(np.float64)).reshape(n, psf.size, psf.size)
    stamps /= stamps.sum(axis=(1, 2))[:, None, None]
    columns, rows = np.rint(x), np.rint(y)
    moved = np.empty_like(stamps)
    for s in range(n):
        shift_image(stamps[s], x[s] - columns[s], y[s] - rows[s], moved[s])
    half = min(psf.size // 2 - 2, int(np.ceil(1.5 * psf.fwhm)))
    out = np.full((n, 6), np.nan)
    _fit(data, variance, model, mask, np.uint16(HARD), moved, columns, rows, half, out)
    return StarFaults(*(np.ascontiguousarray(column) for column in out.T))


@nb.njit(cache=True, nogil=True)
def _fit(data, variance, model, mask, bad, stamps, columns, rows, half, out):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    middle = stamps.shape[1] // 2
    g = np.zeros(3)
    for s in range(len(columns)):
        x0, y0 = int(columns[s]), int(rows[s])
        if x0 < half or y0 < half or x0 >= nx - half or y0 >= ny - half:
            continue
        if (mask[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1] & bad).any():
            continue
        p = stamps[s]
        matrix, right = np.zeros((3, 3)), np.zeros(3)
        light = power = 0.0
        for v in range(-half, half + 1):
            for u in range(-half, half + 1):
                j, i = middle + v, middle + u
                # Slopes to the fourth order: the PSF of a difference may be sharp.
                g[0] = p[j, i]
                g[1] = (p[j, i - 1] - p[j, i + 1]) * (2.0 / 3.0) - (p[j, i - 2] - p[j, i + 2]) / 12.0
                g[2] = (p[j - 1, i] - p[j + 1, i]) * (2.0 / 3.0) - (p[j - 2, i] - p[j + 2, i]) / 12.0
                weight = 1.0 / variance[y0 + v, x0 + u]
                light += g[0] * model[y0 + v, x0 + u]
                power += g[0] * g[0]
                for a in range(3):
                    right[a] += weight * g[a] * data[y0 + v, x0 + u]
                    for b in range(3):
                        matrix[a, b] += weight * g[a] * g[b]
        flux = light / power if power > 0 else 0.0
        if not flux > 0 or not np.linalg.det(matrix) > 0:
            continue
        inverse = np.linalg.inv(matrix)
        solved = inverse @ right
        out[s, 0] = flux
        out[s, 1], out[s, 2] = solved[0] / flux, np.sqrt(inverse[0, 0]) / flux
        out[s, 3], out[s, 4] = solved[1] / flux, solved[2] / flux
        out[s, 5] = np.sqrt(0.5 * (inverse[1, 1] + inverse[2, 2])) / flux
