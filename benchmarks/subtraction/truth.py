"""What is known of a drawn pair, and the survey that `fields` draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.subtraction.optics import Optics

PIXEL_SCALE = 1.24
GAIN, READ_NOISE, SKY, SATURATION = 1.4, 6.0, 400.0, 55_000.0
"""Electrons per ADU, electrons, ADU, ADU above zero (sky included)."""
TEMPLATE_FRAMES, TEMPLATE_SCALE, TEMPLATE_SKY = 10, 0.83, 500.0
"""Exposures in the template, its flux scale against the science frame's, its mean sky (ADU)."""
STARS_SNR20 = 2000.0
"""Stars per square degree with a signal-to-noise ratio above 20."""
SLOPE = 0.55
"""Power law of the counts: N(> flux) ~ flux^-slope."""
FAINTEST, BRIGHTEST = 1.5, 7e5
"""Fluxes drawn, in noise of a point source."""
TRANSIENTS_PER_MPIX = 140.0
"""Transients tried; some fall on others or on stars and are left out."""
SNR_RANGE = (3.0, 200.0)
CUT = 0.004
"""Light per pixel, in noise of the template's pixel, below which a profile is cut off."""

STAR = np.dtype([("x", "f8"), ("y", "f8"), ("flux", "f8"), ("saturated", "?")])
GALAXY = np.dtype([(name, "f8") for name in ("x", "y", "flux", "radius", "sersic", "q", "angle")])
TRANSIENT = np.dtype([(name, "f8") for name in ("x", "y", "flux", "snr", "sigma", "perfect")] + [("where", "U8")])


@dataclass(frozen=True)
class Truth:
    """What was drawn. Fluxes in ADU of the science frame, positions in pixels, transients that faded are negative.

    ``transients["snr"]`` is the signal-to-noise ratio of perfect knowledge, that of the optimal statistic of a pair
    with known PSFs, flux scale and variances and an unknown static sky (Zackay, Ofek and Gal-Yam 2016, eq. 22 and
    appendix): ``flux sqrt(sum_k |P_s|^2 |P_t|^2 / (v_s |P_t|^2 + v_t / T^2 |P_s|^2) / n)``, with the variances
    without the transient, weighted by the square of the PSF around it. ``sigma`` is the error of its flux by the
    same sum, with the transient's own photons in the variance. ``perfect`` is what that statistic gives on this very
    draw of the noise: the largest of the 3 x 3 pixels at the transient, with its sign, the static sky known.
    """

    kind: str
    seed: int
    stars: np.ndarray
    galaxies: np.ndarray
    transients: np.ndarray
    science: Optics
    template: Optics
    scale: float = TEMPLATE_SCALE
    sky_variance: tuple[float, float] = (0.0, 0.0)


def variance_of(light: float | np.ndarray, frames: int) -> Any:
    """Variance of a mean of exposures of a given light per pixel (ADU)."""
    return light / (GAIN * frames) + READ_NOISE**2 / (GAIN**2 * frames)
