"""Fields of the sky: their area, their corners, and the names of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsift.sky.fields import grid_field, polygon_field, square_field
from nightsift.sky.sphere import unit_vectors

NEAR = square_field("near", 30.0, 40.0, width=2.0)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9, 10.0), (120.0, 89.0), (10.0, -90.0), (45.0, -60.0)])
def test_a_square_has_its_area_and_holds_its_centre_everywhere(ra, dec, rng):
    field = square_field("f", ra, dec, width=4.0)
    assert field.holds(ra, dec)
    # uniform points in a cap of 8 deg2 times pi around the centre
    z, turn = rng.uniform(0.998, 1.0, 40_000), rng.uniform(0.0, 2.0 * np.pi, 40_000)
    axis = unit_vectors(ra, dec)
    one = np.cross(axis, [0.6, 0.0, 0.8])
    one /= np.linalg.norm(one)
    ring = np.cos(turn)[:, None] * one + np.sin(turn)[:, None] * np.cross(axis, one)
    points = z[:, None] * axis + np.sqrt(1.0 - z**2)[:, None] * ring
    inside = field.holds(np.degrees(np.arctan2(points[:, 1], points[:, 0])), np.degrees(np.arcsin(points[:, 2])))
    area = inside.mean() * 2.0 * math.pi * 0.002 * (180.0 / math.pi) ** 2
    assert area == pytest.approx(16.0, rel=0.03)


def test_a_polygon_around_its_corners_is_the_square():
    again = polygon_field("again", NEAR.corners)
    assert again.radius == pytest.approx(NEAR.radius, rel=1e-6)
    assert (again.ra, again.dec) == pytest.approx((NEAR.ra, NEAR.dec), abs=1e-3)
    with pytest.raises(ValueError, match="no convex polygon"):
        polygon_field("bow tie", [NEAR.corners[k] for k in (0, 2, 1, 3)])
    with pytest.raises(ValueError, match="no proper position"):
        square_field("nowhere", math.nan, 0.0, width=1.0)


@given(ra=st.floats(0, 360, exclude_max=True), dec=st.floats(-90, 90), grid=st.floats(0.1, 30))
def test_a_grid_field_holds_its_pointing(ra: float, dec: float, grid: float) -> None:
    name = grid_field(ra, dec, grid)
    sign = name.index("+", 1) if "+" in name[1:] else name.index("-", 1)
    ra0, dec0 = float(name[1:sign]), float(name[sign:])
    assert abs(dec - dec0) <= 0.5 * 180 / max(round(180 / grid), 1) + 0.051  # names are rounded to a tenth or better
    assert grid_field(ra % 360, dec, grid) == name
    across = abs((ra - ra0 + 180) % 360 - 180) * math.cos(math.radians(dec0))
    assert across <= 0.8 * grid + 0.1 or math.cos(math.radians(dec0)) * 360 < 2 * grid
