"""Figures of merit of a difference, peaks of its score among them, and the verdict drawn from them.

See docs/algorithms.md, sections 11 and 12. All thresholds stand in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.core.psf import Psf
from subtraction.quality.residuals import ModelError
from subtraction.quality.star_faults import StarFaults

Counts = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SOURCE = 2.0
"""Light of a source of the template at a peak, in sigma of a pixel of the difference."""

PEAK = 5.0
"""Absolute score from which a peak counts as a candidate when their number is judged (sigma)."""

DIPOLE_SHIFT = 0.1
"""Shift of a star against the template that counts as a dipole (pixel), if it is significant too."""

SHARP_SHIFT = 0.05
"""Stars whose shift is known better than this (pixel) tell the registration; at least the better half of all does."""

EXACT_FLUX = 0.02
"""Stars whose flux is known better than this tell how fluxes scatter; at least the better half of all does."""

MIN_STARS = 5
"""Fewest stars from which shifts and scatter are measured."""


def expected_peaks(threshold: float, sigma: float) -> float:
    """Return the peaks per pixel, of one sign, above `threshold` (sigma) that noise makes in a matched-filtered map.

    ``2^(-5/2) pi^(-3/2) nu exp(-nu^2 / 2) / sigma^2`` (Kaiser 2004; Slater and others, DMTN-006), which is the density
    of peaks of a Gaussian random field at high levels (Bardeen and others 1986, ApJ 304, 15); `matched_sigma` gives
    sigma.
    """
    return float(2.0**-2.5 * np.pi**-1.5 * threshold * np.exp(-0.5 * threshold**2) / sigma**2)


def matched_sigma(psf: Psf) -> float:
    """Width of the Gaussian whose matched filter has as many peaks as that of a PSF.

    The density of peaks goes with the mean squared slope of the score, which is ``sum |grad p|^2 / (2 sum p^2)``, and
    ``1 / (2 sigma^2)`` for a Gaussian.

    Parameters
    ----------
    psf : Psf
        PSF of a difference whose noise is white.

    Returns
    -------
    float
        The width (pixel).
    """
    ny, nx = psf.shape
    image = psf.at((nx - 1) / 2, (ny - 1) / 2).astype(np.float64)
    size = image.shape[0]
    frequency = 2.0 * np.pi * np.fft.fftfreq(size)
    power = np.abs(np.fft.fft2(image)) ** 2
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    return float(np.sqrt(power.sum() / (squared * power).sum()))


def count_peaks(
    score: FloatImage,
    mask: MaskImage,
    threshold: float,
    *,
    apart: int,
    margin: int,
    threads: int = 0,
    model: FloatImage | None = None,
    variance: FloatImage | None = None,
) -> Counts:
    """Count the peaks of both signs, those near masked pixels and those on sources of the template apart.

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map.
    mask : ndarray of uint16, shape (ny, nx)
        Its mask; any bit counts.
    threshold : float
        Lowest absolute value of a peak (sigma).
    apart : int
        A peak is the highest of its sign within this many pixels along both axes.
    margin : int
        Distance along both axes within which a masked pixel is near (pixel).
    threads : int, optional
        Number of threads, 0 for all cores.
    model, variance : ndarray of float32, shape (ny, nx), optional
        Matched template and variance of the difference: a peak is on a source where the model exceeds `SOURCE` sigma
        of a pixel within `apart` of it. Without them no peak is on a source.

    Returns
    -------
    ndarray of int64, shape (2, 2, 2)
        Numbers of peaks; the axes are: off or on a source, away from or near masked pixels, positive or negative.
    """
    counts: list[Counts] = []
    light = np.zeros((0, 0), np.float32) if model is None else model
    noise = light if variance is None else variance

    def band(first: int, last: int) -> None:
        found = np.zeros((2, 2, 2), dtype=np.int64)
        _count_rows(score, mask, light, noise, np.float32(threshold), apart, margin, first, last, found)
        counts.append(found)

    over_rows(band, score.shape[0], 64, threads=threads)
    return np.asarray(np.sum(counts, axis=0), dtype=np.int64)


@nb.njit(cache=True, nogil=True)
def _count_rows(  # type: ignore[no-untyped-def]
    score, mask, model, variance, threshold, apart, margin, first, last, found
):
    ny, nx = score.shape
    for y in range(first, last):
        row = score[y]
        for x in range(nx):
            value = row[x]
            if not abs(value) >= threshold or mask[y, x] != 0:
                continue
            sign = np.float32(1.0) if value > 0 else np.float32(-1.0)
            highest, source = True, 0
            for j in range(max(0, y - apart), min(ny, y + apart + 1)):
                for i in range(max(0, x - apart), min(nx, x + apart + 1)):
                    other, this = sign * score[j, i], sign * value
                    # Of equal ones the first counts.
                    if other > this or (other == this and (j < y or (j == y and i < x))):
                        highest = False
                    if model.size > 0 and model[j, i] > 0 and model[j, i] ** 2 > SOURCE**2 * variance[y, x]:
                        source = 1
            if not highest:
                continue
            near = y < margin or x < margin or y >= ny - margin or x >= nx - margin
            for j in range(max(0, y - margin), min(ny, y + margin + 1)):
                for i in range(max(0, x - margin), min(nx, x + margin + 1)):
                    near = near or mask[j, i] != 0
            found[source, 1 if near else 0, 0 if value > 0 else 1] += 1


def clear_fraction(mask: MaskImage, margin: int, step: int = 16) -> float:
    """Return the part of a frame, by every `step`-th pixel, over `margin` pixels from masked ones and the edge."""
    return float(_clear(mask, margin, step))


@nb.njit(cache=True, nogil=True)
def _clear(mask, margin, step):  # type: ignore[no-untyped-def]
    ny, nx = mask.shape
    seen = clear = 0
    for y in range(step // 2, ny, step):
        for x in range(step // 2, nx, step):
            seen += 1
            if y < margin or x < margin or y >= ny - margin or x >= nx - margin:
                continue
            touched = False
            for j in range(y - margin, y + margin + 1):
                for i in range(x - margin, x + margin + 1):
                    if mask[j, i] != 0:
                        touched = True
                        break
                if touched:
                    break
            if not touched:
                clear += 1
    return clear / max(seen, 1)


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure of merit and where it becomes suspect or bad.

    Attributes
    ----------
    metric : str
        Name of the figure in `Difference.metrics`.
    suspect, bad : float
        Beyond these the difference is suspect, or bad.
    above : bool
        Whether large values are the bad ones.
    text : str
        What it means, as a format string over ``value``.
    """

    metric: str
    suspect: float
    bad: float
    above: bool
    text: str


