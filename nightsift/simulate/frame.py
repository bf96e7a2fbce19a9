"""One simulated exposure, from its plan to integers, header and truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits
from astropy.time import Time

from nightsift.core import tables
from nightsift.core.random import generator
from nightsift.simulate import render
from nightsift.simulate.detector import expose, make_header
from nightsift.simulate.field import FieldSky, make_sky, noise_magnitude, sky_electrons
from nightsift.simulate.galaxies import render_galaxies
from nightsift.simulate.optics import FramePsf, make_psf
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Exposure, plan_exposures, plan_fields
from nightsift.simulate.projection import TanSip, make_projection
from nightsift.simulate.render import Clouds, draw_clouds, render_stars
from nightsift.sky.sphere import offset_position

Values = npt.NDArray[np.float64]
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
        Objects on the frame that appear, vary or move, of schema `nightsift.core.tables.TRUTH`.
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
    *,
    visit: int = 0,
    role: Literal["template", "night"] = "night",
) -> SimulatedFrame:
    """Simulate one exposure of a survey in memory, the same as `simulate` writes.

    `unit`, `field` and `visit` are numbers; a frame of the role ``night`` has transients, one of ``template`` has none.
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

    view = _make_view(options, exposure)
    light = render.sky_shape(rng("sky"), unit.shape, options.artefacts.gradient)
    if exposure.cloudy:  # clouds shine where they are thick
        light *= 1.0 + 0.1 * (1.0 - view.clouds.image())
    light *= np.float32(view.sky)
    _add_static(light, sky, view, ghost_flux=options.artefacts.ghost_flux)
    objects = _objects_in(sky, view, light)
    _add_objects(light, sky, objects, view=view)
    streak = np.zeros(unit.shape, dtype=bool)
    for number in range(exposure.streaks):
        streak |= render.add_streak(rng(f"streak {number}"), light, view.psf, noise=view.noise)
    hits = options.artefacts.cosmic_rays * light.size * 1e-6 * unit.exposure / 60.0
    rays = render.cosmic_rays(rng("cosmic rays"), unit.shape, hits)
    data, saturated, bled = expose(rng("noise"), light, unit.exposure, detector=detector, rays=rays)
    cosmic = np.zeros(unit.shape, dtype=bool) if rays is None else rays > view.noise
    spoilt = {"saturated": saturated, "bled": bled, "cosmic_ray": cosmic, "streak": streak, "defect": detector.defect}
    name = _file_name(exposure, options.compress)
    depth = noise_magnitude(unit, exposure.sky_mag, view.psf.noise_pixels) - 2.5 * math.log10(5.0)
    return SimulatedFrame(
        data=data,
        header=make_header(options, exposure, view.wcs, rng=rng("wcs"), name=name),
        truth=_truth_table(sky, objects, view, spoilt=spoilt, name=name),
        file_name=name,
        exposure=exposure,
        wcs=view.wcs,
        psf=view.psf,
        sky=(view.sky + unit.detector.dark * unit.exposure) / unit.detector.gain + unit.detector.pedestal,
        zero_point=2.5 * math.log10(view.electrons / unit.detector.gain) - exposure.extinction,
        limiting_mag=depth - exposure.extinction,
        spoilt=spoilt,
    )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What turns positions and magnitudes into pixels and electrons.

    Attributes
    ----------
    exposure : Exposure
        The exposure.
    wcs : TanSip
        True coordinates.
    psf : FramePsf
        Point-spread function.
    clouds : Clouds
        Extinction.
    electrons : float
        Electrons from magnitude zero without extinction.
    sky : float
        Electrons per pixel from the sky.
    noise : float
        Noise of a pixel of empty sky (electron).
    """

    exposure: Exposure
    wcs: TanSip
    psf: FramePsf
    clouds: Clouds
    electrons: float
    sky: float
    noise: float


def _make_view(options: SimulationOptions, exposure: Exposure) -> View:
    """Coordinates, point-spread function, clouds, flux scale and noise of one exposure."""
    unit = exposure.unit
    wcs = _true_wcs(exposure)
    # Bad tracking smears along right ascension.
    east = np.linalg.inv(wcs.cd) @ np.array([1.0, 0.0])
    trail = exposure.trail * east / np.hypot(*east)
    psf = make_psf(
        unit.optics,
        unit.shape,
        unit.pixel_scale,
        seeing=exposure.seeing,
        defocus=exposure.defocus,
        trail=(float(trail[0]), float(trail[1])),
    )
    sky = sky_electrons(unit, exposure.sky_mag)
    rng = generator(options.seed, *exposure.key(), "clouds")
    return View(
        exposure=exposure,
        wcs=wcs,
        psf=psf,
        clouds=draw_clouds(rng, unit.shape, exposure.extinction, patchy=exposure.cloudy),
        electrons=unit.exposure * 10 ** (0.4 * unit.zero_point),
        sky=sky,
        noise=math.sqrt(sky + unit.detector.dark * unit.exposure + unit.detector.read_noise**2),
    )


def _true_wcs(exposure: Exposure) -> TanSip:
    """Shift the pointing by the dither; the distortion stays with the optics."""
    unit = exposure.unit

    def camera(ra: float, dec: float) -> TanSip:
        return make_projection(
            ra, dec, unit.shape, pixel_scale=unit.pixel_scale, rotation=unit.rotation + exposure.turn,
            parity=unit.parity, distortion=unit.distortion,
        )  # fmt: skip

    straight = camera(exposure.field.ra, exposure.field.dec)
    centre = np.array(straight.crpix)
    ra, dec = straight.to_world(centre[:1] + exposure.shift[0], centre[1:] + exposure.shift[1])
    return camera(float(ra[0]), float(dec[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Objects of a field in one exposure, one row each; electrons before the detector's response.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions in the middle of the exposure (pixel).
    ra, dec : ndarray of float64, shape (n,)
        The same on the sky (deg).
    flux : ndarray of float64, shape (n,)
        Flux (electron).
    reference : ndarray of float64, shape (n,)
        Mean flux in the frames for the template, on the flux scale of this exposure (electron).
    shade : ndarray of float64, shape (n,)
        Smooth response of the detector.
    sigma : ndarray of float64, shape (n,)
        Noise of an optimally weighted flux after the response, light of host and neighbours included (electron).
    zero : ndarray of float64, shape (n,)
        Flux of magnitude zero (electron).
    """

    x: Values
    y: Values
    ra: Values
    dec: Values
    flux: Values
    reference: Values
    shade: Values
    sigma: Values
    zero: Values


