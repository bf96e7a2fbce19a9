"""Kernel that varies over the frame from the normal equations of cells: penalty and orders chosen from the data.

Blocks of the frame are held out in turn to choose them, and the variation is in Legendre terms, which hardly depend on
each other. See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.errors import SubtractionFailed
from nightsift.core.parallel import over_rows
from nightsift.core.psf import polynomial_terms
from subtraction.delta_basis.basis import Support, roughness
from subtraction.delta_basis.cell_equations import CellEquations
from subtraction.delta_basis.modes import (
    FoldSums,
    Modes,
    SmearedNoise,
    cell_normal,
    doubtful_noise,
    find_modes,
    held_out,
    solve_penalised,
    sum_folds,
)
from subtraction.fields import ImageField, n_terms

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

FOLDS = 4
"""Parts of the frame that are held out in turn."""

BLOCKS = 8
"""Blocks along the longer side of the frame that are held out as a whole: larger than a star, in most frames."""

FEWEST_PIXELS = 30
"""Fewest pixels of a cell that count."""

VARIATION = (1.0, 10.0, 100.0, 1000.0)
"""Strengths of the penalty on the kernel's variation over the frame, relative to that on its mean."""

FINE_STEPS = (1.0, 10.0**-0.5, 10.0**0.5)
"""Factors on the best of them that are tried in a second step."""

NOISE_SHARES = (1.0, 0.5, 0.0)
"""Parts of the reference's noise that are taken off the equations, the next where they lose their definiteness."""

SLOPE = 0.1
"""Standard deviation, relative to the flux scale, of the terms of its variation over the frame."""


