"""One simulated exposure, from its plan to integers, header and truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits
from astropy.time import Time

from nightsift.core.random import generator
from nightsift.simulate import artefacts
from nightsift.simulate.detector import expose
from nightsift.simulate.field import FieldSky, make_sky, noise_magnitude
from nightsift.simulate.galaxies import render_galaxies
from nightsift.simulate.header import make_header
from nightsift.simulate.objects import add_objects, objects_in, truth_table
from nightsift.simulate.optics import FramePsf
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Exposure, plan_exposures, plan_fields
from nightsift.simulate.projection import TanSip
from nightsift.simulate.render import render_stars
from nightsift.simulate.view import View, make_view

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedFrame:
    """A simulated exposure and what is known about it.

    Attributes
    ----------
    data : ndarray of uint16, shape (ny, nx)
        Pixel values as the camera writes them (ADU).
    header : astropy.io.fits.Header
        Cards as the camera writes them; the WCS is a little wrong on purpose.
    truth : pyarrow.Table
        Objects on the frame that appear, vary or move, of schema `nightsift.tables.TRUTH`.
    file_name : str
        Name of the file.
    exposure : Exposure
        Plan and conditions.
    wcs : TanSip
        True coordinates.
    psf : FramePsf
        True point-spread function.
    sky : float
        Sky level at the centre, pedestal included (ADU).
    zero_point : float
        True magnitude of 1 ADU at the centre.
    limiting_mag : float
        Magnitude of a point source at a signal-to-noise ratio of five on empty sky at the centre.
    spoilt : dict of str to ndarray of bool
        True masks: ``saturated``, ``bled``, ``cosmic_ray``, ``streak``, ``defect``.
    """

    data: npt.NDArray[np.uint16]
    header: fits.Header
    truth: pa.Table
    file_name: str
    exposure: Exposure
    wcs: TanSip
    psf: FramePsf
    sky: float
    zero_point: float
    limiting_mag: float
    spoilt: dict[str, npt.NDArray[np.bool_]]


def simulate_frame(
    options: SimulationOptions,
    unit: int = 0,
    field: int = 0,
    visit: int = 0,
    role: Literal["template", "night"] = "night",
) -> SimulatedFrame:
    """Simulate one exposure of a survey in memory.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    unit, field : int, optional
        Number of the unit, and of its field.
    visit : int, optional
        Number of the exposure among those of the same role.
    role : {"night", "template"}, optional
        Exposure of the night (with transients) or for the template.

    Returns
    -------
    SimulatedFrame
        The same as `simulate` writes for this exposure.
    """
    one = options.units[unit]
    where = plan_fields(options, one)[field]
    exposure = [e for e in plan_exposures(options, one, where) if e.role == role][visit]
    return make_frame(options, make_sky(options, one, where), exposure)


def make_frame(options: SimulationOptions, sky: FieldSky, exposure: Exposure) -> SimulatedFrame:
    """Simulate one exposure of a field whose sky is at hand.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    sky : FieldSky
        The field.
    exposure : Exposure
        The exposure.

    Returns
    -------
    SimulatedFrame
        The exposure; it depends on the seed and the exposure only.
    """
    unit, detector = exposure.unit, sky.detector

    def rng(what: str) -> np.random.Generator:
        return generator(options.seed, *exposure.key(), what)

    view = make_view(options, exposure)
    light = artefacts.sky_shape(rng("sky"), unit.shape, options.artefacts.gradient)
    if exposure.cloudy:  # clouds shine where they are thick
        light *= 1.0 + 0.1 * (1.0 - view.clouds.image())
    light *= np.float32(view.sky)
    _add_static(light, sky, view, options.artefacts.ghost_flux)
    objects = objects_in(sky, view, light)
    add_objects(light, sky, objects, view)
    streak = np.zeros(unit.shape, dtype=bool)
    for number in range(exposure.streaks):
        streak |= artefacts.add_streak(rng(f"streak {number}"), light, view.psf, view.noise)
    hits = options.artefacts.cosmic_rays * light.size * 1e-6 * unit.exposure / 60.0
    rays = artefacts.cosmic_rays(rng("cosmic rays"), unit.shape, hits)
    data, saturated, bled = expose(rng("noise"), light, unit.exposure, detector, rays)
    cosmic = np.zeros(unit.shape, dtype=bool) if rays is None else rays > view.noise
    spoilt = {"saturated": saturated, "bled": bled, "cosmic_ray": cosmic, "streak": streak, "defect": detector.defect}
    name = _file_name(exposure, options.compress)
    depth = noise_magnitude(unit, exposure.sky_mag, view.psf.noise_pixels) - 2.5 * math.log10(5.0)
    return SimulatedFrame(
        data=data,
        header=make_header(options, exposure, view.wcs, rng("wcs"), name),
        truth=truth_table(sky, objects, view, spoilt, name),
        file_name=name,
        exposure=exposure,
        wcs=view.wcs,
        psf=view.psf,
        sky=(view.sky + unit.detector.dark * unit.exposure) / unit.detector.gain + unit.detector.pedestal,
        zero_point=2.5 * math.log10(view.electrons / unit.detector.gain) - exposure.extinction,
        limiting_mag=depth - exposure.extinction,
        spoilt=spoilt,
    )


def _add_static(light: Image, sky: FieldSky, view: View, ghost_flux: float) -> None:
    """Add galaxies, stars, aureoles and ghosts."""
    galaxies, stars, unit = sky.galaxies, sky.stars, view.exposure.unit
    x, y = view.wcs.to_pixel(galaxies.ra, galaxies.dec)
    flux = view.electrons * 10 ** (-0.4 * galaxies.mag) * view.clouds.transmission(x, y)
    # Position angle on the detector: where north and east point there.
    angle = np.deg2rad(galaxies.angle)
    along = np.linalg.inv(view.wcs.cd) @ np.stack([np.sin(angle), np.cos(angle)])
    radius, direction = galaxies.radius / unit.pixel_scale, np.arctan2(along[1], along[0])
    render_galaxies(
        light.shape, x, y, flux, radius, galaxies.axis_ratio, direction, galaxies.index, view.psf, view.noise, light
    )
    x, y = view.wcs.to_pixel(stars.ra, stars.dec)
    flux = view.electrons * 10 ** (-0.4 * stars.mag) * view.clouds.transmission(x, y)
    render_stars(light.shape, x, y, flux, view.psf, view.noise, light)
    artefacts.add_aureoles(light, x, y, flux, view.psf, unit.optics.aureole, view.noise)
    artefacts.add_ghosts(light, x, y, flux, ghost_flux, view.noise)


def _file_name(exposure: Exposure, compress: bool) -> str:
    stamp = Time(exposure.mjd, format="mjd").strftime("%Y%m%dT%H%M%S")
    return f"{exposure.field.name}-{stamp}.fits{'.fz' if compress else ''}"
