"""Units that are monitored: their calibration sets and nights, what their verdicts depend on, the page of a night.

While nothing changes of what a verdict depends on, it stands, and the night is not judged again.
The verdict on a unit depends on its latest nights, on its calibration set, and on the scatter that the calibration sets
of all units lend each other; alarms are adjusted over the units of a night. So one key is made for a night: of the
tables of every unit that has exposures in it, of their latest nights and calibration sets, of models, rate and code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.drift.night_channels import NightData, Reference
from nightsift.archive.paths import Archive
from nightsift.core.monitoring_tables import MONITORING
from nightsift.core.provenance import code_of
from nightsift.core.rows import MonitoringRow
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_table, read_tables
from nightsift.report.drift_plots import MOST_NIGHTS
from nightsift.report.model_pages import render_drift
from nightsift.unit.units import Unit
from tasks.monitor import injected_by, read_night, scored_by
from tasks.references import CalibrationSet

KINDS = ("ledger", "candidates", "injections")
"""Tables of a night that a verdict is made from."""


def _digest_of(*parts: Any) -> str:
    """Return a hash of plain values: SHA-256 of their JSON, cut to 24 digits."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:24]


@dataclass(slots=True)
class UnitInputs:
    """What the verdicts on the nights of one unit depend on, and what the archive holds of them.

    Attributes
    ----------
    archive : Archive
        The archive.
    unit, model, pipeline : str
        The unit; identity of model and calibration that serve it now, and of all that recovers injected sources.
    stored : dict of str to dict
        Row of each night as a whole in the table of monitoring.
    nights : dict of str to None
        Nights with exposures, in order.
    """

    archive: Archive
    unit: str
    model: str
    pipeline: str
    stored: dict[str, MonitoringRow] = field(default_factory=dict)
    nights: dict[str, None] = field(default_factory=dict)
    _tables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = read_tables(self.archive.tables("monitoring", unit=self.unit), MONITORING)
        self.stored = {row["night"]: row for row in rows.filter(pc.equal(rows["channel"], "all")).to_pylist()}
        self.nights = {night: None for night in self.archive.nights() if self._count("ledger", night)}

    def tables(self, night: str) -> str:
        """Return the fingerprint of the tables of a night.

        Parameters
        ----------
        night : str
            Night label.

        Returns
        -------
        str
            Made of place, time of change and number of files of each folder: tables are replaced as a whole, which
            changes the time of their folder, so that no file has to be opened.
        """
        if night not in self._tables:
            about = []
            for kind in KINDS:
                folder = self._folder(kind, night)
                if folder.is_dir():
                    where = folder.relative_to(self.archive.home).as_posix()
                    about.append((where, folder.stat().st_mtime_ns, self._count(kind, night)))
            self._tables[night] = _digest_of(about)
        return self._tables[night]

    def is_injected(self, night: str, exposures: int) -> bool:
        """Whether a night is as it was when last judged, and this pipeline had recovered injected sources then."""
        row = self.stored.get(night)
        if row is None or row["pipeline"] != self.pipeline or row["tables"] != self.tables(night):
            return False
        return self._count("injections", night) >= min(exposures, self._count("candidates", night))

    def _folder(self, kind: str, night: str) -> Path:
        place = {"ledger": self.archive.ledger, "candidates": self.archive.candidates}
        return place.get(kind, self.archive.injections)(night, self.unit, "-").parent

    def _count(self, kind: str, night: str) -> int:
        folder = self._folder(kind, night)
        return sum(not name.startswith(".") for name in os.listdir(folder)) if folder.is_dir() else 0

    def forget_tables(self, nights: Iterable[str]) -> None:
        """Forget the fingerprints of nights whose tables were written to."""
        for night in nights:
            self._tables.pop(night, None)

    def scored_by(self, night: str) -> set[str]:
        """Return the models that gave the scores of a night, from the stored verdict while it holds."""
        row = self.stored.get(night)
        if row is not None and row["scored_by"] is not None and row["tables"] == self.tables(night):
            return set(json.loads(row["scored_by"]))
        return scored_by(self.archive, self.unit, night)

    def is_scored(self, night: str) -> bool:
        """Whether only the present model has scored a night."""
        return self.scored_by(night) <= {self.model}

    def reference_key(self, known: CalibrationSet) -> str:
        """Return the key of what the values of a calibration set depend on."""
        return _digest_of(
            code_of("monitoring"), known.reference_id, self.pipeline, [self.tables(night) for night in known.nights]
        )

    def reference_values(self, known: CalibrationSet, names: Sequence[str]) -> dict[str, list[float]] | None:
        """Return the stored values of a calibration set.

        Parameters
        ----------
        known : CalibrationSet
            The set.
        names : sequence of str
            Channels.

        Returns
        -------
        dict of str to list of float
            One value per night by channel, NaN where a night has none; None where what is stored is not of this set or
            not of its tables as they are now.
        """
        key = self.reference_key(known)
        values: dict[str, list[float]] = {name: [] for name in names}
        for night in known.nights:
            row = self.stored.get(night)
            if row is None or row["state"] != "reference" or row["inputs"] != key:
                return None
            rows = read_table(self.archive.monitoring(night, self.unit), MONITORING).to_pylist()
            of_night = {one["channel"]: one["value"] for one in rows}
            for name in names:
                value = of_night.get(name)
                values[name].append(float("nan") if value is None else value)
        return values

    def columns(self, night: str, inputs: str) -> MonitoringRow:
        """Return the columns of the monitoring table that say what a verdict depended on."""
        scored = json.dumps(sorted(self.scored_by(night)))
        return {"tables": self.tables(night), "pipeline": self.pipeline, "scored_by": scored, "inputs": inputs}


