"""Least-squares fit of the kernel to stamps of anchor stars, with clipping of stars and pixels.

The prediction for stars held out of the fit needs no second fit. See docs/algorithms.md, section 4.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.errors import SubtractionFailed, TooFewStars
from subtraction.fields import ImageField, affordable_order, n_terms
from subtraction.kernel.anchor_stamps import Stamps
from subtraction.kernel.basis import Basis
from subtraction.kernel.equations import (
    Cleared,
    Smooth,
    Smoothing,
    StarEquations,
    alike,
    asked_degree,
    clear_of_noise,
    degree_variation,
    first_smoothing,
    flux_scale,
    frame_equations,
    model_floor,
    noise_correlation,
    orthogonal_terms,
    predict,
    residual_noise,
    solve_smooth,
    star_equations,
    star_misfits,
    star_residuals,
    steady_stars,
    to_powers,
)

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

MOST_STARS = 300
"""Stars that are held out: the brightest, which see the kernel's faults first."""

FIRST_FLOOR = 0.005
"""Error of the model as a part of the flux of a pixel, before it is measured on the bright stars."""

FLUX_PER_TERM = 8.0
"""Stars for each polynomial term of the flux scale but the constant: there is seldom a real slope."""

ROUNDS = 5
"""Most rounds of clipping."""

SMOOTHINGS = (2, 4, 4, 3, 3)
"""Improvements of the prior in each round."""

FIRST_ORDER = 1
"""Highest order in the first round, before anything is clipped."""


def _held_out_change(
    equations: StarEquations,
    column_noise: Float64,
    transfer: Float64,
    *,
    coefficients: Float64,
    terms: Float64,
    chosen: npt.NDArray[np.int64],
) -> Float64:
    """Rise of each star's squared residuals when the star is held out of the fit.

    Without star s the coefficients at its place change by ``-(1 - S N)^-1 S g``, with N its normal matrix less its
    noise, g its gradient ``b - N a`` and S what a change of the right side does to the coefficients there (the
    leave-one-out formula of linear least squares; Cook and Weisberg 1982, Residuals and Influence in Regression,
    sec. 2.2).
    """
    count, n_basis = coefficients.shape
    blocks = transfer.reshape(count, n_basis, count, n_basis).transpose(0, 2, 1, 3).reshape(count * count, -1)
    here = terms[chosen]
    products = (here[:, :, None] * here[:, None, :]).reshape(len(here), -1)
    spread = (products @ blocks).reshape(-1, n_basis, n_basis)
    normal = equations.normal[chosen]
    local = (here @ coefficients)[:, :, None]
    gradient = equations.right[chosen] - np.matmul(normal, local)[:, :, 0]
    noise = equations.noise[chosen][:, None, None] * column_noise[None]
    pull = gradient[:, :, None] + np.matmul(noise, local)
    left = np.eye(n_basis)[None] - np.matmul(spread, normal - noise)
    change = -np.linalg.solve(left, np.matmul(spread, pull))[:, :, 0]
    curved = np.matmul(normal, change[:, :, None])[:, :, 0]
    return np.asarray((change * (curved - 2.0 * gradient)).sum(axis=1))


