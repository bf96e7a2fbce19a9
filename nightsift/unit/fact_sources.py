"""Where the facts of an exposure come from (the [facts] table of a unit file), and in which physical units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nightsift.core.configuration import Section

Card = str | tuple[str, ...]
# Physical unit of each numeric fact after reading.
FACT_UNITS = {
    "gain": "electron/adu",
    "read_noise": "electron",
    "saturation": "adu",
    "pixel_scale": "arcsec",
    "exposure": "s",
    "ra": "deg",
    "dec": "deg",
    "zero_point": "mag",
    "sky": "adu",
    "pedestal": "adu",
}

# Spellings found in headers, for those that astropy knows.
SPELLINGS = {
    "ADU": "adu", "DN": "adu", "dn": "adu", "counts": "adu", "count": "adu", "ct": "adu",
    "e": "electron", "e-": "electron", "electrons": "electron",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "hours": "hourangle", "degrees": "deg", "degree": "deg",
}  # fmt: skip


class Fact(Section):
    """Where a fact comes from: exactly one of card, filename or constant."""

    card: Card = Field((), description="header card, or several of which the first present is taken")
    filename: str = Field("", description="regular expression with one group, searched in the file name")
    constant: float | str | None = Field(None, description="the value itself")
    pattern: str = Field("", description="regular expression with one group, applied to the text of the card")
    choices: dict[str, str] = Field({}, description="translation of texts, for instance of filter names")
    unit: str = Field("", description="physical unit of the value; empty is the one nightsift works in")
    scale: float = Field(1.0, description="factor applied to the value")

    @property
    def cards(self) -> tuple[str, ...]:
        """Cards to look for, in order."""
        return (self.card,) if isinstance(self.card, str) else self.card

    @model_validator(mode="after")
    def _one_source(self) -> Fact:
        sources = [bool(self.cards), bool(self.filename), self.constant is not None]
        if sum(sources) != 1 and not self._other_source():
            given = [n for n, s in zip(("card", "filename", "constant"), sources, strict=True) if s]
            raise ValueError(
                f"a fact has exactly one source, this one has {given or 'none'} | keep one of card, filename, constant"
            )
        for name, text in (("pattern", self.pattern), ("filename", self.filename)):
            _one_group(name, text)
        return self

    def _other_source(self) -> bool:
        return False


class TimeFact(Fact):
    """Time of the exposure."""

    position: Literal["start", "mid", "end"] = Field(
        description="which moment of the exposure the time is of: start, mid or end"
    )
    format: str = Field("", description="empty for ISO 8601, or mjd, jd, unix, or a strptime format")
    clock: Card = Field((), description="card with the time of day, where `card` holds the date alone")
    timescale: Literal["utc", "tai", "tt", "gps"] = Field("utc", description="time scale of the value")
    offset_hours: float = Field(0.0, ge=-14, le=14, description="local time minus UTC, where the text has no offset")

    @property
    def clocks(self) -> tuple[str, ...]:
        """Cards with the time of day, in order."""
        return (self.clock,) if isinstance(self.clock, str) else self.clock


class FieldFact(Fact):
    """Name of the sky field."""

    pointing_grid_deg: float = Field(
        0.0, ge=0, le=90, description="name the field by its pointing, rounded to this grid (deg)"
    )

    def _other_source(self) -> bool:
        return self.pointing_grid_deg > 0 and not self.cards and not self.filename and self.constant is None


class Facts(Section):
    """Facts of an exposure."""

    gain: Fact = Field(description="electrons per ADU")
    read_noise: Fact = Field(description="read noise, electrons")
    saturation: Fact = Field(description="level at which a raw pixel saturates, ADU")
    pixel_scale: Fact = Field(description="scale of a raw pixel, arcsec")
    band: Fact = Field(description="name of the filter")
    exposure: Fact = Field(description="exposure time, seconds")
    time: TimeFact = Field(description="time of the exposure")
    field: FieldFact = Field(description="name of the sky field")
    ra: Fact | None = Field(None, description="right ascension of the pointing, deg")
    dec: Fact | None = Field(None, description="declination of the pointing, deg")
    zero_point: Fact | None = Field(None, description="magnitude of 1 ADU")
    sky: Fact | None = Field(None, description="sky level that was removed from the frame before, ADU")
    pedestal: Fact | None = Field(None, description="bias level that the frame still has, ADU")

    @field_validator(*FACT_UNITS)
    @classmethod
    def _unit_fits(cls, fact: Fact | None, info: ValidationInfo) -> Fact | None:
        name = str(info.field_name)
        if fact is None:
            return None
        if isinstance(fact.constant, str) and name not in ("ra", "dec"):
            raise ValueError(
                f"a number in {FACT_UNITS[name]} is needed, not the text {fact.constant!r} | write it without quotes"
            )
        converter(name, fact.unit)  # raises ValueError
        return fact

    @field_validator("band", "time", "field")
    @classmethod
    def _no_unit(cls, fact: Fact) -> Fact:
        if fact.unit or fact.scale != 1.0:
            advice = 'remove them; for numeric times give format = "mjd" or "jd"'
            raise ValueError(f"a name or a time has neither unit nor scale | {advice}")
        return fact

    @model_validator(mode="after")
    def _pointing_known(self) -> Facts:
        if self.field.pointing_grid_deg > 0 and (self.ra is None or self.dec is None):
            advice = "add them, or name the field by card or constant"
            raise ValueError(f"field by pointing_grid_deg needs the facts ra and dec | {advice}")
        return self


def _one_group(name: str, text: str) -> None:
    if not text:
        return
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{name} is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"{name} needs exactly one group in parentheses, it has {groups}")


@dataclass(frozen=True, slots=True)
class Conversion:
    """Conversion of a value: ``factor * value * gain**gain_power``, of ``1 / value`` where `inverse`.

    Attributes
    ----------
    factor : float
        Ratio of the physical units.
    gain_power : int
        Power of the gain (electron/ADU) between ADU and electrons.
    inverse : bool
        Whether the declared unit is the inverse of the wanted one.
    """

    factor: float
    gain_power: int = 0
    inverse: bool = False


@lru_cache(maxsize=256)
def converter(fact: str, unit: str) -> Conversion:
    """Conversion from a declared physical unit to the one that a fact is stored in.

    Parameters
    ----------
    fact : str
        Name of the fact.
    unit : str
        Declared unit; empty for the one that the fact is stored in.

    Returns
    -------
    Conversion
        The conversion.

    Raises
    ------
    ValueError
        If the unit is not one, or cannot be converted.
    """
    if not unit:
        return Conversion(1.0)
    from astropy import units as u

    wanted_text = FACT_UNITS[fact]
    refusal = f"{fact} is needed in {wanted_text}, the unit '{unit}' cannot be converted to it"
    try:
        given = u.Unit(_spelled(unit))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{fact}: '{unit}' is no physical unit | write it as in astropy, for instance {wanted_text}"
        ) from error
    wanted = u.Unit(wanted_text)
    per_electron = u.electron / u.adu
    for inverse, power in ((False, 0), (False, 1), (False, -1), (True, 0)):
        if (fact == "gain" and power) or (inverse and fact != "gain"):
            continue
        candidate = given**-1 if inverse else given * per_electron**power
        if candidate.is_equivalent(wanted):
            return Conversion(float(candidate.to(wanted)), power, inverse)
    raise ValueError(f"{refusal} | give the value in {wanted_text}, with scale = ... where it needs a factor")


def _spelled(unit: str) -> str:
    unit = re.sub(r"\s*/\s*(pixels?|pix|px)$", "", unit.strip(), flags=re.IGNORECASE)  # a scale is one of a pixel
    words = re.split(r"([\s*/().^]+|\*\*-?\d+)", unit)
    return "".join(SPELLINGS.get(word, word) for word in words)
