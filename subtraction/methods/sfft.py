"""Delta-basis subtraction: every pixel of the kernel is free, and all sky that is lit by sources takes part in the fit.

The model of SFFT (Hu et al. 2022, ApJ 936, 157; Bramich 2008, MNRAS 386, L77; Miller et al. 2008, PASP 120, 449): a
kernel of single pixels that varies as a polynomial over the frame, with a flux scale of its own order, fitted to pixels
of the whole frame rather than to stamps of stars. Unlike SFFT the pixels are weighed by their variance, changed
sources are left out in rounds, the noise of the convolved frame is allowed for, and a penalty on second derivatives
(Becker et al. 2012, MNRAS 425, 1341) holds what the data leave open. See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.configuration import check_values
from nightsift.core.errors import SubtractionFailed
from nightsift.core.frames import Difference, Frame, Pair
from nightsift.images.stars.stars import find_stars
from subtraction.delta_basis.basis import LARGEST, Support, core_radius, make_support
from subtraction.delta_basis.cell_equations import Planes, drop_changed, sum_cells
from subtraction.delta_basis.smooth_kernel import Choice, SmoothKernel, fit_smooth
from subtraction.delta_basis.source_pixels import (
    Clip,
    SourcePixels,
    cell_side,
    fill_holes,
    light_levels,
    list_pixels,
    usable_pixels,
)
from subtraction.finish import CONVOLVE, finish, subtract_matched, template_is_convolved
from subtraction.kernel.anchors import Anchors, choose_anchors
from subtraction.masks.growth import grow_saturated
from subtraction.noise.whitening import make_filters
from subtraction.psf.fit import fit_psf

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


def _fit_delta_kernel(
    target: Frame, reference: Frame, anchors: Anchors, *, template_convolved: bool, limits: Limits, threads: int = 0
) -> DeltaFit:
    """Fit a delta kernel that varies over the frame."""
    where = target.meta.path or target.meta.exposure_id
    shape = target.shape
    fwhms = (anchors.fwhm_template, anchors.fwhm_science)
    sharp, wide = fwhms if template_convolved else fwhms[::-1]
    planes = Planes(target.data, target.variance, fill_holes(reference, threads), reference.variance)
    offset, scale = _first_match(planes, anchors, int(np.ceil(1.2 * wide)))
    if not scale > 0:
        what = f"the stars of the two frames have the flux ratio {scale:.3g}"
        raise SubtractionFailed(where=where, method="penalised least squares", what=what)
    radius = min(limits.radius, LARGEST) or core_radius(sharp, wide)
    # In a cell that is hardly wider than they are, wings look like background.
    support = make_support(radius, offset, wings=cell_side(shape) >= WING_ROOM * radius)
    pixels = _choose_pixels(
        target,
        reference,
        planes,
        support=support,
        scale=scale,
        wide=wide,
        template_convolved=template_convolved,
        limits=limits,
        threads=threads,
    )
    most = (limits.order, limits.flux_order)
    start = np.zeros((len(pixels.first) - 1, len(support)))
    keep = _near_stars(pixels, anchors.x, anchors.y, half=int(np.ceil(1.5 * wide)))
    sums = sum_cells(planes, pixels, support, kernels=start, clip=None, keep=keep, threads=threads)
    kernel = fit_smooth(sums, support, shape, scale=scale, most=most, first=FIRST_CHOICE, where=where, threads=threads)
    del sums
    box = max(2, int(np.rint(0.8 * wide)))
    keep = np.ones(len(pixels.index), dtype=np.bool_)
    sums = sum_cells(
        planes, pixels, support, kernels=kernel.cells, clip=Clip(box, *FIRST_CLIP), keep=keep, threads=threads
    )
    kernel = fit_smooth(sums, support, shape, scale=scale, most=most, where=where, threads=threads)
    if drop_changed(
        planes, pixels, support, kernels=kernel.cells, clip=Clip(box, *LAST_CLIP), keep=keep, sums=sums, threads=threads
    ):
        kernel = fit_smooth(
            sums, support, shape, scale=scale, most=most, choice=kernel.choice, where=where, threads=threads
        )
    return DeltaFit(kernel, support, int(keep.sum()), 1.0 - float(keep.mean()))


def _choose_pixels(
    target: Frame,
    reference: Frame,
    planes: Planes,
    *,
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
    good = usable_pixels(target.mask, reference.mask, support.half, radius=support.radius, threads=threads)
    levels = light_levels(*levels_of, reach=int(np.ceil(wide)), threads=threads)
    return list_pixels(levels, good, limits.pixels, threshold=limits.level)


def _first_match(planes: Planes, anchors: Anchors, half: int) -> tuple[tuple[int, int], float]:
    """Whole-pixel offset and flux ratio between two frames, from windows around stars."""
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


def _near_stars(
    pixels: SourcePixels, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], *, half: int
) -> npt.NDArray[np.bool_]:
    """Tell the pixels in squares around stars."""
    marked = np.zeros(pixels.shape, dtype=np.bool_)
    for column, row in zip(np.rint(x).astype(np.int64), np.rint(y).astype(np.int64), strict=True):
        marked[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = True
    return np.asarray(marked.ravel()[pixels.index])


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the method."""

    kernel_order: int = 4
    """Highest order of the polynomial of the kernel's shape over the frame; the data choose among 0 to this."""
    flux_order: int = 3
    """Highest order of the polynomial of the flux scale over the frame; the data choose."""
    background_order: int = 2
    """Order of the polynomial of the differential background."""
    kernel_radius: int = 0
    """Radius of the kernel (pixel, at most 10); 0 to derive it from both seeings."""
    max_pixels: int = 4_000_000
    """Most pixels of the fit; the brightest regions are taken."""
    source_level: float = 1.0
    """Light of the template, in units of the noise of a pixel, round which pixels take part in the fit."""
    max_anchors: int = 600
    """Most stars of the first fit and of the test of the residuals."""
    min_anchors: int = 3
    """Fewest stars; with less the exposure is refused."""
    anchor_snr: float = 20.0
    """Lowest signal-to-noise ratio of these stars on either frame."""
    convolve: str = "auto"
    """Which frame to convolve: template, science, or auto for the sharper one."""
    whiten: bool = True
    """Whether the correlated noise that the convolution leaves is made white again."""
    threads: int = 0
    """Threads; 0 for all cores."""

    def __post_init__(self) -> None:
        check_values(
            self, kernel_order=(0, 6), flux_order=(0, 6), background_order=(0, 6), kernel_radius=(0, 10),
            max_pixels=(1000, 10**9), source_level=(0.0, 1e4), min_anchors=(1, self.max_anchors),
            max_anchors=(1, 100_000), anchor_snr=(1.0, 1e4), threads=(0, 1024), convolve=CONVOLVE,
        )  # fmt: skip


