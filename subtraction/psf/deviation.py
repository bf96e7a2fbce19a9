"""What a PSF is beyond its Moffat profile: Gauss-Hermite functions and a wide wing, held back by a prior.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.parallel import over_rows
from nightsift.core.psf import polynomial_terms
from nightsift.core.robust import MAD_TO_SIGMA, mad
from subtraction.fields import n_terms
from subtraction.psf.moffat import NODES, WEIGHTS, bounded, moffat_pixel
from subtraction.psf.profile import LEVEL, MISFIT, OUTLIER, OWN, assemble, eliminate
from subtraction.psf.stars import Cutouts

Float64 = npt.NDArray[np.float64]

DEGREE = 10
"""Highest degree of the Gauss-Hermite functions."""

SCALE = 0.37
"""Width of their Gaussian over the FWHM, a little less than that of a Gaussian of this FWHM (0.425)."""

WING_WIDTH, WING_BETA = 3.0, 2.0
"""FWHM of the wing over that of the PSF, and its exponent."""

STRENGTHS = (0.003, 0.01, 0.03, 0.1)
"""Widths of the prior that are tried: amplitude of a function as a part of the PSF's own."""

SLOPES = 0.5
"""Width of the prior of slopes and curvatures over that of the constant terms."""

FOLDS = 4


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
    """Return the functions that suit a profile of this shape (4 parameters, `subtraction.psf.moffat`)."""
    # Those below the second degree would only be another flux and another position of each star.
    powers = np.array([(total - m, m) for total in range(2, DEGREE + 1) for m in range(total + 1)], dtype=np.int64)
    # The pixel widens what the detector sees; functions much narrower than a pixel would be beyond it.
    fwhm = float(np.hypot(np.exp(shape[0]), 0.8))
    norm = float(np.sqrt(2.0 * np.log(2.0) / np.pi)) / fwhm
    wing = np.array([np.log(WING_WIDTH * fwhm), 0.0, 0.0, np.log(WING_BETA - 1.0)])
    return Basis(powers, SCALE * fwhm, norm, wing)


@nb.njit(cache=True, nogil=True)
def _hermite(centre, sigma, step, degree, nodes, weights, out):  # type: ignore[no-untyped-def]
    """Orthonormal Gauss-Hermite functions integrated over pixels along one axis."""
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
    _hermite(0.0, sigma, step, degree, nodes, weights, along)
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
    """Return the integral of each function of a basis over the whole plane, shape (k,)."""
    size = 2 * int(np.ceil(8.0 * basis.sigma)) + 1
    along = np.empty((DEGREE + 1, size))
    _hermite(0.0, basis.sigma, 1.0, DEGREE, NODES, WEIGHTS, along)
    sums = along.sum(axis=1)
    return np.append(sums[basis.powers[:, 0]] * sums[basis.powers[:, 1]] * basis.norm / basis.sigma, 1.0)


def deviation_equations(
    cut: Cutouts, shapes: Float64, basis: Basis, *, threads: int = 0
) -> tuple[Float64, Float64, Float64]:
    """Normal equations of each star for the deviation, flux, position and level eliminated.

    Parameters
    ----------
    cut : Cutouts
        Stars with their profile fitted.
    shapes : ndarray of float64, shape (n, 4)
        Shape of the profile at each.
    basis : Basis
        The functions.
    threads : int, optional
        Number of threads.

    Returns
    -------
    matrices, vectors : ndarray of float64, shapes (n, k, k) and (n, k)
        The equations; amplitudes are in units of the PSF.
    through : ndarray of float64, shape (n, 4, k + 1)
        How flux, position and level follow the amplitudes (`subtraction.psf.profile.eliminate`).
    """
    n, width, pixels = len(cut), basis.count + OWN + 1, cut.data[0].size
    matrices, vectors = np.zeros((n, basis.count, basis.count)), np.zeros((n, basis.count))
    through = np.zeros((n, OWN, basis.count + 1))

    def some(first: int, last: int) -> None:
        for at in range(first, last, 16):
            part = slice(at, min(at + 16, last))
            rows = np.zeros((part.stop - part.start, width, pixels), dtype=np.float32)
            _rows(
                cut.data[part], cut.good[part], cut.sky_variance[part], cut.photon_variance, cut.own[part],
                shapes[part], basis.powers, basis.sigma, basis.norm, basis.wing, NODES, WEIGHTS, rows,
            )  # fmt: skip
            products = np.matmul(rows, rows.transpose(0, 2, 1)).astype(np.float64)
            level = width - 2
            products[:, level, level] += 1.0 / LEVEL**2
            products[:, level, -1] -= cut.own[part, 3] / np.sqrt(cut.sky_variance[part]) / LEVEL**2
            reduced = eliminate(products[:, :-1, :-1], products[:, :-1, -1], basis.count)
            matrices[part], vectors[part], through[part] = reduced

    over_rows(some, n, 16, threads=threads)
    # The level is fitted in units of the noise.
    through[:, -1] *= np.sqrt(cut.sky_variance)[:, None]
    return matrices, vectors, through


