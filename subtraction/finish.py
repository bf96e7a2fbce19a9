"""From a residual to a Difference: background, variance, score, figures of merit. Common to all methods.

See docs/algorithms.md, section 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nightsift.flags import Mask
from nightsift.frames import Difference, FloatImage, MaskImage, Pair
from nightsift.psf import Psf
from subtraction.background import fit_background, is_sky, sky_blocks, subtract_polynomial
from subtraction.convolve import matched_filter
from subtraction.masks import HARD
from subtraction.noise import sky_statistics
from subtraction.quality import judge
from subtraction.residuals import ModelError, add_model_error, fit_model_error, star_shifts, star_sums
from subtraction.spatial import ImageField

Float64 = npt.NDArray[np.float64]

SCALE_RANGE = (0.5, 3.0)
"""Bounds of the factor on the noise that is measured on the sky; beyond them something else is wrong."""

DIPOLE_SHIFT = 0.1
"""Shift of a star against the template that counts as a dipole (pixel), if it is significant too."""


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


def finish(raw: Raw, pair: Pair, method: str, background_order: int = 2, threads: int = 0) -> Difference:
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

    Returns
    -------
    Difference
        The finished difference.
    """
    data, variance, mask = raw.data, raw.variance, raw.mask
    _fill_masked(data, variance, mask)
    blocks = sky_blocks(data, variance, raw.model, mask)
    coefficients, order = fit_background(blocks, pair.science.shape, background_order)
    subtract_polynomial(data, coefficients, order, threads)
    sums = star_sums(data, variance, raw.model, mask, raw.psf, raw.x, raw.y)
    shifts = star_shifts(data, variance, mask, raw.psf, raw.x, raw.y, sums[:, 5])
    error = fit_model_error(sums[:, :4], raw.freedom)
    add_model_error(variance, raw.model, error, threads)
    field = ImageField(raw.psf.terms, raw.psf.order, raw.psf.shape)
    score = matched_filter(data, variance, mask, _core(field, raw.psf.fwhm), HARD, threads)
    pull, scale = _rescale(score, variance, raw.model, mask, raw.psf.fwhm)
    data[((mask & HARD) != 0) & ~raw.hidden] = 0.0
    metrics = {
        **raw.metrics,
        **_residual_metrics(sums, shifts, error, raw.psf),
        "noise_scale": scale,
        "sky_pull": abs(pull),
        "background_residual": _unevenness(data, variance, raw.model, mask),
        "usable_fraction": float(((mask & HARD) == 0).mean()),
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
    )


def _fill_masked(data: FloatImage, variance: FloatImage, mask: MaskImage) -> None:
    """Give pixels without variance the usual one, so that nothing divides by zero."""
    good = variance[::4, ::4][((mask[::4, ::4] & HARD) == 0) & (variance[::4, ::4] > 0)]
    usual = np.float32(np.median(good)) if len(good) else np.float32(1.0)
    hopeless = ~(variance > 0)
    variance[hopeless] = usual
    mask[hopeless] |= np.uint16(Mask.NO_DATA.value)


def _core(field: ImageField, fwhm: float) -> ImageField:
    """The part of a PSF that carries a matched filter's signal: twice the seeing across, and a little more."""
    half = min(field.half, max(2, int(np.ceil(1.5 * fwhm))))
    middle = field.half
    cut = field.terms[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
    return ImageField(np.ascontiguousarray(cut), field.order, field.shape)


def _near_sources(score: FloatImage, fwhm: float) -> npt.NDArray[np.bool_]:
    """Surroundings of everything significant: what changed is not sky."""
    size = 2 * int(np.ceil(2.0 * fwhm)) + 1
    return np.asarray(ndimage.maximum_filter((np.abs(score) > 6.0).astype(np.uint8), size=size) > 0)


def _rescale(
    score: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage, fwhm: float
) -> tuple[float, float]:
    """Bring the score on source-free sky to unit variance; return its median and the factor on the noise."""
    step = 1 if score.size < 2_000_000 else 3
    part = (slice(None, None, step), slice(None, None, step))
    sky = is_sky(model[part], variance[part], mask[part]) & ~_near_sources(score[part], fwhm / step)
    pull, sigma = sky_statistics(score[part], sky)
    if not sigma > 0:
        return float("nan"), 1.0
    scale = float(min(max(sigma, SCALE_RANGE[0]), SCALE_RANGE[1]))
    score /= np.float32(scale)
    variance *= np.float32(scale**2)
    return pull / scale, scale


def _residual_metrics(sums: Float64, shifts: tuple[Float64, Float64], error: ModelError, psf: Psf) -> dict[str, float]:
    """Figures of merit of the residuals at stars."""
    good = np.isfinite(sums[:, 4]) & np.isfinite(shifts[0])
    if not bool(good.any()):
        return {}
    flux, shift, noise = sums[good, 5], shifts[0][good], shifts[1][good]
    core = psf.at((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2).astype(np.float64)
    bright = flux >= np.median(flux)
    dipole = bright & (shift > DIPOLE_SHIFT) & (shift > 5.0 * noise)
    # The expected length of a random vector of two components is 1.25 of one component's error.
    excess = np.sqrt(np.maximum(shift**2 - (1.25 * noise) ** 2, 0.0))
    return {
        "star_residual": float(np.sqrt(np.median(sums[good, 4]))),
        "model_error": float(np.sqrt(error.flux * (core**4).sum()) / (core**2).sum()),
        "jitter_px": float(np.sqrt(error.gradient)),
        "registration": float(np.median(excess[bright])),
        "dipole_rate": float(dipole.sum() / bright.sum()) if int(bright.sum()) >= 5 else float("nan"),
    }


def _unevenness(data: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage) -> float:
    """Robust scatter of the background over blocks beyond its noise, in sigma of a pixel."""
    _, _, median, error = sky_blocks(data, variance, model, mask, blocks=12)
    if len(median) < 4:
        return float("nan")
    sky = is_sky(model[::8, ::8], variance[::8, ::8], mask[::8, ::8])
    sigma = float(np.sqrt(np.median(variance[::8, ::8][sky]))) if bool(sky.any()) else 1.0
    excess = max((1.4826 * float(np.median(np.abs(median)))) ** 2 - float(np.median(error)) ** 2, 0.0)
    return float(np.sqrt(excess)) / sigma
