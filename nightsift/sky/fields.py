"""Fields of the sky: polygons and circles as intersections of spherical caps, and names by the cells of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nightsift.sky.sphere import Values, offset_position, positions_of, unit_vectors


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
        numbers = [self.ra, self.dec, self.radius, *(angle for corner in self.corners for angle in corner)]
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


def grid_field(ra: float, dec: float, grid: float) -> str:
    """Name of the sky field that a pointing falls into, on a grid of nearly equal cells.

    Parameters
    ----------
    ra, dec : float
        Pointing (deg).
    grid : float
        Size of a cell (deg).

    Returns
    -------
    str
        Name made from the centre of the cell, such as ``"p+031.5+46.5"``.
    """
    rows = max(round(180.0 / grid), 1)
    row = min(int((dec + 90.0) / 180.0 * rows), rows - 1)
    centre = -90.0 + (row + 0.5) * 180.0 / rows
    columns = max(round(360.0 * math.cos(math.radians(centre)) / grid), 1)
    column = int(ra % 360.0 / 360.0 * columns) % columns
    digits = max(0, math.ceil(-math.log10(grid))) + 1
    middle = (column + 0.5) * 360.0 / columns
    return f"p{middle:0{4 + digits}.{digits}f}{centre:+0{4 + digits}.{digits}f}"


def square_field(
    name: str, ra: float, dec: float, *, width: float, height: float | None = None, **attributes: Any
) -> SkyField:
    """Make a rectangular field with sides along right ascension and declination on its tangent plane.

    `width` and `height` (deg) are lengths through the centre, a square without a height; `attributes` are further ones
    of `SkyField`.
    """
    x, y = (math.tan(math.radians(size) / 2.0) for size in (width, height or width))
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], dtype=np.float64)
    sky = offset_position(ra, dec, math.degrees(x) * signs[:, 0], north=math.degrees(y) * signs[:, 1])
    corners = tuple((float(a), float(d)) for a, d in zip(*sky, strict=True))
    return SkyField(name, ra, dec, corners, math.degrees(math.atan(math.hypot(x, y))), **attributes)


def polygon_field(name: str, corners: Sequence[tuple[float, float]], **attributes: Any) -> SkyField:
    """Make a field of its corners, such as those of a frame.

    Parameters
    ----------
    name : str
        Name.
    corners : sequence of (float, float)
        Right ascension and declination (deg), in order.
    **attributes
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
    ra, dec = (float(one) for one in positions_of(middle))
    radius = math.degrees(math.acos(min(1.0, float((vectors @ middle).min()))))
    return SkyField(name, ra, dec, tuple((float(a), float(d)) for a, d in corners), radius, **attributes)
