"""Residuals at stars: what remains beyond photon noise, the variance it adds, and errors of the flux scale.

See docs/algorithms.md, sections 9 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.core.psf import Psf, polynomial_terms
from nightsift.core.robust import SIGMA_TO_MAD
from subtraction.fields import ImageField, nodes
from subtraction.quality.star_faults import StarFaults

Float64 = npt.NDArray[np.float64]

MIN_STARS = 5
"""Fewest stars from which an unexplained variance is measured."""

MEDIAN_POWER = 0.85
"""Median of the mean squared filtered residual within a FWHM, in units of its expectation: a few independent values."""

PARTS = 4
"""Parts of a frame along each axis."""

CERTAIN = 3.0
"""Standard errors that an offset must exceed before it counts."""

CLIP = 4.0
"""Stars whose flux differs from that of their part by more than this many sigma have changed."""


@dataclass(frozen=True, slots=True)
class ModelError:
    """What remains at stars beyond photon noise, as two variances.

    Attributes
    ----------
    flux : float
        Variance in units of the squared matched pixel.
    gradient : float
        Variance in units of its squared gradient (pixel^2): scintillation of positions, distortion.
    """

    flux: float
    gradient: float


def fit_model_error(sums: Float64, faults: StarFaults, psf: Psf, *, freedom: float = 1.0) -> ModelError:
    """Measure the variance at stars that photon noise does not explain, on the bulk of the stars.

    Three parts, each by a median, so that stars that changed add nothing: the scatter of the flux that is left over and
    of the shifts beyond their errors, star by star, and what then remains of the filtered residuals of the brighter
    half (errors of shape).

    Parameters
    ----------
    sums : ndarray, shape (n, 4)
        A row a star: mean squared filtered residual, and the filtered variance, squared model and squared gradient
        (`star_sums`).
    faults : StarFaults
        Flux left over and shift of the same stars.
    psf : Psf
        PSF of the difference.
    freedom : float, optional
        Factor on the squared residuals that makes up for the freedom of the fit.

    Returns
    -------
    ModelError
        Both are zero or positive.
    """
    free = np.sqrt(freedom)
    left = excess_scatter(free * faults.left, faults.left_error)
    shift = excess_scatter(
        free * np.concatenate((faults.dx, faults.dy)), np.concatenate((faults.shift_error, faults.shift_error))
    )
    flux_factor, shift_factor = _pixel_factors(psf)
    flux, slope = flux_factor * left**2, shift_factor * shift**2
    sums = sums[np.isfinite(sums).all(axis=1) & (sums[:, 1] > 0)]
    if len(sums) >= MIN_STARS:
        seen, noise, model, gradient = (sums[:, k] for k in range(4))
        bright = model >= np.median(model)
        missing = freedom * seen / MEDIAN_POWER - noise - flux * model - slope * gradient
        flux += max(float(np.median(missing[bright] / np.maximum(model[bright], 1e-30))), 0.0)
    return ModelError(flux, slope)


def excess_scatter(values: Float64, errors: Float64) -> float:
    """Scatter of values beyond their errors.

    Parameters
    ----------
    values, errors : ndarray, shape (n,)
        Values around zero and their standard errors; NaN are left out.

    Returns
    -------
    float
        The sigma for which the median of ``|value| / sqrt(error^2 + sigma^2)`` is that of a unit Gaussian; 0 with
        fewer than `MIN_STARS` values.
    """
    good = np.isfinite(values) & np.isfinite(errors)
    size, noise = np.abs(values[good]), errors[good]
    if len(size) < MIN_STARS:
        return 0.0
    # The values that are known best tell the excess; the others would only dilute it.
    known = noise <= np.quantile(noise, max(0.3, min(1.0, 12.0 / len(noise))))
    size, noise = size[known], noise[known]
    low, high = 0.0, 2.0 * float(np.median(size)) + 1e-12
    if float(np.median(size / np.maximum(noise, 1e-30))) <= SIGMA_TO_MAD:
        return 0.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        if float(np.median(size / np.hypot(noise, middle))) > SIGMA_TO_MAD:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _pixel_factors(psf: Psf) -> tuple[float, float]:
    """Variances, in squared models and gradients, that a matched filter sees like a unit scatter of flux and place.

    A scatter a of the flux f gives the filter ``a f sum(p^2)``, a pixel variance ``c (f p)^2`` gives
    ``c f^2 sum(p^4)``. A shift has its largest effect beside the star; means over the core are compared.
    """
    p = psf.at((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2).astype(np.float64)
    flux = float((p**2).sum() ** 2 / (p**4).sum())
    slope_y, slope_x = np.gradient(p)
    seen = _correlate(np.asarray(slope_x), p) ** 2 + _correlate(np.asarray(slope_y), p) ** 2
    made = _correlate(np.asarray(slope_x**2 + slope_y**2), p**2)
    y, x = np.indices(p.shape) - p.shape[0] // 2
    core = np.hypot(x, y) <= max(1.0, 0.75 * psf.fwhm)
    return flux, float(seen[core].sum() / made[core].sum())


def _correlate(image: Float64, weight: Float64) -> Float64:
    """Sums of an image weighted with another one of the same odd size, centred on each pixel; zero outside."""
    size = image.shape[0]
    around = (2 * size, 2 * size)
    product = np.fft.irfft2(np.fft.rfft2(image, around) * np.fft.rfft2(weight[::-1, ::-1], around), around)
    half = size // 2
    return np.asarray(product[half : half + size, half : half + size])


def add_model_error(variance: FloatImage, model: FloatImage, error: ModelError, *, threads: int = 0) -> None:
    """Add the unexplained part of the stars to a variance map (ADU^2) in place; `model` is the matched template."""
    if error.flux <= 0 and error.gradient <= 0:
        return

    def band(first: int, last: int) -> None:
        _add_rows(variance, model, np.float32(error.flux), np.float32(error.gradient), first, last)

    over_rows(band, variance.shape[0], 64, threads=threads)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _add_rows(variance, model, flux, gradient, first, last):  # type: ignore[no-untyped-def]
    ny, nx = model.shape
    quarter = np.float32(0.25)
    for y in range(max(first, 1), min(last, ny - 1)):
        below, row, above = model[y - 1], model[y], model[y + 1]
        out = variance[y]
        for x in range(1, nx - 1):
            gx = row[x + 1] - row[x - 1]
            gy = above[x] - below[x]
            out[x] += flux * row[x] * row[x] + gradient * quarter * (gx * gx + gy * gy)


def star_sums(
    data: FloatImage, variance: FloatImage, model: FloatImage, *, mask: MaskImage, psf: Psf, x: Float64, y: Float64
) -> Float64:
    """Filtered residuals at stars and what they should be.

    Parameters
    ----------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance, and the matched template on its scale.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    psf : Psf
        PSF of the difference.
    x, y : ndarray of float64, shape (n,)
        Positions of stars (pixel).

    Returns
    -------
    ndarray of float64, shape (n, 6)
        Means over the pixels within a FWHM of: squared matched-filter sum; filtered variance, squared model and
        squared gradient; then the mean of residual^2 / variance and the flux of the model. NaN where too much
        is masked.
    """
    radius = float(max(1.0, 0.75 * psf.fwhm))
    half = min(psf.size // 2, int(np.ceil(1.5 * psf.fwhm)))
    core = slice(psf.size // 2 - half, psf.size // 2 + half + 1)
    terms = polynomial_terms(x, y, psf.shape, psf.order)
    sums = terms @ psf.terms.sum(axis=(1, 2), dtype=np.float64)
    stamps = np.tensordot(terms, psf.terms[:, core, core].astype(np.float64), axes=1)
    stamps *= ((1.0 - psf.wings) / sums)[:, None, None]
    out = np.full((len(x), 6), np.nan)
    _sums(data, variance, model, mask, np.uint16(HARD), stamps, np.rint(x), np.rint(y), radius, out)
    return out


@nb.njit(cache=True, nogil=True)
def _sums(data, variance, model, mask, bad, stamps, xs, ys, radius, out):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    half = stamps.shape[1] // 2
    reach = int(np.ceil(radius))
    for s in range(len(xs)):
        y0, x0 = int(ys[s]), int(xs[s])
        margin = half + reach + 1
        if y0 < margin or x0 < margin or y0 >= ny - margin or x0 >= nx - margin:
            continue
        totals = np.zeros(7)
        for j in range(-reach, reach + 1):
            for i in range(-reach, reach + 1):
                if j * j + i * i > radius * radius or (mask[y0 + j, x0 + i] & bad) != 0:
                    continue
                signal = noise = power = slope = 0.0
                for v in range(-half, half + 1):
                    for u in range(-half, half + 1):
                        y, x = y0 + j + v, x0 + i + u
                        if (mask[y, x] & bad) != 0:
                            continue
                        p = stamps[s, v + half, u + half]
                        gx = 0.5 * (model[y, x + 1] - model[y, x - 1])
                        gy = 0.5 * (model[y + 1, x] - model[y - 1, x])
                        signal += p * data[y, x]
                        noise += p * p * variance[y, x]
                        power += p * p * model[y, x] * model[y, x]
                        slope += p * p * (gx * gx + gy * gy)
                y, x = y0 + j, x0 + i
                totals[0] += 1.0
                totals[1] += signal * signal
                totals[2] += noise
                totals[3] += power
                totals[4] += slope
                totals[5] += data[y, x] * data[y, x] / variance[y, x]
                totals[6] += model[y, x]
        n = totals[0]
        if n < 5:
            continue
        for k in range(4):
            out[s, k] = totals[k + 1] / n
        out[s, 4], out[s, 5] = totals[5] / n, totals[6]


def flux_scale_error(x: Float64, y: Float64, faults: StarFaults, *, shape: tuple[int, int]) -> float:
    """Largest part of the stars' flux that is left over in one part of the frame.

    Clouds and flat fields change the flux scale from place to place. Where the difference follows them, nothing is left
    of the stars on average; where it does not, the stars of that part have all too much or too little subtracted.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions of the stars (pixel).
    faults : StarFaults
        What is left of them.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    float
        Largest absolute weighted mean of the part of the flux that is left over, in any of 4 x 4 parts of the frame,
        less three standard errors, at least 0; NaN where no part has five stars.
    """
    known = np.isfinite(faults.left) & np.isfinite(faults.left_error)
    left, error = faults.left[known], faults.left_error[known]
    part_x, part_y = (
        np.clip((place[known] * PARTS / size).astype(np.int64), 0, PARTS - 1)
        for place, size in ((x, shape[1]), (y, shape[0]))
    )
    offsets = []
    for part in range(PARTS * PARTS):
        inside = part_y * PARTS + part_x == part
        if int(inside.sum()) >= MIN_STARS:
            mean, noise = _clipped_mean(left[inside], error[inside])
            offsets.append(max(abs(mean) - CERTAIN * noise, 0.0))
    return max(offsets, default=float("nan"))


def _clipped_mean(values: Float64, errors: Float64) -> tuple[float, float]:
    """Weighted mean without outliers and its error, scatter beyond the errors included."""
    sharp = errors <= np.median(errors)
    centre = float(np.median(values[sharp]))
    sigma = np.hypot(errors, excess_scatter(values - centre, errors))
    keep = np.abs(values - centre) <= CLIP * sigma
    weight = np.where(keep, sigma**-2.0, 0.0)
    if not weight.sum() > 0:
        return centre, float(sigma.min())
    return float((weight * values).sum() / weight.sum()), float(weight.sum() ** -0.5)


def flux_scale_metrics(field: ImageField, x: Float64, y: Float64) -> dict[str, float]:
    """Tell how the flux scale of a kernel changes over the frame, and how much of that no star tells.

    Parameters
    ----------
    field : ImageField
        The kernel.
    x, y : ndarray of float64, shape (n,)
        Stars by which it was fitted (pixel), at least one.

    Returns
    -------
    dict of str to float
        ``kernel_sum_variation``: largest less smallest sum over their mean; ``kernel_sum_unproven``: largest change of
        the sum between a place on the frame and one of the five stars nearest to it, over the mean: over less than
        that distance no stars tell the scale.
    """
    place_x, place_y = nodes(field.shape, max(field.order, PARTS))
    few = min(MIN_STARS, len(x))
    distance = (place_x[:, None] - x) ** 2 + (place_y[:, None] - y) ** 2
    nearest = np.argpartition(distance, few - 1, axis=1)[:, :few]
    there, proven = field.total(place_x, place_y), field.total(x, y)
    mean = float(np.abs(there.mean()))
    return {
        "kernel_sum_variation": float(there.max() - there.min()) / mean,
        "kernel_sum_unproven": float(np.abs(there[:, None] - proven[nearest]).max()) / mean,
    }
