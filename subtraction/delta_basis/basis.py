"""Delta-function kernel: every pixel of the kernel is a coefficient of its own, smooth by a penalty.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from subtraction.kernel.basis import FWHM_PER_SIGMA, MIN_WIDTH, matching_width

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LARGEST = 8
"""Largest radius of the core, where every pixel is a coefficient (pixel): 225 of them."""

WING_RATIO = 2.0
"""Radius of the wings over that of the core."""

FARTHEST_WING = 13
"""Largest radius of the wings (pixel)."""

WING_STEPS = 3
"""Radial functions of the wings."""

WING_SYMMETRIES = 2
"""Highest harmonic of their angle."""


ENVELOPE_WIDTH = 0.4
"""Width of the envelope of kernels over the core's radius."""

ENVELOPE_POWER = 1.5
"""Power with which the envelope fades."""


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """Functions of which a kernel consists: single pixels in the core, a few smooth functions in the wings.

    Attributes
    ----------
    core_dx, core_dy : ndarray of int64, shape (n_core,)
        Offsets of the core's pixels from the kernel's centre (pixel), ordered so that the image pixels
        ``(x - dx, y - dy)`` that they multiply come in the order of memory.
    wing_dx, wing_dy : ndarray of int64, shape (n_wing,)
        The same of the pixels around the core.
    wings : ndarray of float64, shape (n_wing, n_functions)
        Functions over the wing pixels.
    radius : int
        Radius of the core (pixel).
    half : int
        Half width of the square kernel image that holds everything (pixel).
    """

    core_dx: Int64
    core_dy: Int64
    wing_dx: Int64
    wing_dy: Int64
    wings: Float64
    radius: int
    half: int

    def __len__(self) -> int:
        return len(self.core_dx) + int(self.wings.shape[1])

    @property
    def totals(self) -> Float64:
        """Sum of each function over its pixels."""
        return np.concatenate([np.ones(len(self.core_dx)), self.wings.sum(axis=0)])

    @property
    def products(self) -> Float64:
        """Products of all pairs of functions, summed over the pixels."""
        out = np.eye(len(self))
        first = len(self.core_dx)
        out[first:, first:] = self.wings.T @ self.wings
        return out

    def image(self, values: Float64) -> Float64:
        """Kernel images of coefficients.

        Parameters
        ----------
        values : ndarray, shape (..., n)
            Coefficients, those of the core first.

        Returns
        -------
        ndarray, shape (..., size, size)
            Images, zero outside the support.
        """
        size = 2 * self.half + 1
        out = np.zeros((*values.shape[:-1], size, size))
        first = len(self.core_dx)
        out[..., self.core_dy + self.half, self.core_dx + self.half] = values[..., :first]
        out[..., self.wing_dy + self.half, self.wing_dx + self.half] = values[..., first:] @ self.wings.T
        return out


def core_radius(fwhm_sharp: float, fwhm_wide: float) -> int:
    """Return the radius of the core for a pair of seeings (FWHM, pixel): from 5 pixels to `LARGEST`."""
    wide = max(4.0 * matching_width(fwhm_sharp, fwhm_wide), 3.5 * max(fwhm_wide / FWHM_PER_SIGMA, MIN_WIDTH))
    return int(np.clip(np.ceil(wide), 5, LARGEST))


def make_support(radius: int, offset: tuple[int, int] = (0, 0), wings: bool = True) -> Support:
    """Core and wings of a kernel.

    The wings of PSFs fall as powers of the radius, and so do those of kernels: far out little of the kernel is left,
    but round a bright star it is seen. There a few functions do for the several hundred pixels: hats along the radius
    times low harmonics of the angle.

    Parameters
    ----------
    radius : int
        Radius of the core (pixel).
    offset : tuple of int, optional
        Its centre ``(x, y)``: the whole-pixel offset of the matched frame from the convolved one.
    wings : bool, optional
        False for the core alone.

    Returns
    -------
    Support
        About ``pi (radius + 0.5)^2`` pixels and 15 functions.
    """
    outer = min(int(np.ceil(WING_RATIO * radius)), FARTHEST_WING) if wings else radius
    axis = np.arange(outer, -outer - 1, -1)
    dy, dx = (plane.ravel().astype(np.int64) for plane in np.meshgrid(axis, axis, indexing="ij"))
    distance = np.hypot(dx, dy)
    inside, around = distance <= radius + 0.5, (distance > radius + 0.5) & (distance <= outer + 0.5)
    functions = _wing_functions(dx[around], dy[around], radius + 0.5, outer=outer + 1.0)
    half = outer + max(abs(offset[0]), abs(offset[1]))
    core, wing = ((dx[k] + offset[0], dy[k] + offset[1]) for k in (inside, around))
    return Support(*core, *wing, functions, radius, half)


def _wing_functions(dx: Int64, dy: Int64, inner: float, *, outer: float) -> Float64:
    """Hats along the radius, from knots in geometric progression, times harmonics of the angle."""
    if len(dx) == 0:
        return np.zeros((0, 0))
    knots = np.geomspace(inner, outer, WING_STEPS + 1)
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    # Each hat is 1 at its own knot and 0 at the others; the last knot, where all end, has none.
    hats = [np.interp(radius, knots, np.eye(WING_STEPS + 1)[k]) for k in range(WING_STEPS)]
    waves = [np.ones_like(angle)]
    for m in range(1, WING_SYMMETRIES + 1):
        waves += [np.cos(m * angle), np.sin(m * angle)]
    return np.stack([hat * wave for hat in hats for wave in waves], axis=1)


def roughness(support: Support) -> Float64:
    """Matrix of the sum of squared second derivatives of a kernel, the more weighty the farther out.

    Becker et al. 2012 (MNRAS 425, 1341, sec. 3.2) penalise second derivatives alike everywhere. But kernels fade
    outwards, and what noise puts there is smeared as rings round the bright stars; so derivatives are measured
    against an envelope ``(1 + (r / a)^2)^-p`` with ``a`` a part of the core's radius. The kernel counts as zero
    outside the support, so that the matrix is positive definite.

    Parameters
    ----------
    support : Support
        The kernel's functions.

    Returns
    -------
    ndarray of float64, shape (n, n)
        ``R`` with ``k^T R k = sum (laplace k / envelope)^2``.
    """
    images = np.pad(support.image(np.eye(len(support))), ((0, 0), (2, 2), (2, 2)))
    laplace = -4.0 * images
    for axis in (1, 2):
        laplace += np.roll(images, 1, axis) + np.roll(images, -1, axis)
    y, x = np.mgrid[-support.half - 2 : support.half + 3, -support.half - 2 : support.half + 3]
    squared = (x - support.core_dx.mean()) ** 2 + (y - support.core_dy.mean()) ** 2
    laplace *= (1.0 + squared / (ENVELOPE_WIDTH * support.radius) ** 2) ** ENVELOPE_POWER
    flat = laplace.reshape(len(support), -1)
    return np.asarray(flat @ flat.T)
