"""Normal equations of the anchor stars and of the frame, their solution under a prior, and the residuals that are left.

How much a kernel varies over the frame is chosen from the data: its polynomial coefficients have a prior for each
degree. See docs/algorithms.md, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from scipy.linalg import cholesky, lapack, solve_triangular

from nightsift.core.parallel import over_rows
from nightsift.core.psf import polynomial_terms
from nightsift.core.robust import mad_sigma
from subtraction.fields import nodes
from subtraction.kernel.anchor_stamps import Stamps
from subtraction.kernel.basis import Basis

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CHUNK = 16
"""Stars worked on at a time, so that their stamps stay in the cache."""

FLOORS = (0.0005, 0.02)
"""Bounds of the error of the model as a part of the flux of a pixel."""

SMALL_CHANGE = 0.03
"""Change of a star's flux, as a part of it, up to which it is not clipped."""

LARGE_MISFIT = 0.2
"""Residual, as a part of a star's light, up to which its shape does not matter."""

LEAST, MOST = 1e-8, 4.0
"""Bounds of a prior variance, in units of the squared sum of the kernel."""

SLOPE = 0.02
"""Prior variance of each degree in units of that of the degree below it, to start with."""

FLUX_SLOPE = 0.001
"""Prior variance of the slopes of the flux scale, to start with."""

NOTHING = 3e-4
"""Variation of the kernel, as a part of its norm, below which a degree counts as not asked for."""

NEVER = 1e10
"""Inverse variance of what must not vary, in units of the inverse squared sum of the kernel."""


@dataclass(frozen=True, slots=True, eq=False)
class StarEquations:
    """Weighted normal equations of each star, its own constant background eliminated.

    Attributes
    ----------
    normal : ndarray of float64, shape (n, n_basis, n_basis)
        Normal matrices.
    right : ndarray of float64, shape (n, n_basis)
        Right sides.
    noise : ndarray of float64, shape (n,)
        Sum of weight times variance of the convolved frame: the noise in each normal matrix in units of the
        covariance of the columns' noise.
    """

    normal: Float64
    right: Float64
    noise: Float64


def star_equations(stamps: Stamps, weight: Float32, threads: int = 0) -> StarEquations:
    """Build the normal equations of each star.

    Parameters
    ----------
    stamps : Stamps
        Stamps of the anchors.
    weight : ndarray of float32, shape (n, size, size)
        Inverse variance of each pixel, 0 for those left out.
    threads : int, optional
        Number of threads, 0 for all cores; the caller holds BLAS to one.

    Returns
    -------
    StarEquations
        The equations, with the noise in them.
    """
    n, n_basis = stamps.columns.shape[:2]
    normal, right = np.empty((n, n_basis, n_basis)), np.empty((n, n_basis))

    def some(first: int, last: int) -> None:
        for start in range(first, last, CHUNK):
            part = slice(start, min(start + CHUNK, last))
            columns = stamps.columns[part].reshape(-1, n_basis, stamps.target[0].size)
            w = weight[part].reshape(len(columns), -1)
            target = stamps.target[part].reshape(len(columns), -1)
            total = np.maximum(w.sum(axis=1), np.float32(1e-30))
            root = np.sqrt(w)
            design = columns - (np.matmul(columns, w[:, :, None])[:, :, 0] / total[:, None])[:, :, None]
            design *= root[:, None, :]
            wanted = (target - ((w * target).sum(axis=1) / total)[:, None]) * root
            normal[part] = np.matmul(design, design.transpose(0, 2, 1))
            right[part] = np.matmul(design, wanted[:, :, None])[:, :, 0]

    over_rows(some, n, CHUNK, threads=threads)
    noise = (weight * stamps.reference_variance).sum(axis=(1, 2), dtype=np.float64)
    return StarEquations(normal, right, noise)


def frame_equations(terms: Float64, normal: Float64, right: Float64) -> tuple[Float64, Float64]:
    """Normal equations of a frame from those of its stars (Alard 2000, A&AS 144, 363, eq. 3-7).

    Parameters
    ----------
    terms : ndarray, shape (n, n_terms)
        Polynomial terms at the stars.
    normal, right : ndarray, shapes (n, n_basis, n_basis) and (n, n_basis)
        Their equations.

    Returns
    -------
    matrix, vector : ndarray of float64
        Shapes (n_terms * n_basis,) * 2 and (n_terms * n_basis,).
    """
    n, count = terms.shape
    n_basis = normal.shape[1]
    first, second = np.triu_indices(count)
    sums = (terms[:, first] * terms[:, second]).T @ normal.reshape(n, -1)
    blocks = np.empty((count, count, n_basis, n_basis))
    blocks[first, second] = blocks[second, first] = sums.reshape(-1, n_basis, n_basis)
    return blocks.transpose(0, 2, 1, 3).reshape(count * n_basis, count * n_basis), (terms.T @ right).ravel()


