"""Galaxies as ellipses of pixels, at every declination and however the camera is turned."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy.wcs import WCS

from nightsift.context.galaxies import Galaxies, galaxies_of_catalogue, nearest_galaxy
from nightsift.sky.sphere import offset_position


def camera(dec: float, turn: float = 30.0, scale: float = 1.5) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [359.99, dec]
    wcs.wcs.crpix = [301, 201]
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600.0
    return wcs


def catalogue(dec: float, angle: float = 40.0) -> pa.Table:
    rng = np.random.default_rng(1)
    east, north = rng.uniform(-0.05, 0.05, (2, 60))
    ra, de = offset_position(np.full(60, 359.99), np.full(60, dec), east, north=north)
    columns = {"ra": ra, "dec": de, "radius": np.full(60, 6.0), "axis_ratio": np.full(60, 0.5)}
    return pa.table(columns | {
        "object_id": [f"g{k}" for k in range(60)], "angle": np.full(60, angle), "mag": np.full(60, 17.0),
    })  # fmt: skip


@pytest.mark.parametrize("dec", [0.0, -45.0, 80.0, 88.0])
@pytest.mark.parametrize("angle", [0.0, 40.0, 120.0])
def test_ellipses_have_their_size_and_direction_at_every_declination(dec: float, angle: float) -> None:
    """Fault: a jitter in right ascension that forgets the cosine of the declination."""
    wcs = camera(dec)
    found = galaxies_of_catalogue(catalogue(dec, angle), wcs, (400, 600))
    assert len(found) > 20
    np.testing.assert_allclose(found.radius, 4.0, rtol=2e-3)
    ra, de = wcs.all_pix2world(found.x, found.y, 0)
    tip = wcs.all_pix2world(
        found.x + found.radius * np.cos(found.angle), found.y + found.radius * np.sin(found.angle), 0
    )
    east = (tip[0] - ra + 180.0) % 360.0 - 180.0
    east, north = east * np.cos(np.deg2rad(de)) * 3600.0, (tip[1] - de) * 3600.0
    np.testing.assert_allclose(np.hypot(east, north), 6.0, rtol=5e-3)
    turned = np.rad2deg(np.arctan2(east, north)) % 360.0
    np.testing.assert_allclose((turned - angle + 180.0) % 360.0, 180.0, atol=0.6)


def test_only_galaxies_on_the_frame_and_with_a_size() -> None:
    table = catalogue(10.0)
    table = table.set_column(table.schema.get_field_index("radius"), "radius", pa.array([6.0] * 30 + [None] * 30))
    found = galaxies_of_catalogue(table, camera(10.0), (400, 600), margin=0.0)
    assert set(found.host_id) <= {f"g{k}" for k in range(30)}
    assert ((found.x > 0) & (found.x < 600) & (found.y > 0) & (found.y < 400)).all()


def test_nearest_galaxy_is_the_one_in_whose_light_a_position_lies() -> None:
    large = {"x": 100.0, "radius": 20.0}
    small = {"x": 118.0, "radius": 1.0}
    both = [np.array([large[k], small[k]]) for k in ("x", "radius")]
    found = Galaxies(
        np.array(["large", "small"]), both[0], np.full(2, 50.0), both[1], np.ones(2), np.zeros(2), np.full(2, 15.0)
    )
    rows, offset = nearest_galaxy(found, np.array([114.0, 118.5, 400.0]), np.full(3, 50.0), most=5.0)
    assert rows.tolist() == [0, 1, -1]
    np.testing.assert_allclose(offset, [0.7, 0.5, np.nan])
    rows, _ = nearest_galaxy(found.take(np.zeros(2, bool)), np.array([1.0]), np.array([1.0]), most=5.0)
    assert rows.tolist() == [-1]
