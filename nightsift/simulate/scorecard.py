"""The scorecard of a night: recovered objects and false candidates, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

STAGES = ("detected", "unflagged", "accepted")
ALL = "all"


@dataclass(frozen=True, slots=True)
class Recovery:
    """How many true objects of one group were recovered.

    Attributes
    ----------
    unit : str
        Telescope unit, ``"all"`` for the whole night.
    group : {"snr", "kind", "host offset", "obstructed"}
        What the objects are grouped by. Objects that are obstructed (saturated, bled, hit, streaked,
        defective or cut off at their place) stand in the group of that name and in no other.
    label : str
        Which group.
    expected : int
        True objects.
    detected : int
        With a candidate of the right sign at their place, whatever its flags.
    unflagged : int
        With a candidate without flags that speak against it.
    accepted : int
        With an unflagged candidate whose score reaches the unit's threshold.
    """

    unit: str
    group: str
    label: str
    expected: int
    detected: int
    unflagged: int
    accepted: int


@dataclass(frozen=True, slots=True)
class FalseRate:
    """Candidates that are no true object.

    Attributes
    ----------
    unit : str
        Telescope unit, ``"all"`` for the whole night.
    exposures : int
        Exposures searched.
    area : float
        Area searched, summed over exposures (deg2).
    detected, unflagged, accepted : int
        False candidates before flags, after flags, and after the classifier.
    """

    unit: str
    exposures: int
    area: float
    detected: int
    unflagged: int
    accepted: int

    def per_deg2(self, stage: str) -> float:
        """Rate of false candidates per square degree.

        Parameters
        ----------
        stage : {"detected", "unflagged", "accepted"}
            After which stage.

        Returns
        -------
        float
            Candidates per square degree; NaN when no area was searched.
        """
        return float(getattr(self, stage) / self.area) if self.area > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Result of `score_night`.

    Attributes
    ----------
    recoveries : tuple of Recovery
        Recovered objects by group, for the whole night first, then by unit.
    false_rates : tuple of FalseRate
        False candidates, for the whole night first, then by unit.
    not_searched : int
        True objects on exposures that were not reduced.
    classified : bool
        Whether the candidates have scores; without, nothing is accepted.
    secure_snr : float
        Objects counted by kind and host offset have at least this signal-to-noise ratio.
    """

    recoveries: tuple[Recovery, ...]
    false_rates: tuple[FalseRate, ...]
    not_searched: int
    classified: bool
    secure_snr: float

    def fraction(self, group: str, label: str, stage: str = "detected", unit: str = ALL) -> float:
        """Recovered fraction of one group.

        Parameters
        ----------
        group, label : str
            The group.
        stage : {"detected", "unflagged", "accepted"}, optional
            After which stage.
        unit : str, optional
            Telescope unit.

        Returns
        -------
        float
            Fraction of the expected objects; NaN when there are none.
        """
        for row in self.recoveries:
            if (row.unit, row.group, row.label) == (unit, group, label) and row.expected:
                return float(getattr(row, stage) / row.expected)
        return float("nan")

    def table(self, unit: str = ALL) -> list[tuple[str, ...]]:
        """Rows for printing, the first with the headings.

        Parameters
        ----------
        unit : str, optional
            Telescope unit.

        Returns
        -------
        list of tuple of str
            Group, label, number expected, and what each stage keeps.
        """
        rows: list[tuple[str, ...]] = [("group", "", "expected", *STAGES)]
        for one in self.recoveries:
            if one.unit == unit and one.expected:
                parts = (f"{getattr(one, stage)} ({getattr(one, stage) / one.expected:.0%})" for stage in STAGES)
                rows.append((one.group, one.label, str(one.expected), *parts))
        for rate in self.false_rates:
            if rate.unit in (unit, ALL) or unit == ALL:
                parts = (f"{rate.per_deg2(stage):.1f}" for stage in STAGES)
                rows.append(("false / deg2", rate.unit, f"{rate.area:.3f} deg2", *parts))
        return rows

    def to_json(self) -> str:
        """JSON text of everything.

        Returns
        -------
        str
            The scorecard; per-area rates included.
        """
        content: dict[str, Any] = dataclasses.asdict(self)
        for row, rate in zip(content["false_rates"], self.false_rates, strict=True):
            row["per_deg2"] = {stage: rate.per_deg2(stage) for stage in STAGES} if rate.area > 0 else None
        return json.dumps(content, indent=1)
