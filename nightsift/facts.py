"""Facts of one exposure, read from its header, its file name or the unit file.

A fact that is missing or makes no sense is a named error, never a silent default.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nightsift.errors import FrameError
from nightsift.fact_reader import FactReader
from nightsift.fact_sources import FACT_UNITS, Fact, TimeFact
from nightsift.units import Unit

OPTIONAL = ("ra", "dec", "zero_point", "sky", "pedestal")

# Cards under which these facts are often found: only to help people who write a unit file.
COMMON_CARDS = {
    "gain": ("GAIN", "EGAIN", "GAINA", "CCDGAIN"),
    "read_noise": ("RDNOISE", "READNOIS", "RON", "RDNOISEA", "ENOISE"),
    "saturation": ("SATURATE", "SATLEVEL", "DATAMAX", "MAXLIN", "SATURATA"),
    "pixel_scale": ("PIXSCALE", "SECPIX", "SCALE", "IM_SCALE", "PIXSCAL1", "CDELT2"),
    "band": ("FILTER", "FILTER1", "FILTNAM", "BAND"),
    "exposure": ("EXPTIME", "EXPOSURE", "ITIME", "TELAPSE"),
    "time": ("DATE-OBS", "MJD-OBS", "JD", "UTSTART", "DATE-BEG", "DATE-AVG"),
    "field": ("FIELD", "OBJECT", "FIELDID", "TARGET"),
    "ra": ("RA", "OBJCTRA", "CRVAL1", "RA-MNT", "CENRA1", "TELRA"),
    "dec": ("DEC", "OBJCTDEC", "CRVAL2", "DEC-MNT", "CENDEC1", "TELDEC"),
    "zero_point": ("MAGZERO", "ZP", "MAGZPT", "ZEROPNT", "PHOTZP"),
    "sky": ("SKY", "AVSKY", "SKYLEVEL", "BACKGRND", "SKYADU"),
    "pedestal": ("PEDESTAL", "BIASLVL", "BLKLEVEL"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one exposure, in the units that nightsift works in.

    Attributes
    ----------
    gain : float
        Electron/ADU.
    read_noise : float
        Electron.
    saturation : float
        Level at which a raw pixel saturates (ADU).
    pixel_scale : float
        Scale of a raw pixel (arcsec).
    band, field : str
        Filter and sky field.
    exposure_s : float
        Exposure time (s).
    mjd : float
        Mid-exposure time, UTC (d).
    night : str
        Local date of the evening, ``YYYY-MM-DD``.
    ra, dec : float
        Pointing, ICRS (deg); NaN where the unit has none.
    zero_point : float
        Magnitude of 1 ADU; NaN where the unit has none.
    sky : float
        Sky level that was removed from the frame before (ADU), 0 where the sky is still there.
    pedestal : float
        Bias level that the frame still has (ADU), 0 where there is none.
    """

    gain: float
    read_noise: float
    saturation: float
    pixel_scale: float
    band: str
    exposure_s: float
    mjd: float
    field: str
    night: str
    ra: float = math.nan
    dec: float = math.nan
    zero_point: float = math.nan
    sky: float = 0.0
    pedestal: float = 0.0


@dataclass(frozen=True, slots=True)
class FactReport:
    """What was found for one fact; a line of ``nightsift unit check``.

    Attributes
    ----------
    fact : str
        Name of the fact.
    value : object
        Its value in `unit`, or None.
    unit : str
        Physical unit of the value.
    source : str
        Card, file name or constant that it was read from.
    problem : str
        What is wrong; empty when the fact is good.
    hint : str
        What to do about it.
    """

    fact: str
    value: Any
    unit: str
    source: str
    problem: str = ""
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether the fact is good."""
        return not self.problem


def read_facts(unit: Unit, header: Mapping[str, Any], path: str = "") -> Facts:
    """Read all facts of an exposure.

    Parameters
    ----------
    unit : Unit
        The telescope unit, which says where each fact comes from.
    header : mapping of str to object
        Header cards.
    path : str, optional
        Path or URL of the file, for facts in the file name and for errors.

    Returns
    -------
    Facts
        The facts.

    Raises
    ------
    MissingFact
        If a card is not in the header, or the file name does not hold the fact.
    BadFact
        If a value makes no sense.
    """
    reader = FactReader(unit, header, str(path))
    values: dict[str, Any] = {}
    for name in _order():
        value, _ = reader.read(name)
        if value is not None:
            values[name] = value
    values["exposure_s"] = values.pop("exposure")
    return Facts(**values)


def check_header(unit: Unit, header: Mapping[str, Any], path: str = "") -> list[FactReport]:
    """Report every fact: what was found, where, and what is missing.

    Parameters
    ----------
    unit : Unit
        The telescope unit.
    header : mapping of str to object
        Header cards.
    path : str, optional
        Path or URL of the file.

    Returns
    -------
    list of FactReport
        One report a fact, in the order of the unit file.
    """
    reader = FactReader(unit, header, str(path))
    reports = []
    for name in _order():
        shown, unit_name = _shown(name)
        try:
            value, source = reader.read(name)
        except FrameError as error:
            hint = _similar(name, getattr(unit.facts, "time" if name in ("mjd", "night") else name), header)
            reports.append(FactReport(shown, None, unit_name, reader.source(name), str(error), hint))
            continue
        if value is None and name in OPTIONAL:
            source = "not given (optional)"
        reports.append(FactReport(shown, value, unit_name, source))
    return reports


def _order() -> tuple[str, ...]:
    """Facts in an order in which each depends only on those before it."""
    return ("gain", "read_noise", "saturation", "pixel_scale", "band", "exposure", "mjd", "night", *OPTIONAL, "field")


def _shown(name: str) -> tuple[str, str]:
    return ("time (mid-exposure)", "MJD UTC") if name == "mjd" else (name, FACT_UNITS.get(name, ""))


def _similar(name: str, fact: Fact | TimeFact | None, header: Mapping[str, Any]) -> str:
    """Cards of the header that could hold a fact."""
    fact_name = "time" if name in ("mjd", "night") else name
    keys = [str(key) for key in header]
    near = [key for key in COMMON_CARDS.get(fact_name, ()) if key in keys]
    for card in fact.cards if fact is not None else ():
        near += difflib.get_close_matches(card, keys, n=3, cutoff=0.6)
    named = fact.cards if fact is not None else ()
    unique = [key for key in dict.fromkeys(near) if key not in named]
    if not unique:
        return ""
    return "the header has " + ", ".join(f"{key} = {header.get(key)!r}" for key in unique[:5])