def latest_nights(inputs: UnitInputs, known: CalibrationSet, now: str, *, most: int) -> list[str]:
    """Return the nights judged together with a night: the latest ones since its calibration set began, outside of it.

    Parameters
    ----------
    inputs : UnitInputs
        The unit.
    known : CalibrationSet
        Its calibration set.
    now : str
        The night.
    most : int
        How many at most.

    Returns
    -------
    list of str
        In order; nights that another model has scored do not count.
    """
    found: list[str] = []
    for night in reversed(inputs.nights):
        if night < known.nights[0] or len(found) == most:
            break
        if night <= now and night not in known.nights and inputs.is_scored(night):
            found.append(night)
    return found[::-1]


def night_key(
    now: str, units: Mapping[str, tuple[UnitInputs, CalibrationSet | None]], prior: str, *, rate: float, most: int
) -> str:
    """Return the key of what the verdicts on a night depend on, over all its units.

    Parameters
    ----------
    now : str
        The night.
    units : mapping of str to (UnitInputs, CalibrationSet or None)
        Units that have exposures in it.
    prior : str
        What the scatter that units lend each other depends on (`prior_key`).
    rate : float
        Accepted false alarms per unit-night.
    most : int
        Nights that are judged together.

    Returns
    -------
    str
        The key: as long as it is the same, so are the verdicts.
    """
    parts: list[Any] = []
    for name, (one, known) in sorted(units.items()):
        of_unit: list[Any] = [name, one.model, one.pipeline, one.tables(now), None, []]
        if known is not None:
            of_unit[-2] = one.reference_key(known)
            of_unit[-1] = [(night, one.tables(night)) for night in latest_nights(one, known, now, most=most)]
        parts.append(of_unit)
    return _digest_of(code_of("monitoring"), prior, rate, now, parts)


def prior_key(units: Iterable[tuple[UnitInputs, CalibrationSet | None]]) -> str:
    """Return the hash of the calibration sets of all units: the scatter that they lend each other depends on it."""
    return _digest_of(sorted((one.unit, one.reference_key(known)) for one, known in units if known is not None))


@dataclass(frozen=True, slots=True)
class StoredReference:
    """What other units need of a calibration set: its values by channel, as they were stored."""

    values: dict[str, npt.NDArray[np.float64]]


@dataclass(slots=True, eq=False)
class Watched:
    """A unit that is monitored.

    Attributes
    ----------
    unit : Unit
        The unit.
    model : str
        Identity of model and calibration that serve it now.
    inputs : UnitInputs
        What its verdicts depend on.
    asked : bool
        Whether its nights are to be judged; others lend their scatter and share the alarms of a night.
    known : CalibrationSet or None
        Its calibration set; None where there are too few nights.
    reference : Reference or None
        The same, learnt.
    why : str
        Why it has none.
    nights : dict of str to NightData
        Nights read so far.
    values : dict of str to dict
        Their values by channel.
    """

    unit: Unit
    model: str
    inputs: UnitInputs
    asked: bool = True
    known: CalibrationSet | None = None
    reference: Reference | None = None
    why: str = ""
    nights: dict[str, NightData] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def read(self, night: str) -> NightData:
        """Return a night, read at the first call."""
        if night not in self.nights:
            self.nights[night] = read_night(self.inputs.archive, self.unit, night)
        return self.nights[night]

    def is_calibration(self, night: str) -> bool:
        """Whether a night is one of the calibration set."""
        return self.known is not None and night in self.known.nights


def present_in(watched: Sequence[Watched], night: str) -> list[Watched]:
    """Return the units that have exposures in a night, in their order."""
    return [one for one in watched if night in one.inputs.nights]


def write_page(
    archive: Archive,
    watched: Sequence[Watched],
    now: str,
    *,
    titles: Mapping[str, str],
    survey: str,
    rate: float,
    problems: Sequence[str],
) -> None:
    """Write the page of drift of a night.

    Parameters
    ----------
    archive : Archive
        The archive.
    watched : sequence of Watched
        All units.
    now : str
        The night; its verdicts are written.
    titles : mapping of str to str
        What each channel is.
    survey : str
        Survey file, for the commands that are proposed.
    rate : float
        Accepted false alarms per unit-night.
    problems : sequence of str
        What went wrong.
    """
    names = pa.array([one.unit.name for one in watched])
    nights = [night for night in archive.nights("monitoring") if night <= now][-MOST_NIGHTS:]
    table = read_tables([path for night in nights for path in archive.tables("monitoring", night)], MONITORING)
    history = table.filter(pc.is_in(table["unit"], names)).to_pylist()
    logits, injections = {}, {}
    for one in watched:
        if one.reference is None or one.known is None or now not in one.nights:
            continue
        logits[one.unit.name] = (one.nights[now].logits, np.concatenate([n.logits for n in one.reference.nights]))
        tonight, before = (
            injected_by(archive, one.unit.name, n, pipeline=one.inputs.pipeline) for n in ([now], one.known.nights)
        )
        injections[one.unit.name] = (tonight.to_pylist(), before.to_pylist())
    page = render_drift(
        now,
        history,
        titles,
        logits=logits,
        injections=injections,
        survey=Path(survey).name,
        models=str(archive.home / "models"),
        rate=rate,
        problems=problems,
    )
    with atomic(archive.report(now, "drift")) as temporary:
        temporary.write_text(page, encoding="utf-8")
