"""When fields can be observed, against astropy."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_body
from astropy.time import Time
from astropy.utils import iers

from nightsift.site.ephemeris import Limits, visibility
from nightsift.site.site import Site

LA_PALMA = Site(latitude=28.76, longitude=-17.88, height=2300.0)


def test_altitudes_sun_and_moon_agree_with_astropy(rng):
    ra, dec = rng.uniform(0, 360, 40), np.degrees(np.arcsin(rng.uniform(-1, 1, 40)))
    start = 61000.25
    seen = visibility(ra, dec, LA_PALMA, start=start, hours=24.0, limits=Limits(moon_distance=25.0))
    location = EarthLocation(lat=28.76 * u.deg, lon=-17.88 * u.deg, height=2300 * u.m)
    times = Time(start + np.arange(0, 145) / 144.0, format="mjd")
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=times[:, None], location=location)
        altitude = SkyCoord(ra * u.deg, dec * u.deg)[None, :].transform_to(frame).alt.deg
        sun = get_body("sun", times, location).transform_to(AltAz(obstime=times, location=location)).alt.deg
        moon = get_body("moon", times[72], location)
        away = SkyCoord(ra * u.deg, dec * u.deg, frame=moon.frame.replicate_without_data()).separation(moon).deg
    dark = sun <= -12.0
    highest = np.where(dark[:, None], altitude, -90.0).max(axis=0)
    np.testing.assert_allclose(seen.moon, away, atol=0.05)
    for k in range(40):
        if seen.reason[k].startswith(("rises", "never")):
            assert highest[k] < 30.0
        else:
            assert highest[k] > 29.9
    free = [k for k in range(40) if seen.hours[k] > 0 and seen.moon[k] > 45]
    np.testing.assert_allclose(seen.altitude[free], highest[free], atol=0.05)
    hours = (dark[:, None] & (altitude >= 30.0)).sum(axis=0) / 6.0
    np.testing.assert_allclose(seen.hours[free], hours[free], atol=0.34)


def test_midsummer_in_the_north_has_no_darkness():
    tromso = Site(latitude=69.6, longitude=18.9)
    seen = visibility(np.array([200.0]), np.array([60.0]), tromso, start=61210.0, hours=24.0, limits=Limits())
    assert seen.reason == ("no darkness",)
    assert seen.hours[0] == 0.0