def _objects_in(sky: FieldSky, view: View, light: Image) -> Objects:
    """All objects of a field in one exposure; `light` (electrons) is what is expected without them, for their noise."""
    exposure, detector = view.exposure, view.exposure.unit.detector
    ra, dec = sky.transients.positions(exposure.mid_mjd)
    x, y = view.wcs.to_pixel(ra, dec)
    zero = view.electrons * view.clouds.transmission(x, y)
    flux = sky.transients.relative_flux(exposure.mid_mjd, exposure.role == "night")
    before = [sky.transients.relative_flux(mjd, night=False) for mjd in sky.template_mjds]
    reference = np.mean(before, axis=0) if before else np.zeros(len(ra))
    shade = sky.detector.shade(x, y)
    rows = np.clip(np.rint(y), 0, light.shape[0] - 1).astype(int)
    columns = np.clip(np.rint(x), 0, light.shape[1] - 1).astype(int)
    variance = light[rows, columns] * shade + detector.dark * exposure.unit.exposure + detector.read_noise**2
    sigma = np.sqrt(variance * view.psf.noise_pixels)
    return Objects(x, y, ra, dec, zero * flux, zero * reference, shade, sigma, zero)


def _add_objects(light: Image, sky: FieldSky, objects: Objects, *, view: View) -> None:
    """Draw the objects into `light` (electrons); asteroids as a row of points along their way during the exposure."""
    moving = sky.transients.kind == "asteroid"
    half = view.exposure.unit.exposure / 60.0 / 3600.0 / 2.0
    east, north = half * sky.transients.east, half * sky.transients.north
    x0, y0 = view.wcs.to_pixel(*offset_position(objects.ra, objects.dec, -east, north=-north))
    x1, y1 = view.wcs.to_pixel(*offset_position(objects.ra, objects.dec, east, north=north))
    length = np.where(moving, np.hypot(x1 - x0, y1 - y0), 0.0)
    points = np.where(objects.flux > 0, np.ceil(length / (0.25 * view.psf.fwhm)).astype(int) + 1, 0)
    rows = np.repeat(np.arange(len(points)), points)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(points) - points, points)
    part = (number + 0.5) / points[rows] - 0.5
    x = objects.x[rows] + np.where(moving[rows], part * (x1 - x0)[rows], 0.0)
    y = objects.y[rows] + np.where(moving[rows], part * (y1 - y0)[rows], 0.0)
    flux = objects.flux[rows] / points[rows]
    render_stars(light.shape, x, y, flux=flux, psf=view.psf, noise=view.noise, into=light)