LIMITS = (
    Limit("anchors_used", 8, 3, False, "only {value:.0f} anchor stars carry the fit"),
    Limit("anchors_clipped_fraction", 0.4, 0.7, True, "{value:.0%} of the anchor stars were clipped"),
    Limit("star_residual", 2.0, 5.0, True, "residuals at stars are {value:.2f} times the photon noise"),
    Limit("model_error", 0.05, 0.15, True, "{value:.1%} of the stars' flux is left over"),
    Limit(
        "flux_scatter",
        0.04,
        0.25,
        True,
        "fluxes of stars scatter by {value:.1%}: clouds, or a template of another band",
    ),
    Limit("registration", 0.15, 0.4, True, "stars are shifted by {value:.2f} px against the template"),
    Limit("dipole_rate", 0.3, 0.6, True, "{value:.0%} of the bright stars leave a dipole"),
    Limit("noise_scale", 1.3, 2.0, True, "the noise on the sky is {value:.2f} times what the variances say"),
    Limit("noise_scale", 0.55, 0.0, False, "the noise on the sky is only {value:.2f} times what the variances say"),
    Limit("sky_pull", 0.3, 1.0, True, "the score is offset by {value:.2f} sigma on the sky"),
    Limit("background_residual", 0.3, 1.0, True, "the background is uneven by {value:.2f} sigma of a pixel"),
    Limit("flux_scale_error", 0.04, 0.25, True, "{value:.0%} of the stars' flux is left over in a part of the frame"),
    Limit("kernel_sum_unproven", 0.3, 1.0, True, "the flux scale changes by {value:.0%} where no star tells it"),
    Limit("kernel_sum_variation", 1.0, 2.0, True, "the flux scale varies by {value:.0%} over the frame: clouds"),
    Limit("peak_excess", 100.0, 400.0, True, "{value:.0f} false peaks a megapixel exceed 5 sigma"),
    Limit(
        "new_excess",
        200.0,
        2000.0,
        True,
        "{value:.0f} peaks a megapixel are new: cosmic rays or hot pixels",
    ),
    Limit("depth_loss_mag", 0.5, 1.5, True, "faint stars lose {value:.1f} mag of depth against the science frame"),
    Limit("usable_fraction", 0.5, 0.1, False, "only {value:.0%} of the pixels are usable"),
)
"""Figures that are judged; the others in `Difference.metrics` only inform."""


