"""Small images that vary as a polynomial over the frame: kernels, whitening filters, point sources.

See docs/algorithms.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.psf import polynomial_terms

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ANCHORS_PER_TERM = 2.5
"""Stars needed for each polynomial term but the constant; the prior of the fit holds what they leave open."""

KERNEL_TAIL = 0.01
"""Part of a kernel's absolute sum that may fall on masked pixels before a pixel counts as masked itself."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageField:
    """A small image whose every pixel is a polynomial of the position on the frame.

    Attributes
    ----------
    terms : ndarray of float32, shape (n_terms, size, size)
        One image per polynomial term, in the order of `nightsift.core.psf.polynomial_terms`; ``size`` is odd.
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
        """Return the image at a position (pixel), float64 of shape (size, size), not normalised."""
        weights = polynomial_terms(np.array([x]), np.array([y]), self.shape, self.order)[0]
        return np.asarray(np.tensordot(weights, self.terms.astype(np.float64), axes=1))

    def total(self, x: Float64, y: Float64) -> Float64:
        """Return the sums over the image at positions x, y (pixel), float64 of shape (n,)."""
        sums = self.terms.sum(axis=(1, 2), dtype=np.float64)
        return np.asarray(polynomial_terms(x, y, self.shape, self.order) @ sums)


def n_terms(order: int) -> int:
    """Return the number of terms of a polynomial in two variables: ``(order + 1) (order + 2) / 2``."""
    return (order + 1) * (order + 2) // 2


def affordable_order(n_stars: int, wanted: int, per_term: float = ANCHORS_PER_TERM) -> int:
    """Return the highest order, 0 at least and `wanted` at most, that stars can carry with `per_term` for each term."""
    order = wanted
    while order > 0 and n_stars < per_term * (n_terms(order) - 1):
        order -= 1
    return order


def nodes(shape: tuple[int, int], order: int) -> tuple[Float64, Float64]:
    """Return positions x, y (pixel) that sample a polynomial from edge to edge, shape ((order + 2)**2,) each."""
    # Chebyshev nodes: interpolation between them does not oscillate towards the edges.
    count = order + 2
    unit = -np.cos((np.arange(count) + 0.5) * np.pi / count)
    x, y = np.meshgrid((unit + 1) / 2 * (shape[1] - 1), (unit + 1) / 2 * (shape[0] - 1))
    return x.ravel(), y.ravel()


def sample_field(
    image_at: Callable[[float, float], npt.NDArray[np.floating]], shape: tuple[int, int], order: int
) -> ImageField:
    """Return the polynomial field through images ``image_at(x, y)``, of a common odd size, at nodes of the frame.

    A sum common to all images is preserved exactly.
    """
    x, y = nodes(shape, order)
    images = np.stack([np.asarray(image_at(float(a), float(b)), dtype=np.float64) for a, b in zip(x, y, strict=True)])
    return fit_field(images, x, y, shape=shape, order=order)


def fit_field(images: Float64, x: Float64, y: Float64, *, shape: tuple[int, int], order: int) -> ImageField:
    """Return the least-squares polynomial field of images (n, size, size) at positions x, y (pixel)."""
    design = polynomial_terms(x, y, shape, order)
    flat = images.reshape(len(images), -1)
    terms = np.linalg.lstsq(design, flat, rcond=None)[0].reshape(-1, *images.shape[1:])
    return ImageField(np.ascontiguousarray(terms, dtype=np.float32), order, shape)


def sample_grid(field: ImageField, count: int = 5) -> Float32:
    """Sample a field at the centres of an even grid of cells, rows from low y: (count, count, size, size)."""
    ny, nx = field.shape
    places = (np.arange(count) + 0.5) / count
    return np.array([[field.at(u * nx, v * ny) for u in places] for v in places], dtype=np.float32)


def effective_radius(kernel: npt.NDArray[np.floating], tail: float = KERNEL_TAIL) -> int:
    """Radius outside which a kernel is negligible.

    Parameters
    ----------
    kernel : ndarray, shape (size, size)
        Kernel of odd size.
    tail : float, optional
        Part of the absolute sum that may lie outside.

    Returns
    -------
    int
        Radius (pixel), 0 to the half width.
    """
    half = int(kernel.shape[0]) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    radius = np.hypot(x, y)
    power = np.abs(kernel)
    total = float(power.sum())
    for r in range(half + 1):
        if float(power[radius > r + 0.5].sum()) <= tail * total:
            return r
    return half


def widest_radius(field: ImageField, tail: float = KERNEL_TAIL, power: int = 1) -> int:
    """Return the largest effective radius (pixel) of a kernel, raised to `power`, over centre and rim of the frame."""
    return max(effective_radius(field.at(x, y) ** power, tail) for x, y in reference_points(field.shape))


def reference_points(shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Centre, corners and middles of the sides of a frame."""
    ny, nx = shape
    return [(x, y) for x in (0.0, (nx - 1) / 2, nx - 1.0) for y in (0.0, (ny - 1) / 2, ny - 1.0)]
