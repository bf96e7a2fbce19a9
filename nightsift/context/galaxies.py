"""Galaxies on a frame as ellipses of light: from a catalogue on the sky, or measured on the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.context.template_sources import TemplateSources
from nightsift.sky.sphere import offset_position, separation

if TYPE_CHECKING:
    from astropy.wcs import WCS

Values = npt.NDArray[np.float64]
_HALF_LIGHT = float(np.sqrt(2.0 * np.log(2.0)))  # half-light radius of a Gaussian over its standard deviation
_WIDE = 0.5  # FWHM of the seeing in half-light radius from which radii of the catalogue are the better ones
_NEAREST = 16  # galaxies looked at to find the one whose ellipse is nearest


@dataclass(frozen=True, slots=True, eq=False)
class Galaxies:
    """Galaxies on a frame.

    Attributes
    ----------
    host_id : ndarray of str, shape (n,)
        Identities, the same on every frame of the galaxy.
    x, y : ndarray of float64, shape (n,)
        Centres (pixel).
    radius : ndarray of float64, shape (n,)
        Half-light radii along the major axis (pixel).
    axis_ratio : ndarray of float64, shape (n,)
        Minor over major axis.
    angle : ndarray of float64, shape (n,)
        Direction of the major axis (rad from +x to +y).
    mag : ndarray of float64, shape (n,)
        Magnitudes, NaN where unknown.
    """

    host_id: npt.NDArray[np.str_]
    x: Values
    y: Values
    radius: Values
    axis_ratio: Values
    angle: Values
    mag: Values

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Galaxies:
        """Some of the galaxies, by row or by mask."""
        parts = (getattr(self, name) for name in ("host_id", "x", "y", "radius", "axis_ratio", "angle", "mag"))
        return Galaxies(*(part[rows] for part in parts))

    def offsets(self, rows: npt.NDArray[np.int64], x: Values, y: Values) -> Values:
        """Elliptical distances of positions from galaxies, pair by pair (half-light radii), shape (n,)."""
        dx, dy = x - self.x[rows], y - self.y[rows]
        cosine, sine = np.cos(self.angle[rows]), np.sin(self.angle[rows])
        along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
        return np.asarray(np.hypot(along, across / self.axis_ratio[rows]) / self.radius[rows])


def nearest_galaxy(galaxies: Galaxies, x: Values, y: Values, *, most: float) -> tuple[npt.NDArray[np.int64], Values]:
    """The galaxy in whose light each position lies deepest.

    Parameters
    ----------
    galaxies : Galaxies
        The galaxies.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    most : float
        Largest offset that counts (half-light radii).

    Returns
    -------
    rows : ndarray of int64, shape (n,)
        Row of the galaxy of the smallest elliptical offset among the nearest 16, -1 where none lies within `most`.
    offset : ndarray of float64, shape (n,)
        That offset, NaN without a galaxy.
    """
    from scipy.spatial import cKDTree

    rows, offset = np.full(len(x), -1, dtype=np.int64), np.full(len(x), np.nan)
    if not len(galaxies) or not len(x):
        return rows, offset
    count = min(_NEAREST, len(galaxies))
    _, near = cKDTree(np.column_stack([galaxies.x, galaxies.y])).query(np.column_stack([x, y]), k=count)
    near = np.reshape(near, (len(x), count))
    each = galaxies.offsets(near.ravel(), np.repeat(x, count), np.repeat(y, count)).reshape(len(x), count)
    best = np.argmin(each, axis=1)
    smallest = each[np.arange(len(x)), best]
    within = smallest <= most
    rows[within], offset[within] = near[within, best[within]], smallest[within]
    return rows, offset


def galaxies_of_catalogue(table: pa.Table, wcs: WCS, shape: tuple[int, int], *, margin: float = 64.0) -> Galaxies:
    """Galaxies of a catalogue that lie on a frame, as ellipses of pixels.

    The tip of the major axis is moved on the sphere, not by adding angles to right ascension, so that ellipses are
    right at every declination.

    Parameters
    ----------
    table : pyarrow.Table
        Columns ``object_id``, ``ra``, ``dec`` (deg), ``radius`` (half-light, arcsec), ``axis_ratio``, ``angle``
        (north through east, deg) and ``mag``; rows without a finite radius are left out.
    wcs : astropy.wcs.WCS
        Coordinates of the frame.
    shape : tuple of int
        ``(ny, nx)``.
    margin : float, optional
        How far outside the frame a centre may lie (pixel).

    Returns
    -------
    Galaxies
        Those on the frame.
    """
    names = ("ra", "dec", "radius", "axis_ratio", "angle", "mag")
    columns = {name: np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64) for name in names}
    ny, nx = shape
    centre = wcs.all_pix2world((nx - 1) / 2.0, (ny - 1) / 2.0, 0)
    corner = wcs.all_pix2world(-margin, -margin, 0)
    reach = 1.2 * separation(*(float(angle) for angle in (*centre, *corner)))
    near = np.isfinite(columns["radius"]) & (columns["radius"] > 0)
    near &= separation(columns["ra"], columns["dec"], float(centre[0]), float(centre[1])) < reach
    rows = np.flatnonzero(near)
    ra, dec, radius, ratio, angle, mag = (columns[name][rows] for name in names)
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True) if len(rows) else (np.empty(0), np.empty(0))
    turn = np.deg2rad(angle)
    tip = offset_position(ra, dec, radius / 3600.0 * np.sin(turn), north=radius / 3600.0 * np.cos(turn))
    tip_x, tip_y = wcs.all_world2pix(*tip, 0, quiet=True) if len(rows) else (x, y)
    inside = (x > -margin) & (x < nx + margin) & (y > -margin) & (y < ny + margin)
    found = Galaxies(
        np.asarray(table["object_id"].take(pa.array(rows)).to_pylist(), dtype=np.str_),
        x, y, np.hypot(tip_x - x, tip_y - y), np.clip(ratio, 0.1, 1.0), np.arctan2(tip_y - y, tip_x - x), mag,
    )  # fmt: skip
    return found.take(inside)


def galaxies_of_template(sources: TemplateSources, least_score: float = 0.8, least_snr: float = 15.0) -> Galaxies:
    """Galaxies among the sources of a template: those wider than its stars, with the seeing taken out.

    Half-light radii of wide galaxies are those of the template's catalogue. Those of small ones, and all where it has
    none, are those of a Gaussian of the same second moments: for a galaxy wider than the seeing half of what is true.

    Parameters
    ----------
    sources : TemplateSources
        Sources of the template on the frame.
    least_score : float, optional
        Lowest star-galaxy score that counts as a galaxy.
    least_snr : float, optional
        Lowest signal-to-noise ratio in the template.

    Returns
    -------
    Galaxies
        The galaxies; magnitudes by the zero point of the template.
    """
    chosen = sources.take((sources.star_galaxy >= least_score) & (sources.snr >= least_snr) & sources.clean)
    seeing = chosen.seeing / (2.0 * _HALF_LIGHT)
    major = np.sqrt(np.maximum(chosen.major**2 - seeing**2, 0.09))
    minor = np.sqrt(np.maximum(chosen.minor**2 - seeing**2, 0.01))
    ratio = np.clip(minor / major, 0.2, 1.0)
    radius = _HALF_LIGHT * major
    if chosen.half_light is not None:
        wide = chosen.half_light > _WIDE * chosen.seeing
        radius = np.where(wide, chosen.half_light / np.sqrt(ratio), radius)
    return Galaxies(chosen.identity, chosen.x, chosen.y, radius, ratio, chosen.angle, chosen.mag)