def subtract(pair: Pair, options: Options) -> Difference:
    """Subtract the template from the science frame.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid, both background-subtracted.
    options : Options
        Options of the method.

    Returns
    -------
    Difference
        The difference, as `subtraction.contract` promises.

    Raises
    ------
    TooFewStars
        If there are too few stars.
    SubtractionFailed
        If the fit of the kernel fails.
    """
    anchors = choose_anchors(pair, options.anchor_snr, options.max_anchors, minimum=options.min_anchors)
    science = pair.science.replace(mask=grow_saturated(pair.science, anchors.fwhm_science))
    template = pair.template.replace(mask=grow_saturated(pair.template, anchors.fwhm_template))
    psf = pair.science.psf or fit_psf(science, find_stars(science))
    template_convolved = template_is_convolved(anchors, options.convolve)
    target, reference = (science, template) if template_convolved else (template, science)
    radius = (options.kernel_order, options.flux_order, options.kernel_radius)
    limits = Limits(*radius, options.max_pixels, options.source_level)
    fit = _fit_delta_kernel(
        target, reference, anchors, template_convolved=template_convolved, limits=limits, threads=options.threads
    )
    kernel = fit.kernel.field
    filters = make_filters(
        kernel, target, reference, psf=psf, science_is_target=template_convolved, whiten=options.whiten
    )
    metrics = _figures(fit, anchors)
    freedom = fit.kernel.freedom
    raw = subtract_matched(
        science,
        target,
        reference,
        kernel=kernel,
        filters=filters,
        anchors=anchors,
        freedom=freedom,
        metrics=metrics,
        threads=options.threads,
    )
    del science, template, target, reference  # their masks: what follows needs the memory
    return finish(raw, pair, "sfft", background_order=options.background_order, threads=options.threads, psf=psf)


def _figures(fit: DeltaFit, anchors: Anchors) -> dict[str, float]:
    """Figures of merit of the fit."""
    choice = fit.kernel.choice
    return {
        "anchors_used": float(len(anchors)),
        "kernel_order": float(choice.order),
        "flux_order": float(choice.flux_order),
        "kernel_modes": float(fit.kernel.modes),
        "kernel_penalty": choice.strength,
        "variation_penalty": choice.variation,
        "fit_pixels": float(fit.n_pixels),
        "fit_changed_fraction": fit.changed,
        "overfit": fit.kernel.freedom,
    }
