"""Proper image subtraction: each frame is filtered by the other's PSF, so that the noise of the difference is white.

Zackay, Ofek and Gal-Yam 2016 (ApJ 830, 27) with PSFs that vary over the frame, as filters on the pixels instead of
transforms of the frame, and with what the PSF models leave at stars fitted away. See docs/algorithms.md, section 13.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.configuration import check_values
from nightsift.core.errors import SubtractionFailed
from nightsift.core.flags import HARD
from nightsift.core.frames import Difference, Frame, Pair, StarTable
from nightsift.core.parallel import thread_count
from nightsift.core.psf import Psf
from nightsift.images.stars.stars import find_stars
from subtraction.fields import sample_grid
from subtraction.finish import UnfinishedDifference, finish
from subtraction.kernel.anchors import Anchors, choose_anchors
from subtraction.kernel.basis import FWHM_PER_SIGMA
from subtraction.masks.growth import grow_by_kernel, grow_saturated
from subtraction.psf.fit import fit_psf
from subtraction.quality.residuals import flux_scale_metrics
from subtraction.zogy.correction import Correction, fit_correction
from subtraction.zogy.filters import (
    CrossFilters,
    column_noise,
    correct,
    correction_basis,
    cut_cross_stamps,
    make_cross_filters,
    variance_kernel,
)
from subtraction.zogy.sweep import cross_difference

Float64 = npt.NDArray[np.float64]

Given = TypeVar("Given")
Made = TypeVar("Made")

SMOOTHING = 0.5
"""Width of the Gaussian that smooths the stamps of the fit, in units of that of the stars on them."""

BRIGHT = 10.0
"""Signal-to-noise ratio from which stars are looked for first; fainter ones only where these are not `PLENTY`."""

PLENTY = 2000
"""Stars that carry a PSF and its variation, whatever is left of them after the choice of clean ones."""

PSF_REACH = 4.5
"""Half width of the PSFs that are fitted here, in units of the wider seeing."""


def flux_ratio(science: Frame, template: Frame, psfs: tuple[Psf, Psf], *, x: Float64, y: Float64) -> float:
    """Median ratio of the PSF fluxes of stars, science over template.

    Parameters
    ----------
    science, template : Frame
        Both frames.
    psfs : tuple of Psf
        Their PSFs.
    x, y : ndarray of float64, shape (n,)
        Positions of stars (pixel).

    Returns
    -------
    float
        The ratio.

    Raises
    ------
    SubtractionFailed
        If no star has a positive flux on both frames.
    """
    fluxes = [_psf_flux(frame, psf, x, y=y) for frame, psf in zip((science, template), psfs, strict=True)]
    good = np.isfinite(fluxes[0]) & np.isfinite(fluxes[1]) & (fluxes[0] > 0) & (fluxes[1] > 0)
    if not bool(good.any()):
        where = science.meta.path or science.meta.exposure_id
        raise SubtractionFailed(
            where=where, method="flux ratio", what=f"none of {len(x)} anchors shines on both frames"
        )
    return float(np.median(fluxes[0][good] / fluxes[1][good]))


def _psf_flux(frame: Frame, psf: Psf, x: Float64, *, y: Float64) -> Float64:
    """Least-squares fluxes with the PSF on each star's nearest pixel; NaN at edges and where little is left."""
    half = min(psf.size // 2, max(2, int(np.ceil(psf.fwhm))))
    middle = psf.size // 2
    part = slice(middle - half, middle + half + 1)
    flux = np.full(len(x), np.nan)
    for s, (a, b) in enumerate(zip(x, y, strict=True)):
        row, column = int(np.rint(b)), int(np.rint(a))
        if row < half or column < half or row + half >= frame.shape[0] or column + half >= frame.shape[1]:
            continue
        window = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
        image = psf.at(float(a), float(b))[part, part].astype(np.float64)
        image[(frame.mask[window] & HARD) != 0] = 0.0
        power = float((image**2).sum())
        if power > 0:
            flux[s] = float((image * np.where(image > 0, frame.data[window], 0.0)).sum()) / power
    return flux


def _sky_levels(science: Frame, template: Frame, box: int) -> Callable[[float, float], tuple[float, float]]:
    """Median variances of both frames around positions."""

    def whole(frame: Frame) -> float:
        step = max(1, max(frame.shape) // 500)
        values = frame.variance[::step, ::step][(frame.mask[::step, ::step] & HARD) == 0]
        return float(np.median(values)) if len(values) else 1.0

    usual = (whole(science), whole(template))

    def around(x: float, y: float) -> tuple[float, float]:
        step = max(1, box // 50)
        window = tuple(slice(max(0, int(c) - box), int(c) + box, step) for c in (y, x))
        good = ((science.mask[window] | template.mask[window]) & HARD) == 0
        if int(good.sum()) < 50:
            return usual
        return float(np.median(science.variance[window][good])), float(np.median(template.variance[window][good]))

    return around


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the method."""

    psf_order: int = -1
    """Order of the polynomial of the PSFs that are fitted here; -1 to derive it from the number of stars."""
    correction_order: int = 3
    """Order of the polynomial of the correction to the template's filter (0 to 4); lowered where anchors are few."""
    flux_order: int = 1
    """Order of the polynomial of the flux ratio over the frame."""
    background_order: int = 2
    """Order of the polynomial of the differential background."""
    max_anchors: int = 600
    """Most anchor stars."""
    min_anchors: int = 3
    """Fewest anchor stars; with less the exposure is refused."""
    anchor_snr: float = 20.0
    """Lowest signal-to-noise ratio of an anchor on either frame."""
    clip: float = 4.0
    """Anchors whose chi-square stands out by more than this many robust sigma are left out."""
    threads: int = 0
    """Threads; 0 for all cores."""

    def __post_init__(self) -> None:
        check_values(
            self, psf_order=(-1, 5), correction_order=(0, 4), flux_order=(0, 6), background_order=(0, 6),
            clip=(1.0, 100.0), min_anchors=(1, self.max_anchors), max_anchors=(1, 100_000), anchor_snr=(1.0, 1e4),
            threads=(0, 1024),
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
        If there are too few stars for a PSF or too few anchors.
    SubtractionFailed
        If the flux ratio cannot be measured or the fit of the correction fails.
    """
    stars = _both(_stars, (pair.science, pair.template), options.threads)
    anchors = choose_anchors(pair, options.anchor_snr, options.max_anchors, minimum=options.min_anchors, stars=stars[1])
    science = _prepared(pair.science, anchors.fwhm_science, options.threads)
    template = _prepared(pair.template, anchors.fwhm_template, options.threads)
    widest = max(anchors.fwhm_science, anchors.fwhm_template)
    psfs = _both(
        lambda given: _psf(given[0], given[1], widest, options=options),
        ((science, stars[0]), (template, stars[1])),
        options.threads,
    )
    ratio = flux_ratio(science, template, psfs, x=anchors.x, y=anchors.y)
    order = max(psfs[0].order, psfs[1].order)
    levels = _sky_levels(science, template, max(pair.science.shape) // (order + 2) // 2 + 32)
    with threadpool_limits(limits=1, user_api="blas"):
        filters = make_cross_filters(*psfs, ratio, levels=levels, order=order)
        fit = _fit_correction(science, template, filters, anchors=anchors, options=options)
        filters = correct(filters, fit.kernel, psfs[0], levels=levels)
    raw = _apply(science, template, filters, fit=fit, anchors=anchors, threads=options.threads)
    del science, template  # their masks: what follows needs the memory
    return finish(raw, pair, "zogy", background_order=options.background_order, threads=options.threads, psf=psfs[0])


def _prepared(frame: Frame, fwhm: float, threads: int) -> Frame:
    """The frame with its saturated stars masked out to where their light does no harm."""
    return frame.replace(mask=grow_saturated(frame, fwhm, threads=threads))


def _both(make: Callable[[Given], Made], given: tuple[Given, Given], threads: int) -> tuple[Made, Made]:
    """The same for both frames, at the same time where there are threads for it."""
    if thread_count(threads) == 1:
        return make(given[0]), make(given[1])
    # The limit is that of the whole process, so it has to hold for both.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(make, given)
    return first, second


def _stars(frame: Frame) -> StarTable | None:
    """Stars of a frame whose PSF has to be fitted here."""
    if frame.psf is not None:
        return None
    stars = find_stars(frame, BRIGHT, minimum=1)
    return stars if len(stars) >= PLENTY else find_stars(frame, minimum=1)


def _psf(frame: Frame, stars: StarTable | None, fwhm: float, *, options: Options) -> Psf:
    """The PSF of a frame, fitted where it has none: wide enough for its wings to fade out without an edge."""
    if frame.psf is not None:
        return frame.psf
    half = int(np.ceil(PSF_REACH * fwhm))
    known = find_stars(frame) if stars is None else stars
    return fit_psf(frame, known, 2 * half + 1, order=options.psf_order, threads=options.threads)


def _fit_correction(
    science: Frame, template: Frame, filters: CrossFilters, *, anchors: Anchors, options: Options
) -> Correction:
    """Fit to the anchors what the filters leave of them: errors of both PSFs, shifts, the flux ratio and its slope."""
    basis = correction_basis(filters.psf.fwhm)
    half = int(np.ceil(max(2.0 * max(anchors.fwhm_science, anchors.fwhm_template), 6)))
    smoothing = SMOOTHING * filters.psf.fwhm / FWHM_PER_SIGMA
    stamps = cut_cross_stamps(
        science,
        template,
        filters,
        x=anchors.x,
        y=anchors.y,
        basis=basis,
        half=half,
        smoothing=smoothing,
        threads=options.threads,
    )
    return fit_correction(
        stamps,
        basis,
        column_noise(filters.template, basis, smoothing),
        shape=science.shape,
        order=options.correction_order,
        flux_order=options.flux_order,
        clip=options.clip,
        minimum=options.min_anchors,
        where=science.meta.path or science.meta.exposure_id,
    )


def _apply(
    science: Frame, template: Frame, filters: CrossFilters, *, fit: Correction, anchors: Anchors, threads: int
) -> UnfinishedDifference:
    """Subtract, and propagate variance and mask."""
    grown = tuple(
        grow_by_kernel(frame.mask, field, threads=threads)
        for frame, field in ((science, filters.science), (template, filters.template))
    )
    with threadpool_limits(limits=1, user_api="blas"):
        squares = variance_kernel(filters.science), variance_kernel(filters.template)
    data, variance, model, hidden = cross_difference(
        (science, template), (filters.science, filters.template), squares, grown=(grown[0], grown[1]), threads=threads
    )
    used = int(fit.used.sum())
    centre = float(filters.template.total(*(np.array([(n - 1) / 2]) for n in science.shape[::-1]))[0])
    metrics = {
        "anchors_used": float(used),
        "anchors_clipped_fraction": 1.0 - used / len(anchors),
        "fwhm_science": anchors.fwhm_science,
        "fwhm_template": anchors.fwhm_template,
        "kernel_order": float(fit.order),
        **flux_scale_metrics(filters.template, anchors.x, anchors.y),
    }
    return UnfinishedDifference(
        data=data,
        variance=variance,
        model=model,
        mask=grown[0],
        hidden=hidden,
        psf=filters.psf,
        convolved="both",
        kernel_sum=centre,
        x=anchors.x,
        y=anchors.y,
        freedom=_freedom(used, fit),
        metrics=metrics,
        kernel_map=sample_grid(filters.template),
    )


def _freedom(used: int, fit: Correction) -> float:
    """What the fit has taken out of the squared residuals of its own stars, made up for."""
    parameters = fit.kernel.terms.shape[0]
    return float(used / max(used - parameters, 0.3 * used))
