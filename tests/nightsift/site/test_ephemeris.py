"""Zenith, Sun, Moon and observer against astropy, over half a century."""

from __future__ import annotations

from collections.abc import Iterator

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, get_body
from astropy.time import Time
from astropy.utils import iers

from nightsift.site.ephemeris import moon_direction, observer_position, sun_altitude, sun_direction, zenith
from nightsift.site.site import NoLatitude, Site
from nightsift.sky.sphere import angle_between

SIDING_SPRING = Site(latitude=-31.2733, longitude=149.0617, height=1165.0)
SOUTH_POLE = Site(latitude=-90.0, longitude=0.0, height=2835.0)
MJD = np.array([44239.3, 50083.9, 56658.1, 60310.6, 61364.8])  # 1980, 1996, 2014, 2024, 2026


@pytest.fixture(autouse=True)
def offline() -> Iterator[None]:
    """Let astropy be content with the tables of Earth rotation that it brings."""
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        yield


def times() -> Time:
    """Times with UT1 taken as UTC, as ours are."""
    when = Time(MJD, format="mjd", scale="utc")
    when.delta_ut1_utc = 0.0
    return when


@pytest.mark.parametrize("site", [SIDING_SPRING, SOUTH_POLE])
def test_all_directions_agree_with_astropy(site: Site) -> None:
    when, location = times(), site.location
    assert location.height.to_value("m") == pytest.approx(site.height, abs=1e-3)
    position, _ = location.get_gcrs_posvel(when)
    ours = observer_position(site, MJD)
    assert np.linalg.norm(ours - position.xyz.to_value("au").T, axis=1).max() * 149597870.7 < 0.03, "km: polar motion"
    assert angle_between(zenith(site, MJD), ours).max() < 0.2, "geodetic and geocentric"
    frame = AltAz(obstime=when, location=location)
    sun = get_body("sun", when, location)
    altitude = sun.transform_to(frame).alt.deg
    np.testing.assert_allclose(sun_altitude(site, MJD), altitude, atol=1.0 / 3600.0)
    np.testing.assert_allclose(sun_altitude(site, float(MJD[0])), altitude[0], atol=1.0 / 3600.0)
    for ours, body, limit in ((sun_direction, sun, 1.0), (moon_direction, get_body("moon", when, location), 60.0)):
        theirs = body.cartesian.xyz.value.T
        assert angle_between(ours(site, MJD), theirs).max() * 3600.0 < limit, "arcsec"


def test_altitudes_stay_within_a_second_of_time_of_the_true_earth() -> None:
    when = Time(MJD[:4], format="mjd", scale="utc")
    frame = AltAz(obstime=when, location=SIDING_SPRING.location)
    altitude = get_body("sun", when, SIDING_SPRING.location).transform_to(frame).alt
    np.testing.assert_allclose(sun_altitude(SIDING_SPRING, MJD[:4]), altitude.to_value(u.deg), atol=15.5 / 3600.0)


def test_a_site_without_a_latitude_has_no_sun() -> None:
    with pytest.raises(NoLatitude, match="longitude 10"):
        sun_altitude(Site(longitude=10.0), MJD)
