"""From a matched frame to a Difference: subtraction, background, variance, score, figures of merit.

`finish` is common to all methods, `subtract_matched` to those that convolve a frame with a kernel to match the other.
See docs/algorithms.md, sections 5 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD
from nightsift.core.frames import Difference, FloatImage, Frame, MaskImage, Pair
from nightsift.core.psf import Psf
from nightsift.core.robust import mad_sigma
from subtraction.convolution.convolve import matched_filter
from subtraction.convolution.sweep import difference
from subtraction.fields import ImageField, sample_grid
from subtraction.kernel.anchors import Anchors
from subtraction.masks.growth import grow_by_kernel, unite
from subtraction.masks.wings import subtract_halos, subtract_wings
from subtraction.noise.background import fit_background, is_sky, sky_blocks, subtract_polynomial
from subtraction.noise.pixels import give_variance, sample_score, settle
from subtraction.noise.whitening import Filters, sky_statistics
from subtraction.quality.residuals import (
    add_model_error,
    fit_model_error,
    flux_scale_error,
    flux_scale_metrics,
    star_sums,
)
from subtraction.quality.star_faults import fit_star_faults
from subtraction.quality.verdict import depth_metrics, judge, peak_metrics, star_metrics

Float64 = npt.NDArray[np.float64]

SCALE_RANGE = (0.5, 3.0)
"""Bounds of the factor on the noise that is measured on the sky; beyond them something else is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class UnfinishedDifference:
    """A difference before its background, noise and score are settled.

    Attributes
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Difference on the science frame's flux scale, with white noise, and its variance; changed by `finish`.
    model : ndarray of float32, shape (ny, nx)
        Matched template on the same scale.
    mask : ndarray of uint16, shape (ny, nx)
        Mask grown by the kernels.
    hidden : ndarray of bool, shape (ny, nx)
        Masked pixels whose data stay, so that extraction can still see what lies under a mask.
    psf : Psf
        PSF of a transient in `data`.
    convolved : str
        Which frame was convolved.
    kernel_sum : float
        Flux scale from template to science at the centre.
    x, y : ndarray of float64, shape (n,)
        Stars on which the residuals are tested (pixel).
    freedom : float
        Factor on squared residuals there for the freedom of the fit.
    metrics : dict
        Figures of merit known so far.
    kernel_map : ndarray of float32, shape (g, g, size, size), or None
        Kernel on a grid of positions, for people to look at.
    """

    data: FloatImage
    variance: FloatImage
    model: FloatImage
    mask: MaskImage
    hidden: npt.NDArray[np.bool_]
    psf: Psf
    convolved: str
    kernel_sum: float
    x: Float64
    y: Float64
    freedom: float
    metrics: dict[str, float]
    kernel_map: FloatImage | None = None


def finish(
    raw: UnfinishedDifference,
    pair: Pair,
    method: str,
    *,
    background_order: int = 2,
    threads: int = 0,
    psf: Psf | None = None,
) -> Difference:
    """Settle background, noise and score of a raw difference, and judge it.

    Parameters
    ----------
    raw : UnfinishedDifference
        The raw difference; its arrays are changed and become those of the result.
    pair : Pair
        What was subtracted.
    method : str
        Name of the method.
    background_order : int, optional
        Order of the polynomial of the differential background.
    threads : int, optional
        Number of threads, 0 for all cores.
    psf : Psf, optional
        PSF of the science frame, to measure the loss of depth; that of `pair` by default.

    Returns
    -------
    Difference
        The finished difference.
    """
    data, variance, model, mask = raw.data, raw.variance, raw.model, raw.mask
    give_variance(variance, mask, threads)
    blocks = sky_blocks(data, variance, model, mask, threads=threads)
    coefficients, order = fit_background(blocks, pair.science.shape, background_order)
    subtract_polynomial(data, coefficients, order, threads=threads)
    saturated = pair.science.mask | pair.template.mask
    subtract_wings(data, variance, model, mask=mask, saturated=saturated, x=raw.x, y=raw.y, fwhm=raw.psf.fwhm)
    subtract_halos(data, variance, mask, saturated=saturated, fwhm=raw.psf.fwhm)
    sums = star_sums(data, variance, model, mask=mask, psf=raw.psf, x=raw.x, y=raw.y)
    faults = fit_star_faults(data, variance, model, mask=mask, psf=raw.psf, x=raw.x, y=raw.y)
    error = fit_model_error(sums[:, :4], faults, raw.psf, freedom=raw.freedom)
    add_model_error(variance, model, error, threads=threads)
    field = ImageField(raw.psf.terms, raw.psf.order, raw.psf.shape)
    score = matched_filter(data, variance, mask, psf=_core(field, raw.psf.fwhm), bad=HARD, threads=threads)
    sample = sample_score(score, variance, model, mask=mask, reach=2.0 * raw.psf.fwhm, threads=threads)
    pull, scale = _noise_scale(sample)
    usable = settle(data, variance, score, mask=mask, hidden=raw.hidden, scale=scale, threads=threads)
    seeing = psf or pair.science.psf
    depth = (
        depth_metrics(raw.psf, variance, seeing, science_variance=pair.science.variance, mask=mask, scale=scale)
        if seeing
        else {}
    )
    metrics = {
        **raw.metrics,
        **star_metrics(sums, faults, error, psf=raw.psf),
        "flux_scale_error": flux_scale_error(raw.x, raw.y, faults, shape=mask.shape),
        **peak_metrics(score, mask, model, variance=variance, psf=raw.psf, threads=threads),
        **depth,
        "noise_scale": scale,
        "sky_pull": abs(pull),
        "background_residual": _unevenness(data, variance, model, mask=mask, threads=threads),
        "usable_fraction": usable,
        "coverage": pair.coverage,
    }
    verdict, reasons = judge(metrics)
    return Difference(
        data=data,
        variance=variance,
        mask=mask,
        score=score,
        psf=raw.psf,
        method=method,
        convolved=raw.convolved,
        kernel_sum=raw.kernel_sum,
        metrics=metrics,
        verdict=verdict,
        reasons=reasons,
        anchors=np.column_stack((raw.x, raw.y)),
        kernel_map=raw.kernel_map,
    )


