"""From a residual to a Difference: background, variance, score, figures of merit. Common to all methods.

See docs/algorithms.md, section 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.robust import mad_sigma
from nightsift.frames import Difference, FloatImage, MaskImage, Pair
from nightsift.psf import Psf
from subtraction.convolution.convolve import matched_filter
from subtraction.kernel.spatial import ImageField
from subtraction.masks.halos import subtract_halos
from subtraction.masks.union import HARD
from subtraction.masks.wings import subtract_wings
from subtraction.sky.background import fit_background, is_sky, sky_blocks, subtract_polynomial
from subtraction.sky.noise import sky_statistics
from subtraction.sky.pixels import give_variance, sample_score, settle
from subtraction.verdict.flux_scale import flux_scale_error
from subtraction.verdict.quality import depth_metrics, judge, peak_metrics, star_metrics
from subtraction.verdict.residuals import add_model_error, fit_model_error, star_sums
from subtraction.verdict.star_faults import fit_star_faults

Float64 = npt.NDArray[np.float64]

SCALE_RANGE = (0.5, 3.0)
"""Bounds of the factor on the noise that is measured on the sky; beyond them something else is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
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
        Masked pixels whose data are kept, so that what lies under a mask can still be told.
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
    raw: Raw, pair: Pair, method: str, background_order: int = 2, threads: int = 0, psf: Psf | None = None
) -> Difference:
    """Settle background, noise and score of a raw difference, and judge it.

    Parameters
    ----------
    raw : Raw
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
        PSF of the science frame, by which the loss of depth is told; that of `pair` by default.

    Returns
    -------
    Difference
        The finished difference.
    """
    data, variance, model, mask = raw.data, raw.variance, raw.model, raw.mask
    give_variance(variance, mask, threads)
    blocks = sky_blocks(data, variance, model, mask, threads=threads)
    coefficients, order = fit_background(blocks, pair.science.shape, background_order)
    subtract_polynomial(data, coefficients, order, threads)
    saturated = pair.science.mask | pair.template.mask
    subtract_wings(data, variance, model, mask, saturated, raw.x, raw.y, raw.psf.fwhm)
    subtract_halos(data, variance, mask, saturated, raw.psf.fwhm)
    sums = star_sums(data, variance, model, mask, raw.psf, raw.x, raw.y)
    faults = fit_star_faults(data, variance, model, mask, raw.psf, raw.x, raw.y)
    error = fit_model_error(sums[:, :4], faults, raw.psf, raw.freedom)
    add_model_error(variance, model, error, threads)
    field = ImageField(raw.psf.terms, raw.psf.order, raw.psf.shape)
    score = matched_filter(data, variance, mask, _core(field, raw.psf.fwhm), HARD, threads)
    pull, scale = _noise_scale(sample_score(score, variance, model, mask, 2.0 * raw.psf.fwhm, threads))
    usable = settle(data, variance, score, mask, raw.hidden, scale, threads)
    seeing = psf or pair.science.psf
    depth = depth_metrics(raw.psf, variance, seeing, pair.science.variance, mask, scale) if seeing else {}
    metrics = {
        **raw.metrics,
        **star_metrics(sums, faults, error, raw.psf),
        "flux_scale_error": flux_scale_error(raw.x, raw.y, faults, mask.shape),
        **peak_metrics(score, mask, model, variance, raw.psf, threads),
        **depth,
        "noise_scale": scale,
        "sky_pull": abs(pull),
        "background_residual": _unevenness(data, variance, model, mask, threads),
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


def _unevenness(data: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage, threads: int) -> float:
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
