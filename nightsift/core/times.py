"""Times: as headers and notices write them, to MJD UTC by the leap seconds of their date, and the name of a night."""

from __future__ import annotations

import math
import re
import warnings
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import numpy as np
import numpy.typing as npt

MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
EARLIEST, LATEST = 33282.0, 88069.0  # 1950 and 2100: outside, a time is a mistake
SCALES = ("utc", "tai", "tt", "tdb", "gps")
"""Time scales that are understood."""
JD_OF_MJD = 2400000.5
TT_AHEAD_OF_TAI, TAI_AHEAD_OF_GPS = 32.184, 19.0  # s


def read_time(raw: Any, form: str = "", *, scale: str = "utc", offset_hours: float = 0.0) -> float | None:
    """Read a time as a unit file describes it.

    Parameters
    ----------
    raw : object
        Value of the card.
    form : str, optional
        Empty for ISO 8601, or ``mjd``, ``jd``, ``unix``, or a format of `datetime.datetime.strptime`.
    scale : str, optional
        Its time scale, one of `SCALES`.
    offset_hours : float, optional
        Local time minus UTC (h), where the text tells no offset.

    Returns
    -------
    float or None
        MJD UTC (d); None when it cannot be read or lies outside 1950 to 2100.
    """
    mjd = _numeric(raw, form) if form in ("mjd", "jd", "unix") else _written(str(raw).strip(), form, offset_hours)
    if mjd is None or not math.isfinite(mjd) or not EARLIEST < mjd < LATEST:
        return None
    return to_utc(mjd, scale)


def moment_of(text: str, zone: tzinfo = UTC) -> datetime:
    """Read a moment of ISO 8601, or with the ``DD/MM/YY`` of FITS before 2000; ValueError if it is no time.

    The result has a time zone: `zone` where the text has no offset. Seconds may have any number of digits.
    """
    moment = _iso(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def mjd_of(moment: datetime) -> float:
    """Return the Modified Julian Date (d, UTC) of a moment with its time zone."""
    return (moment - MJD_ZERO) / timedelta(days=1)


def to_utc(mjd: float, scale: str) -> float:
    """Turn a time of another scale into UTC.

    Parameters
    ----------
    mjd : float
        MJD in that scale (d).
    scale : str
        One of `SCALES`.

    Returns
    -------
    float
        MJD UTC (d), by the leap seconds of that date.

    Raises
    ------
    ValueError
        If the scale is not known.
    """
    if scale not in SCALES:
        raise ValueError(f"the time scale {scale!r:.20} is not known")
    if scale == "utc":
        return mjd
    if scale == "tdb":
        import erfa

        # at the centre of the Earth; its argument may be UTC as well
        constant = TT_AHEAD_OF_TAI + float(erfa.dtdb(JD_OF_MJD, mjd, 0.0, 0.0, 0.0, 0.0))
    else:
        constant = {"tai": 0.0, "tt": TT_AHEAD_OF_TAI, "gps": -TAI_AHEAD_OF_GPS}[scale]
    utc = mjd
    for _ in range(2):  # leap seconds are announced for dates in UTC
        utc = mjd - round(float(_leap_seconds(utc)) + constant, 6) / 86400.0
    return utc


def to_tt(mjd: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    """Turn MJD UTC (d) into MJD TT (d), the time of the ephemerides, by the leap seconds of each date."""
    return np.asarray(mjd + (_leap_seconds(mjd) + TT_AHEAD_OF_TAI) / 86400.0)


def night_of(mjd: float, longitude: float) -> str:
    """Return the night (``YYYY-MM-DD``) of a time MJD UTC (d) at a longitude (deg, east positive).

    It is the local date of its evening, from noon to noon of mean solar time.
    """
    east = (longitude + 180.0) % 360.0 - 180.0
    day = math.floor(mjd + east / 360.0 - 0.5)
    return (date(1858, 11, 17) + timedelta(days=day)).isoformat()


def _leap_seconds(mjd: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    """Seconds by which TAI is ahead of UTC on a date, of which the last stays where none is announced yet."""
    import erfa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", erfa.ErfaWarning)  # of years before UTC and far ahead
        return np.asarray(erfa.dat(*erfa.jd2cal(JD_OF_MJD, mjd)))


def _numeric(raw: Any, form: str) -> float | None:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        return None
    return {"mjd": value, "jd": value - JD_OF_MJD, "unix": value / 86400.0 + 40587.0}[form]


def _written(text: str, form: str, offset_hours: float) -> float | None:
    zone = timezone(timedelta(hours=offset_hours))
    try:
        moment = datetime.strptime(text, form) if form else moment_of(text, zone)
    except ValueError:
        return None
    return mjd_of(moment if moment.tzinfo is not None else moment.replace(tzinfo=zone))


def _iso(text: str) -> datetime:
    """ISO 8601 with any offset, and the old ``DD/MM/YY`` of FITS before 2000."""
    text = text.strip().removesuffix("UTC").removesuffix("UT").rstrip().replace("/", "-")
    old = re.match(r"^(\d{2})-(\d{2})-(\d{2})(?!\d)(.*)$", text)
    if old:
        text = f"19{old[3]}-{old[2]}-{old[1]}{old[4]}"
    # seconds of one digit or with more than six decimals are met in the wild
    text = re.sub(r"(:\d{2}\.\d{6})\d+", r"\1", text)
    text = re.sub(r"(:\d{2})\.(?=$|[+\-Z])", r"\1", text)
    return datetime.fromisoformat(text)
