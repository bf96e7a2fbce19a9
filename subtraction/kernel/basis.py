"""Kernel basis: Gauss-Hermite functions, orthonormalised, one of them carrying the flux and the others none.

See docs/algorithms.md, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FWHM_PER_SIGMA = 2.3548200450309493

MIN_WIDTH = 0.65
"""Narrowest Gaussian that pixels still sample (sigma, pixel)."""

DEGREES = (6, 4, 2)
"""Degrees of the polynomials on the narrow, middle and wide Gaussian, as Alard and Lupton chose them."""

WINGED = (6, 6, 4, 2)
"""The same with a fourth, widest Gaussian, the wings of bright stars, and degrees that follow elongated PSFs."""

SCALES = (0.5, 1.0, 2.0, 4.0)
"""Widths of the Gaussians in units of the width that matches the two PSFs."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Functions of which a kernel is a linear combination.

    Attributes
    ----------
    images : ndarray of float32, shape (n, size, size)
        The first has a sum of one and carries the flux; all others have a sum of zero and are orthonormal.
    strength : ndarray of float64, shape (n,)
        Singular value of each function in the original basis, relative to the largest; 1 for the first.
    widths : tuple of float
        Gaussian widths used (sigma, pixel).
    """

    images: npt.NDArray[np.float32]
    strength: npt.NDArray[np.float64]
    widths: tuple[float, ...]

    @property
    def half(self) -> int:
        """Half width of the kernel (pixel)."""
        return int(self.images.shape[1]) // 2


def matching_width(fwhm_sharp: float, fwhm_wide: float) -> float:
    """Return the sigma (pixel) of the Gaussian that turns the sharper FWHM into the wider one.

    Where both are nearly equal it is a third of the PSF's own width, because shifts and differences of shape remain.
    """
    difference = max(fwhm_wide**2 - fwhm_sharp**2, 0.0) ** 0.5 / FWHM_PER_SIGMA
    return float(max(difference, 0.35 * fwhm_wide / FWHM_PER_SIGMA, MIN_WIDTH))


def _kernel_half(width: float, fwhm_wide: float) -> int:
    """Half width of the kernel image."""
    return int(np.clip(np.ceil(max(5.0 * width, 1.5 * fwhm_wide)), 5, 16))


def wing_half(fwhm_wide: float) -> int:
    """Return the half width (5 to 16 pixels) of a kernel that reaches the wings of bright stars.

    There seeings differ by more than the noise; `fwhm_wide` is the seeing of the wider frame (pixel).
    """
    return int(np.clip(np.ceil(2.5 * fwhm_wide), 5, 16))


def gauss_hermite(
    fwhm_sharp: float,
    fwhm_wide: float,
    half: int = 0,
    *,
    degrees: tuple[int, ...] = DEGREES,
    tolerance: float = 1e-3,
) -> Basis:
    """Basis of Gaussians times polynomials for a pair of seeings.

    Parameters
    ----------
    fwhm_sharp, fwhm_wide : float
        Seeing of the frame to convolve and of the frame to match (pixel).
    half : int, optional
        Half width of the kernel (pixel); 0 to derive it.
    degrees : tuple of int, optional
        Degree of the polynomial on each Gaussian.
    tolerance : float, optional
        Functions whose singular value is below this part of the largest are dropped. The raw products of Alard
        and Lupton 1998 (ApJ 503, 325, eq. 3) are close to linearly dependent on pixels.

    Returns
    -------
    Basis
        The orthonormalised basis.
    """
    width = matching_width(fwhm_sharp, fwhm_wide)
    half = half or _kernel_half(width, fwhm_wide)
    widths = tuple(max(scale * width, MIN_WIDTH * (1 + 0.6 * k)) for k, scale in enumerate(SCALES[: len(degrees)]))
    axis = np.arange(-half, half + 1, dtype=np.float64)
    window = _taper(half)
    raw = []
    for sigma, degree in zip(widths, degrees, strict=True):
        lines = _hermite_functions(axis / sigma, degree)
        raw += [np.outer(lines[n], lines[m]) * window for n in range(degree + 1) for m in range(degree + 1 - n)]
    flux = _gaussian(axis, widths[min(1, len(widths) - 1)]) * window
    flux /= flux.sum()
    matrix = np.stack([one / np.linalg.norm(one) for one in raw])
    matrix = matrix - matrix.sum(axis=(1, 2))[:, None, None] * flux
    _, singular, functions = np.linalg.svd(matrix.reshape(len(matrix), -1), full_matrices=False)
    keep = singular > tolerance * singular[0]
    shapes = functions[keep].reshape(-1, *flux.shape)
    # The SVD leaves sums of order 1e-16 / tolerance; the flux must be carried by the first function alone.
    shapes -= shapes.sum(axis=(1, 2))[:, None, None] * (window / window.sum())
    images = np.concatenate([flux[None], shapes]).astype(np.float32)
    return Basis(images, np.concatenate([[1.0], singular[keep] / singular[0]]), widths)


def _hermite_functions(t: npt.NDArray[np.float64], degree: int) -> npt.NDArray[np.float64]:
    """Orthonormal Gauss-Hermite functions by their three-term recurrence."""
    values = np.empty((degree + 1, t.size))
    values[0] = np.exp(-0.5 * t**2) / np.pi**0.25
    if degree > 0:
        values[1] = np.sqrt(2.0) * t * values[0]
    for n in range(2, degree + 1):
        values[n] = np.sqrt(2.0 / n) * t * values[n - 1] - np.sqrt((n - 1) / n) * values[n - 2]
    return values


def _gaussian(axis: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    line = np.exp(-0.5 * (axis / sigma) ** 2)
    return np.outer(line, line)


def _taper(half: int) -> npt.NDArray[np.float64]:
    """One inside, falling to zero over the outermost pixels, zero in the corners: kernels without an edge."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    radius = np.hypot(x, y)
    return np.asarray(np.clip((half + 0.5 - radius) / 1.5, 0.0, 1.0))
