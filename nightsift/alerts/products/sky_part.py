"""The part of the sky that a picture of an alert shows, and its projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nightsift.alerts.skymap import SkyMap
from nightsift.sky.fields import SkyField
from nightsift.sky.sphere import Values, angle_between, positions_of, tangent_axes, unit_vectors

WIDEST = 40.0
"""Largest radius of the region of 90 % (deg) that is drawn as a part of the sky; beyond it is the whole sky."""
LEAST = 2.0
"""Least half width of a picture (deg)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the sky in Lambert's equal-area projection, east to the left.

    Attributes
    ----------
    ra, dec : float
        Its middle (deg).
    width, height : float
        Half of its width and height (deg).
    """

    ra: float
    dec: float
    width: float = 1.0
    height: float = 1.0

    def axes(self) -> tuple[Values, Values, Values]:
        """Unit vectors of the middle, east and north."""
        return tangent_axes(self.ra, self.dec)

    def project(self, ra: Values, dec: Values) -> tuple[Values, Values]:
        """Offsets of positions (deg) to the east and north, NaN on the far half of the sky.

        Parameters
        ----------
        ra, dec : ndarray of float64, shape (n,)
            Positions (deg).

        Returns
        -------
        x, y : ndarray of float64, shape (n,)
            Offsets (deg).
        """
        middle, east, north = self.axes()
        vectors = unit_vectors(ra, dec)
        cosine = vectors @ middle
        scale = np.rad2deg(np.sqrt(2.0 / (1.0 + np.maximum(cosine, -0.999))))
        scale = np.where(cosine > 0.0, scale, np.nan)
        return scale * (vectors @ east), scale * (vectors @ north)

    def position(self, x: Values, y: Values) -> tuple[Values, Values]:
        """Positions of offsets, the inverse of `project`.

        Parameters
        ----------
        x, y : ndarray of float64
            Offsets (deg).

        Returns
        -------
        ra, dec : ndarray of float64
            Positions (deg).
        """
        middle, east, north = self.axes()
        x, y = np.deg2rad(x), np.deg2rad(y)
        half = np.minimum(np.hypot(x, y) / 2.0, 1.0)
        tilt = np.sqrt(1.0 - half**2)[..., None]  # sine of the angle over the radius of the projection
        vectors = (1.0 - 2.0 * half**2)[..., None] * middle + tilt * (x[..., None] * east + y[..., None] * north)
        return positions_of(vectors)


def part_of(skymap: SkyMap | None, fields: Sequence[SkyField]) -> Part | None:
    """Choose the part of the sky to draw.

    Parameters
    ----------
    skymap : SkyMap or None
        The map; the fields count without one.
    fields : sequence of SkyField
        Fields; those near are drawn whole.

    Returns
    -------
    Part or None
        None for the whole sky.
    """
    from astropy_healpix import healpix_to_xyz

    field_points = unit_vectors(np.array([one.ra for one in fields]), np.array([one.dec for one in fields]))
    if skymap is not None:
        order = np.argsort(-skymap.density, kind="stable")
        inside = order[: int(np.searchsorted(np.cumsum(skymap.probability[order]), 0.9)) + 1]
        nside = np.asarray(2 ** skymap.level[inside])
        points = np.stack(healpix_to_xyz(skymap.pixel[inside], nside, order="nested"), axis=-1)
        edge = np.rad2deg(1.0 / nside)
        weight = skymap.probability[inside]
    else:
        points, edge, weight = field_points, np.array([one.radius for one in fields]), np.ones(len(fields))
    middle = weight @ points
    length = float(np.linalg.norm(middle))
    if length < 0.3 * weight.sum():
        return None
    middle /= length
    if float((angle_between(points, middle) + edge).max()) > WIDEST:
        return None
    rough = Part(*(float(angle) for angle in positions_of(middle)))
    x, y = rough.project(*positions_of(points))
    box = np.array([(x - edge).min(), (x + edge).max(), (y - edge).min(), (y + edge).max()])
    size = max(box[1] - box[0], box[3] - box[2])
    for one in fields:  # those near are drawn whole
        x, y = rough.project(np.array([one.ra]), np.array([one.dec]))
        around = np.array([x[0] - one.radius, x[0] + one.radius, y[0] - one.radius, y[0] + one.radius])
        middle_of_box = 0.5 * (box[[0, 2]] + box[[1, 3]])
        if np.isfinite(around).all() and (np.abs(np.array([x[0], y[0]]) - middle_of_box) < 0.8 * size).all():
            box = np.where([True, False] * 2, np.minimum(box, around), np.maximum(box, around))
    ra, dec = rough.position(np.array([box[:2].mean()]), np.array([box[2:].mean()]))
    width, height = 0.54 * (box[1] - box[0]), 0.54 * (box[3] - box[2])
    least = max(LEAST, 0.4 * max(width, height))
    return Part(float(ra[0]), float(dec[0]), max(width, least), max(height, least))
