"""Modes of a delta kernel: the patterns of its pixels that the data tell apart, the best known first.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh

from subtraction.delta_basis.cell_equations import CellEquations

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MOST_MODES = 240
"""Most modes; those left out are the ones that data say least about."""

LEAST_SHARE = 0.1
"""Modes on which data have less than this part of the say, the penalty the rest, are left out."""

STRENGTHS = tuple(10.0 ** (k / 2) for k in range(-4, 13))
"""Strengths of the penalty that are tried, over the squared flux scale."""

USUAL_STRENGTH = 100.0
"""Strength where there is too little to hold anything out."""


@dataclass(frozen=True, slots=True, eq=False)
class SmearedNoise:
    """Squared residuals that a kernel makes of white noise of the reference: a quadratic form in its unknowns.

    Attributes
    ----------
    weight : ndarray of float64, shape (n_folds, n_terms, n_terms)
        Sums of weight times variance of the reference over the cells of a fold, times two terms of the variation.
    products : ndarray of float64, shape (n, n)
        Products of the kernel's functions.
    index : ndarray of int64, shape (m,)
        Which of all ``n_terms * n`` unknowns there are.
    offset : float
        What is added to the first of all unknowns.
    """

    weight: Float64
    products: Float64
    index: Int64
    offset: float = 0.0

    def of(self, solution: Float64) -> Float64:
        """Return the weighted sums of the squared noise in each fold, shape (n_folds,), for a solution (m,)."""
        kernels = np.zeros((self.weight.shape[1], len(self.products)))
        kernels.ravel()[self.index] = solution
        kernels[0, 0] += self.offset
        return np.asarray(np.einsum("kab,ab->k", self.weight, kernels @ self.products @ kernels.T))


@dataclass(frozen=True, slots=True, eq=False)
class FoldSums:
    """Normal equations of one kernel for the whole frame, a set for each fold.

    Attributes
    ----------
    normal : ndarray of float64, shape (n_folds, n, n)
        Backgrounds of the cells eliminated, white noise of the reference taken off.
    right : ndarray of float64, shape (n_folds, n)
        Right sides.
    square : ndarray of float64, shape (n_folds,)
        Weighted sums of the squared target.
    noise : SmearedNoise
        What was taken off `normal` and may not be there (`doubtful_noise`).
    """

    normal: Float64
    right: Float64
    square: Float64
    noise: SmearedNoise


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """The mean kernel, and patterns without flux in which kernels differ from it.

    Attributes
    ----------
    images : ndarray of float64, shape (1 + n_modes, n)
        The mean kernel, normalised to a sum of one; then the patterns, each scaled so that all data together know
        its coefficient with a standard error of one.
    penalty : ndarray of float64, shape (1 + n_modes,)
        Diagonal of the penalty on coefficients; 0 for the flux.
    strength : float
        Strength of the penalty on second derivatives.
    scale : float
        Sum of the mean kernel.
    """

    images: Float64
    penalty: Float64
    strength: float
    scale: float


def cell_normal(cells: CellEquations, cell: int, share: float = 1.0) -> tuple[Float64, Float64, float]:
    """Normal matrix, right side and square of one cell, its background eliminated.

    Parameters
    ----------
    cells : CellEquations
        Sums of all cells.
    cell : int
        Which one.
    share : float, optional
        Part of the reference's noise that is taken off.

    Returns
    -------
    normal : ndarray of float64, shape (n, n)
        The noise of the reference taken off: it would make the kernel's sum too small.
    right : ndarray of float64, shape (n,)
        Right side for the whole kernel.
    square : float
        Weighted sum of the squared target.
    """
    normal = cells.normal[cell].astype(np.float64)
    column, weight, rest = cells.column[cell], float(cells.weight[cell]), float(cells.residual[cell])
    normal -= column[:, None] * (column / weight)[None, :]
    right = cells.right[cell] - column * (rest / weight)
    kernel = cells.kernels[cell]
    pulled = normal @ kernel
    square = float(cells.square[cell]) - rest * rest / weight + float(kernel @ (2.0 * right + pulled))
    normal -= share * cells.noise[cell] * cells.products
    return normal, right + pulled, square


def doubtful_noise(cells: CellEquations, fold: Int64, n_folds: int, *, share: float = 1.0) -> Float64:
    """Return the noise taken off that by chance may not be there in some direction, shape (n_cells,).

    It is in units of `CellEquations.noise`, 0 for cells without a fold. The smallest eigenvalue of the sum of N squares
    of white noise in n unknowns is lower than its expectation by the factor ``(1 - sqrt(n / N))**2`` (Marchenko and
    Pastur 1967, Math. USSR Sb. 1, 457). Half of that lack is allowed for: all of it is met only by a kernel made for
    that direction.
    """
    used = fold >= 0
    pixels = np.bincount(fold[used], weights=cells.count[used], minlength=n_folds)
    scatter = np.minimum(np.sqrt(len(cells.products) / np.maximum(pixels, 1.0)), 1.0)
    return np.asarray(np.where(used, share * cells.noise * scatter[fold], 0.0))


def sum_folds(cells: CellEquations, fold: Int64, n_folds: int, *, share: float = 1.0) -> FoldSums:
    """Sum the cells of each fold.

    Parameters
    ----------
    cells : CellEquations
        Sums of all cells.
    fold : ndarray of int64, shape (n_cells,)
        Fold of each cell, negative for cells that are left out.
    n_folds : int
        Number of folds.
    share : float, optional
        Part of the reference's noise that is taken off.

    Returns
    -------
    FoldSums
        The sums.
    """
    n = cells.normal.shape[1]
    used = np.flatnonzero(fold >= 0)
    doubt = doubtful_noise(cells, fold, n_folds, share=share)
    weight = np.bincount(fold[used], weights=doubt[used], minlength=n_folds).astype(np.float64)[:, None, None]
    noise = SmearedNoise(weight, cells.products, np.arange(n))
    sums = FoldSums(np.zeros((n_folds, n, n)), np.zeros((n_folds, n)), np.zeros(n_folds), noise)
    for cell in used:
        normal, right, square = cell_normal(cells, int(cell), share)
        sums.normal[fold[cell]] += normal
        sums.right[fold[cell]] += right
        sums.square[fold[cell]] += square
    return sums


def solve_penalised(normal: Float64, right: Float64, penalty: Float64) -> Float64 | None:
    """Solve normal equations with a penalty.

    Parameters
    ----------
    normal, penalty : ndarray, shape (n, n)
        Matrices whose sum is solved.
    right : ndarray, shape (n,)
        Right side.

    Returns
    -------
    ndarray of float64, shape (n,), or None
        None where the matrix is not positive definite.
    """
    matrix = normal + penalty
    diagonal = np.diag(matrix)
    if not bool((diagonal > 0).all()):
        return None
    scaling = (1.0 / np.sqrt(diagonal)).astype(matrix.dtype)
    matrix *= scaling[:, None]
    matrix *= scaling[None, :]
    try:
        factor = cho_factor(matrix, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None
    return np.asarray(cho_solve(factor, right.astype(matrix.dtype) * scaling, check_finite=False) * scaling, np.float64)


def held_out(sums: FoldSums, penalty: Float64) -> tuple[float, float]:
    """Squared residuals on each fold of the kernel that the others give, at most.

    Parameters
    ----------
    sums : FoldSums
        Normal equations of the folds.
    penalty : ndarray, shape (n, n)
        The penalty.

    Returns
    -------
    outside, inside : float
        Sum on the folds held out, and on those fitted divided by their number less one; infinite where a fit fails.
    """
    whole, right = sums.normal.sum(axis=0), sums.right.sum(axis=0)
    outside = inside = 0.0
    for k in range(len(sums.square)):
        rest, pull = whole - sums.normal[k], right - sums.right[k]
        solution = solve_penalised(rest, pull, penalty)
        if solution is None:
            return np.inf, np.inf
        # Where more was taken off than there is, the kernel that amplifies noise most would look best.
        square = sums.square + sums.noise.of(solution)
        own = float(solution @ (sums.normal[k] @ solution) - 2.0 * solution @ sums.right[k] + square[k])
        other = float(solution @ (rest @ solution) - 2.0 * solution @ pull + square.sum() - square[k])
        outside += own
        inside += other / max(len(square) - 1, 1)
    return outside, inside


def find_modes(
    sums: FoldSums, rough: Float64, totals: Float64, *, scale: float, strength: float | None = None
) -> Modes | None:
    """Fit the mean kernel, its penalty chosen on held-out folds, and find the modes around it.

    Parameters
    ----------
    sums : FoldSums
        Normal equations of the folds.
    rough : ndarray, shape (n, n)
        Matrix of second derivatives (`delta_basis.roughness`).
    totals : ndarray, shape (n,)
        Sums of the functions of the kernel (`Support.totals`).
    scale : float
        Flux scale to expect, which sets the range of strengths.
    strength : float, optional
        Strength of the penalty; chosen where not given.

    Returns
    -------
    Modes or None
        None where no kernel with a positive sum fits.
    """
    if strength is None:
        strength = USUAL_STRENGTH / scale**2
        if len(sums.square) > 1:
            tried = [k / scale**2 for k in STRENGTHS]
            losses = [held_out(sums, k * rough)[0] for k in tried]
            strength = tried[int(np.argmin(losses))] if np.isfinite(min(losses)) else strength
    whole, right = sums.normal.sum(axis=0), sums.right.sum(axis=0)
    mean = solve_penalised(whole, right, strength * rough)
    if mean is None or not float(totals @ mean) > 0:
        return None
    total = float(totals @ mean)
    # An orthonormal basis of the patterns with a sum of zero.
    n = len(mean)
    flat = np.linalg.qr(np.column_stack([totals, np.eye(n)[:, 1:]]))[0][:, 1:]
    known, patterns = eigh(flat.T @ whole @ flat, flat.T @ rough @ flat)
    keep = np.flatnonzero(known > strength * LEAST_SHARE / (1.0 - LEAST_SHARE))[::-1][:MOST_MODES]
    images = (flat @ patterns[:, keep]).T / np.sqrt(known[keep])[:, None]
    penalty = np.concatenate([[0.0], strength / known[keep]])
    return Modes(np.concatenate([mean[None] / total, images]), penalty, strength, total)
