"""Fit of a small correction to a matched pair of frames: a spike and a little shape, free of the bias of noisy models.

See docs/algorithms.md, section 13.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.errors import SubtractionFailed, TooFewStars
from nightsift.core.psf import polynomial_terms
from nightsift.core.robust import mad_sigma
from subtraction.fields import ImageField, affordable_order, n_terms
from subtraction.kernel.anchor_stamps import Stamps
from subtraction.kernel.basis import Basis

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

KNOWN = (0.95, 0.8, 0.5, 0.0)
"""Parts of the noise of the model that are taken out of the normal equations, less where they would get indefinite."""

FLUX_FLOOR = 0.003
"""Error of the model as a part of the flux of a pixel: keeps the few brightest stars from ruling the fit."""

SLOPES = 0.3
"""Expected slopes of a shape over the frame, as a part of the shape itself."""

FLUX_SLOPE = 0.1
"""Expected slopes of the flux ratio over the frame, as a part of it."""

SHAPES_PER_TERM = 10.0
"""Stars for each polynomial term of the shapes but the constant; with fewer, corners run wild."""

FLUX_PER_TERM = 8.0
"""Stars for each polynomial term of the flux ratio but the constant."""

SMALL_CHANGE = 0.03
"""Change of a star's flux, as a part of it, up to which it is not clipped."""

LARGE_MISFIT = 0.2
"""Residual, as a part of a star's light, from which it is no such star."""

ROUNDS = 4
"""Most rounds of clipping."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """A correcting kernel and what it rests on.

    Attributes
    ----------
    kernel : ImageField
        The kernel, nearly a spike of one.
    used : ndarray of bool, shape (n,)
        Anchors that carried the fit.
    order : int
        Order of the polynomial of its shape.
    """

    kernel: ImageField
    used: npt.NDArray[np.bool_]
    order: int


def fit_correction(
    stamps: Stamps,
    basis: Basis,
    noise: Float64,
    *,
    shape: tuple[int, int],
    order: int,
    flux_order: int,
    clip: float,
    minimum: int,
    where: str,
) -> Correction:
    """Fit the kernel that takes the filtered template to the filtered science frame.

    The template's noise is part of the model. Plain least squares would use the kernel to smooth it away, at the cost
    of the stars (errors in variables); its known covariance ``sum(w v_t) <b_i, b_j>`` is therefore taken out of the
    normal matrix (Fuller 1987, Measurement Error Models, sec. 2.2).

    Parameters
    ----------
    stamps : Stamps
        Filtered stamps of the anchors; the science frame is the target.
    basis : Basis
        The spike first, then functions of sum zero; a prior of mean zero and variance `strength` holds these.
    noise : ndarray, shape (n_basis, n_basis)
        Covariance of the noise of the columns of a pixel, in units of that of the first.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order, flux_order : int
        Wanted orders of the polynomials of shape and flux; lowered where anchors are few.
    clip : float
        Stars whose flux changed by more than this many robust sigma are left out.
    minimum : int
        Fewest stars to go on with.
    where : str
        What is fitted, for errors.

    Returns
    -------
    Correction
        The fit.

    Raises
    ------
    TooFewStars
        If fewer than `minimum` stars are left.
    SubtractionFailed
        If the normal equations cannot be solved or the flux ratio is not positive.
    """
    weight = stamps.weight.copy()
    whole = weight.sum(axis=(1, 2)) > 0.5 * weight[0].size
    used = whole
    model = stamps.columns[:, 0]
    coefficients = np.zeros((1, len(basis.images)))
    for round_number in range(ROUNDS):
        if int(used.sum()) < minimum:
            raise TooFewStars(found=int(used.sum()), needed=minimum, where=f"{where} (anchors left after clipping)")
        variance = stamps.variance + stamps.reference_variance + (FLUX_FLOOR * model) ** 2
        shape_order = affordable_order(int(used.sum()), order, per_term=SHAPES_PER_TERM)
        orders = shape_order, affordable_order(int(used.sum()), flux_order, per_term=FLUX_PER_TERM)
        with threadpool_limits(limits=1, user_api="blas"):
            equations = _equations(stamps, weight / variance, noise, used=used)
            coefficients = _solve(stamps, equations, used, shape=shape, orders=orders, basis=basis, where=where)
            model = _model(stamps, coefficients, shape, order=max(orders))
        residual = _levelled(stamps.target - model, weight / variance)
        if round_number < 2:
            weight = _without_strangers(residual, variance, stamps.weight)
        keep = whole & _steady(residual, model, weight, variance=variance, used=used, clip=clip)
        if round_number > 0 and bool((keep == used).all()):
            break
        used = keep
    terms = np.tensordot(coefficients, basis.images.astype(np.float64), axes=1)
    field = ImageField(np.ascontiguousarray(terms, dtype=np.float32), max(orders), shape)
    centre = float(field.total(np.array([shape[1] / 2]), np.array([shape[0] / 2]))[0])
    if not (np.isfinite(centre) and centre > 0):
        raise SubtractionFailed(where=where, method="correction", what=f"the flux ratio is changed by {centre:.3g}")
    return Correction(field, used, shape_order)


def _equations(
    stamps: Stamps, weight: Float32 | Float64, noise: Float64, *, used: npt.NDArray[np.bool_]
) -> tuple[Float64, Float64, Float64]:
    """Normal matrices (n, nb, nb), their share of noise and right sides (n, nb) of stars used, less their levels."""
    n_basis = stamps.columns.shape[1]
    columns = stamps.columns[used].reshape(int(used.sum()), n_basis, -1)
    w = weight[used].reshape(len(columns), 1, -1)
    total = np.maximum(w.sum(axis=2, keepdims=True), 1e-30)
    columns = columns - (columns * w).sum(axis=2, keepdims=True) / total
    weighted = columns * w
    normal = np.matmul(weighted, columns.transpose(0, 2, 1)).astype(np.float64)
    target = stamps.target[used].reshape(len(columns), -1, 1)
    right = np.matmul(weighted, target)[..., 0].astype(np.float64)
    own = (weight * stamps.reference_variance)[used].sum(axis=(1, 2), dtype=np.float64)
    return normal, own[:, None, None] * noise, right


def _solve(
    stamps: Stamps,
    equations: tuple[Float64, Float64, Float64],
    used: npt.NDArray[np.bool_],
    *,
    shape: tuple[int, int],
    orders: tuple[int, int],
    basis: Basis,
    where: str,
) -> Float64:
    """Coefficients (n_terms, n_basis), zero where a term does not belong to a function."""
    terms = polynomial_terms(stamps.x[used], stamps.y[used], shape, max(orders))
    count, n_basis = terms.shape[1], len(basis.images)
    index, prior = _allowed(count, orders, basis)
    products = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
    whole, noise = (
        (products.T @ part.reshape(len(terms), -1))
        .reshape(count, count, n_basis, n_basis)
        .transpose(0, 2, 1, 3)
        .reshape(count * n_basis, -1)[np.ix_(index, index)]
        for part in equations[:2]
    )
    scaling = 1.0 / np.sqrt(np.maximum(np.diag(whole) + prior, 1e-300))
    vector = (terms.T @ equations[2]).ravel()[index] * scaling
    for known in KNOWN:
        matrix = (whole - known * noise + np.diag(prior)) * scaling[:, None] * scaling[None, :]
        try:
            factor = cho_factor(matrix + 1e-10 * np.eye(len(index)))
        except (LinAlgError, ValueError):
            continue
        solution = np.zeros(count * n_basis)
        solution[index] = cho_solve(factor, vector) * scaling
        return solution.reshape(count, n_basis)
    what = f"the normal equations of {int(used.sum())} anchors have no solution"
    raise SubtractionFailed(where=where, method="correction", what=what)


def _allowed(count: int, orders: tuple[int, int], basis: Basis) -> tuple[npt.NDArray[np.int64], Float64]:
    """Indices of the coefficients (term by term) that are free, and the inverse variances of their prior."""
    n_basis = len(basis.images)
    sigma = np.sqrt(basis.strength)[None, :] * np.where(np.arange(count) == 0, 1.0, SLOPES)[:, None]
    sigma[:, 0] = FLUX_SLOPE
    prior = 1.0 / sigma**2
    prior[0, 0] = 0.0
    allowed = np.zeros((count, n_basis), dtype=np.bool_)
    allowed[: n_terms(orders[1]), 0] = True
    allowed[: n_terms(orders[0]), 1:] = True
    index = np.flatnonzero(allowed.ravel())
    return index, prior.ravel()[index]


def _model(stamps: Stamps, coefficients: Float64, shape: tuple[int, int], *, order: int) -> Float32:
    local = (polynomial_terms(stamps.x, stamps.y, shape, order) @ coefficients).astype(np.float32)
    flat = stamps.columns.reshape(*stamps.columns.shape[:2], -1)
    return np.asarray(np.matmul(local[:, None, :], flat)[:, 0].reshape(stamps.target.shape))


def _levelled(residual: Float32, weight: Float32 | Float64) -> Float32:
    """Residuals less each star's own weighted mean."""
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-30)
    return np.asarray(residual - ((weight * residual).sum(axis=(1, 2)) / total)[:, None, None])


