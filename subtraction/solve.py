"""Least-squares fit of the kernel to stamps of anchor stars, with clipping of stars and pixels.

See docs/algorithms.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.errors import SubtractionFailed, TooFewStars
from nightsift.psf import polynomial_terms
from subtraction.anchor_stamps import Stamps
from subtraction.basis import Basis
from subtraction.spatial import ImageField, affordable_order, n_terms

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FLUX_FLOOR = 0.005
"""Error of the model as a part of the flux of a pixel: keeps the few brightest stars from ruling the fit."""

SMALL_CHANGE = 0.03
"""Change of a star's flux, as a part of it, up to which it is not clipped."""

LARGE_MISFIT = 0.2
"""Residual, as a part of a star's light, up to which its shape does not matter."""

FLUX_PER_TERM = 8.0
"""Stars for each polynomial term of the flux scale but the constant: there is seldom a real slope."""

ROUNDS = 5
"""Most rounds of clipping."""


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
        Orders of the polynomials of shape and flux that the number of anchors allowed.
    """

    kernel: ImageField
    used: npt.NDArray[np.bool_]
    chi2: Float64
    order: int
    flux_order: int


def fit_kernel(
    stamps: Stamps,
    basis: Basis,
    shape: tuple[int, int],
    order: int = 2,
    flux_order: int = 1,
    clip: float = 4.0,
    minimum: int = 3,
    where: str = "the pair",
) -> KernelFit:
    """Fit a kernel that varies over the frame to the anchors' stamps.

    Each star's normal equations are built once for the basis and its own constant background, which is eliminated;
    the equations of the frame are their sums weighted with products of polynomial terms (Alard 2000, A&AS 144, 363,
    eq. 3-7). Orders are lowered where the stars are too few. A weak prior keeps what the stars do not determine near
    zero.

    Parameters
    ----------
    stamps : Stamps
        Stamps of the anchors.
    basis : Basis
        Kernel functions.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order, flux_order : int, optional
        Wanted orders of the polynomials of the kernel's shape and of its sum.
    clip : float, optional
        Stars whose chi-square stands out by more than this many robust sigma are left out.
    minimum : int, optional
        Fewest stars to go on with.
    where : str, optional
        What is being fitted, for errors.

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
    used = stamps.weight.sum(axis=(1, 2)) > 0.5 * stamps.weight[0].size
    weight = stamps.weight.copy()
    scale = _flux_scale(stamps, used)
    model = scale * stamps.columns[:, 0]
    field, chi2 = None, np.zeros(len(used))
    power = np.full(len(used), scale**2 * float((basis.images[0].astype(np.float64) ** 2).sum()))
    for round_number in range(ROUNDS):
        if int(used.sum()) < minimum:
            raise TooFewStars(found=int(used.sum()), needed=minimum, where=f"{where} (anchors left after clipping)")
        variance = _residual_variance(stamps, power, model)
        with threadpool_limits(limits=1, user_api="blas"):
            normal, right = _star_equations(stamps, weight / variance)
            now = affordable_order(int(used.sum()), order)
            flux_now = affordable_order(int(used.sum()), flux_order, per_term=FLUX_PER_TERM)
            coefficients = _solve_frame(stamps, normal, right, used, shape, now, flux_now, basis, scale, where)
            field = _kernel_field(coefficients, basis, shape, max(now, flux_now))
            power = _kernel_power(stamps, coefficients, basis, shape, max(now, flux_now))
            model = _model(stamps, coefficients, shape, max(now, flux_now))
        residual, chi2 = _residuals(stamps, model, weight, variance)
        if round_number < 2:
            # Pixels far off belong to something that changed beside the star.
            far = np.abs(residual) > 6.0 * np.sqrt(variance * np.maximum(chi2, 1.0)[:, None, None])
            weight = np.where(far, np.float32(0), weight)
        keep = _keep(chi2, *_misfit(residual, model, weight, variance), used, clip) & (
            weight.sum(axis=(1, 2)) > 0.5 * weight[0].size
        )
        if round_number > 1 and bool((keep == used).all()):
            break
        used = keep
    assert field is not None
    centre = field.total(np.array([shape[1] / 2.0]), np.array([shape[0] / 2.0]))[0]
    if not (np.isfinite(centre) and centre > 0):
        raise SubtractionFailed(where=where, method="least squares", what=f"the kernel has the sum {centre:.3g}")
    return KernelFit(field, used, chi2, now, flux_now)