@dataclass(frozen=True, slots=True, eq=False)
class Cleared:
    """Normal equations of a frame without the bias of the noise in its columns.

    Attributes
    ----------
    matrix, vector : ndarray of float64
        Shapes (m, m) and (m,).
    half, root : ndarray of float64, shape (m, m)
        ``L^-1 B`` and the lower triangle L of the matrix with noise, of which `matrix` is made.
    """

    matrix: Float64
    vector: Float64
    half: Float64
    root: Float64

    def transfer(self, covariance: Float64) -> Float64:
        """What a change of the right side does to the solution: ``covariance B M^-1``."""
        return np.asarray(solve_triangular(self.root, self.half @ covariance, lower=True, trans="T").T)


def clear_of_noise(matrix: Float64, vector: Float64, noise: Float64) -> Cleared:
    """Take the bias of noisy columns out of normal equations.

    Noise of the frame that is convolved adds to the power M of its columns but not to their product b with the target,
    and so holds every coefficient too small (errors in variables; Fuller 1987, Measurement Error Models, sec. 2.2):
    the kernel loses its high frequencies and a part of its sum. The noise C in M is known, so that ``b - (M - C) a``
    has zero mean for the true coefficients a; its covariance is M. Generalised least squares of that,
    ``(M - C) M^-1 (M - C) a = (M - C) M^-1 b``, is unbiased, never indefinite, and knows how little is learnt
    of combinations that are mostly noise.

    Parameters
    ----------
    matrix, vector : ndarray
        Normal equations, shapes (m, m) and (m,).
    noise : ndarray, shape (m, m)
        Expectation of the noise in the matrix.

    Returns
    -------
    Cleared
        The equations.

    Raises
    ------
    LinAlgError
        If the matrix is not positive.
    """
    steady = matrix.copy()
    steady[np.diag_indices_from(steady)] += 1e-10 * np.diag(matrix) + 1e-300
    root = cholesky(steady, lower=True)
    half = solve_triangular(root, matrix - noise, lower=True)
    right = solve_triangular(root, vector, lower=True)
    return Cleared(half.T @ half, half.T @ right, half, root)


def _degrees(order: int) -> npt.NDArray[np.int64]:
    """Total degree of each polynomial term."""
    return np.repeat(np.arange(order + 1), np.arange(1, order + 2))


def orthogonal_terms(x: Float64, y: Float64, shape: tuple[int, int], *, order: int) -> Float64:
    """Products of Legendre polynomials, orthonormal over the frame.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Highest total degree.

    Returns
    -------
    ndarray of float64, shape (n, n_terms)
        Terms in the order of `nightsift.core.psf.polynomial_terms`, of unit mean square over the frame.
    """
    norm = np.sqrt(2.0 * np.arange(order + 1) + 1.0)
    lines = [
        legendre.legvander(2.0 * np.asarray(t, dtype=np.float64) / max(n - 1, 1) - 1.0, order) * norm
        for t, n in ((x, shape[1]), (y, shape[0]))
    ]
    columns = [lines[0][:, d - j] * lines[1][:, j] for d in range(order + 1) for j in range(d + 1)]
    return np.stack(columns, axis=1)


def to_powers(coefficients: Float64, shape: tuple[int, int], order: int) -> Float64:
    """Turn coefficients of `orthogonal_terms` (n_terms, n) into those of `nightsift.core.psf.polynomial_terms`."""
    x, y = nodes(shape, order)
    change = np.linalg.lstsq(
        polynomial_terms(x, y, shape, order), orthogonal_terms(x, y, shape, order=order), rcond=None
    )[0]
    return np.asarray(change @ coefficients)


@dataclass(frozen=True, slots=True, eq=False)
class Smoothing:
    """Prior variances of the coefficients, one per degree of the polynomial.

    Attributes
    ----------
    shape, flux : ndarray of float64, shape (order + 1,)
        Variances for the functions without flux, in units of their strength, and for the one that carries it; the
        first of `flux` is infinite.
    """

    shape: Float64
    flux: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Smooth:
    """Coefficients that the data and the prior agree on.

    Attributes
    ----------
    coefficients : ndarray of float64, shape (n_terms, n_basis)
        Coefficients of `orthogonal_terms`.
    covariance : ndarray of float64, shape (n_terms * n_basis, n_terms * n_basis)
        Their posterior covariance.
    smoothing : Smoothing
        The prior that was found.
    parameters : float
        Parameters that the data determine, for each function of the basis.
    """

    coefficients: Float64
    covariance: Float64
    smoothing: Smoothing
    parameters: float


