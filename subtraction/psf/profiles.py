"""Profiles of point sources: Moffat model, width, and shifts by fractions of a pixel.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Float64 = npt.NDArray[np.float64]


def moffat(parameters: Float64, half: int) -> Float64:
    """Elliptical Moffat profile.

    Parameters
    ----------
    parameters : ndarray of float64, shape (4,)
        FWHM (pixel), two components of the ellipticity, exponent.
    half : int
        Half width of the image (pixel).

    Returns
    -------
    ndarray of float64, shape (2 half + 1, 2 half + 1)
        The profile, of sum one on this image.
    """
    fwhm, e1, e2, beta = parameters
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
    radius2 = ((1.0 - e1) * x**2 + (1.0 + e1) * y**2 - 2.0 * e2 * x * y) / np.sqrt(max(1.0 - e1**2 - e2**2, 1e-3))
    image = (1.0 + radius2 / alpha2) ** -beta
    return np.asarray(image / image.sum())


def fit_moffat(image: Float64, fwhm: float) -> Float64:
    """Moffat profile that fits an image best.

    Parameters
    ----------
    image : ndarray of float64, shape (size, size)
        The image, centred on its middle pixel.
    fwhm : float
        First guess of the full width at half maximum (pixel).

    Returns
    -------
    ndarray of float64, shape (size, size)
        The profile, of sum one.
    """
    half = image.shape[0] // 2

    def miss(parameters: Float64) -> Float64:
        model = moffat(parameters[:4], half)
        return np.asarray((parameters[4] * model - image).ravel())

    bounds = ([0.4 * fwhm, -0.7, -0.7, 1.5, 0.5], [2.5 * fwhm, 0.7, 0.7, 12.0, 2.0])
    found = least_squares(miss, np.array([fwhm, 0.0, 0.0, 3.5, 1.0]), bounds=bounds, x_scale=[fwhm, 0.1, 0.1, 1.0, 0.1])
    return moffat(found.x[:4], half)


def half_width(image: npt.NDArray[np.floating]) -> float:
    """Full width at half maximum of a PSF image, from the area above half its peak.

    Parameters
    ----------
    image : ndarray, shape (size, size)
        PSF centred on its middle pixel.

    Returns
    -------
    float
        Diameter of the circle of that area (pixel).
    """
    half = image.shape[0] // 2
    reach = min(half, 12)
    core = np.asarray(image, dtype=np.float64)[half - reach : half + reach + 1, half - reach : half + reach + 1]
    fine = 8
    axis = np.arange(-reach, reach + 0.5 / fine, 1.0 / fine)
    weights = np.stack([_lanczos(np.arange(-reach, reach + 1) - t) for t in axis])
    weights /= weights.sum(axis=1, keepdims=True)
    area = float(((weights @ core @ weights.T) > 0.5 * core.max()).sum()) / fine**2
    return float(2.0 * np.sqrt(area / np.pi))


def _lanczos(t: npt.NDArray[np.floating]) -> Float64:
    return np.asarray(np.where(np.abs(t) < 4, np.sinc(t) * np.sinc(t / 4), 0.0))


@nb.njit(cache=True, nogil=True)
def shift_image(image, dx, dy, out):  # type: ignore[no-untyped-def]
    """Shift an image by a fraction of a pixel or more: Lanczos-4, zero outside.

    Parameters
    ----------
    image : ndarray of float64, shape (size, size)
        The image.
    dx, dy : float
        Shift towards larger x and y (pixel).
    out : ndarray of float64, shape (size, size)
        Where the shifted image is written.
    """
    size = image.shape[0]
    ix, iy = int(np.floor(-dx)), int(np.floor(-dy))
    wx, wy = np.empty(8), np.empty(8)
    for k in range(8):
        for weights, offset in ((wx, -dx - ix), (wy, -dy - iy)):
            t = np.pi * (k - 3 - offset)
            weights[k] = 1.0 if abs(t) < 1e-9 else np.sin(t) * np.sin(t / 4) / (t * t / 4)
    wx /= wx.sum()
    wy /= wy.sum()
    rows = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            total = 0.0
            for k in range(8):
                i = x + ix + k - 3
                if 0 <= i < size:
                    total += wx[k] * image[y, i]
            rows[y, x] = total
    for y in range(size):
        for x in range(size):
            total = 0.0
            for k in range(8):
                j = y + iy + k - 3
                if 0 <= j < size:
                    total += wy[k] * rows[j, x]
            out[y, x] = total