def _core(field: ImageField, fwhm: float) -> ImageField:
    """The part of a PSF that carries a matched filter's signal: twice the seeing across, and a little more."""
    half = min(field.half, max(2, int(np.ceil(1.5 * fwhm))))
    middle = field.half
    cut = field.terms[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
    return ImageField(np.ascontiguousarray(cut), field.order, field.shape)


def _noise_scale(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Median of the score on source-free sky in units of its spread, and that spread: the factor on the noise."""
    pull, sigma = sky_statistics(values, np.ones(values.shape, dtype=np.bool_))
    if not sigma > 0:
        return float("nan"), 1.0
    scale = float(min(max(sigma, SCALE_RANGE[0]), SCALE_RANGE[1]))
    return pull / scale, scale


def _unevenness(data: FloatImage, variance: FloatImage, model: FloatImage, *, mask: MaskImage, threads: int) -> float:
    """Robust scatter of the background over blocks beyond its noise, in sigma of a pixel."""
    _, _, median, error = sky_blocks(data, variance, model, mask, blocks=12, threads=threads)
    if len(median) < 4:
        return float("nan")
    step = max(8, int(np.sqrt(data.size / 100_000)))
    part = (slice(None, None, step), slice(None, None, step))
    sky = is_sky(model[part], variance[part], mask[part])
    sigma = float(np.sqrt(np.median(variance[part][sky]))) if bool(sky.any()) else 1.0
    excess = max((mad_sigma(median, 0.0)) ** 2 - float(np.median(error)) ** 2, 0.0)
    return float(np.sqrt(excess)) / sigma


CONVOLVE = ("auto", "template", "science")
"""Which frame may be convolved to match the other."""


def template_is_convolved(anchors: Anchors, wanted: str) -> bool:
    """Whether to convolve the template: as `wanted` ("template", "science"), or with "auto" the sharper frame.

    The template is preferred where both are alike.
    """
    if wanted != "auto":
        return wanted == "template"
    return anchors.fwhm_template <= 1.03 * anchors.fwhm_science


def subtract_matched(
    science: Frame,
    target: Frame,
    reference: Frame,
    *,
    kernel: ImageField,
    filters: Filters,
    anchors: Anchors,
    freedom: float,
    metrics: dict[str, float],
    threads: int = 0,
) -> UnfinishedDifference:
    """Subtract, whiten, and propagate variance and mask.

    Parameters
    ----------
    science : Frame
        The science frame, the same object as `target` or `reference`.
    target, reference : Frame
        The frame that is matched and the frame that is convolved.
    kernel : ImageField
        Kernel that matches them.
    filters : Filters
        What `subtraction.noise.whitening.make_filters` gives for it.
    anchors : Anchors
        Stars on which the residuals are tested.
    freedom : float
        Factor on squared residuals there for the freedom of the fit.
    metrics : dict of str to float
        Figures of merit of the fit; those of the seeings and of the kernel are added.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    UnfinishedDifference
        What `subtraction.finish.finish` takes.
    """
    template_convolved = target is science
    mask = grow_by_kernel(reference.mask, kernel, threads=threads)
    hidden = unite(target.mask, mask, template_convolved, threads=threads)
    # The filter is a spike with a shallow ring, so that a missing neighbour changes little.
    final = grow_by_kernel(mask, filters.whitening, tail=0.1, threads=threads) if filters.whitening.half else mask
    centre = float(kernel.total(*(np.array([(n - 1) / 2]) for n in science.shape[::-1]))[0])
    scale = 0.0 if template_convolved else 1.0 / centre
    data, variance, model = difference(
        target,
        reference,
        kernel,
        filters=filters,
        spoilt=mask,
        final=final,
        hidden=hidden,
        scale=scale,
        threads=threads,
    )
    seeings = {"fwhm_science": anchors.fwhm_science, "fwhm_template": anchors.fwhm_template}
    return UnfinishedDifference(
        data=data,
        variance=variance,
        model=model,
        mask=final,
        hidden=hidden,
        psf=filters.psf,
        convolved="template" if template_convolved else "science",
        kernel_sum=centre if template_convolved else 1.0 / centre,
        x=anchors.x,
        y=anchors.y,
        freedom=freedom,
        metrics={**seeings, **metrics, **flux_scale_metrics(kernel, anchors.x, anchors.y)},
        kernel_map=sample_grid(kernel),
    )