def _held_out_residual(
    equations: StarEquations,
    column_noise: Float64,
    transfer: Float64,
    *,
    coefficients: Float64,
    terms: Float64,
    used: npt.NDArray[np.bool_],
    chi2: Float64,
    freedom: Float64,
) -> float:
    """Root of the median reduced chi-square of the brighter stars, each predicted by the others."""
    stars = np.flatnonzero(used)
    if len(stars) < 10:
        return float("nan")
    brightness = np.einsum("sii->s", equations.normal[stars])
    chosen = stars[np.argsort(-brightness, kind="stable")][: min(MOST_STARS, (len(stars) + 1) // 2)]
    rise = _held_out_change(equations, column_noise, transfer, coefficients=coefficients, terms=terms, chosen=chosen)
    values = chi2[chosen] + np.maximum(rise, 0.0) / np.maximum(freedom[chosen], 1.0)
    return float(np.sqrt(np.median(values)))


@dataclass(frozen=True, slots=True, eq=False)
class KernelFit:
    """A kernel and how well it fits.

    Attributes
    ----------
    kernel : ImageField
        The kernel over the frame.
    used : ndarray of bool, shape (n,)
        Anchors that carried the fit; the others were clipped.
    chi2 : ndarray of float64, shape (n,)
        Reduced chi-square of each anchor's stamp.
    order, flux_order : int
        Orders of the polynomials of shape and flux that the data asked for, within what was allowed.
    parameters : float
        Polynomial terms of each function that the data determine; the prior holds the others.
    variation : ndarray of float64, shape (allowed order + 1,)
        Rms variation of the kernel's shape over the frame by each degree, as a part of the kernel's norm.
    floor : float
        Error of the model that is left at bright stars, as a part of the flux of a pixel.
    cross_validated : float
        Root of the median reduced chi-square of the brighter stars, each predicted by the others; NaN with few stars.
    """

    kernel: ImageField
    used: npt.NDArray[np.bool_]
    chi2: Float64
    order: int
    flux_order: int
    parameters: float = float("nan")
    variation: Float64 | None = None
    floor: float = 0.0
    cross_validated: float = float("nan")


def fit_kernel(
    stamps: Stamps,
    basis: Basis,
    shape: tuple[int, int],
    *,
    order: int = 4,
    flux_order: int = 3,
    clip: float = 4.0,
    minimum: int = 3,
    where: str = "the pair",
    column_noise: Float64 | None = None,
    threads: int = 0,
) -> KernelFit:
    """Fit a kernel that varies over the frame to the anchors' stamps.

    Each star's normal equations are built once per round for the basis and its own constant background, which is
    eliminated, and cleared of the noise of the frame that is convolved (`clear_of_noise`); the equations of the frame
    are their sums weighted with products of polynomial terms (Alard 2000, A&AS 144, 363, eq. 3-7). How much each degree
    of the polynomials may vary is chosen from the data (`solve_smooth`); orders are lowered where the stars are too
    few.

    Parameters
    ----------
    stamps : Stamps
        Stamps of the anchors.
    basis : Basis
        Kernel functions.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order, flux_order : int, optional
        Highest orders of the polynomials of the kernel's shape and of its sum.
    clip : float, optional
        Stars whose chi-square stands out by more than this many robust sigma are left out.
    minimum : int, optional
        Fewest stars to go on with.
    where : str, optional
        What is being fitted, for errors.
    column_noise : ndarray of float64, shape (n_basis, n_basis), optional
        Covariance of the columns' noise where the convolved frame has unit variance; by default that of white noise.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    KernelFit
        The fit.

    Raises
    ------
    TooFewStars
        If clipping leaves fewer than `minimum`.
    SubtractionFailed
        If the normal equations have no solution or the kernel's sum is not positive.
    """
    flat = basis.images.reshape(len(basis.images), -1).astype(np.float64)
    gram = flat @ flat.T
    covariance = gram if column_noise is None else column_noise
    problem = _Problem(stamps, basis, shape, gram, covariance, order, flux_order, where, threads)
    with threadpool_limits(limits=1, user_api="blas"):
        used = stamps.weight.sum(axis=(1, 2)) > 0.5 * stamps.weight[0].size
        scale = flux_scale(stamps, used)
        weight, floor, local = stamps.weight, FIRST_FLOOR, np.zeros((len(used), len(basis.images)))
        local[:, 0] = scale
        used &= alike(stamps, local, gram, used=used, threads=threads)
        smoothing: Smoothing | None = None
        for turn in range(ROUNDS):
            if int(used.sum()) < minimum:
                raise TooFewStars(found=int(used.sum()), needed=minimum, where=f"{where} (anchors left after clipping)")
            fitted = _fit_round(
                problem, weight, local, used=used, floor=floor, scale=scale, smoothing=smoothing, turn=turn
            )
            local, smoothing = fitted.terms @ fitted.smooth.coefficients, fitted.smooth.smoothing
            model = predict(stamps, local, threads)
            residual, chi2 = star_residuals(stamps, model, weight, variance=fitted.variance)
            if turn < 2:
                # Pixels far off belong to something that changed beside the star.
                far = np.abs(residual) > 6.0 * np.sqrt(fitted.variance * np.maximum(chi2, 1.0)[:, None, None])
                weight = np.where(far, np.float32(0), weight)
            misfit, change, power = star_misfits(residual, model, weight, noise=fitted.noise)
            keep = steady_stars(chi2, misfit, change, used=used, clip=clip) & (
                weight.sum(axis=(1, 2)) > 0.5 * weight[0].size
            )
            if turn > 1 and bool((keep == used).all()):
                break
            used, floor = keep, model_floor(misfit, power, keep, floor=floor)
            if turn > 0:
                # The next round leaves out degrees that the data do not ask for: its equations become smaller.
                problem = problem.up_to(asked_degree(fitted.smooth.coefficients, gram))
        freedom = weight.sum(axis=(1, 2), dtype=np.float64) - 1.0
        transfer = fitted.cleared.transfer(fitted.smooth.covariance / fitted.correlation)
        equations, coefficients = fitted.equations, fitted.smooth.coefficients
        held = _held_out_residual(
            equations,
            covariance,
            transfer,
            coefficients=coefficients,
            terms=fitted.terms,
            used=used,
            chi2=chi2,
            freedom=freedom,
        )
    return _finished(problem, fitted, used, chi2=chi2, floor=floor, held=held)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What is the same in all rounds."""

    stamps: Stamps
    basis: Basis
    shape: tuple[int, int]
    gram: Float64
    column_noise: Float64
    order: int
    flux_order: int
    where: str
    threads: int

    def up_to(self, order: int) -> _Problem:
        """The same with lower orders."""
        return dataclasses.replace(self, order=min(order, self.order), flux_order=min(order, self.flux_order))


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """Result of one round."""

    smooth: Smooth
    cleared: Cleared
    correlation: float
    equations: StarEquations
    terms: Float64
    noise: Float32
    variance: Float32
    order: int
    flux_order: int


def _fit_round(
    problem: _Problem,
    weight: Float32,
    local: Float64,
    *,
    used: npt.NDArray[np.bool_],
    floor: float,
    scale: float,
    smoothing: Smoothing | None,
    turn: int,
) -> _Fitted:
    """One round: weights from the kernel so far, equations, solution."""
    stamps, count = problem.stamps, int(used.sum())
    order, flux_order = (
        affordable_order(count, problem.order),
        affordable_order(count, problem.flux_order, FLUX_PER_TERM),
    )
    if turn == 0:
        order, flux_order = min(order, FIRST_ORDER), 0
    top = max(order, flux_order)
    noise = residual_noise(stamps, local, problem.gram)
    model = predict(stamps, local, problem.threads)
    variance = np.asarray(noise + (np.float32(floor) * model) ** 2, dtype=np.float32)
    equations = star_equations(stamps, weight / variance, problem.threads)
    terms = orthogonal_terms(stamps.x, stamps.y, problem.shape, order=top)
    correlation = noise_correlation(stamps, problem.basis, local, used=used)
    matrix, vector = frame_equations(terms[used], equations.normal[used], equations.right[used])
    weights = (terms[used].T * equations.noise[used]) @ terms[used]
    if smoothing is None or len(smoothing.shape) < top + 1:
        smoothing = first_smoothing(top, scale)
    smoothing = Smoothing(smoothing.shape[: top + 1], smoothing.flux[: top + 1])
    try:
        cleared = clear_of_noise(matrix, vector, np.asarray(np.kron(weights, problem.column_noise), dtype=np.float64))
        smooth = solve_smooth(
            cleared.matrix / correlation,
            cleared.vector / correlation,
            problem.basis.strength,
            order=order,
            flux_order=flux_order,
            smoothing=smoothing,
            scale=scale,
            rounds=SMOOTHINGS[turn],
        )
    except (LinAlgError, ValueError) as error:
        what = f"the normal equations fail: {error}"
        raise SubtractionFailed(where=problem.where, method="least squares", what=what) from error
    return _Fitted(smooth, cleared, correlation, equations, terms, noise, variance, order, flux_order)


def _finished(
    problem: _Problem, fitted: _Fitted, used: npt.NDArray[np.bool_], *, chi2: Float64, floor: float, held: float
) -> KernelFit:
    """The kernel in powers of position, without the degrees that the data did not ask for."""
    coefficients = fitted.smooth.coefficients
    variation = degree_variation(coefficients, problem.gram)
    top = asked_degree(coefficients, problem.gram)
    keep = n_terms(top)
    images = problem.basis.images.astype(np.float64)
    powers = to_powers(coefficients[:keep], problem.shape, top)
    kernel = ImageField(np.tensordot(powers, images, axes=1).astype(np.float32), top, problem.shape)
    centre = kernel.total(np.array([problem.shape[1] / 2.0]), np.array([problem.shape[0] / 2.0]))[0]
    if not (np.isfinite(centre) and centre > 0):
        what = f"the kernel has the sum {centre:.3g}"
        raise SubtractionFailed(where=problem.where, method="least squares", what=what)
    order, flux_order = min(top, fitted.order), min(top, fitted.flux_order)
    parameters = fitted.smooth.parameters
    return KernelFit(kernel, used, chi2, order, flux_order, parameters, variation, floor, held)
