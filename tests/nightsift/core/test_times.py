"""Time scales: leap seconds are those of the date of a time, not those of today."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from astropy.time import Time

from nightsift.core.times import mjd_of, moment_of, to_tt, to_utc

# on both sides of leap seconds, but not on their days, which astropy stretches by a second
DATES = [41684.5, 44785.0, 50083.25, 53736.0, 54832.5, 56107.25, 57202.9, 57204.1, 57279.4, 57754.5, 61364.8]
LEAP = {57203.9: 35.0, 57204.1: 36.0, 57279.4: 36.0, 57754.5: 37.0, 61364.8: 37.0}


@pytest.mark.parametrize("mjd", DATES)
def test_scales_are_those_of_astropy(mjd: float) -> None:
    utc = Time(mjd, format="mjd", scale="utc")
    written = {
        "tai": utc.tai.mjd,
        "tt": utc.tt.mjd,
        "tdb": utc.tdb.mjd,
        "gps": utc.tai.mjd - 19.0 / 86400.0,
        "utc": mjd,
    }
    for scale, raw in written.items():
        assert (to_utc(float(raw), scale) - mjd) * 86400.0 == pytest.approx(0.0, abs=2e-5), scale
    assert float(to_tt(mjd)) == pytest.approx(utc.tt.mjd, abs=1e-10)


@pytest.mark.parametrize(("mjd", "leap"), LEAP.items())
def test_leap_seconds_of_the_date(mjd: float, leap: float) -> None:
    assert (mjd - to_utc(mjd, "tai")) * 86400.0 == pytest.approx(leap, abs=1e-5)
    assert (mjd - to_utc(mjd, "gps")) * 86400.0 == pytest.approx(leap - 19.0, abs=1e-5)
    assert (float(to_tt(mjd)) - mjd) * 86400.0 == pytest.approx(leap + 32.184, abs=1e-5)


def test_years_without_announced_leap_seconds_take_the_last() -> None:
    assert (to_utc(88000.0, "tai") - 88000.0) * 86400.0 == pytest.approx(-37.0, abs=1e-5)
    np.testing.assert_allclose((to_tt(np.array([88000.0, 87000.0])) - [88000.0, 87000.0]) * 86400.0, 69.184, atol=1e-5)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="'mars' is not known"):
        to_utc(60000.0, "mars")


def test_moments_without_an_offset_are_of_the_clock_that_is_named() -> None:
    east = timezone(timedelta(hours=11))
    assert moment_of("2026-11-21T06:30", east) == datetime(2026, 11, 20, 19, 30, tzinfo=UTC)
    assert moment_of("2026-11-21T06:30Z", east) == datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
    assert mjd_of(moment_of("2026-11-20T12:00:00.5000000001")) == pytest.approx(61364.5 + 0.5 / 86400.0, abs=1e-10)
    with pytest.raises(ValueError, match="tomorrow"):
        moment_of("tomorrow")
