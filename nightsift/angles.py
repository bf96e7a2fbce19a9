"""Angles as headers write them, and names of sky fields made from pointings."""

from __future__ import annotations

import math
import re
from typing import Any


def grid_field(ra: float, dec: float, grid: float) -> str:
    """Name of the sky field that a pointing falls into, on a grid of nearly equal cells.

    Parameters
    ----------
    ra, dec : float
        Pointing (deg).
    grid : float
        Size of a cell (deg).

    Returns
    -------
    str
        Name made from the centre of the cell, such as ``"p+031.5+46.5"``.
    """
    rows = max(round(180.0 / grid), 1)
    row = min(int((dec + 90.0) / 180.0 * rows), rows - 1)
    centre = -90.0 + (row + 0.5) * 180.0 / rows
    columns = max(round(360.0 * math.cos(math.radians(centre)) / grid), 1)
    column = int(ra % 360.0 / 360.0 * columns) % columns
    digits = max(0, math.ceil(-math.log10(grid))) + 1
    middle = (column + 0.5) * 360.0 / columns
    return f"p{middle:0{4 + digits}.{digits}f}{centre:+0{4 + digits}.{digits}f}"


def number(raw: Any) -> float | None:
    """Number in a header value.

    Parameters
    ----------
    raw : object
        Number or text.

    Returns
    -------
    float or None
        The number; None where there is none.
    """
    if isinstance(raw, bool):
        return None
    try:
        return float(raw)
    except (TypeError, ValueError):
        return None


def is_sexagesimal(raw: str) -> bool:
    """Tell whether a text has several parts, as ``12:34:56`` or ``12 34 56`` have.

    Parameters
    ----------
    raw : str
        The text.

    Returns
    -------
    bool
        Whether it has.
    """
    return len(re.split(r"[:\s]+", raw.strip())) > 1


def sexagesimal(raw: Any) -> float | None:
    """Number, or ``d:m:s`` in the unit of its first part.

    Parameters
    ----------
    raw : object
        Number or text.

    Returns
    -------
    float or None
        The value; None where it cannot be read.
    """
    if not isinstance(raw, str) or not is_sexagesimal(raw):
        return number(raw)
    text = raw.strip()
    sign = -1.0 if text.startswith("-") else 1.0
    parts = [number(part) for part in re.split(r"[:\s]+", text.lstrip("+-").strip())]
    numbers = [part for part in parts if part is not None]
    if len(numbers) != len(parts) or len(numbers) > 3 or any(not 0 <= part < 60.000001 for part in numbers[1:]):
        return None
    return sign * sum(part / 60.0**i for i, part in enumerate(numbers))


def separation(ra: float, dec: float, other_ra: float, other_dec: float) -> float:
    """Angle between two directions, exact down to the smallest.

    Parameters
    ----------
    ra, dec, other_ra, other_dec : float
        Right ascensions and declinations (deg).

    Returns
    -------
    float
        Their angle (deg), 0 to 180.
    """
    a, b = math.radians(dec), math.radians(other_dec)
    half_ra, half_dec = math.radians(other_ra - ra) / 2.0, (b - a) / 2.0
    chord = math.sin(half_dec) ** 2 + math.cos(a) * math.cos(b) * math.sin(half_ra) ** 2
    return math.degrees(2.0 * math.asin(math.sqrt(min(chord, 1.0))))
