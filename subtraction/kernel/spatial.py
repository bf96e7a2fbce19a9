"""Fields of small images that vary as a polynomial over the frame: kernels, whitening filters, point sources.

See docs/algorithms.md, section 3.

How much a kernel varies over the frame, chosen from the data: polynomial coefficients with a prior per degree.

See docs/algorithms.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from scipy.linalg import cholesky, lapack

from nightsift.core.psf import polynomial_terms

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ANCHORS_PER_TERM = 2.5
"""Stars needed for each polynomial term but the constant; the prior of the fit holds what they leave open."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageField:
    """A small image whose every pixel is a polynomial of the position on the frame.

    Attributes
    ----------
    terms : ndarray of float32, shape (n_terms, size, size)
        One image a polynomial term, in the order of `nightsift.core.frames.polynomial_terms`; ``size`` is odd.
    order : int
        Order of the polynomial.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    """

    terms: Float32
    order: int
    shape: tuple[int, int]

    @property
    def half(self) -> int:
        """Half width of the image (pixel), the central pixel not counted."""
        return int(self.terms.shape[1]) // 2

    def at(self, x: float, y: float) -> Float64:
        """The image at a position.

        Parameters
        ----------
        x, y : float
            Position on the frame (pixel).

        Returns
        -------
        ndarray of float64, shape (size, size)
            The image, not normalised.
        """
        weights = polynomial_terms(np.array([x]), np.array([y]), self.shape, self.order)[0]
        return np.asarray(np.tensordot(weights, self.terms.astype(np.float64), axes=1))

    def total(self, x: Float64, y: Float64) -> Float64:
        """Sum over the image at many positions.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            Positions (pixel).

        Returns
        -------
        ndarray of float64, shape (n,)
            The sums.
        """
        sums = self.terms.sum(axis=(1, 2), dtype=np.float64)
        return np.asarray(polynomial_terms(x, y, self.shape, self.order) @ sums)


def n_terms(order: int) -> int:
    """Number of terms of a polynomial in two variables.

    Parameters
    ----------
    order : int
        Highest total power.

    Returns
    -------
    int
        ``(order + 1) (order + 2) / 2``.
    """
    return (order + 1) * (order + 2) // 2


def affordable_order(n_stars: int, wanted: int, per_term: float = ANCHORS_PER_TERM) -> int:
    """Highest order that a number of stars can carry, at most the wanted one.

    Parameters
    ----------
    n_stars : int
        Stars at hand.
    wanted : int
        Order asked for.
    per_term : float, optional
        Stars needed for each polynomial term but the constant.

    Returns
    -------
    int
        The order, 0 at least.
    """
    order = wanted
    while order > 0 and n_stars < per_term * (n_terms(order) - 1):
        order -= 1
    return order


def nodes(shape: tuple[int, int], order: int) -> tuple[Float64, Float64]:
    """Positions that sample a polynomial of an order with some to spare, from edge to edge.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Order of the polynomial.

    Returns
    -------
    x, y : ndarray of float64, shape ((order + 2)**2,)
        Positions (pixel).
    """
    # Chebyshev nodes: interpolation between them does not oscillate towards the edges.
    count = order + 2
    unit = -np.cos((np.arange(count) + 0.5) * np.pi / count)
    x, y = np.meshgrid((unit + 1) / 2 * (shape[1] - 1), (unit + 1) / 2 * (shape[0] - 1))
    return x.ravel(), y.ravel()


def sample_field(
    image_at: Callable[[float, float], npt.NDArray[np.floating]], shape: tuple[int, int], order: int
) -> ImageField:
    """Polynomial field through images computed at nodes of the frame.

    Parameters
    ----------
    image_at : callable
        ``image_at(x, y)`` returns the image at a position, always of the same odd size.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Order of the polynomial.

    Returns
    -------
    ImageField
        Least-squares fit; a sum common to all images is kept exactly.
    """
    x, y = nodes(shape, order)
    images = np.stack([np.asarray(image_at(float(a), float(b)), dtype=np.float64) for a, b in zip(x, y, strict=True)])
    return fit_field(images, x, y, shape=shape, order=order)


