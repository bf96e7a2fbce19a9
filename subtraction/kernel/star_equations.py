"""Normal equations of single anchor stars, cleared of the noise of the frame that is convolved.

See docs/algorithms.md, section 4.

Residuals of single anchor stars under a kernel, and which of them may carry its fit.

See docs/algorithms.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular

from nightsift.core.parallel import over_rows
from nightsift.core.robust import mad_sigma
from subtraction.kernel.anchor_stamps import Stamps
from subtraction.kernel.basis import Basis

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CHUNK = 16
"""Stars worked on at a time, so that their stamps stay in the cache."""


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


FLOORS = (0.0005, 0.02)
"""Bounds of the error of the model as a part of the flux of a pixel."""

SMALL_CHANGE = 0.03
"""Change of a star's flux, as a part of it, up to which it is not clipped."""

LARGE_MISFIT = 0.2
"""Residual, as a part of a star's light, up to which its shape does not matter."""


def flux_scale(stamps: Stamps, used: npt.NDArray[np.bool_]) -> float:
    """Median over stars of the flux ratio target to reference.

    Parameters
    ----------
    stamps : Stamps
        The stars; their first column is the plain reference.
    used : ndarray of bool, shape (n,)
        Stars that count.

    Returns
    -------
    float
        1 where no star counts.
    """
    w = stamps.weight / stamps.variance
    top = (w * stamps.columns[:, 0] * stamps.target).sum(axis=(1, 2), dtype=np.float64)
    bottom = (w * stamps.columns[:, 0] ** 2).sum(axis=(1, 2), dtype=np.float64)
    ratio = (top / np.maximum(bottom, 1e-30))[used]
    return float(np.median(ratio)) if len(ratio) else 1.0


def residual_noise(stamps: Stamps, local: Float64, gram: Float64) -> Float32:
    """Variance of the residual pixels: the target's and, through the kernel at each star, the other frame's.

    Parameters
    ----------
    stamps : Stamps
        The stars.
    local : ndarray of float64, shape (n, n_basis)
        Coefficients of the kernel at each star.
    gram : ndarray of float64, shape (n_basis, n_basis)
        Products of the functions of the basis.

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        Variance (ADU^2).
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
    """Residual beyond the noise as a part of the star's light, signed change of flux, and power of the star's light.

    Parameters
    ----------
    residual, model, weight, noise : ndarray of float32, shape (n, size, size)
        Residual and model (ADU), 1 where a pixel counts, and the variance of the residual (ADU^2).

    Returns
    -------
    misfit : ndarray of float64, shape (n,)
        Root of the ratio of powers, negative where there is less than the noise.
    change : ndarray of float64, shape (n,)
        Flux in the residual as a part of the model's.
    power : ndarray of float64, shape (n,)
        Sum of the squared model (ADU^2).
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
    """Error of the model at the brightest quarter of the stars, by their median.

    Parameters
    ----------
    misfit, power : ndarray of float64, shape (n,)
        As `star_misfits` gives them.
    used : ndarray of bool, shape (n,)
        Stars that count.
    floor : float
        The error to keep with fewer than eight stars.

    Returns
    -------
    float
        As a part of the flux of a pixel, within `FLOORS`.
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