def judge(metrics: Mapping[str, float]) -> tuple[str, tuple[str, ...]]:
    """Give the verdict on a difference.

    Parameters
    ----------
    metrics : mapping of str to float
        Figures of merit; those of `LIMITS` that are absent or NaN are not judged.

    Returns
    -------
    verdict : str
        ``"good"``, ``"suspect"`` or ``"bad"``: the worst of all figures.
    reasons : tuple of str
        Why it is not good.
    """
    verdict, reasons = "good", []
    for limit in LIMITS:
        value = metrics.get(limit.metric)
        if value is None or value != value:
            continue
        sign = 1.0 if limit.above else -1.0
        if sign * value <= sign * limit.suspect:
            continue
        reasons.append(limit.text.format(value=value))
        if sign * value > sign * limit.bad:
            verdict = "bad"
        elif verdict == "good":
            verdict = "suspect"
    return verdict, tuple(reasons)


def peak_metrics(
    score: FloatImage, mask: MaskImage, model: FloatImage, *, variance: FloatImage, psf: Psf, threads: int = 0
) -> dict[str, float]:
    """Count the candidates that a score map would give, against what noise alone makes.

    What subtraction does wrong is on the sources of the template, or of both signs; what is new is off them and
    positive.

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map, rescaled to unit variance on the sky, 0 where masked.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference, every bit of which counts.
    model, variance : ndarray of float32, shape (ny, nx)
        Matched template, and variance of the difference.
    psf : Psf
        PSF of the difference.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    dict of str to float
        ``peaks`` and ``peaks_negative``: peaks beyond 5 sigma away from masked pixels, of both signs and of the
        negative one; ``peaks_on_sources``: those of them on sources of the template; ``peaks_near_mask``: those near
        masked pixels; ``peaks_expected``: of noise alone; ``peak_excess``: peaks on sources, and pairs of a positive
        and a negative one off them, a megapixel, as far as they are more than noise makes for certain (3 sigma);
        ``new_excess``: positive peaks off sources that no negative one balances, likewise.
    """
    margin = int(np.ceil(2.0 * psf.fwhm))
    apart = max(1, round(psf.fwhm))
    counts = count_peaks(score, mask, PEAK, apart=apart, margin=margin, threads=threads, model=model, variance=variance)
    (plus, minus), sources = counts[0, 0], int(counts[1, 0].sum())
    area = clear_fraction(mask, margin, 16 if score.size > 2_000_000 else 4) * score.size
    expected = 2.0 * expected_peaks(PEAK, matched_sigma(psf)) * area
    wrong, new = sources + 2.0 * min(plus, minus), float(max(plus - minus, 0))

    def certain(number: float, noise: float) -> float:
        excess = max(number - 3.0 * np.sqrt(number + 1.0) - noise, 0.0)
        return float(excess / (area * 1e-6)) if area > 0 else float("nan")

    return {
        "peaks": float(counts[:, 0].sum()),
        "peaks_negative": float(counts[:, 0, 1].sum()),
        "peaks_on_sources": float(sources),
        "peaks_near_mask": float(counts[:, 1].sum()),
        "peaks_expected": expected,
        "peak_excess": certain(wrong, expected),
        "new_excess": certain(new, 0.0),
    }