def _flux_scale(stamps: Stamps, used: npt.NDArray[np.bool_]) -> float:
    """Median over stars of the flux ratio target to reference."""
    w = stamps.weight / stamps.variance
    top = (w * stamps.columns[:, 0] * stamps.target).sum(axis=(1, 2), dtype=np.float64)
    bottom = (w * stamps.columns[:, 0] ** 2).sum(axis=(1, 2), dtype=np.float64)
    ratio = (top / np.maximum(bottom, 1e-30))[used]
    return float(np.median(ratio)) if len(ratio) else 1.0


def _residual_variance(stamps: Stamps, power: Float64, model: Float32) -> Float32:
    """Variance of the residual pixels, with the part of the flux that no kernel of low order can match."""
    noise = stamps.variance + power[:, None, None] * stamps.reference_variance
    return np.asarray(noise + (FLUX_FLOOR * model) ** 2, dtype=np.float32)


def _kernel_power(stamps: Stamps, coefficients: Float64, basis: Basis, shape: tuple[int, int], order: int) -> Float64:
    """Sum of the squared kernel at each star: what the convolution leaves of white noise."""
    local = polynomial_terms(stamps.x, stamps.y, shape, order) @ coefficients
    flat = basis.images.reshape(len(basis.images), -1).astype(np.float64)
    return np.asarray(np.einsum("si,ij,sj->s", local, flat @ flat.T, local))


def _star_equations(stamps: Stamps, weight: Float32) -> tuple[Float64, Float64]:
    """Normal matrices (n, nb, nb) and right sides (n, nb), each star's background eliminated."""
    n, n_basis = stamps.columns.shape[:2]
    normal, right = np.empty((n, n_basis, n_basis)), np.empty((n, n_basis))
    for s in range(n):
        design = stamps.columns[s].reshape(n_basis, -1).astype(np.float64)
        w = weight[s].ravel().astype(np.float64)
        total = max(float(w.sum()), 1e-30)
        target = stamps.target[s].ravel()
        mean_design, mean_target = design @ w / total, float(w @ target) / total
        design -= mean_design[:, None]
        weighted = design * w
        normal[s] = weighted @ design.T
        right[s] = weighted @ (target - mean_target)
    return normal, right


def _solve_frame(
    stamps: Stamps,
    normal: Float64,
    right: Float64,
    used: npt.NDArray[np.bool_],
    shape: tuple[int, int],
    order: int,
    flux_order: int,
    basis: Basis,
    scale: float,
    where: str,
) -> Float64:
    """Coefficients (n_terms, n_basis), zero where a term does not belong to a function."""
    top = max(order, flux_order)
    terms = polynomial_terms(stamps.x[used], stamps.y[used], shape, top)
    count, n_basis = terms.shape[1], normal.shape[1]
    products = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
    blocks = (products.T @ normal[used].reshape(len(terms), -1)).reshape(count, count, n_basis, n_basis)
    matrix = blocks.transpose(0, 2, 1, 3).reshape(count * n_basis, count * n_basis)
    vector = (terms.T @ right[used]).ravel()
    allowed = np.zeros((count, n_basis), dtype=np.bool_)
    allowed[: n_terms(flux_order), 0] = True
    allowed[: n_terms(order), 1:] = True
    # Prior of mean zero: shapes are a part of the kernel's sum, the weaker the rarer; slopes a part of the shapes.
    sigma = np.abs(scale) * np.sqrt(basis.strength)[None, :] * np.where(np.arange(count) == 0, 1.0, 0.3)[:, None]
    sigma[1:, 0] = 0.1 * np.abs(scale)
    prior = 1.0 / sigma**2
    prior[0, 0] = 0.0
    index = np.flatnonzero(allowed.ravel())
    reduced = matrix[np.ix_(index, index)] + np.diag(prior.ravel()[index])
    scaling = 1.0 / np.sqrt(np.maximum(np.diag(reduced), 1e-300))
    try:
        factor = cho_factor(reduced * scaling[:, None] * scaling[None, :] + 1e-12 * np.eye(len(index)))
    except (LinAlgError, ValueError) as error:
        what = f"the normal equations fail: {error}"
        raise SubtractionFailed(where=where, method="least squares", what=what) from error
    solution = np.zeros(count * n_basis)
    solution[index] = cho_solve(factor, vector[index] * scaling) * scaling
    return solution.reshape(count, n_basis)