def _truth_table(
    sky: FieldSky, objects: Objects, view: View, *, spoilt: dict[str, npt.NDArray[np.bool_]], name: str
) -> pa.Table:
    """Truth (schema `nightsift.core.tables.TRUTH`) of the objects that shine on a frame; `spoilt` masks bad pixels."""
    exposure, transients = view.exposure, sky.transients
    ny, nx = exposure.unit.shape
    inside = (objects.x > -0.5) & (objects.x < nx - 0.5) & (objects.y > -0.5) & (objects.y < ny - 0.5)
    rows = np.flatnonzero(inside & (objects.flux > 0))
    x, y, flux, reference = (part[rows] for part in (objects.x, objects.y, objects.flux, objects.reference))
    adu = objects.shade[rows] / exposure.unit.detector.gain
    margin = 2.0 * view.psf.fwhm
    cut_off = (x < margin) | (x > nx - 1 - margin) | (y < margin) | (y > ny - 1 - margin)
    host, hostless = transients.host[rows], transients.host[rows] < 0
    host_mag = sky.galaxies.mag[np.maximum(host, 0)] if len(sky.galaxies.mag) else np.zeros(len(rows))
    n = len(rows)
    columns: dict[str, Any] = {
        "exposure_file": [name] * n,
        "unit": [exposure.unit.name] * n,
        "night": [exposure.night] * n,
        "field": [exposure.field.name] * n,
        "mjd": np.full(n, exposure.mid_mjd),
        "kind": transients.kind[rows].tolist(),
        "object_id": [transients.object_id[row] for row in rows],
        "ra": objects.ra[rows],
        "dec": objects.dec[rows],
        "x": x,
        "y": y,
        "mag": -2.5 * np.log10(flux / objects.zero[rows]),
        "flux": flux * adu,
        "reference_flux": reference * adu,
        "host_id": [f"{sky.field.name}-g{galaxy:05d}" if galaxy >= 0 else None for galaxy in host],
        "host_mag": pa.array(host_mag.astype(np.float32), mask=hostless),
        "host_offset": pa.array(transients.offset[rows].astype(np.float32), mask=hostless),
        "snr": np.abs(flux - reference) * objects.shade[rows] / objects.sigma[rows],
        "obstructed": _near_spoilt(x, y, spoilt, fwhm=view.psf.fwhm) | cut_off,
    }
    return tables.table(columns, tables.TRUTH)


def _near_spoilt(
    x: Values, y: Values, spoilt: dict[str, npt.NDArray[np.bool_]], *, fwhm: float
) -> npt.NDArray[np.bool_]:
    """Whether any spoilt pixel lies within half a width of the positions."""
    bad = np.logical_or.reduce(list(spoilt.values()))
    reach = max(1, round(0.5 * fwhm))
    hit = np.zeros(len(x), dtype=bool)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= reach * reach:
                rows = np.clip(np.rint(y + dy), 0, bad.shape[0] - 1).astype(int)
                columns = np.clip(np.rint(x + dx), 0, bad.shape[1] - 1).astype(int)
                hit |= bad[rows, columns]
    return hit


def _add_static(light: Image, sky: FieldSky, view: View, *, ghost_flux: float) -> None:
    """Add galaxies, stars, aureoles and ghosts."""
    galaxies, stars, unit = sky.galaxies, sky.stars, view.exposure.unit
    x, y = view.wcs.to_pixel(galaxies.ra, galaxies.dec)
    flux = view.electrons * 10 ** (-0.4 * galaxies.mag) * view.clouds.transmission(x, y)
    # Position angle on the detector: where north and east point there.
    angle = np.deg2rad(galaxies.angle)
    along = np.linalg.inv(view.wcs.cd) @ np.stack([np.sin(angle), np.cos(angle)])
    radius, direction = galaxies.radius / unit.pixel_scale, np.arctan2(along[1], along[0])
    render_galaxies(
        light.shape,
        x,
        y,
        flux=flux,
        effective_radius=radius,
        axis_ratio=galaxies.axis_ratio,
        angle=direction,
        index=galaxies.index,
        psf=view.psf,
        noise=view.noise,
        into=light,
    )
    x, y = view.wcs.to_pixel(stars.ra, stars.dec)
    flux = view.electrons * 10 ** (-0.4 * stars.mag) * view.clouds.transmission(x, y)
    render_stars(light.shape, x, y, flux=flux, psf=view.psf, noise=view.noise, into=light)
    render.add_aureoles(light, x, y, flux=flux, psf=view.psf, fraction=unit.optics.aureole, noise=view.noise)
    render.add_ghosts(light, x, y, flux=flux, fraction=ghost_flux, noise=view.noise)


def _file_name(exposure: Exposure, compress: bool) -> str:
    stamp = Time(exposure.mjd, format="mjd").strftime("%Y%m%dT%H%M%S")
    return f"{exposure.field.name}-{stamp}.fits{'.fz' if compress else ''}"
