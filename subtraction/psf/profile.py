"""A Moffat profile whose shape is a polynomial over the frame, fitted to all stars at once.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.parallel import over_rows
from nightsift.core.psf import polynomial_terms
from subtraction.fields import n_terms
from subtraction.psf.moffat import NODES, SHAPES, WEIGHTS, bounded, moffat_pixel
from subtraction.psf.stars import Cutouts

Float64 = npt.NDArray[np.float64]

OWN = 4
"""What each star has of its own: flux, position (2), level."""

MISFIT = 0.005
"""Part of a star's light by which any model may be wrong: it keeps the brightest stars from deciding alone."""

LEVEL = 0.3
"""How far the sky around a star may be off, in units of the noise of a pixel."""

PRIOR = np.array([0.5, 0.3, 0.3, 0.7])
"""How far the shape may stray from round, of the usual width and beta = 3.5, and how much its slopes may be."""

OUTLIER = 4.0
"""Noise (sigma) from which a pixel counts less: it belongs to something else."""


def fit_profile(
    cut: Cutouts, used: npt.NDArray[np.bool_], coefficients: Float64, *, start: Float64, order: int,
    shape: tuple[int, int], rounds: int, threads: int = 0,
) -> tuple[Float64, Float64]:  # fmt: skip
    """Fit the field of profiles by Gauss-Newton steps, what each star has of its own eliminated from each.

    Parameters
    ----------
    cut : Cutouts
        Stars; their `own` follows the fit.
    used : ndarray of bool, shape (n,)
        Stars that count.
    coefficients : ndarray of float64, shape (m, 4)
        Where to start: polynomial terms of the shape parameters, `m` terms of any order.
    start : ndarray of float64, shape (4,)
        Shape towards which the prior holds.
    order : int
        Order of the polynomials wanted.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    rounds : int
        Steps.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    coefficients : ndarray of float64, shape (n_terms, 4)
        The field.
    misfit : ndarray of float64, shape (n,)
        Reduced chi-square of each star before the last step.
    """
    terms = n_terms(order)
    field = np.zeros((terms, SHAPES))
    field[: min(terms, len(coefficients))] = coefficients[:terms]
    design = polynomial_terms(cut.x, cut.y, shape, order)
    misfit = np.ones(len(cut))
    for _ in range(rounds):
        matrices, vectors, misfit = star_equations(cut, design @ field, threads)
        reduced, right, through = eliminate(matrices, vectors, SHAPES)
        normal, rhs = assemble(design[used], reduced[used], right[used])
        wide = prior_of(terms)
        away = field.copy()
        away[0] -= start
        step = np.linalg.solve(normal + np.diag(wide.ravel()), rhs - (wide * away).ravel()).reshape(terms, SHAPES)
        step = np.clip(step, -0.4, 0.4)
        field = field + step
        follow(cut, through, design @ step)
    return field, misfit


def prior_of(terms: int) -> Float64:
    """Return the inverse variances of the prior, shape (terms, 4); slopes are held twice as tight as the constant."""
    weights = np.tile(1.0 / PRIOR**2, (terms, 1))
    weights[1:] *= 4.0
    return weights


def star_equations(cut: Cutouts, shapes: Float64, threads: int = 0) -> tuple[Float64, Float64, Float64]:
    """Normal equations of each star for its shape and what it has of its own.

    Parameters
    ----------
    cut : Cutouts
        Stars.
    shapes : ndarray of float64, shape (n, 4)
        Shape parameters of each.
    threads : int, optional
        Number of threads.

    Returns
    -------
    matrices, vectors, misfit : ndarray of float64, shapes (n, 8, 8), (n, 8) and (n,)
        Matrix and right side, shape first; reduced chi-square of the core.
    """
    n, width = len(cut), SHAPES + OWN
    matrices, vectors, misfit = np.zeros((n, width, width)), np.zeros((n, width)), np.zeros(n)

    def some(first: int, last: int) -> None:
        _equations(
            cut.data[first:last], cut.good[first:last], cut.sky_variance[first:last], cut.photon_variance,
            cut.own[first:last], shapes[first:last], NODES, WEIGHTS,
            matrices[first:last], vectors[first:last], misfit[first:last],
        )  # fmt: skip

    over_rows(some, n, 8, threads=threads)
    return matrices, vectors, misfit


