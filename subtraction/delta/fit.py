"""Fit of a delta kernel to all source pixels of a pair, in rounds that leave out what changed.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.errors import SubtractionFailed
from nightsift.frames import Frame
from subtraction.delta.basis import LARGEST, Support, core_radius, make_support
from subtraction.delta.cell_equations import Planes, drop_changed, sum_cells
from subtraction.delta.changed_pixels import Clip
from subtraction.delta.smooth_kernel import Choice, SmoothKernel, fit_smooth
from subtraction.delta.source_pixels import (
    SourcePixels,
    cell_side,
    fill_holes,
    light_levels,
    list_pixels,
    usable_pixels,
)
from subtraction.kernel.anchors import Anchors

FIRST_CLIP = (0.15, 0.15)
"""Changes of flux and of shape that are clipped against the first kernel, which is made of few stars."""

LAST_CLIP = (0.04, 0.04)
"""The same against the kernel of all source pixels."""

WING_ROOM = 8
"""Least side of a cell, over the radius of the kernel's core, for a kernel with wings."""

FARTHEST = 4
"""Largest offset between the frames that is looked for (pixel)."""

FIRST_CHOICE = Choice(order=2, flux_order=1, strength=0.0, variation=10.0)
"""Orders of the first kernel, lowered where stars are few."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a fit.

    Attributes
    ----------
    order, flux_order : int
        Highest orders of the polynomials of shape and flux over the frame.
    radius : int
        Radius of the kernel (pixel), 0 to derive it.
    pixels : int
        Most pixels.
    level : float
        Least light of the template, in units of the noise of a pixel.
    """

    order: int = 4
    flux_order: int = 3
    radius: int = 0
    pixels: int = 4_000_000
    level: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class DeltaFit:
    """A kernel and what it was fitted to.

    Attributes
    ----------
    kernel : SmoothKernel
        The kernel.
    support : Support
        Its pixels.
    n_pixels : int
        Pixels of the frame that took part.
    changed : float
        Part of the pixels that was left out because they changed.
    """

    kernel: SmoothKernel
    support: Support
    n_pixels: int
    changed: float


def fit_delta_kernel(
    target: Frame, reference: Frame, anchors: Anchors, template_convolved: bool, limits: Limits, threads: int = 0
) -> DeltaFit:
    """Fit a delta kernel that varies over the frame.

    Parameters
    ----------
    target, reference : Frame
        The frame that is matched and the frame that is convolved.
    anchors : Anchors
        Steady stars, which give the first kernel.
    template_convolved : bool
        Whether the reference is the template.
    limits : Limits
        Bounds of the fit.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    DeltaFit
        The fit.

    Raises
    ------
    SubtractionFailed
        If no kernel with a positive sum fits.
    """
    where = target.meta.path or target.meta.exposure_id
    shape = target.shape
    fwhms = (anchors.fwhm_template, anchors.fwhm_science)
    sharp, wide = fwhms if template_convolved else fwhms[::-1]
    planes = Planes(target.data, target.variance, fill_holes(reference, threads), reference.variance)
    offset, scale = first_match(planes, anchors, int(np.ceil(1.2 * wide)))
    if not scale > 0:
        what = f"the stars of the two frames have the flux ratio {scale:.3g}"
        raise SubtractionFailed(where=where, method="penalised least squares", what=what)
    radius = min(limits.radius, LARGEST) or core_radius(sharp, wide)
    # In a cell that is hardly wider than they are, wings cannot be told from the background.
    support = make_support(radius, offset, wings=cell_side(shape) >= WING_ROOM * radius)
    pixels = _choose_pixels(target, reference, planes, support, scale, wide, template_convolved, limits, threads)
    most = (limits.order, limits.flux_order)
    start = np.zeros((len(pixels.first) - 1, len(support)))
    keep = near_stars(pixels, anchors.x, anchors.y, int(np.ceil(1.5 * wide)))
    sums = sum_cells(planes, pixels, support, start, None, keep, threads)
    kernel = fit_smooth(sums, support, shape, scale, most, first=FIRST_CHOICE, where=where, threads=threads)
    del sums
    box = max(2, int(np.rint(0.8 * wide)))
    keep = np.ones(len(pixels.index), dtype=np.bool_)
    sums = sum_cells(planes, pixels, support, kernel.cells, Clip(box, *FIRST_CLIP), keep, threads)
    kernel = fit_smooth(sums, support, shape, scale, most, where=where, threads=threads)
    if drop_changed(planes, pixels, support, kernel.cells, Clip(box, *LAST_CLIP), keep, sums, threads):
        kernel = fit_smooth(sums, support, shape, scale, most, kernel.choice, where=where, threads=threads)
    return DeltaFit(kernel, support, int(keep.sum()), 1.0 - float(keep.mean()))


