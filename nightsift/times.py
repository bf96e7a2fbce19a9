"""Times of exposures: header values to MJD UTC, and the night that an exposure belongs to."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from nightsift.fact_sources import TimeFact

MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
EARLIEST, LATEST = 33282.0, 88069.0  # 1950 and 2100: outside, a time is a mistake


def read_time(raw: Any, fact: TimeFact) -> float | None:
    """Read a time as the unit file describes it.

    Parameters
    ----------
    raw : object
        Value of the card.
    fact : TimeFact
        Its format, time scale and offset.

    Returns
    -------
    float or None
        MJD UTC (d); None when it cannot be read or lies outside 1950 to 2100.
    """
    if fact.format in ("mjd", "jd", "unix"):
        mjd = _numeric(raw, fact.format)
    else:
        moment = _moment(str(raw).strip(), fact.format, fact.offset_hours)
        mjd = None if moment is None else mjd_of(moment)
    if mjd is None or not math.isfinite(mjd) or not EARLIEST < mjd < LATEST:
        return None
    return mjd - _ahead_of_utc(mjd, fact.timescale) / 86400.0


def mjd_of(moment: datetime) -> float:
    """Modified Julian date of a moment.

    Parameters
    ----------
    moment : datetime
        The moment, with its time zone.

    Returns
    -------
    float
        MJD UTC (d).
    """
    return (moment - MJD_ZERO) / timedelta(days=1)


def night_of(mjd: float, longitude: float) -> str:
    """Night that a moment belongs to: the local date of its evening, from noon to noon of mean solar time.

    Parameters
    ----------
    mjd : float
        MJD UTC (d).
    longitude : float
        Longitude of the site (deg, east positive).

    Returns
    -------
    str
        ``YYYY-MM-DD``.
    """
    east = (longitude + 180.0) % 360.0 - 180.0
    day = math.floor(mjd + east / 360.0 - 0.5)
    return (date(1858, 11, 17) + timedelta(days=day)).isoformat()


def _numeric(raw: Any, form: str) -> float | None:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        return None
    return {"mjd": value, "jd": value - 2400000.5, "unix": value / 86400.0 + 40587.0}[form]


def _moment(text: str, form: str, offset_hours: float) -> datetime | None:
    try:
        moment = datetime.strptime(text, form) if form else _iso(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone(timedelta(hours=offset_hours)))
    return moment


def _iso(text: str) -> datetime:
    """ISO 8601 with any offset, and the old ``DD/MM/YY`` of FITS before 2000."""
    text = text.removesuffix("UTC").removesuffix("UT").rstrip().replace("/", "-")
    old = re.match(r"^(\d{2})-(\d{2})-(\d{2})(?!\d)(.*)$", text)
    if old:
        text = f"19{old[3]}-{old[2]}-{old[1]}{old[4]}"
    # seconds of one digit or with more than six decimals are met in the wild
    text = re.sub(r"(:\d{2}\.\d{6})\d+", r"\1", text)
    text = re.sub(r"(:\d{2})\.(?=$|[+\-Z])", r"\1", text)
    return datetime.fromisoformat(text)


def _ahead_of_utc(mjd: float, scale: str) -> float:
    """Seconds by which a time scale is ahead of UTC."""
    if scale == "utc":
        return 0.0
    from astropy.time import Time  # slow to import, and needed by few units

    tai = mjd + 19.0 / 86400.0 if scale == "gps" else mjd
    utc = Time(tai, format="mjd", scale="tai" if scale == "gps" else scale).utc
    return round((mjd - float(utc.mjd)) * 86400.0, 3)
