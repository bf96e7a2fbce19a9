"""Gauss-Hermite functions and a wide wing, integrated over pixels: what a PSF may be beyond its profile.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from subtraction.psf.moffat import NODES, WEIGHTS, moffat_pixel

Float64 = npt.NDArray[np.float64]

DEGREE = 10
"""Highest degree of the Gauss-Hermite functions."""

SCALE = 0.37
"""Width of their Gaussian over the FWHM, a little less than that of a Gaussian of this FWHM (0.425)."""

WING_WIDTH, WING_BETA = 3.0, 2.0
"""FWHM of the wing over that of the PSF, and its exponent."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Functions of a frame's deviation.

    Attributes
    ----------
    powers : ndarray of int64, shape (n, 2)
        Degrees along x and y of the Gauss-Hermite functions.
    sigma : float
        Their width (pixel).
    norm : float
        Root of the sum of squares of the PSF's pixels, that of each function too.
    wing : ndarray of float64, shape (4,)
        Shape parameters of the wing.
    """

    powers: npt.NDArray[np.int64]
    sigma: float
    norm: float
    wing: Float64

    @property
    def count(self) -> int:
        """Number of functions, the wing included."""
        return len(self.powers) + 1


def make_basis(shape: Float64) -> Basis:
    """Functions that suit a profile.

    Parameters
    ----------
    shape : ndarray of float64, shape (4,)
        Shape parameters of the usual profile (`subtraction.psf.moffat`).

    Returns
    -------
    Basis
        The functions.
    """
    # Those below the second degree would only be another flux and another position of each star.
    powers = np.array([(total - m, m) for total in range(2, DEGREE + 1) for m in range(total + 1)], dtype=np.int64)
    # The pixel widens what the detector sees; functions much narrower than a pixel would be beyond it.
    fwhm = float(np.hypot(np.exp(shape[0]), 0.8))
    norm = float(np.sqrt(2.0 * np.log(2.0) / np.pi)) / fwhm
    wing = np.array([np.log(WING_WIDTH * fwhm), 0.0, 0.0, np.log(WING_BETA - 1.0)])
    return Basis(powers, SCALE * fwhm, norm, wing)


@nb.njit(cache=True, nogil=True)
def hermite(centre, sigma, step, degree, nodes, weights, out):  # type: ignore[no-untyped-def]
    """Orthonormal Gauss-Hermite functions integrated over pixels along one axis.

    Parameters
    ----------
    centre, sigma : float
        Position of the star from the middle sample and width of the functions (pixel).
    step : float
        Distance of the samples (pixel).
    degree : int
        Highest degree.
    nodes, weights : ndarray of float64, shape (5, 4)
        `subtraction.psf.moffat.NODES` and `WEIGHTS`.
    out : ndarray of float64, shape (degree + 1, size)
        Receives the functions.
    """
    size = out.shape[1]
    half = size // 2
    values = np.empty(degree + 1)
    out[:] = 0.0
    for i in range(size):
        for k in range(3):
            u = ((i - half) * step - centre + nodes[3, k]) / sigma
            values[0] = np.pi**-0.25 * np.exp(-0.5 * u * u)
            if degree > 0:
                values[1] = np.sqrt(2.0) * u * values[0]
            for n in range(2, degree + 1):
                values[n] = np.sqrt(2.0 / n) * u * values[n - 1] - np.sqrt((n - 1.0) / n) * values[n - 2]
            for n in range(degree + 1):
                out[n, i] += weights[3, k] * values[n]


@nb.njit(cache=True, nogil=True, fastmath=True)
def draw_deviation(amplitudes, powers, sigma, norm, wing, step, nodes, weights, out):  # type: ignore[no-untyped-def]
    """Add a deviation to an image on a grid whose middle pixel is the position of the star.

    Parameters
    ----------
    amplitudes : ndarray of float64, shape (k,)
        Amplitudes.
    powers, sigma, norm, wing : ndarray, float, float, ndarray
        As in `Basis`.
    step : float
        Distance of the samples (pixel).
    nodes, weights : ndarray of float64, shape (5, 4)
        `subtraction.psf.moffat.NODES` and `WEIGHTS`.
    out : ndarray of float64, shape (size, size)
        Changed.
    """
    size, count = out.shape[0], len(powers)
    half = size // 2
    degree = powers.max()
    along, unused = np.empty((degree + 1, size)), np.empty(6)
    hermite(0.0, sigma, step, degree, nodes, weights, along)
    matrix = np.zeros((degree + 1, degree + 1))
    for k in range(count):
        matrix[powers[k, 1], powers[k, 0]] += amplitudes[k] * norm / sigma
    mixed = matrix @ along
    for j in range(size):
        for i in range(size):
            total = amplitudes[count] * moffat_pixel(
                wing, (i - half) * step, (j - half) * step, nodes, weights, unused, False
            )
            for m in range(degree + 1):
                total += along[m, j] * mixed[m, i]
            out[j, i] += total


def light_of(basis: Basis) -> Float64:
    """Integral of each function over the whole plane.

    Parameters
    ----------
    basis : Basis
        The functions.

    Returns
    -------
    ndarray of float64, shape (k,)
        The integrals.
    """
    size = 2 * int(np.ceil(8.0 * basis.sigma)) + 1
    along = np.empty((DEGREE + 1, size))
    hermite(0.0, basis.sigma, 1.0, DEGREE, NODES, WEIGHTS, along)
    sums = along.sum(axis=1)
    return np.append(sums[basis.powers[:, 0]] * sums[basis.powers[:, 1]] * basis.norm / basis.sigma, 1.0)