def _blocks(cells: CellEquations, shape: tuple[int, int]) -> Int64:
    side = max(shape) / BLOCKS
    return (cells.y // side).astype(np.int64) * (BLOCKS + 1) + (cells.x // side).astype(np.int64)


def _fold_numbers(cells: CellEquations, shape: tuple[int, int]) -> tuple[Int64, int]:
    """Spread blocks of the frame over folds, the well-lit ones evenly."""
    block = _blocks(cells, shape)
    light = np.einsum("bii->b", cells.normal) - cells.noise * cells.normal.shape[1]
    lit = np.bincount(block, weights=light, minlength=(BLOCKS + 1) ** 2)
    rank = np.empty(len(lit), dtype=np.int64)
    rank[np.argsort(-lit, kind="stable")] = np.arange(len(lit))
    count = max(1, min(FOLDS, int((lit > 0).sum())))
    return np.where(cells.count >= FEWEST_PIXELS, rank[block] % count, -1), count


def _affordable_order(cells: CellEquations, fold: Int64, shape: tuple[int, int], *, wanted: int) -> int:
    """Highest order for which lit blocks of the frame are enough."""
    blocks = len(np.unique(_blocks(cells, shape)[fold >= 0]))
    while wanted > 0 and blocks < 2 * n_terms(wanted):
        wanted -= 1
    return wanted


def legendre_terms(x: Float64, y: Float64, shape: tuple[int, int], *, order: int) -> Float64:
    """Return products of Legendre polynomials of unit mean square over the frame, shape (n, n_terms).

    Their order is that of `nightsift.core.psf.polynomial_terms`.
    """
    return np.asarray(polynomial_terms(x, y, shape, order) @ _monomials(order).T)


def _monomials(order: int) -> Float64:
    """Legendre terms as combinations of the terms ``u**i v**j``."""
    place = {(total - j, j): k for k, (total, j) in enumerate((t, j) for t in range(order + 1) for j in range(t + 1))}
    out = np.zeros((len(place), len(place)))
    for (i, j), row in place.items():
        in_u, in_v = (legendre.leg2poly([0.0] * n + [np.sqrt(2.0 * n + 1.0)]) for n in (i, j))
        for a, left in enumerate(in_u):
            for b, right in enumerate(in_v):
                out[row, place[a, b]] += left * right
    return out


@dataclass(frozen=True, slots=True)
class Choice:
    """What sets how freely a kernel varies.

    Attributes
    ----------
    order, flux_order : int
        Orders of the polynomials of shape and flux.
    strength : float
        Strength of the penalty on second derivatives of the kernel.
    variation : float
        Strength for the terms that vary over the frame, relative to that.
    """

    order: int
    flux_order: int
    strength: float
    variation: float


@dataclass(frozen=True, slots=True, eq=False)
class SmoothKernel:
    """A kernel over the frame and how it was chosen.

    Attributes
    ----------
    field : ImageField
        The kernel.
    cells : ndarray of float64, shape (n_cells, n)
        Its coefficients at the cells' centres of light.
    choice : Choice
        Orders and strengths.
    freedom : float
        Held-out over fitted chi-square: what the fit takes out of the squared residuals of its own stars.
    modes : int
        Modes of the kernel's shape.
    """

    field: ImageField
    cells: Float64
    choice: Choice
    freedom: float
    modes: int


def fit_smooth(
    cells: CellEquations,
    support: Support,
    shape: tuple[int, int],
    *,
    scale: float,
    most: tuple[int, int] = (4, 3),
    choice: Choice | None = None,
    first: Choice | None = None,
    where: str = "",
    threads: int = 0,
) -> SmoothKernel:
    """Fit a kernel that varies as a polynomial over the frame.

    Parameters
    ----------
    cells : CellEquations
        Sums over the source pixels of all cells.
    support : Support
        The kernel's pixels.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    scale : float
        Flux scale to expect.
    most : tuple of int, optional
        Highest orders of shape and flux to try.
    choice : Choice, optional
        Orders and strengths; chosen on held-out blocks of the frame where not given.
    first : Choice, optional
        Orders and relative strength of a quick fit, of which only the strength is chosen from the data.
    where : str, optional
        What is being fitted, for errors.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    SmoothKernel
        The kernel.

    Raises
    ------
    SubtractionFailed
        If no kernel with a positive sum fits.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        fold, n_folds = _fold_numbers(cells, shape)
        for share in NOISE_SHARES:
            kernel = _fit(
                cells,
                (fold, n_folds),
                support,
                shape=shape,
                scale=scale,
                most=most,
                choice=choice,
                first=first,
                share=share,
                threads=threads,
            )
            if kernel is not None:
                return kernel
    what = "no kernel with a positive sum fits the source pixels"
    raise SubtractionFailed(where=where, method="penalised least squares", what=what)


def _fit(
    cells: CellEquations,
    folds: tuple[Int64, int],
    support: Support,
    *,
    shape: tuple[int, int],
    scale: float,
    most: tuple[int, int],
    choice: Choice | None,
    first: Choice | None,
    share: float,
    threads: int,
) -> SmoothKernel | None:
    """The fit with a share of the reference's noise taken off; None where the equations are not positive definite."""
    fold, n_folds = folds
    sums = sum_folds(cells, fold, n_folds, share=share)
    strength = None if choice is None else choice.strength
    modes = find_modes(sums, roughness(support), support.totals, scale=scale, strength=strength)
    if modes is None:
        return None
    affordable = _affordable_order(cells, fold, shape, wanted=most[0])
    if first is not None:
        order = min(first.order, affordable, most[0])
        choice = Choice(order, min(first.flux_order, order, most[1]), modes.strength, first.variation)
    top = min(max(most), affordable) if choice is None else max(choice.order, choice.flux_order)
    system = _project(cells, fold, n_folds, modes=modes, shape=shape, top=top, share=share, threads=threads)
    if choice is None:
        choice = _choose(system, modes, most, affordable=affordable)
    index, penalty = _selection(modes, choice)
    part = _part(system, index)
    outside, inside = held_out(part, np.diag(penalty)) if n_folds > 1 else (1.0, 1.0)
    whole = part.normal.sum(axis=0, dtype=np.float64)
    solution = solve_penalised(whole, part.right.sum(axis=0), np.diag(penalty))
    if solution is None or not np.isfinite(outside):
        return None
    return _assemble(
        cells,
        support,
        shape,
        modes=modes,
        choice=choice,
        index=index,
        solution=solution,
        freedom=outside / max(inside, 1e-30),
    )


def _assemble(
    cells: CellEquations,
    support: Support,
    shape: tuple[int, int],
    *,
    modes: Modes,
    choice: Choice,
    index: Int64,
    solution: Float64,
    freedom: float,
) -> SmoothKernel:
    """The kernel of a solution, which counts from the mean kernel."""
    order = max(choice.order, choice.flux_order)
    coefficients = np.zeros((n_terms(order), len(modes.images)))
    coefficients.ravel()[index] = solution
    coefficients[0, 0] += modes.scale
    kernels = coefficients @ modes.images
    images = support.image(_monomials(order).T @ kernels)
    field = ImageField(np.ascontiguousarray(images, dtype=np.float32), order, shape)
    at_cells = legendre_terms(cells.x, cells.y, shape, order=order) @ kernels
    return SmoothKernel(field, at_cells, choice, float(np.clip(freedom, 1.0, 3.0)), len(modes.images) - 1)


def _project(
    cells: CellEquations,
    fold: Int64,
    n_folds: int,
    *,
    modes: Modes,
    shape: tuple[int, int],
    top: int,
    share: float,
    threads: int,
) -> FoldSums:
    """Normal equations of all terms (slow) and modes (fast), summed a fold; the unknowns count from the mean kernel."""
    terms = legendre_terms(cells.x, cells.y, shape, order=top).astype(np.float32)
    count, n, n_cells = terms.shape[1], len(modes.images), len(fold)
    matrices = np.zeros((n_cells, n * n), dtype=np.float32)
    vectors, squares = np.zeros((n_cells, n), dtype=np.float32), np.zeros(n_cells)
    images, mean = modes.images.astype(np.float32), modes.scale * modes.images[0]

    def some(begin: int, end: int) -> None:
        for cell in range(begin, end):
            if fold[cell] < 0:
                continue
            matrix, vector, square = cell_normal(cells, cell, share)
            pulled = matrix @ mean
            matrices[cell] = (images @ matrix.astype(np.float32) @ images.T).ravel()
            vectors[cell] = modes.images @ (vector - pulled)
            squares[cell] = square - float(mean @ (2.0 * vector - pulled))

    over_rows(some, n_cells, 1, threads=threads)
    doubt = doubtful_noise(cells, fold, n_folds, share=share)
    weight = np.stack([(terms[fold == k].T * doubt[fold == k]) @ terms[fold == k] for k in range(n_folds)])
    products = modes.images @ cells.products @ modes.images.T
    noise = SmearedNoise(weight, products, np.arange(count * n), modes.scale)
    normal = np.zeros((n_folds, count * n, count * n), dtype=np.float32)
    right, square = np.zeros((n_folds, count * n)), np.zeros(n_folds)
    for k in range(n_folds):
        members = np.flatnonzero(fold == k)
        own, ours = terms[members], matrices[members]
        right[k] = (own.T @ vectors[members]).ravel()
        square[k] = squares[members].sum()
        blocks = normal[k].reshape(count, n, count, n)
        for a in range(count):
            blocks[a] = ((own[:, a, None] * own).T @ ours).reshape(count, n, n).transpose(1, 0, 2)
    return FoldSums(normal, right, square, noise)


def _selection(modes: Modes, choice: Choice) -> tuple[Int64, Float64]:
    """Unknowns of a choice among all, and their penalty."""
    top = max(choice.order, choice.flux_order)
    degree = np.repeat(np.arange(top + 1), np.arange(1, top + 2))
    n = len(modes.images)
    wanted = np.zeros((len(degree), n), dtype=np.bool_)
    wanted[degree <= choice.flux_order, 0] = True
    wanted[degree <= choice.order, 1:] = True
    penalty = modes.penalty[None, :] * np.where(degree == 0, 1.0, choice.variation)[:, None]
    penalty[degree > 0, 0] = 1.0 / (SLOPE * modes.scale) ** 2
    return np.flatnonzero(wanted.ravel()), penalty[wanted]


def _part(system: FoldSums, index: Int64) -> FoldSums:
    """The equations of some unknowns."""
    normal = system.normal[:, index[:, None], index[None, :]]
    return FoldSums(normal, system.right[:, index], system.square, replace(system.noise, index=index))


def _choose(system: FoldSums, modes: Modes, most: tuple[int, int], *, affordable: int) -> Choice:
    """Orders and strength of the variation with the least squared residuals on held-out blocks."""
    if len(system.square) < 2:
        return Choice(0, 0, modes.strength, 1.0)

    known: dict[Choice, float] = {}

    def loss(choice: Choice) -> float:
        if choice not in known:
            index, penalty = _selection(modes, choice)
            known[choice] = held_out(_part(system, index), np.diag(penalty).astype(np.float32))[0]
        return known[choice]

    flux = min(1, most[1], affordable)
    best = Choice(0, flux, modes.strength, 10.0)
    for order in range(1, min(most[0], affordable) + 1):
        choice = replace(best, order=order)
        if loss(choice) < loss(best):
            best = choice
        elif order > 2:
            # Kernels may bend without a slope, but hardly need the fourth order where the third is of no use.
            break
    if best.order > 0:
        best = min((replace(best, variation=v) for v in VARIATION), key=loss)
        best = min((replace(best, variation=best.variation * step) for step in FINE_STEPS), key=loss)
    fluxes = [replace(best, flux_order=k) for k in range(min(most[1], affordable) + 1)]
    return min(fluxes, key=loss)
