"""Fluxes within circles."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import Difference, FloatImage, MaskImage
from nightsift.images.psf_photometry import UNUSABLE

# Samples along each axis of a pixel that the rim of the circle crosses.
FINE = 8


def aperture_fluxes(
    difference: Difference,
    x: npt.NDArray[np.floating],
    y: npt.NDArray[np.floating],
    radius: float,
    factor: float = 1.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fluxes within a circle; masked pixels are replaced by the mean of the others.

    Parameters
    ----------
    difference : Difference
        The difference.
    x, y : ndarray, shape (n,)
        Positions (pixel).
    radius : float
        Radius of the aperture (pixel).
    factor : float, optional
        Factor on the errors for correlated noise.

    Returns
    -------
    flux, flux_err : ndarray of float32, shape (n,)
        Flux within the aperture (ADU), not corrected for what lies outside it, and its standard deviation; 0 where
        nothing is usable.
    """
    out = np.zeros((2, len(x)), dtype=np.float32)
    at_x, at_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    _apertures(difference.data, difference.variance, difference.mask, UNUSABLE, at_x, at_y, float(radius), out)
    return out[0], out[1] * np.float32(factor)


@njit(cache=True, nogil=True)
def _share(dx: float, dy: float, radius: float) -> float:
    """Part of the pixel at an offset that lies within the circle."""
    distance = math.sqrt(dx * dx + dy * dy)
    if distance <= radius - 0.7072:
        return 1.0
    if distance >= radius + 0.7072:
        return 0.0
    inside = 0
    for b in range(FINE):
        fy = dy + (b + 0.5) / FINE - 0.5
        for a in range(FINE):
            fx = dx + (a + 0.5) / FINE - 0.5
            inside += 1 if fx * fx + fy * fy <= radius * radius else 0
    return inside / (FINE * FINE)


@njit(cache=True, nogil=True)
def _apertures(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    unusable: np.uint16,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    radius: float,
    out: FloatImage,
) -> None:
    ny, nx = data.shape
    reach = math.ceil(radius + 1.0)
    for n in range(len(x)):
        column, row = math.floor(x[n] + 0.5), math.floor(y[n] + 0.5)
        flux = power = used = whole = 0.0
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                share = _share(i - x[n], j - y[n], radius)
                if share == 0.0:
                    continue
                whole += share
                d, v = data[j, i], variance[j, i]
                if (mask[j, i] & unusable) == 0 and v > 0 and np.isfinite(d + v):
                    used += share
                    flux += share * d
                    power += share * v
        if used > 0:
            out[0, n] = flux * whole / used
            out[1, n] = math.sqrt(power * whole / used)