def first_smoothing(order: int, scale: float) -> Smoothing:
    """Return a prior to start from, for a kernel of sum `scale`: slopes are weaker by `SLOPE` per degree."""
    power = SLOPE ** np.arange(order + 1, dtype=np.float64)
    flux = FLUX_SLOPE * power / SLOPE
    flux[0] = np.inf
    return Smoothing(scale**2 * power, scale**2 * flux)


def solve_smooth(
    matrix: Float64,
    vector: Float64,
    strength: Float64,
    *,
    order: int,
    flux_order: int,
    smoothing: Smoothing,
    scale: float,
    rounds: int,
) -> Smooth:
    """Solve for coefficients and for the prior under which the data are most probable.

    The prior variance of each degree is the fixed point of ``sigma^2 = sum(c^2 / strength) / gamma``, where gamma
    is the number of coefficients of that degree that the data determine (MacKay 1992, Neural Computation 4, 415,
    sec. 4.2): a degree that the stars do not ask for is smoothed away, whatever order was allowed.

    Parameters
    ----------
    matrix, vector : ndarray
        Normal equations of the frame, cleared of noise (`clear_of_noise`).
    strength : ndarray, shape (n_basis,)
        Expected variance of each function's coefficients, relative to each other.
    order, flux_order : int
        Orders of the polynomials of the functions without flux and of the one that carries it.
    smoothing : Smoothing
        Prior to start from.
    scale : float
        Sum of the kernel to expect.
    rounds : int
        Rounds of improvement.

    Returns
    -------
    Smooth
        The solution.

    Raises
    ------
    LinAlgError
        If the matrix is singular.
    """
    n_basis = len(strength)
    degree = _degrees(len(smoothing.shape) - 1)
    shape, flux = smoothing.shape.copy(), smoothing.flux.copy()
    for turn in range(rounds + 1):
        prior = 1.0 / (shape[degree][:, None] * strength[None, :])
        prior[:, 0] = 1.0 / flux[degree]
        prior[degree > order, 1:] = prior[degree > flux_order, :1] = NEVER / scale**2
        root = _inverse_root(matrix, prior.ravel())
        values = (root.T @ (root @ vector)).reshape(len(degree), n_basis)
        spread = np.einsum("ij,ij->j", root, root).reshape(values.shape)
        known = 1.0 - np.minimum(spread * prior, 1.0)
        if turn == rounds:
            break
        for d in range(len(shape)):
            rows = degree == d
            if d <= order:
                power = float((values[rows, 1:] ** 2 / strength[1:]).sum())
                shape[d] = np.clip(power / max(float(known[rows, 1:].sum()), 1e-3), LEAST * scale**2, MOST * scale**2)
            if 0 < d <= flux_order:
                power = float((values[rows, 0] ** 2).sum())
                flux[d] = np.clip(power / max(float(known[rows, 0].sum()), 1e-3), LEAST * scale**2, MOST * scale**2)
    return Smooth(values, root.T @ root, Smoothing(shape, flux), float(known[:, 1:].sum()) / max(n_basis - 1, 1))


def _inverse_root(matrix: Float64, prior: Float64) -> Float64:
    """Triangle R with ``R^T R`` the inverse of a matrix with a prior on its diagonal: all that each round needs."""
    whole = matrix.copy()
    whole[np.diag_indices_from(whole)] += prior
    scaling = 1.0 / np.sqrt(np.maximum(np.diag(whole), 1e-300))
    whole *= scaling[:, None]
    whole *= scaling[None, :]
    whole[np.diag_indices_from(whole)] += 1e-12
    # Of the transpose, which is the same matrix, in the order of memory that LAPACK works on in place.
    root, _ = lapack.dtrtri(cholesky(whole.T, lower=True, overwrite_a=True), lower=1, overwrite_c=1)
    root *= scaling[None, :]
    return np.asarray(root)