def depth_metrics(
    psf: Psf, variance: FloatImage, science_psf: Psf, *, science_variance: FloatImage, mask: MaskImage, scale: float
) -> dict[str, float]:
    """What subtraction costs in depth: the error of a faint star's flux in the difference and on the science frame.

    A PSF flux on white noise has the variance ``v / sum(p^2)`` (Zackay and Ofek 2017, ApJ 836, 187, eq. 12). A
    template of the same depth and seeing costs 0.38 mag, one of five exposures 0.1 mag, one that is trailed, out of
    focus or shallow more.

    Parameters
    ----------
    psf : Psf
        PSF of the difference.
    variance : ndarray of float32, shape (ny, nx)
        Its variance.
    science_psf : Psf
        PSF of the science frame.
    science_variance : ndarray of float32, shape (ny, nx)
        Its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    scale : float
        Factor on the noise that is already in `variance`: it is judged apart.

    Returns
    -------
    dict of str to float
        ``depth_loss_mag`` at the centre of the frame; nothing where too few pixels are usable.
    """
    ny, nx = mask.shape
    step = max(1, int(np.sqrt(mask.size / 40_000)))
    part = (slice(step // 2, None, step), slice(step // 2, None, step))
    good = mask[part] == 0
    if int(good.sum()) < 100:
        return {}
    noise = float(np.median(variance[part][good] / science_variance[part][good])) / scale**2
    powers = [float((one.at((nx - 1) / 2, (ny - 1) / 2).astype(np.float64) ** 2).sum()) for one in (psf, science_psf)]
    return {"depth_loss_mag": 1.25 * float(np.log10(noise * powers[1] / powers[0]))}


def star_metrics(sums: Float64, faults: StarFaults, error: ModelError, *, psf: Psf) -> dict[str, float]:
    """Figures of merit of the residuals at stars.

    Parameters
    ----------
    sums : ndarray of float64, shape (n, 6)
        What `subtraction.quality.residuals.star_sums` returns.
    faults : StarFaults
        What `subtraction.quality.star_faults.fit_star_faults` returns, from variances of photon noise alone.
    error : ModelError
        What remains at stars beyond photon noise.
    psf : Psf
        PSF of the difference.

    Returns
    -------
    dict of str to float
        ``star_residual``: root of the median chi-square over the cores of stars; ``model_error``: part of a star's
        flux that is left over; ``jitter_px``: shifts that explain the residuals; ``registration``: usual shift of a
        star and ``flux_scatter``: scatter of what is left of the stars' fluxes, both without their noise and as far as
        the stars prove them; ``dipole_rate``: part of the bright stars that leave a dipole. Those that cannot be
        measured are absent.
    """
    core = psf.at((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2).astype(np.float64)
    metrics = {
        "model_error": float(np.sqrt(error.flux * (core**4).sum()) / (core**2).sum()),
        "jitter_px": float(np.sqrt(error.gradient)),
    }
    chi2 = sums[np.isfinite(sums[:, 4]), 4]
    if len(chi2):
        metrics["star_residual"] = float(np.sqrt(np.median(chi2)))
    good = np.isfinite(faults.left)
    if int(good.sum()) < MIN_STARS:
        return metrics
    shift, noise = np.hypot(faults.dx, faults.dy)[good], faults.shift_error[good]
    sharp = noise <= max(float(np.median(noise)), SHARP_SHIFT)
    metrics["registration"] = 1.25 * _proven(shift[sharp] ** 2, noise[sharp] ** 2, 1.386, spread=1.44)
    if int(sharp.sum()) >= MIN_STARS:
        dipole = (shift[sharp] > DIPOLE_SHIFT) & (shift[sharp] > 5.0 * noise[sharp])
        metrics["dipole_rate"] = float(dipole.mean())
    left, noise = faults.left[good], faults.left_error[good]
    exact = noise <= max(float(np.median(noise)), EXACT_FLUX)
    metrics["flux_scatter"] = _proven(left[exact] ** 2, noise[exact] ** 2, 0.455, spread=2.3)
    return metrics


def _proven(squares: Float64, noise: Float64, middle: float, *, spread: float) -> float:
    """Root of the variance beyond noise, less one standard error of it, so that few stars prove little.

    `middle` is the median of the squares of unit variance (1.386 for vectors of two components, 0.455 for one), and
    `spread` the standard error of a variance that is measured from it, times the root of their number.
    """
    variance = float(np.median(squares - middle * noise)) / middle
    scatter = spread * float(np.median(squares)) / middle / np.sqrt(len(squares))
    return float(np.sqrt(max(variance - scatter, 0.0)))