def _choose_pixels(
    target: Frame,
    reference: Frame,
    planes: Planes,
    support: Support,
    scale: float,
    wide: float,
    template_convolved: bool,
    limits: Limits,
    threads: int,
) -> SourcePixels:
    """Pixels lit by the template, whichever frame is convolved: a transient of the science frame chooses none."""
    if template_convolved:
        levels_of = (planes.reference, (target.variance, reference.variance), scale)
    else:
        levels_of = (target.data, (reference.variance, target.variance), 1.0 / scale)
    good = usable_pixels(target.mask, reference.mask, support.half, support.radius, threads)
    levels = light_levels(*levels_of, int(np.ceil(wide)), threads)
    return list_pixels(levels, good, limits.pixels, limits.level)


def first_match(planes: Planes, anchors: Anchors, half: int) -> tuple[tuple[int, int], float]:
    """Whole-pixel offset and flux ratio between two frames, from windows around stars.

    Parameters
    ----------
    planes : Planes
        The pair.
    anchors : Anchors
        The stars.
    half : int
        Half width of the windows (pixel).

    Returns
    -------
    offset : tuple of int
        ``(x, y)`` by which stars on the target lie farther than on the reference.
    ratio : float
        Median flux of target over reference.
    """
    ny, nx = planes.target.shape
    dy, dx = (plane.ravel() for plane in np.mgrid[-half : half + 1, -half : half + 1])
    rows, columns = np.rint(anchors.y).astype(np.int64)[:, None], np.rint(anchors.x).astype(np.int64)[:, None]

    def windows(image: npt.NDArray[np.float32], x: int, y: int) -> npt.NDArray[np.float32]:
        cut = image[np.clip(rows + dy + y, 0, ny - 1), np.clip(columns + dx + x, 0, nx - 1)]
        return np.where(np.isfinite(cut), cut, np.float32(0))

    fixed = windows(planes.reference, 0, 0)
    weight = 1.0 / np.maximum((fixed * fixed).sum(axis=1), np.float32(1e-30))
    best, offset = -np.inf, (0, 0)
    for y in range(-FARTHEST, FARTHEST + 1):
        for x in range(-FARTHEST, FARTHEST + 1):
            moved = windows(planes.target, x, y)
            likeness = float(np.median((moved * fixed).sum(axis=1) * weight))
            if likeness > best:
                best, offset = likeness, (x, y)
    light = windows(planes.target, *offset).sum(axis=1) / np.maximum(fixed.sum(axis=1), np.float32(1e-30))
    return offset, float(np.median(light))


def near_stars(
    pixels: SourcePixels, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], half: int
) -> npt.NDArray[np.bool_]:
    """Tell the pixels in squares around stars.

    Parameters
    ----------
    pixels : SourcePixels
        Pixels of the fit.
    x, y : ndarray, shape (n,)
        Positions of the stars (pixel).
    half : int
        Half width of the squares (pixel).

    Returns
    -------
    ndarray of bool, shape (n_pixels,)
        True near a star.
    """
    marked = np.zeros(pixels.shape, dtype=np.bool_)
    for column, row in zip(np.rint(x).astype(np.int64), np.rint(y).astype(np.int64), strict=True):
        marked[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = True
    return np.asarray(marked.ravel()[pixels.index])
