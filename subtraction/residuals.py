"""Residuals at stars: what remains there beyond photon noise, and the variance it adds.

See docs/algorithms.md, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.frames import FloatImage, MaskImage
from nightsift.psf import Psf
from subtraction.masks import HARD
from subtraction.parallel import over_rows
from subtraction.profiles import shift_image

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelError:
    """What remains at stars beyond photon noise, as two variances.

    Attributes
    ----------
    flux : float
        Variance in units of the squared matched pixel.
    gradient : float
        Variance in units of its squared gradient (pixel^2): scintillation of positions, distortion.
    """

    flux: float
    gradient: float


def fit_model_error(sums: Float64, freedom: float = 1.0) -> ModelError:
    """Fit the unexplained variance to residuals at stars.

    Parameters
    ----------
    sums : ndarray, shape (n, 4)
        A row a star: mean squared filtered residual, and the filtered variance, squared model and squared gradient
        (`star_sums`).
    freedom : float, optional
        Factor on the squared residuals that makes up for the freedom of the fit.

    Returns
    -------
    ModelError
        Both are zero or positive.
    """
    sums = sums[np.isfinite(sums).all(axis=1) & (sums[:, 1] > 0)]
    if len(sums) < 3:
        return ModelError(0.0, 0.0)
    seen, noise, model, gradient = (sums[:, k] for k in range(4))
    # The gradient takes what it can: faults of position and shape are common and spare extended sources, which an
    # error of the flux would cover. The start is the median bright star, so that a variable one does not set the scale.
    flux, slope = 0.0, _bright_median((freedom * seen - noise) / np.maximum(gradient, 1e-30), model)
    for _ in range(12):
        expected = noise + flux * model + slope * gradient
        keep = freedom * seen < 9.0 * expected
        if int(keep.sum()) < 3:
            break
        weight = 1.0 / expected[keep]
        excess = (freedom * seen - noise)[keep] * weight
        slope = _positive_slope(gradient[keep] * weight, excess)
        flux = _positive_slope(model[keep] * weight, excess - slope * gradient[keep] * weight)
    value = (flux, slope)
    return ModelError(float(value[0]), float(value[1]))


def _bright_median(ratio: Float64, brightness: Float64) -> float:
    """Median ratio of the brighter half, zero at least."""
    return max(float(np.median(ratio[brightness >= np.median(brightness)])), 0.0)


def _positive_slope(design: Float64, values: Float64) -> float:
    """Least-squares slope through the origin, zero at least."""
    return max(float(design @ values) / max(float(design @ design), 1e-30), 0.0)


def add_model_error(variance: FloatImage, model: FloatImage, error: ModelError, threads: int = 0) -> None:
    """Add the unexplained part of the stars to a variance map, in place.

    Parameters
    ----------
    variance : ndarray of float32, shape (ny, nx)
        Variance (ADU^2), changed.
    model : ndarray of float32, shape (ny, nx)
        Matched template (ADU).
    error : ModelError
        What to add.
    threads : int, optional
        Number of threads, 0 for all cores.
    """
    if error.flux <= 0 and error.gradient <= 0:
        return

    def band(first: int, last: int) -> None:
        _add_rows(variance, model, np.float32(error.flux), np.float32(error.gradient), first, last)

    over_rows(band, variance.shape[0], 64, threads)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _add_rows(variance, model, flux, gradient, first, last):  # type: ignore[no-untyped-def]
    ny, nx = model.shape
    quarter = np.float32(0.25)
    for y in range(max(first, 1), min(last, ny - 1)):
        below, row, above = model[y - 1], model[y], model[y + 1]
        out = variance[y]
        for x in range(1, nx - 1):
            gx = row[x + 1] - row[x - 1]
            gy = above[x] - below[x]
            out[x] += flux * row[x] * row[x] + gradient * quarter * (gx * gx + gy * gy)


def star_sums(
    data: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage, psf: Psf, x: Float64, y: Float64
) -> Float64:
    """Filtered residuals at stars and what they should be.

    Parameters
    ----------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance, and the matched template on its scale.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    psf : Psf
        PSF of the difference.
    x, y : ndarray of float64, shape (n,)
        Positions of stars (pixel).

    Returns
    -------
    ndarray of float64, shape (n, 6)
        Means over the pixels within a FWHM of: squared matched-filter sum; filtered variance, squared model and
        squared gradient; then the mean of residual^2 / variance and the flux of the model. NaN where too much
        is masked.
    """
    images = [psf.at(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    stamps = np.stack(images).astype(np.float64) if images else np.zeros((0, 3, 3))
    radius = float(max(1.0, 0.75 * psf.fwhm))
    half = min(stamps.shape[1] // 2, int(np.ceil(1.5 * psf.fwhm)))
    middle = stamps.shape[1] // 2
    stamps = np.ascontiguousarray(stamps[:, middle - half : middle + half + 1, middle - half : middle + half + 1])
    out = np.full((len(x), 6), np.nan)
    _sums(data, variance, model, mask, np.uint16(HARD), stamps, np.rint(x), np.rint(y), radius, out)
    return out


@nb.njit(cache=True, nogil=True)
def _sums(data, variance, model, mask, bad, stamps, xs, ys, radius, out):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    half = stamps.shape[1] // 2
    reach = int(np.ceil(radius))
    for s in range(len(xs)):
        y0, x0 = int(ys[s]), int(xs[s])
        margin = half + reach + 1
        if y0 < margin or x0 < margin or y0 >= ny - margin or x0 >= nx - margin:
            continue
        totals = np.zeros(7)
        for j in range(-reach, reach + 1):
            for i in range(-reach, reach + 1):
                if j * j + i * i > radius * radius or (mask[y0 + j, x0 + i] & bad) != 0:
                    continue
                signal = noise = power = slope = 0.0
                for v in range(-half, half + 1):
                    for u in range(-half, half + 1):
                        y, x = y0 + j + v, x0 + i + u
                        if (mask[y, x] & bad) != 0:
                            continue
                        p = stamps[s, v + half, u + half]
                        gx = 0.5 * (model[y, x + 1] - model[y, x - 1])
                        gy = 0.5 * (model[y + 1, x] - model[y - 1, x])
                        signal += p * data[y, x]
                        noise += p * p * variance[y, x]
                        power += p * p * model[y, x] * model[y, x]
                        slope += p * p * (gx * gx + gy * gy)
                y, x = y0 + j, x0 + i
                totals[0] += 1.0
                totals[1] += signal * signal
                totals[2] += noise
                totals[3] += power
                totals[4] += slope
                totals[5] += data[y, x] * data[y, x] / variance[y, x]
                totals[6] += model[y, x]
        n = totals[0]
        if n < 5:
            continue
        for k in range(4):
            out[s, k] = totals[k + 1] / n
        out[s, 4], out[s, 5] = totals[5] / n, totals[6]


def star_shifts(
    data: FloatImage, variance: FloatImage, mask: MaskImage, psf: Psf, x: Float64, y: Float64, flux: Float64
) -> tuple[Float64, Float64]:
    """Shift of stars against the template that their residuals amount to.

    A star of flux f that is shifted by s leaves ``-f s . grad p`` in the difference.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Difference and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    psf : Psf
        PSF of the difference.
    x, y, flux : ndarray of float64, shape (n,)
        Positions (pixel) and fluxes (ADU) of the stars.

    Returns
    -------
    shift, error : ndarray of float64, shape (n,)
        Length of the shift and the standard error of each of its components (pixel); NaN where masked.
    """
    shift, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    half = min(psf.size // 2, int(np.ceil(1.5 * psf.fwhm)))
    middle = psf.size // 2
    ny, nx = data.shape
    for s in range(len(x)):
        row, column = int(np.rint(y[s])), int(np.rint(x[s]))
        if row < half or column < half or row >= ny - half or column >= nx - half or not flux[s] > 0:
            continue
        window = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
        if bool((mask[window] & HARD).any()):
            continue
        image = np.empty((psf.size, psf.size))
        shift_image(psf.at(float(x[s]), float(y[s])).astype(np.float64), x[s] - column, y[s] - row, image)
        slopes = np.gradient(image)
        cut = [-flux[s] * g[middle - half : middle + half + 1, middle - half : middle + half + 1] for g in slopes]
        power = [float((g * g).sum()) for g in cut]
        moved = [float((data[window] * g).sum()) / p for g, p in zip(cut, power, strict=True)]
        shift[s] = np.hypot(moved[0], moved[1])
        squares = [float((variance[window] * g * g).sum()) / p**2 for g, p in zip(cut, power, strict=True)]
        error[s] = np.sqrt(np.mean(squares))
    return shift, error
