"""Normal equations of single anchor stars, cleared of the noise of the frame that is convolved.

See docs/algorithms.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular

from nightsift.parallel import over_rows
from subtraction.kernel.anchor_stamps import Stamps

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

    over_rows(some, n, CHUNK, threads)
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

    over_rows(some, n, CHUNK, threads)
    return out.reshape(stamps.target.shape)
