"""Times, rates and texts of others as they stand in pages, reports and circulars."""

from __future__ import annotations

import datetime as dt
import math
import unicodedata

from nightsift.alerts.alert import Alert

_ZERO = dt.datetime(1858, 11, 17)
YEAR = 365.25 * 86400.0


def utc(mjd: float | None, digits: int = 0) -> str:
    """Time as people write it.

    Parameters
    ----------
    mjd : float or None
        MJD UTC.
    digits : int, optional
        Digits of the second.

    Returns
    -------
    str
        ``2026-11-20 06:00:00``; empty without a time, or one that no calendar has.
    """
    if mjd is None or not math.isfinite(mjd) or not -600000.0 < mjd < 2900000.0:
        return ""
    whole = round(mjd * 86400.0 * 10**digits)
    moment = _ZERO + dt.timedelta(seconds=whole // 10**digits)
    tail = f".{whole % 10**digits:0{digits}d}" if digits else ""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + tail


def rate(far: float | None) -> str:
    """False-alarm rate in words.

    Parameters
    ----------
    far : float or None
        Rate (Hz).

    Returns
    -------
    str
        ``one in 31.7 years``; empty where it is unknown.
    """
    if far is None or not math.isfinite(far) or far <= 0.0:
        return ""
    years = 1.0 / (far * YEAR)
    if years < 1.0 / 12.0:
        return f"one in {1.0 / (far * 86400.0):.3g} days"
    if years < 1.0:
        return f"one in {12.0 * years:.3g} months"
    return f"one in {years:.3g} years"


def plain(text: str, most: int = 200) -> str:
    """Text of others as one line without control characters, for files that are read by eye.

    Parameters
    ----------
    text : str
        Any text.
    most : int, optional
        Characters kept.

    Returns
    -------
    str
        The line.
    """
    clean = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in text[: 4 * most])
    line = " ".join(clean.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def warnings_of(alert: Alert, state: str) -> list[str]:
    """What must be seen first: a retraction, a test.

    Parameters
    ----------
    alert : Alert
        What the notice says.
    state : str
        State of the alert in this archive.

    Returns
    -------
    list of str
        In capitals; empty for a real event.
    """
    told = ["RETRACTED"] if alert.kind == "retraction" or state == "retracted" else []
    return told + {"observation": [], "mock": ["MOCK EVENT"], "test": ["TEST"]}[alert.role]
