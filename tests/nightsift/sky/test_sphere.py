"""Angles on the sphere against formulae of another make, at the poles, across 0 h, and down to the smallest."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import angular_separation
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from nightsift.sky.sphere import (
    angle_between,
    angle_of_chord,
    chord,
    offset_position,
    pairs_within,
    positions_of,
    separation,
    sexagesimal,
    sky_to_plane,
    tangent_axes,
    unit_vectors,
)

RA, DEC = st.floats(0.0, 360.0, exclude_max=True), st.floats(-90.0, 90.0)


@given(value=st.floats(-359, 359))
def test_sexagesimal_round_trip(value: float) -> None:
    size = abs(value)
    minutes = (size % 1) * 60
    text = f"{'-' if value < 0 else ''}{int(size)}:{int(minutes)}:{(minutes % 1) * 60:.6f}"
    assert sexagesimal(text) == pytest.approx(value, abs=1e-8)
    assert sexagesimal("10:99:00") is None


@given(ra=RA, dec=DEC, other_ra=RA, other_dec=DEC)
def test_separation_is_that_of_vincenty(ra: float, dec: float, other_ra: float, other_dec: float) -> None:
    theirs = angular_separation(*np.deg2rad([ra, dec, other_ra, other_dec]))
    ours = separation(ra, dec, other_ra, other_dec)
    assert isinstance(ours, float)
    # the haversine is steep at half a turn, where nobody matches anything
    assert np.deg2rad(ours) == pytest.approx(theirs, abs=1e-12 if theirs < 3.0 else 1e-7)
    vectors = unit_vectors(np.array([ra, other_ra]), np.array([dec, other_dec]))
    assert np.deg2rad(angle_between(vectors[0], 3.0 * vectors[1])) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("dec", [0.0, 60.0, -89.9])
@pytest.mark.parametrize("arcsec", [1e-6, 1e-3, 1.0])
def test_small_separations_lose_no_digits(dec: float, arcsec: float) -> None:
    ra, north = np.array([0.0]), np.array([arcsec / 3600.0])
    there = offset_position(ra, np.array([dec]), north, north=0.0 * north)
    # a position in degrees has 14 digits itself
    assert separation(ra, np.array([dec]), *there)[0] * 3600.0 == pytest.approx(arcsec, abs=2e-9)
    assert separation(0.0, dec, 0.0, dec) == 0.0


@given(ra=RA, dec=st.floats(-89.9, 89.9))
def test_vectors_and_back(ra: float, dec: float) -> None:
    found_ra, found_dec = positions_of(2.5 * unit_vectors(ra, dec))
    assert float(found_dec) == pytest.approx(dec, abs=1e-12)
    assert (float(found_ra) - ra + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=1e-10)
    axes = np.array(tangent_axes(ra, dec))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(axes) == pytest.approx(1.0), "centre, east, north are right-handed"


@pytest.mark.parametrize(("ra0", "dec0"), [(0.001, 0.0), (150.0, -62.5), (359.999, 89.5), (12.0, -90.0)])
def test_the_tangent_plane_is_that_of_fits(ra0: float, dec0: float, rng: np.random.Generator) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [ra0, dec0], [1, 1], [1, 1]
    xi, eta = rng.uniform(-30.0, 30.0, (2, 200))
    ra, dec = offset_position(ra0, dec0, xi, north=eta)
    np.testing.assert_allclose(angle_between(unit_vectors(ra, dec), unit_vectors(*wcs.wcs_pix2world(xi, eta, 0))), 0.0,
                               atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(sky_to_plane(ra, dec, ra0, dec0), [xi, eta], atol=1e-11)


def test_chords_and_back() -> None:
    arcsec = np.array([0.0, 1e-4, 1.0, 3600.0, 3600.0 * 180.0])
    np.testing.assert_allclose(angle_of_chord(np.array([chord(one) for one in arcsec])), arcsec, rtol=1e-12)
    assert chord(1e9) == 2.0


def test_pairs_are_those_of_all_separations(rng: np.random.Generator) -> None:
    ra, dec = np.mod(rng.normal(0.0, 0.02, 80), 360.0), np.clip(rng.normal(-89.98, 0.02, 80), -90.0, 90.0)
    other_ra, other_dec = np.mod(rng.normal(0.0, 0.02, 60), 360.0), np.clip(rng.normal(-89.98, 0.02, 60), -90.0, 90.0)
    every = separation(ra[:, None], dec[:, None], other_ra[None], other_dec[None]) * 3600.0
    radius = rng.uniform(5.0, 40.0, 80)
    for limit, options in ((np.full((80, 1), 30.0), {}), (radius[:, None], {"radius": radius})):
        first, second, apart = pairs_within(ra, dec, other_ra, other_dec=other_dec, most=float(limit.max()), **options)
        near = np.zeros(every.shape, dtype=bool)
        near[first, second] = True
        np.testing.assert_array_equal(near, every <= limit)
        np.testing.assert_allclose(apart, every[first, second], atol=1e-7)
        assert len(first) == near.sum() > 0
    assert [len(part) for part in pairs_within(ra, dec, ra[:0], other_dec=dec[:0], most=9.0)] == [0, 0, 0]
