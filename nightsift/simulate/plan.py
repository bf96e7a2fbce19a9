"""Which exposures a survey takes: fields, times, conditions. Nothing here draws pixels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

from nightsift.core.random import generator
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.unit_options import UnitOptions

MJD_OF_YEAR_ONE = -678576  # MJD of a proleptic Gregorian ordinal of zero


@dataclass(frozen=True, slots=True)
class Field:
    """A field of one unit.

    Attributes
    ----------
    name : str
        Name of the field.
    ra, dec : float
        Centre (deg).
    """

    name: str
    ra: float
    dec: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure, with the conditions it is taken under.

    Attributes
    ----------
    unit : UnitOptions
        The telescope unit.
    field : Field
        Where it points.
    night : str
        Local date of the evening.
    number : int
        Running number of the exposure of this field in this role.
    role : {"template", "night"}
        For the templates, or of the survey proper.
    mjd : float
        Start (MJD, UTC).
    seeing : float
        Full width at half maximum of the seeing disc (arcsec).
    defocus : float
        Change of the focus (pixel).
    trail : float
        Length of the tracking trail (pixel).
    sky_mag : float
        Brightness of the sky (mag/arcsec2).
    extinction : float
        Extinction (mag).
    cloudy : bool
        Whether there are clouds.
    shift : tuple of float
        Dither ``(dx, dy)`` (pixel).
    turn : float
        Field rotation (deg).
    streaks : int
        Number of satellite streaks.
    """

    unit: UnitOptions
    field: Field
    night: str
    number: int
    role: Literal["template", "night"]
    mjd: float
    seeing: float
    defocus: float
    trail: float
    sky_mag: float
    extinction: float
    cloudy: bool
    shift: tuple[float, float]
    turn: float
    streaks: int

    @property
    def mid_mjd(self) -> float:
        """Middle of the exposure (MJD)."""
        return self.mjd + 0.5 * self.unit.exposure / 86400.0

    def key(self) -> tuple[str, ...]:
        """Words that identify the exposure among all of a survey."""
        return (self.unit.name, self.field.name, self.role, self.night, str(self.number))


def plan_fields(options: SimulationOptions, unit: UnitOptions) -> tuple[Field, ...]:
    """Fields of a unit: high in the sky of its site at midnight in late November.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    unit : UnitOptions
        The unit.

    Returns
    -------
    tuple of Field
        The fields.
    """
    fields = []
    for index in range(options.fields):
        rng = generator(options.seed, unit.name, "field", index)
        ra = float(rng.uniform(15.0, 110.0))
        dec = float(np.clip(unit.latitude + rng.uniform(-30, 30), -75, 75))
        fields.append(Field(f"{unit.name}-f{index + 1:02d}", round(ra, 4), round(dec, 4)))
    return tuple(fields)


def plan_exposures(options: SimulationOptions, unit: UnitOptions, field: Field) -> tuple[Exposure, ...]:
    """All exposures of one field, those for the template first.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    unit : UnitOptions
        The unit.
    field : Field
        One of its fields.

    Returns
    -------
    tuple of Exposure
        The exposures.
    """
    first = date.fromisoformat(min(options.nights))
    exposures = [
        _expose(
            options,
            unit,
            field,
            night=str(first - timedelta(days=12 + 2 * number)),
            number=number,
            visit=0,
            role="template",
        )
        for number in range(options.template_frames)
    ]
    exposures += [
        _expose(options, unit, field, night=night, number=visit, visit=visit, role="night")
        for night in options.nights
        for visit in range(options.visits)
    ]
    return tuple(exposures)


def _expose(
    options: SimulationOptions,
    unit: UnitOptions,
    field: Field,
    *,
    night: str,
    number: int,
    visit: int,
    role: Literal["template", "night"],
) -> Exposure:
    at_night = generator(options.seed, unit.name, "night", night)
    rng = generator(options.seed, unit.name, field.name, role, night, number, "conditions")
    night_seeing, moon = np.exp(at_night.normal(0.0, 0.12)), at_night.random() ** 2 * options.artefacts.moon
    cloudy = bool(rng.random() < options.artefacts.cloud_probability)
    extinction = rng.uniform(0.15, options.artefacts.cloud_extinction) if cloudy else rng.uniform(0.0, 0.06)
    order = int(field.name.rsplit("f", 1)[1]) - 1
    minutes = visit * options.visit_minutes + order * (unit.exposure / 60.0 + 0.7) + float(rng.uniform(0, 0.3))
    evening = date.fromisoformat(night).toordinal() + MJD_OF_YEAR_ONE
    return Exposure(
        unit=unit,
        field=field,
        night=night,
        number=number,
        role=role,
        mjd=evening + (20.5 - unit.longitude / 15.0) / 24.0 + minutes / 1440.0,
        seeing=float(unit.optics.seeing * night_seeing * np.exp(rng.normal(0.0, 0.06))),
        defocus=float(rng.normal(0.0, unit.optics.focus_jitter)),
        trail=float(unit.optics.trail * abs(rng.normal(1.0, 0.5))),
        sky_mag=float(unit.sky_mag - moon - (rng.uniform(0.0, 0.3) if cloudy else 0.0)),
        extinction=float(extinction),
        cloudy=cloudy,
        shift=(float(rng.uniform(-unit.dither, unit.dither)), float(rng.uniform(-unit.dither, unit.dither))),
        turn=float(rng.normal(0.0, unit.rotation_jitter)),
        streaks=int(rng.random() < options.artefacts.streak_probability),
    )