def fit_field(images: Float64, x: Float64, y: Float64, *, shape: tuple[int, int], order: int) -> ImageField:
    """Least-squares polynomial field of images known at positions.

    Parameters
    ----------
    images : ndarray, shape (n, size, size)
        The images.
    x, y : ndarray, shape (n,)
        Their positions (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Order of the polynomial.

    Returns
    -------
    ImageField
        The field.
    """
    design = polynomial_terms(x, y, shape, order)
    flat = images.reshape(len(images), -1)
    terms = np.linalg.lstsq(design, flat, rcond=None)[0].reshape(-1, *images.shape[1:])
    return ImageField(np.ascontiguousarray(terms, dtype=np.float32), order, shape)


def sample_grid(field: ImageField, count: int = 5) -> Float32:
    """Sample a field at the centres of an even grid of cells, to look at it.

    Parameters
    ----------
    field : ImageField
        The field.
    count : int, optional
        Cells along each side.

    Returns
    -------
    ndarray of float32, shape (count, count, size, size)
        The images, rows from low y.
    """
    ny, nx = field.shape
    places = (np.arange(count) + 0.5) / count
    return np.array([[field.at(u * nx, v * ny) for u in places] for v in places], dtype=np.float32)


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
class Smoothing:
    """Prior variances of the coefficients, one a degree of the polynomial.

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


def degrees(order: int) -> npt.NDArray[np.int64]:
    """Total degree of each polynomial term.

    Parameters
    ----------
    order : int
        Order of the polynomial.

    Returns
    -------
    ndarray of int64, shape (n_terms,)
        0, 1, 1, 2, 2, 2, ...
    """
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
    """Coefficients of `nightsift.core.psf.polynomial_terms` from those of `orthogonal_terms`.

    Parameters
    ----------
    coefficients : ndarray, shape (n_terms, n)
        Coefficients of orthogonal terms.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Order of the polynomial.

    Returns
    -------
    ndarray of float64, shape (n_terms, n)
        The same polynomials.
    """
    x, y = nodes(shape, order)
    change = np.linalg.lstsq(
        polynomial_terms(x, y, shape, order), orthogonal_terms(x, y, shape, order=order), rcond=None
    )[0]
    return np.asarray(change @ coefficients)


def first_smoothing(order: int, scale: float) -> Smoothing:
    """A prior to start from.

    Parameters
    ----------
    order : int
        Order of the polynomial.
    scale : float
        Sum of the kernel to expect.

    Returns
    -------
    Smoothing
        Shapes as strong as the kernel itself, slopes weaker by `SLOPE` a degree.
    """
    power = SLOPE ** np.arange(order + 1, dtype=np.float64)
    flux = FLUX_SLOPE * power / SLOPE
    flux[0] = np.inf
    return Smoothing(scale**2 * power, scale**2 * flux)


def degree_variation(coefficients: Float64, gram: Float64) -> Float64:
    """Rms variation of a kernel over the frame by each degree.

    Parameters
    ----------
    coefficients : ndarray of float64, shape (n_terms, n_basis)
        Coefficients of `orthogonal_terms`.
    gram : ndarray of float64, shape (n_basis, n_basis)
        Products of the functions of the basis.

    Returns
    -------
    ndarray of float64, shape (order + 1,)
        As a part of the norm of the mean kernel; the terms being orthonormal, squares of coefficients are mean squares.
    """
    power = np.maximum(np.einsum("ti,ij,tj->t", coefficients, gram, coefficients), 0.0)
    order = int(np.sqrt(2 * len(power))) - 1
    return np.asarray(np.sqrt(np.bincount(degrees(order), weights=power) / max(float(power[0]), 1e-30)))


def asked_degree(coefficients: Float64, gram: Float64) -> int:
    """Highest degree by which a kernel varies over the frame.

    Parameters
    ----------
    coefficients, gram : ndarray
        As in `degree_variation`.

    Returns
    -------
    int
        The degree.
    """
    return int(np.flatnonzero(degree_variation(coefficients, gram) > NOTHING).max(initial=0))


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
        Normal equations of the frame, cleared of noise (`star_equations.clear_of_noise`).
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
    degree = degrees(len(smoothing.shape) - 1)
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