@nb.njit(cache=True, nogil=True, fastmath=True)
def _rows(data, good, sky, photons, own, shapes, powers, sigma, norm, wing, nodes, weights, rows):  # type: ignore[no-untyped-def]
    """Functions, own unknowns and residual of each star, each pixel divided by its noise."""
    size, count = data.shape[1], len(powers)
    half = size // 2
    gradient, unused, held = np.empty(6), np.empty(6), np.empty(4)
    degree = powers.max()
    along_x, along_y, whole = np.empty((degree + 1, size)), np.empty((degree + 1, size)), np.empty(size * size)
    for s in range(len(own)):
        bounded(shapes[s], held)
        flux, dx, dy, level = own[s, 0], own[s, 1], own[s, 2], own[s, 3]
        _hermite(dx, sigma, 1.0, degree, nodes, weights, along_x)
        _hermite(dy, sigma, 1.0, degree, nodes, weights, along_y)
        # Amplitudes are relative: every function of a star is multiplied by its flux.
        unit = flux * norm / sigma
        whole[:] = 0.0
        for j in range(size):
            for i in range(size):
                if not good[s, j, i]:
                    continue
                value = moffat_pixel(held, i - half - dx, j - half - dy, nodes, weights, gradient, True)
                light = flux * value
                left = data[s, j, i] - light - level
                noise = sky[s] + photons * max(light, 0.0) + (MISFIT * light) ** 2
                # What the profile misses must be seen here, so a pixel of the core is doubted later than in the sky.
                allowed = OUTLIER * OUTLIER + (0.2 * light) ** 2 / noise
                chi = left * left / noise
                weight = np.sqrt((1.0 if chi < allowed else allowed / chi) / noise)
                p = j * size + i
                whole[p] = weight * unit
                rows[s, count, p] = (
                    weight * flux * moffat_pixel(wing, i - half - dx, j - half - dy, nodes, weights, unused, False)
                )
                rows[s, count + 1, p] = weight * value
                rows[s, count + 2, p] = weight * flux * gradient[4]
                rows[s, count + 3, p] = weight * flux * gradient[5]
                rows[s, count + 4, p] = weight * np.sqrt(sky[s])
                rows[s, count + 5, p] = weight * left
        for k in range(count):
            functions = along_x[powers[k, 0]]
            for j in range(size):
                scale = along_y[powers[k, 1], j]
                weights_of_row, row = whole[j * size : (j + 1) * size], rows[s, k, j * size : (j + 1) * size]
                for i in range(size):
                    row[i] = weights_of_row[i] * scale * functions[i]


def fit_deviation(
    cut: Cutouts, equations: tuple[Float64, Float64], highest: int, *, shape: tuple[int, int]
) -> tuple[Float64, int]:
    """Fit the deviation over the frame, its order and prior chosen by what they predict for stars held out.

    Parameters
    ----------
    cut : Cutouts
        Stars.
    equations : tuple of ndarray
        Equations of each (`deviation_equations`).
    highest : int
        Highest order to try.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    terms : ndarray of float64, shape (n_terms, k)
        Amplitudes, polynomial terms of them; zero where no deviation predicts anything.
    order : int
        Their order.
    """
    matrices, vectors = equations
    count = vectors.shape[1]
    best = np.zeros(len(cut))
    chosen: tuple[Float64, int] = (np.zeros((1, count)), 0)
    design = polynomial_terms(cut.x, cut.y, shape, highest)
    folds = np.arange(len(cut)) % FOLDS
    for order in range(highest + 1):
        t = n_terms(order)
        parts = [assemble(design[folds == f, :t], matrices[folds == f], vectors[folds == f]) for f in range(FOLDS)]
        matrix, vector = sum(p[0] for p in parts), sum(p[1] for p in parts)
        for strength in STRENGTHS:
            prior = np.diag(_prior(count, t, strength))
            gain = np.zeros(len(cut))
            for f in range(FOLDS) if len(cut) >= 2 * FOLDS else ():
                c = np.linalg.solve(matrix - parts[f][0] + prior, vector - parts[f][1]).reshape(t, count)
                out = folds == f
                gain[out] = predicted_gain(design[out, :t] @ c, matrices[out], vectors[out])
            if is_better(gain, best):
                best = gain
                amplitudes = np.linalg.solve(matrix + prior, vector).reshape(t, count)
                chosen = (np.asarray(amplitudes, dtype=np.float64), order)
    return chosen


def _prior(count: int, terms: int, strength: float) -> Float64:
    wide = np.full((terms, count), strength)
    wide[1:] *= SLOPES
    wide[0, -1] = 0.05
    wide[1:, -1] = 1e-4
    return (1.0 / wide**2).ravel()


def predicted_gain(amplitudes: Float64, matrices: Float64, vectors: Float64) -> Float64:
    """Return the fall of each star's chi-square by amplitudes found without it, shape (n,); negative if they do harm.

    `amplitudes` (n, k) are the unknowns at each star, `matrices` (n, k, k) and `vectors` (n, k) its equations.
    """
    seen = np.einsum("nij,nj->ni", matrices, amplitudes)
    return np.asarray((amplitudes * (2.0 * vectors - seen)).sum(axis=1))


def is_better(gain: Float64, best: Float64) -> bool:
    """Whether `gain` exceeds `best` by more than the standard error of their difference; each star held out, (n,)."""
    change = gain - best
    # One star with a companion must not decide.
    limit = 5.0 * MAD_TO_SIGMA * mad(change) + 1e-12
    change = np.clip(change, np.median(change) - limit, np.median(change) + limit)
    return bool(change.mean() > change.std() / np.sqrt(len(change)))
