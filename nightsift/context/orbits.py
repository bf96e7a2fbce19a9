"""Orbits of minor planets from a local file of the Minor Planet Center."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nightsift.core.errors import BadTable

Values = npt.NDArray[np.float64]
# Columns of MPCORB.DAT, counted from 0: the export format of the Minor Planet Center.
_COLUMNS = {
    "H": (8, 13), "G": (14, 19), "M": (26, 35), "peri": (37, 46), "node": (48, 57), "inclination": (59, 68),
    "e": (70, 79), "a": (92, 103),
}  # fmt: skip
_WIDTH = 103  # a line of an orbit is at least this long
_MONTHS = "123456789ABC"
_DAYS = "123456789ABCDEFGHIJKLMNOPQRSTUV"
_MJD_ZERO = datetime.date(1858, 11, 17)
_CENTURIES = {"I": 1800, "J": 1900, "K": 2000}


@dataclass(frozen=True, slots=True, eq=False)
class Orbits:
    """Osculating orbits, heliocentric, ecliptic and equinox J2000.

    Attributes
    ----------
    name : ndarray of str, shape (n,)
        Packed designations.
    epoch : ndarray of float64, shape (n,)
        Epoch of the elements (MJD, TT).
    a : ndarray of float64, shape (n,)
        Semi-major axis (au).
    e : ndarray of float64, shape (n,)
        Eccentricity, below 1.
    inclination, node, peri, anomaly : ndarray of float64, shape (n,)
        Inclination, longitude of the ascending node, argument of perihelion and mean anomaly at the epoch (rad).
    H, G : ndarray of float64, shape (n,)
        Absolute magnitude, NaN where unknown, and slope.
    left_out : int
        Lines that hold no usable orbit.
    """

    name: npt.NDArray[np.str_]
    epoch: Values
    a: Values
    e: Values
    inclination: Values
    node: Values
    peri: Values
    anomaly: Values
    H: Values
    G: Values
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.a)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Orbits:
        """Some of the orbits, by row or by mask."""
        names = ("name", "epoch", "a", "e", "inclination", "node", "peri", "anomaly", "H", "G")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})


def read_orbits(path: str | Path, faintest: float = 99.0) -> Orbits:
    """Read orbits in the format of ``MPCORB.DAT``, also compressed by gzip.

    Parameters
    ----------
    path : str or Path
        The file, or an extract of it; a header that ends in a line of dashes is skipped.
    faintest : float, optional
        Faintest absolute magnitude wanted; orbits without one stay.

    Returns
    -------
    Orbits
        The orbits; lines without a usable one are counted.

    Raises
    ------
    BadTable
        If the file cannot be read or holds no orbit.
    """
    file = Path(path)
    try:
        with (gzip.open(file, "rt", encoding="ascii", errors="replace") if file.suffix == ".gz"
              else file.open(encoding="ascii", errors="replace")) as lines:  # fmt: skip
            orbits = _parse(lines)
    except (OSError, EOFError) as error:
        raise BadTable(path=str(file), what=" ".join(str(error).split())) from error
    if not len(orbits):
        raise BadTable(path=str(file), what="no line holds an orbit in the format of MPCORB.DAT")
    return orbits.take(~(faintest < orbits.H))


def packed_epoch(text: str) -> float:
    """Epoch of a packed date, such as ``K25BL`` for 2025 November 21.

    Parameters
    ----------
    text : str
        Century letter, two digits of the year, month 1 to C, day 1 to V.

    Returns
    -------
    float
        Midnight of that day (MJD, TT); NaN where it is no such date.
    """
    if len(text) != 5 or text[0] not in _CENTURIES or not text[1:3].isdigit():
        return float("nan")
    month, day = _MONTHS.find(text[3]) + 1, _DAYS.find(text[4]) + 1
    if not month or not day:
        return float("nan")
    try:
        return float((datetime.date(_CENTURIES[text[0]] + int(text[1:3]), month, day) - _MJD_ZERO).days)
    except ValueError:
        return float("nan")


def _parse(lines: Iterable[str]) -> Orbits:
    """Orbits of the lines that hold one; epochs repeat, so each is worked out once."""
    names: list[str] = []
    rows: list[list[float]] = []
    epochs: dict[str, float] = {}
    left_out = 0
    for line in lines:
        if line.startswith("-----") and not rows:
            left_out = 0  # what stood above was a header
            continue
        if len(line.rstrip()) < _WIDTH:
            left_out += bool(line.strip())
            continue
        text = line[20:25]
        epoch = epochs.setdefault(text, packed_epoch(text))
        try:
            values = [_number(line[slice(*place)], name in ("H", "G")) for name, place in _COLUMNS.items()]
        except ValueError:
            values = []
        if not values or not np.isfinite(epoch) or not (0.0 <= values[6] < 1.0 and values[7] > 0.0):
            left_out += 1
            continue
        names.append(line[:7].strip())
        rows.append([epoch, *values])
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 9)
    epoch_, H, G, M, peri, node, inclination, e, a = table.T
    slope = np.where(np.isfinite(G), G, 0.15)
    i, o, w, m = (np.deg2rad(one) for one in (inclination, node, peri, M))
    return Orbits(np.array(names, dtype=np.str_), epoch_, a, e, i, o, w, m, H, slope, left_out)


def _number(text: str, may_lack: bool) -> float:
    text = text.strip()
    return float("nan") if may_lack and not text else float(text)
