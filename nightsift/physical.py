"""Physical units of facts: what a unit file may declare, and how it is converted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from nightsift.fact_sources import FACT_UNITS

# Spellings found in headers, for those that astropy knows.
SPELLINGS = {
    "ADU": "adu", "DN": "adu", "dn": "adu", "counts": "adu", "count": "adu", "ct": "adu",
    "e": "electron", "e-": "electron", "electrons": "electron",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "hours": "hourangle", "degrees": "deg", "degree": "deg",
}  # fmt: skip


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
    """Conversion from a declared physical unit to the one that a fact is kept in.

    Parameters
    ----------
    fact : str
        Name of the fact.
    unit : str
        Declared unit; empty for the one that the fact is kept in.

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
    refusal = f"{fact} is kept in {wanted_text}, the unit '{unit}' cannot be converted to it"
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
