"""Values in notices: numbers, times and names, or a clear refusal."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

from nightsift.core.errors import BadNotice
from nightsift.core.times import EARLIEST, LATEST, SCALES, mjd_of, moment_of, to_utc


def number(raw: Any, what: str, where: str) -> float:
    """Read a finite number.

    Parameters
    ----------
    raw : object
        The value in the notice.
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
    """Return a finite number, None where there is none."""
    try:
        value = float(raw) if raw is not None and not isinstance(raw, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def time(raw: Any, what: str, where: str, *, scale: str = "utc") -> float:
    """Read a time of ISO 8601.

    Parameters
    ----------
    raw : object
        The value in the notice; without a time zone it is UTC.
    what, where : str
        What it is, and the notice, for the error.
    scale : str, optional
        Time scale that it is given in: ``utc``, ``tai``, ``tt``, ``tdb`` or ``gps``.

    Returns
    -------
    float
        MJD UTC.

    Raises
    ------
    BadNotice
        If it is none, or lies outside 1950 to 2100.
    """
    try:
        mjd = mjd_of(moment_of(raw if isinstance(raw, str) else ""))
    except ValueError as error:
        raise BadNotice(where=where, what=f"{what} reads {raw!r:.60}, which is no time") from error
    if not EARLIEST < mjd < LATEST:
        raise BadNotice(where=where, what=f"{what} reads {raw!r:.60}, which lies outside 1950 to 2100")
    if scale not in SCALES:
        raise BadNotice(where=where, what=f"{what} is given in the time scale {scale!r:.20}, which is not known")
    return to_utc(mjd, scale)


def pairs(raw: Any) -> tuple[tuple[str, float], ...]:
    """Return probabilities by name, at most forty; what is no number is left out."""
    if not isinstance(raw, dict):
        return ()
    found = ((str(name)[:40], number_or_none(value)) for name, value in list(raw.items())[:40])
    return tuple((name, value) for name, value in found if value is not None)


def from_base64(raw: Any, where: str) -> bytes:
    """Read a file that stands in a notice as base64.

    Parameters
    ----------
    raw : object
        The value in the notice.
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