def degree_variation(coefficients: Float64, gram: Float64) -> Float64:
    """Return the rms variation of a kernel over the frame by each degree, shape (order + 1,).

    It is a part of the norm of the mean kernel; `gram` holds the products of the basis functions. The terms
    (`orthogonal_terms`) being orthonormal, squares of coefficients are mean squares.
    """
    power = np.maximum(np.einsum("ti,ij,tj->t", coefficients, gram, coefficients), 0.0)
    order = int(np.sqrt(2 * len(power))) - 1
    return np.asarray(np.sqrt(np.bincount(_degrees(order), weights=power) / max(float(power[0]), 1e-30)))


def asked_degree(coefficients: Float64, gram: Float64) -> int:
    """Return the highest degree by which a kernel varies over the frame (`degree_variation`)."""
    return int(np.flatnonzero(degree_variation(coefficients, gram) > NOTHING).max(initial=0))


def predict(stamps: Stamps, local: Float64, threads: int = 0) -> Float32:
    """The convolved frame at each star, for given kernels.

    Parameters
    ----------
    stamps : Stamps
        Stamps of the anchors.
    local : ndarray of float64, shape (n, n_basis)
        Coefficients of each star's kernel.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        What the target should look like.
    """
    n, n_basis = stamps.columns.shape[:2]
    coefficients = local.astype(np.float32)[:, None, :]
    out = np.empty((n, stamps.target[0].size), dtype=np.float32)

    def some(first: int, last: int) -> None:
        flat = stamps.columns[first:last].reshape(last - first, n_basis, -1)
        out[first:last] = np.matmul(coefficients[first:last], flat)[:, 0]

    over_rows(some, n, CHUNK, threads=threads)
    return out.reshape(stamps.target.shape)


def flux_scale(stamps: Stamps, used: npt.NDArray[np.bool_]) -> float:
    """Return the median flux ratio, target to reference, of the stars `used`; 1 where there is none."""
    w = stamps.weight / stamps.variance
    top = (w * stamps.columns[:, 0] * stamps.target).sum(axis=(1, 2), dtype=np.float64)
    bottom = (w * stamps.columns[:, 0] ** 2).sum(axis=(1, 2), dtype=np.float64)
    ratio = (top / np.maximum(bottom, 1e-30))[used]
    return float(np.median(ratio)) if len(ratio) else 1.0


def residual_noise(stamps: Stamps, local: Float64, gram: Float64) -> Float32:
    """Return the variance (ADU^2) of the residual pixels, shape (n, size, size).

    It is the target's and, through the kernel at each star (`local`; `gram` of its basis), the other frame's.
    """
    power = np.einsum("si,ij,sj->s", local, gram, local)
    return np.asarray(stamps.variance + power[:, None, None] * stamps.reference_variance, dtype=np.float32)


def noise_correlation(stamps: Stamps, basis: Basis, local: Float64, *, used: npt.NDArray[np.bool_]) -> float:
    """Factor by which correlation of the noise raises the variance of what is fitted to the residuals.

    The kernel makes the noise of the frame that is convolved smooth, ``K * n``: a pattern as wide as the kernel meets
    the noise power ``|K(k)|^2`` of low frequencies, not its mean ``sum(K^2)``.

    Parameters
    ----------
    stamps : Stamps
        The stars.
    basis : Basis
        Functions of the kernel.
    local : ndarray of float64, shape (n, n_basis)
        Coefficients of the kernel at each star.
    used : ndarray of bool, shape (n,)
        Stars that count.

    Returns
    -------
    float
        1 where the kernel is a point or the target's noise rules.
    """
    kernel = np.tensordot(np.median(local[used], axis=0), basis.images.astype(np.float64), axes=1)
    power = np.abs(np.fft.rfft2(kernel, (64, 64))) ** 2
    weight = np.full(power.shape, 2.0)
    weight[:, [0, -1]] = 1.0
    mean = float((weight * power).sum() / weight.sum())
    seen = float((weight * power**2).sum() / (weight * power).sum())
    good = stamps.weight[used] > 0
    target = float(np.median(stamps.variance[used][good]))
    reference = float(np.median(stamps.reference_variance[used][good]))
    return float((target + seen * reference) / (target + mean * reference))


