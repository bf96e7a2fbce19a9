"""Values as notices tell them: numbers, times, names, or a clear refusal."""

from __future__ import annotations

import base64
import binascii
import math
import re
from datetime import UTC, datetime
from typing import Any

from nightsift.alerts.errors import BadNotice
from nightsift.times import EARLIEST, LATEST, mjd_of

_AHEAD = {"tai": 37.0, "tt": 69.184, "tdb": 69.184, "gps": 18.0}  # s ahead of UTC since 2017-01-01


def number(raw: Any, what: str, where: str) -> float:
    """Read a finite number.

    Parameters
    ----------
    raw : object
        What was told.
    what, where : str
        What it is, and the notice, for the error.

    Returns
    -------
    float
        The number.

    Raises
    ------
    BadNotice
        If it is none.
    """
    try:
        value = float(raw) if not isinstance(raw, bool) else math.nan
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise BadNotice(where=where, what=f"{what} reads {raw!r:.60}, which is no number")
    return value


def number_or_none(raw: Any) -> float | None:
    """Read a finite number where there is one.

    Parameters
    ----------
    raw : object
        What was told.

    Returns
    -------
    float or None
        The number; None where there is none.
    """
    try:
        value = float(raw) if raw is not None and not isinstance(raw, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def time(raw: Any, what: str, where: str, scale: str = "utc") -> float:
    """Read a time of ISO 8601.

    Parameters
    ----------
    raw : object
        What was told; without a time zone it is UTC.
    what, where : str
        What it is, and the notice, for the error.
    scale : str, optional
        Time scale that it is told in: ``utc``, ``tai``, ``tt``, ``tdb`` or ``gps``.

    Returns
    -------
    float
        MJD UTC.

    Raises
    ------
    BadNotice
        If it is none, or lies outside 1950 to 2100.
    """
    text = re.sub(r"(\.\d{6})\d+", r"\1", str(raw).strip()) if isinstance(raw, str) else ""
    text = re.sub(r"\.(\d{1,5})(?!\d)", lambda found: "." + found[1].ljust(6, "0"), text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadNotice(where=where, what=f"{what} reads {raw!r:.60}, which is no time") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    mjd = mjd_of(moment)
    if not EARLIEST < mjd < LATEST:
        raise BadNotice(where=where, what=f"{what} reads {raw!r:.60}, which lies outside 1950 to 2100")
    if scale == "utc":
        return mjd
    if scale not in _AHEAD:
        raise BadNotice(where=where, what=f"{what} is told in the time scale {scale!r:.20}, which is not known")
    return mjd - _AHEAD[scale] / 86400.0


def pairs(raw: Any) -> tuple[tuple[str, float], ...]:
    """Read probabilities by name; what is no number is left out.

    Parameters
    ----------
    raw : object
        What was told.

    Returns
    -------
    tuple of (str, float)
        At most forty.
    """
    if not isinstance(raw, dict):
        return ()
    found = ((str(name)[:40], number_or_none(value)) for name, value in list(raw.items())[:40])
    return tuple((name, value) for name, value in found if value is not None)


def from_base64(raw: Any, where: str) -> bytes:
    """Read a file that stands in a notice as base64.

    Parameters
    ----------
    raw : object
        What was told.
    where : str
        The notice, for the error.

    Returns
    -------
    bytes
        The file; empty where there is none.

    Raises
    ------
    BadNotice
        If it is no base64.
    """
    if not raw:
        return b""
    if isinstance(raw, bytes):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadNotice(where=where, what="its sky map is no base64") from error
