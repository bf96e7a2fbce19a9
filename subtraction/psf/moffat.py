"""Elliptical Moffat profile, integrated over pixels, with its derivatives: the first guess at any star's image.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

SHAPES = 4
"""Parameters of the shape: ln FWHM, two components of the ellipticity, ln(beta - 1)."""

# Nodes and weights of Gauss-Legendre quadrature over a pixel, for one to four nodes along each axis.
NODES = np.zeros((5, 4))
WEIGHTS = np.zeros((5, 4))
for _n in range(1, 5):
    NODES[_n, :_n], WEIGHTS[_n, :_n] = (0.5 * a for a in np.polynomial.legendre.leggauss(_n))


@nb.njit(cache=True, nogil=True, inline="always")
def quadrature(fwhm, radius2):  # type: ignore[no-untyped-def]
    """Nodes an axis that integrate a profile over a pixel to 1e-4 of its peak.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum (pixel).
    radius2 : float
        Square of the distance from the star (pixel2).

    Returns
    -------
    int
        One to four.
    """
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
    over_one = np.exp(shape[3])
    beta = 1.0 + over_one
    power = 2.0 ** (1.0 / beta)
    alpha2 = fwhm * fwhm / (4.0 * (power - 1.0))
    slope = np.log(2.0) * power / (beta * beta * (power - 1.0))
    axes = np.sqrt(1.0 - e1 * e1 - e2 * e2)
    peak = over_one / (np.pi * alpha2)
    a, b, c = (1.0 - e1) / (axes * alpha2), -e2 / (axes * alpha2), (1.0 + e1) / (axes * alpha2)
    n = quadrature(fwhm, x * x + y * y)
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
                gradient[3] += value * (1.0 - over_one * (slope + log)) + over_one * slope * r * fall
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