def star_residuals(stamps: Stamps, model: Float32, weight: Float32, *, variance: Float32) -> tuple[Float32, Float64]:
    """Residuals less their own background, and each star's reduced chi-square.

    Parameters
    ----------
    stamps : Stamps
        The stars.
    model : ndarray of float32, shape (n, size, size)
        What the kernel makes of the reference (ADU).
    weight : ndarray of float32, shape (n, size, size)
        1 where a pixel counts, 0 elsewhere.
    variance : ndarray of float32, shape (n, size, size)
        Variance of the residual (ADU^2).

    Returns
    -------
    residual : ndarray of float32, shape (n, size, size)
        Target less model less background (ADU).
    chi2 : ndarray of float64, shape (n,)
        Reduced chi-square.
    """
    w = weight / variance
    residual = stamps.target - model
    total = np.maximum(w.sum(axis=(1, 2)), 1e-30)
    residual = residual - ((w * residual).sum(axis=(1, 2)) / total)[:, None, None]
    freedom = np.maximum(weight.sum(axis=(1, 2), dtype=np.float64) - 1.0, 1.0)
    return residual, (w * residual**2).sum(axis=(1, 2), dtype=np.float64) / freedom


def star_misfits(
    residual: Float32, model: Float32, weight: Float32, *, noise: Float32
) -> tuple[Float64, Float64, Float64]:
    """Return each star's residual beyond the noise, its signed change of flux, and the power of its light, shape (n,).

    The first is the root of a ratio of powers, negative where there is less than the noise; the second a part of the
    model's flux; the third the sum of the squared model (ADU^2). `weight` is 1 where a pixel counts.
    """
    excess = (weight * (residual**2 - noise)).sum(axis=(1, 2), dtype=np.float64)
    power = np.maximum((weight * model**2).sum(axis=(1, 2), dtype=np.float64), 1e-30)
    change = (weight * residual * model).sum(axis=(1, 2), dtype=np.float64) / power
    return np.sign(excess) * np.sqrt(np.abs(excess) / power), change, power


def alike(
    stamps: Stamps, local: Float64, gram: Float64, *, used: npt.NDArray[np.bool_], threads: int = 0
) -> npt.NDArray[np.bool_]:
    """Stars that a first guess of the kernel fits no worse than it fits the others, before there is a fit to clip by.

    The guess is wrong by the same part of every star's light; what changed inside a stamp stands out.

    Parameters
    ----------
    stamps : Stamps
        The stars.
    local : ndarray of float64, shape (n, n_basis)
        Coefficients of the guess at each star.
    gram : ndarray of float64, shape (n_basis, n_basis)
        Products of the functions of the basis.
    used : ndarray of bool, shape (n,)
        Stars to compare with.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of bool, shape (n,)
        `used` itself where fewer than half of it would be left.
    """
    model = predict(stamps, local, threads)
    noise = residual_noise(stamps, local, gram)
    residual, _ = star_residuals(stamps, model, stamps.weight, variance=noise)
    misfit, _, _ = star_misfits(residual, model, stamps.weight, noise=noise)
    usual = float(np.median(np.maximum(misfit[used], 0.0)))
    spread = mad_sigma(misfit[used], usual)
    good = misfit <= usual + max(4.0 * spread, 0.1)
    return np.asarray(good if 2 * int((good & used).sum()) >= int(used.sum()) else used)


def model_floor(misfit: Float64, power: Float64, used: npt.NDArray[np.bool_], *, floor: float) -> float:
    """Return the median error of the model at the brightest quarter of the stars, as a part of a pixel's flux.

    It lies within `FLOORS`; with fewer than eight stars it stays at `floor`. `star_misfits` gives misfit and power.
    """
    if int(used.sum()) < 8:
        return floor
    bright = used & (power >= np.quantile(power[used], 0.75))
    return float(np.clip(np.median(misfit[bright]), *FLOORS))


def steady_stars(
    chi2: Float64, misfit: Float64, change: Float64, *, used: npt.NDArray[np.bool_], clip: float
) -> npt.NDArray[np.bool_]:
    """Stars that do not stand out in chi-square and in flux (or grossly in shape); clipped stars may come back.

    Chi-square alone would throw out the brightest stars, which show the faults of every kernel first.

    Parameters
    ----------
    chi2, misfit, change : ndarray of float64, shape (n,)
        As `star_residuals` and `star_misfits` give them.
    used : ndarray of bool, shape (n,)
        Stars to compare with.
    clip : float
        Limit, in robust standard deviations.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for stars that may carry the fit.
    """
    centre = float(np.median(chi2[used]))
    spread = mad_sigma(chi2[used], centre)
    loud = chi2 > centre + clip * max(spread, 0.1 * centre)
    middle = float(np.median(change[used]))
    usual = mad_sigma(change[used], middle)
    changed = np.abs(change - middle) > max(clip * usual, SMALL_CHANGE)
    misshapen = misfit > max(4.0 * float(np.median(np.maximum(misfit[used], 0.0))), LARGE_MISFIT)
    return np.asarray(np.isfinite(chi2) & ~(loud & (changed | misshapen)))
