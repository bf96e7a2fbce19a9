"""Facts of one exposure, read from its header, its file name or the unit file, and checked.

A fact that is missing or makes no sense is a named error, never a silent default.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from nightsift.core.errors import BadFact, FrameError, MissingFact
from nightsift.core.times import night_of, read_time
from nightsift.sky.fields import grid_field
from nightsift.sky.sphere import is_sexagesimal, number, sexagesimal
from nightsift.unit.fact_sources import FACT_UNITS, Conversion, Fact, FieldFact, TimeFact, converter
from nightsift.unit.units import Unit

LONGEST_NAME = 100
"""Characters of a field or band: it stands in every row, log line and path."""

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
        One report per fact, in the order of the unit file.
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


class FactReader:
    """Reads the facts of one exposure; those that others depend on are read once.

    Parameters
    ----------
    unit : Unit
        The telescope unit, which says where each fact comes from.
    header : mapping of str to object
        Header cards.
    path : str
        Path or URL of the file.
    """

    def __init__(self, unit: Unit, header: Mapping[str, Any], path: str) -> None:
        self.unit, self.header, self.path = unit, header, path
        self.done: dict[str, tuple[Any, str]] = {}

    def read(self, name: str) -> tuple[Any, str]:
        """Read one fact.

        Parameters
        ----------
        name : str
            Name of the fact; ``"mjd"`` and ``"night"`` for those that follow from the time.

        Returns
        -------
        value : object
            The value, None for an optional fact that the unit does not give.
        source : str
            Where it was found.

        Raises
        ------
        MissingFact, BadFact
            If it is not there or makes no sense.
        """
        if name not in self.done:
            special: dict[str, Callable[[], tuple[Any, str]]] = {
                "mjd": self._mjd,
                "night": self._night,
                "field": self._field,
                "band": lambda: self._text("band", self.unit.facts.band),
            }
            self.done[name] = special.get(name, lambda: self._number(name))()
        return self.done[name]

    def source(self, name: str) -> str:
        """Return where a fact is looked for: card, file name or constant; empty where the unit does not give it."""
        fact = getattr(self.unit.facts, "time" if name in ("mjd", "night") else name)
        if fact is None:
            return ""
        return f"card {' or '.join(fact.cards)}" if fact.cards else ("file name" if fact.filename else "constant")

    def _number(self, name: str) -> tuple[float | None, str]:
        fact: Fact | None = getattr(self.unit.facts, name)
        if fact is None:
            return None, ""
        raw, source = self._raw(name, fact)
        conversion = converter(name, fact.unit)
        value = sexagesimal(raw) if name in ("ra", "dec") else number(raw)
        if value is None or not math.isfinite(value):
            raise self._bad(name, raw, "a number")
        if name in ("ra", "dec") and isinstance(raw, str) and is_sexagesimal(raw) and not fact.unit:
            raise self._bad(name, raw, 'clear: declare unit = "hourangle" or unit = "deg" for sexagesimal text')
        value = self._convert(name, value * fact.scale, conversion)
        expected = _expected(name, value)
        if expected:
            raise self._bad(name, raw, expected)
        return (value % 360.0 if name == "ra" else value), source

    def _convert(self, name: str, value: float, conversion: Conversion) -> float:
        if conversion.inverse:
            if value == 0:
                raise self._bad(name, value, "positive")
            value = 1.0 / value
        gain = self.read("gain")[0] if conversion.gain_power else 1.0
        return float(value * conversion.factor * gain**conversion.gain_power)

    def _mjd(self) -> tuple[float, str]:
        fact = self.unit.facts.time
        raw, source = self._raw("time", fact)
        if fact.clocks and fact.constant is None:
            clock, clock_source = self._cards("time", fact.clocks)
            raw, source = f"{str(raw).strip()}T{str(clock).strip()}", f"{source} + {clock_source}"
        mjd = read_time(raw, fact.format, scale=fact.timescale, offset_hours=fact.offset_hours)
        if mjd is None:
            raise self._bad("time", raw, f"a time in the format '{fact.format or 'ISO 8601'}' between 1950 and 2100")
        shift = {"start": 0.5, "mid": 0.0, "end": -0.5}[fact.position]
        exposure = self.read("exposure")[0] if shift else 0.0
        return mjd + shift * exposure / 86400.0, f"{source} ({fact.position})"

    def _night(self) -> tuple[str, str]:
        return night_of(self.read("mjd")[0], self.unit.site.longitude), "time and longitude of the site"

    def _field(self) -> tuple[str, str]:
        fact: FieldFact = self.unit.facts.field
        if not (fact.cards or fact.filename or fact.constant is not None):
            ra, dec = self.read("ra")[0], self.read("dec")[0]
            return grid_field(ra, dec, fact.pointing_grid_deg), "pointing"
        return self._text("field", fact)

    def _text(self, name: str, fact: Fact) -> tuple[str, str]:
        raw, source = self._raw(name, fact)
        text = str(raw).strip()
        if fact.choices:
            if text not in fact.choices:
                raise self._bad(name, text, f"one of {sorted(fact.choices)}")
            text = fact.choices[text]
        if not text:
            raise self._bad(name, raw, "a name")
        if len(text) > LONGEST_NAME or not text.isprintable():
            raise self._bad(name, ascii(text[:LONGEST_NAME]), f"a name of up to {LONGEST_NAME} printable characters")
        return text, source

    def _raw(self, name: str, fact: Fact) -> tuple[Any, str]:
        if fact.constant is not None:
            return fact.constant, "constant"
        if fact.filename:
            base = PurePath(self.path).name
            match = re.search(fact.filename, base)
            if match is None or match.group(1) is None:
                raise self._missing(name, f"file name {base!r} (as {fact.filename!r})")
            return match.group(1), "file name"
        value, source = self._cards(name, fact.cards)
        if fact.pattern:
            match = re.search(fact.pattern, str(value))
            if match is None or match.group(1) is None:
                raise self._bad(name, value, f"a text that fits the pattern {fact.pattern!r}")
            value = match.group(1)
        return value, source

    def _cards(self, name: str, cards: tuple[str, ...]) -> tuple[Any, str]:
        for card in cards:
            value = self.header.get(card)
            if value is not None and not (isinstance(value, str) and not value.strip()) and not _undefined(value):
                return value, f"card {card}"
        raise self._missing(name, " or ".join(cards))

    def _missing(self, name: str, card: str) -> MissingFact:
        return MissingFact(path=self.path or "header", fact=name, unit=self.unit.name, card=card, file=self.unit.file)

    def _bad(self, name: str, value: Any, expected: str) -> BadFact:
        path, unit = self.path or "header", self.unit
        return BadFact(path=path, fact=name, unit=unit.name, value=value, expected=expected, file=unit.file)


def _undefined(value: Any) -> bool:
    return type(value).__name__ == "Undefined"


def _expected(name: str, value: float) -> str:
    """What a value should be, empty when it is."""
    if name in ("gain", "saturation", "pixel_scale", "exposure") and value <= 0:
        return "positive"
    if name == "read_noise" and value < 0:
        return "zero or positive"
    if name == "dec" and abs(value) > 90:
        return "between -90 and 90 deg"
    if name == "ra" and not -360 <= value <= 720:
        return "an angle in degrees"
    return ""


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
