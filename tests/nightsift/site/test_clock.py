"""The night's clock against almanac times, against formulae of another make, at the poles and over changes of clock."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from astropy.time import Time
from astropy.utils import iers

from nightsift.core.times import mjd_of, night_of
from nightsift.site.clock import HORIZON, next_dusk, night_at, night_named
from nightsift.site.ephemeris import sun_altitude
from nightsift.site.site import Site, SurveySite

LA_PALMA = SurveySite(latitude=28.7606, longitude=-17.8816, height=2396.0, timezone="Atlantic/Canary")
SIDING_SPRING = SurveySite(latitude=-31.2733, longitude=149.0617, height=1165.0, timezone="Australia/Sydney")
LONDON = SurveySite(latitude=51.5074, longitude=-0.1278, height=0.0, timezone="Europe/London")
SYDNEY = SurveySite(latitude=-33.8688, longitude=151.2093, height=0.0, timezone="Australia/Sydney")
NEW_YORK = SurveySite(latitude=40.7128, longitude=-74.0060, height=0.0, timezone="America/New_York")
SVALBARD = SurveySite(latitude=78.22, longitude=15.65, height=0.0, timezone="Arctic/Longyearbyen")
SOUTH_POLE = SurveySite(latitude=-90.0, longitude=0.0, height=2835.0, timezone="Antarctica/South_Pole")

# Printed almanacs: site, night, sunset and sunrise in the clock of the place, to the minute.
ALMANAC = [
    (LONDON, "2024-06-20", "21:21", "04:43"),
    (LONDON, "2024-12-21", "15:53", "08:04"),
    (SYDNEY, "2024-12-21", "20:05", "05:41"),
    (NEW_YORK, "2024-06-20", "20:31", "05:25"),
]


def meeus(site: Site, moment: datetime) -> float:
    """Altitude of the Sun by the low-precision formulae of the Astronomical Almanac (0.01 deg, 1950 to 2050)."""
    n = mjd_of(moment) - 51544.5
    mean = math.radians(280.460 + 0.9856474 * n)
    anomaly = math.radians(357.528 + 0.9856003 * n)
    longitude = mean + math.radians(1.915) * math.sin(anomaly) + math.radians(0.020) * math.sin(2 * anomaly)
    obliquity = math.radians(23.439 - 4e-7 * n)
    ra = math.atan2(math.cos(obliquity) * math.sin(longitude), math.cos(longitude))
    dec = math.asin(math.sin(obliquity) * math.sin(longitude))
    sidereal = math.radians(280.46061837 + 360.98564736629 * n + site.longitude)
    hour, lat = sidereal - ra, math.radians(site.latitude)
    return math.degrees(math.asin(math.sin(lat) * math.sin(dec) + math.cos(lat) * math.cos(dec) * math.cos(hour)))


@pytest.mark.parametrize(("site", "name", "sunset", "sunrise"), ALMANAC)
def test_printed_almanacs(site: SurveySite, name: str, sunset: str, sunrise: str) -> None:
    night = night_named(site, name)
    assert night.sunset is not None
    assert night.sunrise is not None
    for found, printed, day in ((night.sunset, sunset, 0), (night.sunrise, sunrise, 1)):
        hour, minute = map(int, printed.split(":"))
        told = datetime.fromisoformat(name).replace(hour=hour, minute=minute, tzinfo=site.zone) + timedelta(days=day)
        assert abs((found - told).total_seconds()) < 90


@pytest.mark.parametrize("site", [LA_PALMA, SIDING_SPRING, SVALBARD, SOUTH_POLE])
@pytest.mark.parametrize("month", [1, 4, 7, 10])
def test_other_formulae(site: Site, month: int) -> None:
    moments = [datetime(2026, month, 11, 5, 30, tzinfo=UTC) + timedelta(hours=hour) for hour in range(24)]
    for found, moment in zip(sun_altitude(site, np.array([mjd_of(one) for one in moments])), moments, strict=True):
        assert found == pytest.approx(meeus(site, moment), abs=0.03)


@pytest.mark.parametrize("site", [LA_PALMA, SIDING_SPRING])
@pytest.mark.parametrize("altitude", [HORIZON, -6.0, -12.0, -18.0])
def test_begin_and_end_lie_where_the_sun_is_that_low(site: Site, altitude: float) -> None:
    night = night_named(site, "2026-11-20", altitude)
    assert night.dusk is not None
    assert night.dawn is not None
    for moment in (night.dusk, night.dawn):
        assert meeus(site, moment) == pytest.approx(altitude, abs=0.03)
    assert night.begins < night.dusk < night.dawn < night.ends
    assert night.is_dark(night.dusk + timedelta(hours=1))
    assert not night.is_dark(night.dawn + timedelta(minutes=1))


def test_order_of_the_evening() -> None:
    night = night_named(SIDING_SPRING, "2026-11-20")
    assert night.sunset is not None
    assert night.sunrise is not None
    assert night.dusk is not None
    assert night.dawn is not None
    assert night.sunset < night.dusk < night.dawn < night.sunrise
    assert night.dusk.astimezone(SIDING_SPRING.zone).strftime("%Y-%m-%d") == "2026-11-20"
    assert night.dawn.astimezone(SIDING_SPRING.zone).strftime("%Y-%m-%d") == "2026-11-21"


@pytest.mark.parametrize("site", [LA_PALMA, SIDING_SPRING, NEW_YORK, SVALBARD])
def test_named_as_the_exposures_of_the_night(site: Site) -> None:
    for hours in range(0, 48, 11):
        moment = datetime(2026, 3, 28, 1, 7, tzinfo=UTC) + timedelta(hours=hours)
        night = night_at(site, moment)
        assert night.begins <= moment < night.ends
        assert night.name == night_of(mjd_of(moment), site.longitude)


def test_changes_of_the_clock_change_no_night() -> None:
    """Clocks go forward in the night of 28 March 2026 on La Palma: the Sun does not."""
    before, after = night_named(LA_PALMA, "2026-03-27"), night_named(LA_PALMA, "2026-03-28")
    assert before.dusk is not None
    assert after.dusk is not None
    assert after.dawn is not None
    assert abs((after.dusk - before.dusk) - timedelta(days=1)) < timedelta(minutes=2)
    zone = ZoneInfo("Atlantic/Canary")
    assert after.dusk.astimezone(zone).utcoffset() == timedelta(0)
    assert after.dawn.astimezone(zone).utcoffset() == timedelta(hours=1)


def test_polar_night_and_midnight_sun() -> None:
    dark = night_named(SOUTH_POLE, "2026-06-20")
    assert (dark.sunset, dark.sunrise) == (None, None)
    assert (dark.dusk, dark.dawn) == (dark.begins, dark.ends), "dark from noon to noon"
    bright = night_named(SVALBARD, "2026-06-20")
    assert (bright.sunset, bright.dusk, bright.dawn) == (None, None, None)
    assert not bright.is_dark(datetime(2026, 6, 20, 23, tzinfo=UTC))
    back = next_dusk(SVALBARD, datetime(2026, 6, 20, tzinfo=UTC))
    assert back is not None
    assert date(2026, 9, 1) < back.date() < date(2026, 10, 15)
    assert meeus(SVALBARD, back) == pytest.approx(-12.0, abs=0.05)


def test_next_dusk() -> None:
    tonight = night_named(LA_PALMA, "2026-11-20").dusk
    assert tonight is not None
    assert next_dusk(LA_PALMA, tonight - timedelta(seconds=1)) == tonight
    tomorrow = next_dusk(LA_PALMA, tonight)
    assert tomorrow is not None
    assert timedelta(hours=23, minutes=55) < tomorrow - tonight < timedelta(hours=24, minutes=5)
    assert next_dusk(Site(latitude=0.0, longitude=0.0), tonight, altitude=-89.9, days=3) is None


def test_long_after_the_tables_end() -> None:
    assert night_named(LA_PALMA, "2059-11-20").dusk is not None


def test_tables_of_last_month_stop_no_night(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without a network keeps the tables of Earth rotation that it came with, for years."""
    late = property(lambda _: Time("2031-05-01"))
    monkeypatch.setattr(iers.IERS_Auto, "time_now", late)
    night = night_named(SIDING_SPRING, "2026-12-20")
    assert night.dusk is not None
    assert meeus(SIDING_SPRING, night.dusk) == pytest.approx(-12.0, abs=0.05)