def _kernel_field(coefficients: Float64, basis: Basis, shape: tuple[int, int], order: int) -> ImageField:
    terms = np.tensordot(coefficients, basis.images.astype(np.float64), axes=1)
    return ImageField(np.ascontiguousarray(terms, dtype=np.float32), order, shape)


def _model(stamps: Stamps, coefficients: Float64, shape: tuple[int, int], order: int) -> Float32:
    local = (polynomial_terms(stamps.x, stamps.y, shape, order) @ coefficients).astype(np.float32)
    flat = stamps.columns.reshape(*stamps.columns.shape[:2], -1)
    return np.asarray(np.matmul(local[:, None, :], flat)[:, 0].reshape(stamps.target.shape))


def _residuals(stamps: Stamps, model: Float32, weight: Float32, variance: Float32) -> tuple[Float32, Float64]:
    """Residuals less their own background, and each star's reduced chi-square."""
    w = weight / variance
    residual = stamps.target - model
    total = np.maximum(w.sum(axis=(1, 2)), 1e-30)
    residual = residual - ((w * residual).sum(axis=(1, 2)) / total)[:, None, None]
    freedom = np.maximum(weight.sum(axis=(1, 2), dtype=np.float64) - 1.0, 1.0)
    return residual, (w * residual**2).sum(axis=(1, 2), dtype=np.float64) / freedom


def _misfit(residual: Float32, model: Float32, weight: Float32, variance: Float32) -> tuple[Float64, Float64]:
    """Residual beyond the noise as a part of the star's light: root of the ratio of powers, and change of flux."""
    excess = (weight * (residual**2 - variance)).sum(axis=(1, 2), dtype=np.float64)
    power = np.maximum((weight * model**2).sum(axis=(1, 2), dtype=np.float64), 1e-30)
    change = (weight * residual * model).sum(axis=(1, 2), dtype=np.float64) / power
    return np.sqrt(np.maximum(excess, 0.0) / power), change


def _keep(
    chi2: Float64, misfit: Float64, change: Float64, used: npt.NDArray[np.bool_], clip: float
) -> npt.NDArray[np.bool_]:
    """Stars that do not stand out in chi-square and in flux (or grossly in shape); clipped stars may come back.

    Chi-square alone would throw out the brightest stars, which show the faults of every kernel first.
    """
    centre = float(np.median(chi2[used]))
    spread = 1.4826 * float(np.median(np.abs(chi2[used] - centre)))
    loud = chi2 > centre + clip * max(spread, 0.1 * centre)
    middle = float(np.median(change[used]))
    usual = 1.4826 * float(np.median(np.abs(change[used] - middle)))
    changed = np.abs(change - middle) > max(clip * usual, SMALL_CHANGE)
    misshapen = misfit > max(4.0 * float(np.median(misfit[used])), LARGE_MISFIT)
    return np.asarray(np.isfinite(chi2) & ~(loud & (changed | misshapen)))