def _without_strangers(residual: Float32, variance: Float32, weight: Float32) -> Float32:
    """Weights with the pixels left out that are far off: something that changed beside the star."""
    pull = np.where(weight > 0, residual**2 / variance, 0.0)
    usual = np.maximum(pull.mean(axis=(1, 2)), 1.0)[:, None, None]
    return np.where(pull > 36.0 * usual, np.float32(0), weight)


def _steady(
    residual: Float32,
    model: Float32,
    weight: Float32,
    *,
    variance: Float32,
    used: npt.NDArray[np.bool_],
    clip: float,
) -> npt.NDArray[np.bool_]:
    """Stars of the same flux on both frames and no gross misfit; clipped stars may come back."""
    power = np.maximum((weight * model**2).sum(axis=(1, 2), dtype=np.float64), 1e-30)
    change = (weight * residual * model).sum(axis=(1, 2), dtype=np.float64) / power
    noise = np.sqrt((weight * variance * model**2).sum(axis=(1, 2), dtype=np.float64)) / power
    excess = (weight * (residual**2 - variance)).sum(axis=(1, 2), dtype=np.float64)
    misfit = np.sqrt(np.maximum(excess, 0.0) / power)
    middle = float(np.median(change[used]))
    usual = mad_sigma(change[used], middle)
    changed = np.abs(change - middle) > clip * np.maximum(np.maximum(usual, noise), SMALL_CHANGE / clip)
    return np.asarray(
        np.isfinite(change) & ~changed & (misfit < max(4.0 * float(np.median(misfit[used])), LARGE_MISFIT))
    )
