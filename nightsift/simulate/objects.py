"""What appears, varies and moves, in one exposure: its pixels and its truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift import tables
from nightsift.simulate.field import FieldSky
from nightsift.simulate.render import render_stars
from nightsift.simulate.view import View
from nightsift.sky.sphere import offset_position

Values = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]


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


def objects_in(sky: FieldSky, view: View, light: Image) -> Objects:
    """Objects of a field as one exposure sees them.

    Parameters
    ----------
    sky : FieldSky
        The field.
    view : View
        The exposure's view.
    light : ndarray of float32, shape (ny, nx)
        Electrons expected without these objects, for their noise.

    Returns
    -------
    Objects
        All objects of the field, also those outside the frame.
    """
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


def add_objects(light: Image, sky: FieldSky, objects: Objects, view: View) -> None:
    """Draw the objects; asteroids as a row of points along their way during the exposure.

    Parameters
    ----------
    light : ndarray of float32, shape (ny, nx)
        Electrons to add to.
    sky : FieldSky
        The field.
    objects : Objects
        Its objects in this exposure.
    view : View
        The exposure's view.
    """
    moving = sky.transients.kind == "asteroid"
    half = view.exposure.unit.exposure / 60.0 / 3600.0 / 2.0
    east, north = half * sky.transients.east, half * sky.transients.north
    x0, y0 = view.wcs.to_pixel(*offset_position(objects.ra, objects.dec, -east, -north))
    x1, y1 = view.wcs.to_pixel(*offset_position(objects.ra, objects.dec, east, north))
    length = np.where(moving, np.hypot(x1 - x0, y1 - y0), 0.0)
    points = np.where(objects.flux > 0, np.ceil(length / (0.25 * view.psf.fwhm)).astype(int) + 1, 0)
    rows = np.repeat(np.arange(len(points)), points)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(points) - points, points)
    part = (number + 0.5) / points[rows] - 0.5
    x = objects.x[rows] + np.where(moving[rows], part * (x1 - x0)[rows], 0.0)
    y = objects.y[rows] + np.where(moving[rows], part * (y1 - y0)[rows], 0.0)
    render_stars(light.shape, x, y, objects.flux[rows] / points[rows], view.psf, view.noise, light)


def truth_table(
    sky: FieldSky, objects: Objects, view: View, spoilt: dict[str, npt.NDArray[np.bool_]], name: str
) -> pa.Table:
    """Truth of the objects that shine on a frame.

    Parameters
    ----------
    sky : FieldSky
        The field.
    objects : Objects
        Its objects in this exposure.
    view : View
        The exposure's view.
    spoilt : dict of str to ndarray of bool, shape (ny, nx)
        Pixels that are no good, by reason.
    name : str
        Name of the exposure's file.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.tables.TRUTH`.
    """
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
        "obstructed": _near_spoilt(x, y, spoilt, view.psf.fwhm) | cut_off,
    }
    return tables.table(columns, tables.TRUTH)


def _near_spoilt(x: Values, y: Values, spoilt: dict[str, npt.NDArray[np.bool_]], fwhm: float) -> npt.NDArray[np.bool_]:
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
