"""Delta-basis subtraction: every pixel of the kernel is free, and all sky that is lit by sources takes part in the fit.

The model of SFFT (Hu et al. 2022, ApJ 936, 157; Bramich 2008, MNRAS 386, L77; Miller et al. 2008, PASP 120, 449): a
kernel of single pixels that varies as a polynomial over the frame, with a flux scale of its own order, fitted to pixels
of the whole frame rather than to stamps of stars. Unlike SFFT the pixels are weighed by their variance, changed
sources are left out, the noise of the convolved frame is allowed for, and a penalty on second derivatives (Becker et
al. 2012, MNRAS 425, 1341) holds what the data leave open. See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

from nightsift.frames import Difference, Pair
from nightsift.images.stars import find_stars
from subtraction.delta.fit import DeltaFit, Limits, fit_delta_kernel
from subtraction.finish import finish
from subtraction.kernel.anchors import Anchors, choose_anchors
from subtraction.masks.union import grow_saturated
from subtraction.matched import subtract_matched, template_is_convolved
from subtraction.psf.fit import fit_psf
from subtraction.sky.noise import make_filters


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
    anchors = choose_anchors(pair, options.anchor_snr, options.max_anchors, options.min_anchors)
    science = pair.science.replace(mask=grow_saturated(pair.science, anchors.fwhm_science))
    template = pair.template.replace(mask=grow_saturated(pair.template, anchors.fwhm_template))
    psf = pair.science.psf or fit_psf(science, find_stars(science))
    template_convolved = template_is_convolved(anchors, options.convolve)
    target, reference = (science, template) if template_convolved else (template, science)
    radius = (options.kernel_order, options.flux_order, options.kernel_radius)
    limits = Limits(*radius, options.max_pixels, options.source_level)
    fit = fit_delta_kernel(target, reference, anchors, template_convolved, limits, options.threads)
    kernel = fit.kernel.field
    filters = make_filters(kernel, target, reference, psf, template_convolved, options.whiten)
    metrics = _figures(fit, anchors)
    freedom = fit.kernel.freedom
    raw = subtract_matched(science, target, reference, kernel, filters, anchors, freedom, metrics, options.threads)
    del science, template, target, reference  # their masks: what follows needs the memory
    return finish(raw, pair, "sfft", options.background_order, options.threads, psf)


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
