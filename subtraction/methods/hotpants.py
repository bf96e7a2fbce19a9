"""Alard-Lupton subtraction: the sharper frame is convolved with a spatially varying kernel to match the other.

Alard and Lupton 1998 (ApJ 503, 325), Alard 2000 (A&AS 144, 363), with noise whitening after Reiss and Lupton
(DMTN-021). See docs/algorithms.md, sections 1 to 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.core.configuration import check_values
from nightsift.core.frames import Difference, Frame, Pair
from nightsift.images.stars.stars import find_stars
from subtraction.finish import CONVOLVE, finish, subtract_matched, template_is_convolved
from subtraction.kernel.anchor_stamps import cut_stamps
from subtraction.kernel.anchors import Anchors, choose_anchors
from subtraction.kernel.basis import WINGED, gauss_hermite, wing_half
from subtraction.kernel.solve import KernelFit, fit_kernel
from subtraction.masks.growth import grow_saturated
from subtraction.noise.whitening import make_filters
from subtraction.psf.fit import fit_psf


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the method."""

    kernel_order: int = 4
    """Highest order of the polynomial of the kernel's shape over the frame; the data choose how much of it is used."""
    flux_order: int = 3
    """Highest order of the polynomial of the flux scale over the frame, chosen alike."""
    background_order: int = 2
    """Order of the polynomial of the differential background."""
    kernel_half: int = 0
    """Half width of the kernel (pixel); 0 to derive it from both seeings."""
    max_anchors: int = 800
    """Most anchor stars."""
    min_anchors: int = 3
    """Fewest anchor stars; with less the exposure is refused."""
    anchor_snr: float = 20.0
    """Lowest signal-to-noise ratio of an anchor on either frame."""
    clip: float = 4.0
    """Anchors whose chi-square stands out by more than this many robust sigma are left out."""
    convolve: str = "auto"
    """Which frame to convolve: template, science, or auto for the sharper one."""
    whiten: bool = True
    """Whether the correlated noise that the convolution leaves is made white again."""
    threads: int = 0
    """Threads; 0 for all cores."""

    def __post_init__(self) -> None:
        check_values(
            self, kernel_order=(0, 6), flux_order=(0, 6), background_order=(0, 6), kernel_half=(0, 50),
            min_anchors=(1, self.max_anchors), max_anchors=(1, 100_000), anchor_snr=(1.0, 1e4), clip=(1.0, 100.0),
            threads=(0, 1024), convolve=CONVOLVE,
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
        If there are too few anchor stars.
    SubtractionFailed
        If the fit of the kernel fails.
    """
    anchors = choose_anchors(pair, options.anchor_snr, options.max_anchors, minimum=options.min_anchors)
    science = _prepared(pair.science, anchors.fwhm_science)
    template = _prepared(pair.template, anchors.fwhm_template)
    psf = pair.science.psf or fit_psf(science, find_stars(science))
    template_convolved = template_is_convolved(anchors, options.convolve)
    target, reference = (science, template) if template_convolved else (template, science)
    fit = _fit(target, reference, anchors, template_convolved=template_convolved, options=options)
    filters = make_filters(
        fit.kernel, target, reference, psf=psf, science_is_target=template_convolved, whiten=options.whiten
    )
    kernel, freedom, metrics = fit.kernel, _freedom(fit), _figures(fit, anchors)
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
    return finish(raw, pair, "hotpants", background_order=options.background_order, threads=options.threads, psf=psf)


def _prepared(frame: Frame, fwhm: float) -> Frame:
    """The frame with its saturated stars masked out to where their light does no harm."""
    return frame.replace(mask=grow_saturated(frame, fwhm))


def _fit(target: Frame, reference: Frame, anchors: Anchors, *, template_convolved: bool, options: Options) -> KernelFit:
    """Fit the kernel to the anchors."""
    seeings = (anchors.fwhm_template, anchors.fwhm_science)
    sharp, wide = seeings if template_convolved else seeings[::-1]
    basis = gauss_hermite(sharp, wide, options.kernel_half or wing_half(wide), degrees=WINGED)
    half = int(np.ceil(max(2.5 * wide, 6)))
    stamps = cut_stamps(reference, target, anchors.x, y=anchors.y, basis=basis, half=half, threads=options.threads)
    where = target.meta.path or target.meta.exposure_id
    return fit_kernel(
        stamps,
        basis,
        target.shape,
        order=options.kernel_order,
        flux_order=options.flux_order,
        clip=options.clip,
        minimum=options.min_anchors,
        where=where,
        threads=options.threads,
    )


def _figures(fit: KernelFit, anchors: Anchors) -> dict[str, float]:
    """Figures of merit of the fit."""
    used = int(fit.used.sum())
    return {
        "anchors_used": float(used),
        "anchors_clipped_fraction": 1.0 - used / len(anchors),
        "kernel_order": float(fit.order),
        "kernel_parameters": fit.parameters,
        "cross_validated": fit.cross_validated,
    }


def _freedom(fit: KernelFit) -> float:
    """What the fit has taken out of the squared residuals of its own stars, made up for."""
    used = int(fit.used.sum())
    return float(used / max(used - fit.parameters, 0.3 * used))
