"""A field of the survey: everything on its sky, and the detector that looks at it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nightsift.core.random import generator
from nightsift.simulate.detector import Detector, make_detector
from nightsift.simulate.optics import make_psf
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Field, plan_exposures
from nightsift.simulate.population import Galaxies, Stars, draw_galaxies, draw_stars
from nightsift.simulate.transients import Transients, draw_transients
from nightsift.simulate.unit_options import UnitOptions


@dataclass(frozen=True, slots=True, eq=False)
class FieldSky:
    """Everything on the sky of one field, and the detector that looks at it.

    Attributes
    ----------
    field : Field
        The field.
    stars : Stars
        Its stars.
    galaxies : Galaxies
        Its galaxies.
    transients : Transients
        What appears, varies and moves in it.
    template_mjds : tuple of float
        Mid-exposure times of the frames for the template.
    detector : Detector
        The unit's detector.
    """

    field: Field
    stars: Stars
    galaxies: Galaxies
    transients: Transients
    template_mjds: tuple[float, ...]
    detector: Detector


def noise_magnitude(unit: UnitOptions, sky_mag: float, noise_pixels: float) -> float:
    """Magnitude of a point source whose signal-to-noise ratio is one.

    Parameters
    ----------
    unit : UnitOptions
        The unit.
    sky_mag : float
        Brightness of the sky (mag/arcsec2).
    noise_pixels : float
        ``1 / sum(psf**2)`` (pixel).

    Returns
    -------
    float
        Magnitude, for optimal weighting and noise from sky, dark current and readout.
    """
    variance = sky_electrons(unit, sky_mag) + unit.detector.dark * unit.exposure + unit.detector.read_noise**2
    return unit.zero_point - 2.5 * math.log10(math.sqrt(variance * noise_pixels) / unit.exposure)


def make_sky(options: SimulationOptions, unit: UnitOptions, field: Field) -> FieldSky:
    """Draw the sky of one field.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    unit : UnitOptions
        The unit that observes the field.
    field : Field
        The field.

    Returns
    -------
    FieldSky
        Stars, galaxies, transients and the unit's detector.
    """
    psf = make_psf(unit.optics, unit.shape, unit.pixel_scale, unit.optics.seeing)
    faintest = noise_magnitude(unit, unit.sky_mag - 0.3, psf.noise_pixels)
    scale = unit.pixel_scale / 3600.0
    turn = np.deg2rad(unit.rotation)
    ny, nx = unit.shape
    widths = nx * abs(np.cos(turn)) + ny * abs(np.sin(turn)), nx * abs(np.sin(turn)) + ny * abs(np.cos(turn))
    half_width = float(0.5 * max(widths) + unit.dither + 0.02 * max(ny, nx) + 16) * scale
    centre = (field.ra, field.dec)

    def rng(what: str) -> np.random.Generator:
        return generator(options.seed, unit.name, field.name, what)

    galaxies = draw_galaxies(rng("galaxies"), centre, half_width, faintest + 1.0, options.sky)
    exposures = plan_exposures(options, unit, field)
    nightly = [e.mid_mjd for e in exposures if e.role == "night"]
    transients = draw_transients(
        rng("transients"),
        field.name,
        centre,
        half_width,
        per_frame=(2 * half_width) ** 2 / (nx * ny * scale**2),
        faintest=faintest,
        epoch=float(np.mean(nightly)) if nightly else 0.0,
        galaxies=galaxies,
        options=options.transients,
        separation=options.transients.separation * psf.fwhm * scale,
    )
    return FieldSky(
        field,
        draw_stars(rng("stars"), centre, half_width, faintest + 1.0, options.sky),
        galaxies,
        transients,
        tuple(e.mid_mjd for e in exposures if e.role == "template"),
        make_detector(generator(options.seed, unit.name, "detector"), unit.shape, unit.detector),
    )


def sky_electrons(unit: UnitOptions, sky_mag: float) -> float:
    """Electrons per pixel that the sky gives in one exposure.

    Parameters
    ----------
    unit : UnitOptions
        The unit.
    sky_mag : float
        Brightness of the sky (mag/arcsec2).

    Returns
    -------
    float
        Electrons, before the detector's response.
    """
    return unit.exposure * unit.pixel_scale**2 * 10 ** (-0.4 * (sky_mag - unit.zero_point))
