"""Where the transients of a drawn pair lie, how bright they are, and what perfect knowledge makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.subtraction.optics import Optics
from benchmarks.subtraction.truth import (
    GAIN,
    SATURATION,
    SKY,
    SNR_RANGE,
    TEMPLATE_FRAMES,
    TEMPLATE_SCALE,
    TEMPLATE_SKY,
    TRANSIENT,
    TRANSIENTS_PER_MPIX,
    Truth,
    variance_of,
)


def draw_transients(rng: np.random.Generator, truth: Truth, static: list[np.ndarray], on_galaxies: float) -> np.ndarray:
    shape = truth.science.shape
    n = round(TRANSIENTS_PER_MPIX * shape[0] * shape[1] / 1e6)
    x, y, where = _positions(rng, truth, n, on_galaxies)
    order = rng.permutation(len(x))
    found: list[tuple[Any, ...]] = []
    taken = np.zeros((0, 2))
    for i in order:
        px, py = round(x[i]), round(y[i])
        if not (30 < px < shape[1] - 31 and 30 < py < shape[0] - 31):
            continue
        if len(taken) and np.hypot(*(taken - (x[i], y[i])).T).min() < 25.0:
            continue
        near = (slice(py - 7, py + 8), slice(px - 7, px + 8))
        if max(static[0][near].max() + SKY, static[1][near].max() + TEMPLATE_SKY) > 0.9 * SATURATION:
            continue
        if where[i] == "sky" and static[0][py - 2 : py + 3, px - 2 : px + 3].max() > 0.1 * GAIN * truth.sky_variance[0]:
            continue
        found.append(_transient(rng, truth, static, x[i], y[i], where[i]))
        taken = np.vstack([taken, [x[i], y[i]]])
    return np.array(found, dtype=TRANSIENT)


def _positions(rng: np.random.Generator, truth: Truth, n: int, on_galaxies: float) -> tuple[np.ndarray, ...]:
    ny, nx = truth.science.shape
    in_galaxies = min(round(on_galaxies * n), len(truth.galaxies))
    hosts = rng.choice(truth.galaxies, in_galaxies, replace=False) if in_galaxies else truth.galaxies[:0]
    core = rng.uniform(size=len(hosts)) < 0.5
    r = np.where(core, rng.uniform(0, 0.5, len(hosts)), hosts["radius"] * rng.uniform(0.7, 2.0, len(hosts)) + 0.7)
    turn = rng.uniform(0, 2 * np.pi, len(hosts))
    anchors = truth.stars[truth.stars["flux"] > 300 * np.sqrt(truth.sky_variance[0]) * 5]
    lit = rng.choice(anchors, min(n // 10, len(anchors)), replace=False) if len(anchors) else anchors
    apart, around = truth.science.fwhm * rng.uniform(2.5, 8, len(lit)), rng.uniform(0, 2 * np.pi, len(lit))
    rest = n - len(hosts) - len(lit)
    x = np.concatenate([hosts["x"] + r * np.cos(turn), lit["x"] + apart * np.cos(around), rng.uniform(0, nx, rest)])
    y = np.concatenate([hosts["y"] + r * np.sin(turn), lit["y"] + apart * np.sin(around), rng.uniform(0, ny, rest)])
    where = np.concatenate([np.where(core, "core", "arm"), np.full(len(lit), "bright"), np.full(rest, "sky")])
    return x, y, where


def _transient(
    rng: np.random.Generator, truth: Truth, static: list[np.ndarray], x: float, y: float, where: str
) -> tuple[Any, ...]:
    variances = local_variances(truth, static, x, y)
    per_flux = snr_per_flux(truth.science, truth.template, x, y, *variances)
    snr = float(np.exp(rng.uniform(*np.log(SNR_RANGE))))
    sign = 1.0 if rng.uniform() < 0.7 else -1.0
    flux = sign * snr / per_flux
    # Its own photons, weighted by the square of the PSF, in the frame that shows it.
    own = [0.0, 0.0]
    optics, scale, frames = (truth.science, 1.0, 1) if sign > 0 else (truth.template, truth.scale, TEMPLATE_FRAMES)
    psf = optics.stamp(x, y, 12)
    own[0 if sign > 0 else 1] = scale * abs(flux) * float((psf**3).sum() / (psf**2).sum()) / (GAIN * frames)
    sigma = 1 / snr_per_flux(truth.science, truth.template, x, y, variances[0] + own[0], variances[1] + own[1])
    return x, y, flux, snr, sigma, 0.0, where


def local_variances(truth: Truth, static: list[np.ndarray], x: float, y: float) -> tuple[float, float]:
    px, py, half = round(x), round(y), 8
    near = (slice(py - half, py + half + 1), slice(px - half, px + half + 1))
    weight = truth.science.stamp(x, y, half) ** 2
    weight /= weight.sum()
    return (
        float((weight * variance_of(static[0][near] + SKY, 1)).sum()),
        float((weight * variance_of(static[1][near] + TEMPLATE_SKY, TEMPLATE_FRAMES)).sum()),
    )


def snr_per_flux(
    science: Optics, template: Optics, x: float, y: float, science_variance: float, template_variance: float
) -> float:
    s, t = (abs(np.fft.rfft2(optics.stamp(x, y, 24))) ** 2 for optics in (science, template))
    n = 49
    twice = np.full(s.shape[1], 2.0)
    twice[0] = 1.0
    noise = science_variance * t + template_variance / TEMPLATE_SCALE**2 * s
    return float(np.sqrt((twice * s * t / noise).sum() / n**2))


def perfect_score(
    truth: Truth, noise: list[np.ndarray], x: float, y: float, science_variance: float, template_variance: float
) -> float:
    """The optimal statistic at a transient, from noise images that hold the transient too."""
    px, py, half = round(x), round(y), 24
    cut = (slice(py - half, py + half + 1), slice(px - half, px + half + 1))
    s, t = (np.fft.rfft2(np.fft.ifftshift(optics.stamp(x, y, half))) for optics in (truth.science, truth.template))
    shown = [np.fft.rfft2(np.fft.ifftshift(image[cut])) for image in noise]
    vt = template_variance / truth.scale**2
    power = science_variance * abs(t) ** 2 + vt * abs(s) ** 2
    difference = t * shown[0] - s * shown[1] / truth.scale
    score = np.fft.fftshift(np.fft.irfft2(np.conj(s * t) * difference / power, s=(2 * half + 1,) * 2))
    norm = np.fft.irfft2(abs(s * t) ** 2 / power, s=(2 * half + 1,) * 2)[0, 0]
    middle = score[half - 1 : half + 2, half - 1 : half + 2].ravel() / np.sqrt(norm)
    return float(middle[np.argmax(abs(middle))])
