"""Elliptical Moffat profile integrated over pixels, with its derivatives; width and sub-pixel shifts of point sources.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Float64 = npt.NDArray[np.float64]

SHAPES = 4
"""Parameters of the shape: ln FWHM, two components of the ellipticity, ln(beta - 1)."""

# Nodes and weights of Gauss-Legendre quadrature over a pixel, for one to four nodes along each axis.
NODES = np.zeros((5, 4))

WEIGHTS = np.zeros((5, 4))


for _n in range(1, 5):
    NODES[_n, :_n], WEIGHTS[_n, :_n] = (0.5 * a for a in np.polynomial.legendre.leggauss(_n))


@nb.njit(cache=True, nogil=True, inline="always")
def _quadrature(fwhm, radius2):  # type: ignore[no-untyped-def]
    """Nodes an axis that integrate a profile over a pixel to 1e-4 of its peak."""
    if radius2 > 6.25 * fwhm * fwhm:
        return 1
    if fwhm < 2.2 and radius2 < fwhm * fwhm:
        return 4
    if fwhm < 4.0 and radius2 < 2.25 * fwhm * fwhm:
        return 3
    return 2


@nb.njit(cache=True, nogil=True)
def bounded(shape, out):  # type: ignore[no-untyped-def]
    """Hold shape parameters within what a profile can be: ellipticity below 0.8, exponent 1.5 to 16.

    Parameters
    ----------
    shape : ndarray of float64, shape (4,)
        Shape parameters, as in `moffat_pixel`.
    out : ndarray of float64, shape (4,)
        Receives them.
    """
    out[:] = shape
    e = np.sqrt(out[1] ** 2 + out[2] ** 2)
    if e > 0.8:
        out[1] *= 0.8 / e
        out[2] *= 0.8 / e
    out[3] = min(max(out[3], np.log(0.5)), np.log(15.0))


@nb.njit(cache=True, nogil=True, fastmath=True)
def moffat_pixel(shape, x, y, nodes, weights, gradient, derivatives):  # type: ignore[no-untyped-def]
    """Light that falls on one pixel, of a profile with unit flux over the whole plane (Moffat 1969, A&A 3, 455).

    Parameters
    ----------
    shape : ndarray of float64, shape (4,)
        ln FWHM (pixel), two components of the ellipticity, ln(beta - 1).
    x, y : float
        Centre of the pixel as seen from the star (pixel).
    nodes, weights : ndarray of float64, shape (5, 4)
        `NODES` and `WEIGHTS`.
    gradient : ndarray of float64, shape (6,)
        Receives the derivatives with respect to the shape parameters and to the position of the star.
    derivatives : bool
        Whether they are wanted.

    Returns
    -------
    float
        The light.
    """
    fwhm, e1, e2 = np.exp(shape[0]), shape[1], shape[2]
    beta_excess = np.exp(shape[3])
    beta = 1.0 + beta_excess
    power = 2.0 ** (1.0 / beta)
    alpha2 = fwhm * fwhm / (4.0 * (power - 1.0))
    slope = np.log(2.0) * power / (beta * beta * (power - 1.0))
    axes = np.sqrt(1.0 - e1 * e1 - e2 * e2)
    peak = beta_excess / (np.pi * alpha2)
    a, b, c = (1.0 - e1) / (axes * alpha2), -e2 / (axes * alpha2), (1.0 + e1) / (axes * alpha2)
    n = _quadrature(fwhm, x * x + y * y)
    total = 0.0
    gradient[:] = 0.0
    for j in range(n):
        dy = y + nodes[n, j]
        for i in range(n):
            dx = x + nodes[n, i]
            r = a * dx * dx + 2.0 * b * dx * dy + c * dy * dy
            log = np.log(1.0 + r)
            value = weights[n, i] * weights[n, j] * peak * np.exp(-beta * log)
            total += value
            if derivatives:
                fall = beta / (1.0 + r) * value
                gradient[0] += 2.0 * (fall * r - value)
                gradient[1] -= fall * ((dy * dy - dx * dx) / (axes * alpha2) + r * e1 / (axes * axes))
                gradient[2] -= fall * (-2.0 * dx * dy / (axes * alpha2) + r * e2 / (axes * axes))
                gradient[3] += value * (1.0 - beta_excess * (slope + log)) + beta_excess * slope * r * fall
                gradient[4] += fall * 2.0 * (a * dx + b * dy)
                gradient[5] += fall * 2.0 * (b * dx + c * dy)
    return total


@nb.njit(cache=True, nogil=True)
def draw_moffat(shape, dx, dy, step, nodes, weights, out):  # type: ignore[no-untyped-def]
    """Draw a profile on a grid whose middle pixel is at (0, 0).

    Parameters
    ----------
    shape : ndarray of float64, shape (4,)
        As in `moffat_pixel`.
    dx, dy : float
        Position of the star (pixel).
    step : float
        Distance of the samples (pixel); each is still the light in a whole pixel.
    nodes, weights : ndarray of float64, shape (5, 4)
        `NODES` and `WEIGHTS`.
    out : ndarray of float64, shape (size, size)
        Receives the image.
    """
    half = out.shape[0] // 2
    gradient = np.empty(6)
    held = np.empty(4)
    bounded(shape, held)
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[j, i] = moffat_pixel(
                held, (i - half) * step - dx, (j - half) * step - dy, nodes, weights, gradient, False
            )


def _moffat(parameters: Float64, half: int) -> Float64:
    """Elliptical Moffat profile."""
    fwhm, e1, e2, beta = parameters
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
    radius2 = ((1.0 - e1) * x**2 + (1.0 + e1) * y**2 - 2.0 * e2 * x * y) / np.sqrt(max(1.0 - e1**2 - e2**2, 1e-3))
    image = (1.0 + radius2 / alpha2) ** -beta
    return np.asarray(image / image.sum())


def _fit_moffat(image: Float64, fwhm: float) -> Float64:
    """Moffat profile that fits an image best."""
    half = image.shape[0] // 2

    def miss(parameters: Float64) -> Float64:
        model = _moffat(parameters[:4], half)
        return np.asarray((parameters[4] * model - image).ravel())

    bounds = ([0.4 * fwhm, -0.7, -0.7, 1.5, 0.5], [2.5 * fwhm, 0.7, 0.7, 12.0, 2.0])
    found = least_squares(miss, np.array([fwhm, 0.0, 0.0, 3.5, 1.0]), bounds=bounds, x_scale=[fwhm, 0.1, 0.1, 1.0, 0.1])
    return _moffat(found.x[:4], half)


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