@nb.njit(cache=True, nogil=True, fastmath=True)
def _equations(data, good, sky, photons, own, shapes, nodes, weights, matrices, vectors, misfit):  # type: ignore[no-untyped-def]
    size = data.shape[1]
    half = size // 2
    gradient, row, held = np.empty(6), np.empty(8), np.empty(4)
    for s in range(len(own)):
        bounded(shapes[s], held)
        flux, dx, dy, level = own[s, 0], own[s, 1], own[s, 2], own[s, 3]
        core = (2.0 * np.exp(held[0])) ** 2
        chi2, count = 0.0, 0
        for j in range(size):
            for i in range(size):
                if not good[s, j, i]:
                    continue
                x, y = i - half - dx, j - half - dy
                value = moffat_pixel(held, x, y, nodes, weights, gradient, True)
                light = flux * value
                left = data[s, j, i] - light - level
                noise = sky[s] + photons * max(light, 0.0) + (MISFIT * light) ** 2
                chi = left * left / noise
                weight = 1.0 / noise
                if chi > OUTLIER * OUTLIER:
                    weight *= OUTLIER * OUTLIER / chi
                if x * x + y * y < core:
                    chi2 += chi
                    count += 1
                for k in range(4):
                    row[k] = flux * gradient[k]
                row[4], row[5], row[6], row[7] = value, flux * gradient[4], flux * gradient[5], 1.0
                for a in range(8):
                    scaled = weight * row[a]
                    vectors[s, a] += scaled * left
                    for b in range(a + 1):
                        matrices[s, a, b] += scaled * row[b]
        matrices[s, 7, 7] += 1.0 / (LEVEL * LEVEL * sky[s])
        vectors[s, 7] -= level / (LEVEL * LEVEL * sky[s])
        for a in range(8):
            for b in range(a):
                matrices[s, b, a] = matrices[s, a, b]
        misfit[s] = chi2 / max(count - 4, 1)


def eliminate(matrices: Float64, vectors: Float64, keep: int) -> tuple[Float64, Float64, Float64]:
    """Schur complement: equations of the first unknowns with the others at their best.

    Parameters
    ----------
    matrices, vectors : ndarray of float64, shapes (n, m, m) and (n, m)
        Normal equations of each star.
    keep : int
        Unknowns to keep.

    Returns
    -------
    matrices, vectors : ndarray of float64, shapes (n, keep, keep) and (n, keep)
        Reduced equations.
    through : ndarray of float64, shape (n, m - keep, keep + 1)
        The unknowns eliminated are ``through[:, :, keep] - through[:, :, :keep] @ kept``.
    """
    inner = _firm(matrices[:, keep:, keep:])
    through = np.linalg.solve(inner, np.concatenate((matrices[:, keep:, :keep], vectors[:, keep:, None]), axis=2))
    cross = matrices[:, :keep, keep:]
    left = matrices[:, :keep, :keep] - cross @ through[:, :, :-1]
    right = vectors[:, :keep] - (cross @ through[:, :, -1:])[:, :, 0]
    return left, right, np.asarray(through, dtype=np.float64)


def _firm(matrices: Float64) -> Float64:
    """Matrices that can be inverted, whatever a star lacks."""
    width = matrices.shape[1]
    diagonal = np.einsum("nii->ni", matrices)
    return np.asarray(matrices + (1e-9 * diagonal + 1e-30)[:, :, None] * np.eye(width))


def assemble(design: Float64, matrices: Float64, vectors: Float64) -> tuple[Float64, Float64]:
    """Return the equations of a frame from those of its stars (Alard 2000, A&AS 144, 363, eq. 3-7).

    From terms (n, t), matrices (n, k, k) and vectors (n, k): shapes (t k, t k) and (t k,), ordered by term, then
    function.
    """
    n, t = design.shape
    k = matrices.shape[1]
    outer = (design[:, :, None] * design[:, None, :]).reshape(n, t * t)
    matrix = (outer.T @ matrices.reshape(n, k * k)).reshape(t, t, k, k).transpose(0, 2, 1, 3).reshape(t * k, t * k)
    return matrix, (design.T @ vectors).ravel()


def follow(cut: Cutouts, through: Float64, steps: Float64) -> None:
    """Move what each star has of its own (`cut.own`, in place) along with the steps (n, k) of what is fitted to all.

    `through` comes from `eliminate`.
    """
    own = through[:, :, -1] - np.einsum("nij,nj->ni", through[:, :, :-1], steps)
    own[:, 1:3] = np.clip(own[:, 1:3], -0.3, 0.3)
    cut.own[:] += own
    cut.own[:, 0] = np.maximum(cut.own[:, 0], 1e-6)
    cut.own[:, 1:3] = np.clip(cut.own[:, 1:3], -1.5, 1.5)
