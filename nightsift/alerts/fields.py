"""Sky fields as intersections of spherical caps: quadrilaterals, any convex polygon, and circles, in one form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SkyField:
    """A field of a tile grid: a convex polygon with sides of great circles, or a circle.

    Attributes
    ----------
    name : str
        Name, unique in its grid.
    ra, dec : float
        Centre (deg, ICRS).
    corners : tuple of (float, float)
        Right ascension and declination of each corner (deg), in order; empty for a circle.
    radius : float
        Radius of the circle, or of the circle around the centre that holds all corners (deg).
    units : tuple of str
        Units that observe the field; empty for any.
    grid : str
        Name of the tile grid.
    """

    name: str
    ra: float
    dec: float
    corners: tuple[tuple[float, float], ...]
    radius: float
    units: tuple[str, ...] = ()
    grid: str = ""

    def __post_init__(self) -> None:
        numbers = [self.ra, self.dec, self.radius, *(one for corner in self.corners for one in corner)]
        if not all(math.isfinite(one) for one in numbers) or abs(self.dec) > 90.0 or not 0.0 < self.radius < 90.0:
            raise ValueError(f"the field '{self.name}' has no proper position or size")
        if self.corners and (len(self.corners) < 3 or not self._is_convex()):
            raise ValueError(f"the corners of the field '{self.name}' make no convex polygon around its centre")

    @cached_property
    def caps(self) -> Values:
        """Axis (unit vector) and opening angle (rad) of each cap whose intersection is the field, shape (k, 4)."""
        if not self.corners:
            return np.append(unit_vectors(self.ra, self.dec), math.radians(self.radius))[None, :]
        return np.column_stack([self._normals(), np.full(len(self.corners), math.pi / 2.0)])

    def holds(self, ra: Values | float, dec: Values | float) -> npt.NDArray[np.bool_]:
        """Tell which positions (deg) lie in the field."""
        inside = unit_vectors(ra, dec) @ self.caps[:, :3].T >= np.cos(self.caps[:, 3])
        return np.asarray(inside.all(axis=-1))

    def _normals(self) -> Values:
        """Normals of the sides, towards the centre."""
        vectors = unit_vectors(*np.asarray(self.corners, dtype=np.float64).T)
        normals = np.cross(vectors, np.roll(vectors, -1, axis=0))
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(lengths > 1e-12, lengths, 1.0)
        signs = np.sign(normals @ unit_vectors(self.ra, self.dec))
        return np.asarray(normals * signs[:, None])

    def _is_convex(self) -> bool:
        vectors = unit_vectors(*np.asarray(self.corners, dtype=np.float64).T)
        sides = np.cross(vectors, np.roll(vectors, -1, axis=0))
        turns = sides @ unit_vectors(self.ra, self.dec)
        one_sense = bool((turns > 0).all() or (turns < 0).all())
        return one_sense and bool((vectors @ self._normals().T >= -1e-9).all())


def unit_vectors(ra: Values | float, dec: Values | float) -> Values:
    """Turn positions into unit vectors.

    Parameters
    ----------
    ra, dec : ndarray or float
        Positions (deg).

    Returns
    -------
    ndarray of float64, shape (..., 3)
        Unit vectors.
    """
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d) * np.ones_like(a)], axis=-1)


def square_field(name: str, ra: float, dec: float, width: float, height: float | None = None, **kept: Any) -> SkyField:
    """Make a rectangular field with sides along right ascension and declination on its tangent plane.

    Parameters
    ----------
    name : str
        Name.
    ra, dec : float
        Centre (deg).
    width, height : float
        Lengths through the centre (deg); a square without a height.
    **kept
        Further attributes of the field.

    Returns
    -------
    SkyField
        The field.
    """
    x, y = (math.tan(math.radians(size) / 2.0) for size in (width, height or width))
    corners = tuple(_from_plane(ra, dec, sx * x, sy * y) for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1)))
    return SkyField(name, ra, dec, corners, math.degrees(math.atan(math.hypot(x, y))), **kept)


def polygon_field(name: str, corners: Sequence[tuple[float, float]], **kept: Any) -> SkyField:
    """Make a field of its corners, such as those of a frame.

    Parameters
    ----------
    name : str
        Name.
    corners : sequence of (float, float)
        Right ascension and declination (deg), in order.
    **kept
        Further attributes of the field.

    Returns
    -------
    SkyField
        The field.

    Raises
    ------
    ValueError
        If they make no convex polygon.
    """
    vectors = unit_vectors(*np.asarray(corners, dtype=np.float64).T)
    middle = vectors.mean(axis=0)
    length = float(np.linalg.norm(middle))
    if not length > 1e-6:
        raise ValueError(f"the corners of the field '{name}' make no convex polygon around its centre")
    middle /= length
    ra, dec = math.degrees(math.atan2(middle[1], middle[0])) % 360.0, math.degrees(math.asin(middle[2]))
    radius = math.degrees(math.acos(min(1.0, float((vectors @ middle).min()))))
    return SkyField(name, ra, dec, tuple((float(a), float(d)) for a, d in corners), radius, **kept)


def _from_plane(ra: float, dec: float, x: float, y: float) -> tuple[float, float]:
    """Position of a point on the tangent plane (radians, x east, y north)."""
    a, d = math.radians(ra), math.radians(dec)
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
    vector = unit_vectors(ra, dec) + x * east + y * north
    vector /= np.linalg.norm(vector)
    return math.degrees(math.atan2(vector[1], vector[0])) % 360.0, math.degrees(math.asin(vector[2]))
