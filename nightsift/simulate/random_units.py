"""Telescope units drawn at random, so that what is trained on some of them is fit for units never seen."""

from __future__ import annotations

import numpy as np

from nightsift.core.random import generator
from nightsift.simulate.unit_options import DetectorOptions, OpticsOptions, UnitOptions


def random_unit(seed: int, index: int = 0, shape: tuple[int, int] = (1024, 1024)) -> UnitOptions:
    """Draw a telescope unit from wide priors on every property.

    Parameters
    ----------
    seed : int
        Seed of the survey.
    index : int, optional
        Number of the unit; it stands in its name.
    shape : tuple of int, optional
        Rows and columns of its detector.

    Returns
    -------
    UnitOptions
        A unit between 0.7 and 2.5 arcsec/pixel and 1.8 and 6 pixel full width at half maximum.
    """
    rng = generator(seed, "unit", index)
    scale = _log_uniform(rng, 0.7, 2.5)
    detector, optics = _random_detector(rng), _random_optics(rng, scale)
    zero_point, sky_mag = float(rng.uniform(20.8, 23.2)), float(rng.uniform(19.0, 21.5))
    # Nobody exposes until the moonlit sky fills a fifth of the well.
    moonlit = scale**2 * 10 ** (-0.4 * (sky_mag - 1.8 - zero_point))
    longest = 0.2 * min(detector.full_well, detector.gain * 2**detector.saturation_bits) / moonlit
    exposure = max(min(_log_uniform(rng, 15.0, 150.0), longest), 2.0)
    return UnitOptions(
        name=f"random-{seed}-{index}",
        shape=shape,
        pixel_scale=scale,
        zero_point=zero_point,
        exposure=float(round(exposure)),
        band=str(rng.choice(["L", "g", "r", "i", "clear"])),
        rotation=float(rng.uniform(0, 360)),
        parity=1 if rng.random() < 0.3 else -1,
        distortion=float(_log_uniform(rng, 0.3, 6.0)),
        dither=float(rng.uniform(2, 30)),
        rotation_jitter=float(_log_uniform(rng, 0.005, 0.3)),
        header_wcs="sip" if rng.random() < 0.5 else "linear",
        wcs_error=float(rng.uniform(0.2, 4.0)),
        sky_mag=sky_mag,
        latitude=float(rng.uniform(-35, 45)),
        longitude=float(rng.uniform(-180, 180)),
        optics=optics,
        detector=detector,
    )


def _random_optics(rng: np.random.Generator, scale: float) -> OpticsOptions:
    fwhm = _log_uniform(rng, 1.5, 5.5)
    blur = float(rng.uniform(0.0, 0.35)) * fwhm
    return OpticsOptions(
        seeing=scale * float(np.sqrt(max(fwhm**2 - blur**2, 1.3**2))),
        beta=float(rng.uniform(2.4, 4.8)),
        ellipticity=float(rng.beta(1.2, 9.0)),
        ellipticity_angle=float(rng.uniform(0, 180)),
        # A donut blurs about as much as a Gaussian of the same rms: the rim is at sqrt(2) of it.
        defocus=0.6 * blur * float(rng.choice([-1.0, 1.0])),
        focus_jitter=float(rng.uniform(0.02, 0.3)),
        tilt_x=float(rng.normal(0, 0.3)),
        tilt_y=float(rng.normal(0, 0.3)),
        curvature=float(rng.normal(0, 0.5)),
        coma=float(rng.exponential(0.5)),
        astigmatism=float(rng.normal(0, 0.4)),
        trail=float(rng.exponential(0.4)),
        obstruction=float(rng.uniform(0.0, 0.5)),
        aureole=float(_log_uniform(rng, 0.003, 0.03)),
    )


def _random_detector(rng: np.random.Generator) -> DetectorOptions:
    cmos = bool(rng.random() < 0.4)
    return DetectorOptions(
        gain=_log_uniform(rng, 0.25, 3.5),
        read_noise=float(_log_uniform(rng, 1.5, 3.5) if cmos else _log_uniform(rng, 4.0, 14.0)),
        full_well=float(_log_uniform(rng, 1.5e4, 6e4) if cmos else _log_uniform(rng, 4e4, 2e5)),
        pedestal=int(rng.integers(0, 1200)) if rng.random() < 0.5 else 0,
        bleed=not cmos,
        dark=float(_log_uniform(rng, 0.01, 0.8)),
        hot_pixels=float(_log_uniform(rng, 10, 600)),
        dead_pixels=float(_log_uniform(rng, 5, 120)),
        hot_columns=int(rng.poisson(1.2)),
        dead_columns=int(rng.poisson(0.5)),
        flat_error=float(_log_uniform(rng, 0.001, 0.01)),
        vignetting=float(rng.uniform(0.0, 0.3)),
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
