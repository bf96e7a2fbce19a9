"""Monitoring: each night and unit against the unit's calibration set. What happens, in order.

The first nights that a unit's model scored are its calibration set, or those that are named; sources are injected where
that has not been done; every later night is judged, written to the archive and drawn for people. A verdict stands while
nothing changes of what it depends on (`tasks.watched_units`): only what is new or changed is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow

from flows.pool import run_all
from flows.tracking import recorded
from models.drift.alarm import RATE, TOGETHER, WINDOWS, ChannelVerdict, NightVerdict, judge_night, judge_unit, priors
from models.drift.control_tests import LEAST_NIGHTS, Prior
from models.drift.night_channels import CHANNELS, Reference, learn_reference, night_values
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.archive.survey import Survey, load_survey
from nightsift.core.errors import TooFewNights
from nightsift.core.rows import MonitoringRow
from tasks.classify import model_of
from tasks.monitor import inject_exposure, pipeline_of, rows_to_inject, verdict_rows, write_verdict
from tasks.references import CalibrationSet, current_reference, name_reference, write_completeness
from tasks.retry import run_logger
from tasks.steps import checked_units
from tasks.watched_units import (
    StoredReference,
    UnitInputs,
    Watched,
    latest_nights,
    night_key,
    present_in,
    prior_key,
    write_page,
)

NIGHTS = 10
"""Nights that make a calibration set by themselves, where none are named."""
TITLES = {channel.name: channel.title for channel in (*CHANNELS, TOGETHER)}

NAMES = tuple(channel.name for channel in CHANNELS)

Progress = Callable[[str, str, str], None]
"""Called with unit, night and its state, as each night is judged."""


@dataclass(frozen=True, slots=True)
class MonitorSummary:
    """Result of a run of monitoring.

    Attributes
    ----------
    rows : list of dict
        The rows of all nights that were looked at, of the channel ``all`` (schema `MONITORING`).
    pages : dict of str to Path
        Pages by night.
    problems : list of str
        What went wrong.
    judged : list of (str, str)
        Unit and night of the rows that were made now; all others stand as they were.
    undated : int
        Exposures without a night: they are of no night that could be judged.
    """

    rows: list[MonitoringRow]
    pages: dict[str, Path]
    problems: list[str]
    judged: list[tuple[str, str]] = field(default_factory=list)
    undated: int = 0

    @property
    def drifted(self) -> list[MonitoringRow]:
        """Rows of alarms."""
        return [row for row in self.rows if row["state"] == "drifted"]

    @property
    def exit_code(self) -> int:
        """1 where a unit drifted, else 0."""
        return 1 if self.drifted else 0


def monitor(
    survey: Survey | str | Path,
    night: str | None = None,
    units: Sequence[str] | None = None,
    *,
    reference: tuple[str, str] | None = None,
    inject: int = 1,
    rate: float = RATE,
    progress: Progress | None = None,
    track: bool = True,
) -> MonitorSummary:
    """Judge nights of a survey, tracked by Prefect where a server answers or can be started.

    Parameters
    ----------
    survey : Survey, str or Path
        The survey, or its file.
    night : str, optional
        Only this night; all after the calibration sets when None. Verdicts that stand are not made again.
    units : sequence of str, optional
        Only these units; the others still share the alarms of a night, so that a verdict is the same whoever asks.
    reference : (str, str), optional
        First and last night of a new calibration set, instead of the one that is known.
    inject : int, optional
        Exposures of each night that sources are injected into; 0 for none.
    rate : float, optional
        Accepted false alarms per unit-night.
    progress : callable, optional
        Called as each night is judged.
    track : bool, optional
        False to run without Prefect.

    Returns
    -------
    MonitorSummary
        What was found.

    Raises
    ------
    ConfigurationError
        If survey, unit files or models are wrong.
    TooFewNights
        If the nights that were named are too few for a calibration set.
    """
    survey = survey if isinstance(survey, Survey) else load_survey(survey)
    checked_units(survey)
    plan = (survey, night, tuple(units or ()), reference, inject, rate, progress)
    return recorded(monitoring, f"monitor {survey.name}", *plan, track=track)


def _monitor(
    survey: Survey,
    night: str | None,
    only: tuple[str, ...],
    asked: tuple[str, str] | None,
    inject: int,
    rate: float,
    progress: Progress | None,
    tracked: bool,
) -> MonitorSummary:
    archive, wanted = Archive(survey.archive), survey.load_units(only)
    watched = [
        Watched(
            unit,
            model_of(unit),
            UnitInputs(archive, name, model_of(unit), pipeline_of(unit, model_of(unit))),
            name in wanted,
        )
        for name, unit in survey.load_units(()).items()
    ]
    for one in watched:
        _find_reference(archive, one, asked if one.asked else None)
    nights = [night] if night is not None else _nights_to_judge(watched)
    undated = sum(len(archive.tables("ledger", WITHOUT_NIGHT, one.unit.name)) for one in watched if one.asked)
    problems = _inject(archive, survey, watched, nights=nights, exposures=inject, tracked=tracked)
    keys = _keys(watched, nights, rate)
    due = [now for now in nights if not _stands(archive, watched, now, key=keys[now])]
    prior = _priors(archive, watched, due)
    summary = MonitorSummary([], {}, problems, undated=undated)
    for now in nights:
        present = present_in(watched, now)
        asked_now = [one for one in present if one.asked and not one.is_calibration(now)]
        if now in due:
            rows = _judge_all(archive, present, now, prior=prior, key=keys[now], rate=rate)
            summary.judged.extend((one.unit.name, now) for one in asked_now)
        else:
            rows = {one.unit.name: one.inputs.stored[now] for one in asked_now}
        summary.rows.extend(rows.values())
        if progress is not None and (now in due or night is not None):
            for name, row in rows.items():
                progress(name, now, row["state"])
        if rows:
            summary.pages[now] = archive.report(now, "drift")
            if now in due:
                write_page(archive, watched, now, titles=TITLES, survey=survey.file, rate=rate, problems=problems)
    for one in watched:
        if one.asked and due:
            write_completeness(archive, one.unit.name, one.model, pipeline=one.inputs.pipeline)
    run_logger().info("%d unit-nights judged, %d drifted", len(summary.judged), len(summary.drifted))
    return summary


monitoring = flow(name="monitoring", persist_result=False, validate_parameters=False)(_monitor)


def _find_reference(archive: Archive, one: Watched, asked: tuple[str, str] | None) -> None:
    """Find or name the calibration set of a unit; that of a unit that nobody asked for is only looked up."""
    name = one.unit.name
    one.known = current_reference(archive, name, one.model) if asked is None else None
    if one.known is not None or not one.asked:
        return
    scored = [night for night in one.inputs.nights if one.inputs.is_scored(night)]
    if asked is not None:
        chosen = [night for night in scored if asked[0] <= night <= asked[1]]
        if len(chosen) < LEAST_NIGHTS:
            raise TooFewNights(found=len(chosen), needed=LEAST_NIGHTS, unit=name)
        one.known = name_reference(archive, one.unit, one.model, nights=chosen)
    elif len(scored) >= NIGHTS:
        one.known = name_reference(archive, one.unit, one.model, nights=scored[:NIGHTS])
    else:
        one.why = f"no calibration set yet: {len(scored)} nights scored by {one.model}, {NIGHTS} needed"


def _inject(
    archive: Archive,
    survey: Survey,
    watched: Sequence[Watched],
    *,
    nights: Sequence[str],
    exposures: int,
    tracked: bool,
) -> list[str]:
    """Inject sources where that is due, one task per exposure; return the problems of those that failed."""
    calls: list[dict[str, Any]] = [
        {
            "row": row, "unit": one.unit.file or one.unit.name, "archive": str(archive.root),
            "folders": [str(folder) for folder in survey.unit_folders],
        }
        for one in watched
        if one.known is not None and one.asked
        for night in sorted({*one.known.nights, *nights})
        if not one.inputs.is_injected(night, exposures)
        for row in rows_to_inject(archive, one.unit.name, night, exposures=exposures, pipeline=one.inputs.pipeline)
    ]  # fmt: skip
    problems = []
    for ended in run_all(inject_exposure, calls, survey.runner, tracked=tracked) if calls else ():
        if ended.error is not None:
            problems.append(f"{ended.call['row']['url']}: no sources could be injected: {ended.error}")
            run_logger().warning(problems[-1])
    for one in watched:
        one.inputs.forget_tables({call["row"]["night"] for call in calls})
    return problems


def _keys(watched: Sequence[Watched], nights: Sequence[str], rate: float) -> dict[str, str]:
    """Return the key of what the verdicts on each night depend on."""
    prior = prior_key((one.inputs, one.known) for one in watched)
    return {
        now: night_key(
            now,
            {one.unit.name: (one.inputs, one.known) for one in present_in(watched, now)},
            prior,
            rate=rate,
            most=max(WINDOWS),
        )
        for now in nights
    }


def _stands(archive: Archive, watched: Sequence[Watched], now: str, *, key: str) -> bool:
    """Whether the verdicts on a night were made from what there is now, and its page lies there."""
    asked = [one for one in present_in(watched, now) if one.asked and not one.is_calibration(now)]
    stored = [one.inputs.stored.get(now) for one in asked]
    return all(row is not None and row["inputs"] == key for row in stored) and (
        not asked or archive.report(now, "drift").is_file()
    )


def _priors(archive: Archive, watched: Sequence[Watched], due: Sequence[str]) -> dict[str, Prior]:
    """Return the scatter that units lend each other; calibration sets are learnt only where that is needed."""
    found: list[Reference | StoredReference] = []
    for one in watched:
        if one.known is None:
            continue
        stored = one.inputs.reference_values(one.known, NAMES)
        if stored is None or any(now in one.inputs.nights and not one.is_calibration(now) for now in due):
            found.append(_learn(archive, one, one.known, write=stored is None))
        else:
            found.append(StoredReference({name: np.array(values) for name, values in stored.items()}))
    return priors(found) if due else {}


def _learn(archive: Archive, one: Watched, known: CalibrationSet, *, write: bool) -> Reference:
    """Learn the calibration set of a unit, and write the values of its nights."""
    one.reference = learn_reference([one.read(night) for night in known.nights])
    key = one.inputs.reference_key(known)
    for place, night in enumerate(known.nights if write else ()):
        values = {name: float(one.reference.values[name][place]) for name in NAMES}
        channels = tuple(ChannelVerdict(channel, value) for channel, value in values.items())
        verdict = NightVerdict(one.unit.name, channels, float("nan"))
        rows = verdict_rows(one.read(night), verdict, "reference", message="", reference=known, model=one.model)
        write_verdict(archive, [{**row, **one.inputs.columns(night, key)} for row in rows])
    return one.reference


def _judge_all(
    archive: Archive, present: Sequence[Watched], now: str, *, prior: Mapping[str, Prior], key: str, rate: float
) -> dict[str, MonitoringRow]:
    """Judge a night of all units together; write and return the rows of those that were asked for."""
    verdicts = {one.unit.name: _judge(archive, one, now, prior=prior) for one in present}
    judged = [verdict for verdict, _ in verdicts.values() if verdict is not None]
    final = {verdict.unit: verdict for verdict in judge_night(judged, rate)}
    made = {}
    for one in present:
        if not one.asked or one.is_calibration(now):
            continue  # the rows of a calibration night were written when the set was learnt
        verdict, why = final.get(one.unit.name), verdicts[one.unit.name][1]
        state = "unjudged" if verdict is None or not np.isfinite(verdict.p) else "steady"
        if verdict is not None and np.isfinite(verdict.clouds):
            state, why = "weather", f"no exposure was clear: {verdict.clouds:.1f} mag of extinction at least"
        if verdict is not None and verdict.drifted:
            state, why = "drifted", ", ".join(TITLES[name] for name in verdict.reasons)
        rows = verdict_rows(one.read(now), verdict, state, message=why, reference=one.known, model=one.model)
        rows = [{**row, **one.inputs.columns(now, key)} for row in rows]
        write_verdict(archive, rows)
        made[one.unit.name] = rows[0]
    return made


def _judge(archive: Archive, one: Watched, now: str, *, prior: Mapping[str, Prior]) -> tuple[NightVerdict | None, str]:
    """Return the verdict on one night of one unit, not yet adjusted for the others, or why there is none."""
    if one.reference is None or one.known is None:
        return None, one.why
    if one.is_calibration(now):
        return None, "a night of the calibration set"
    other = one.inputs.scored_by(now) - {one.model}
    if other:
        return None, f"its candidates were scored by {', '.join(sorted(other))}: nightsift night scores it again"
    latest = latest_nights(one.inputs, one.known, now, most=max(WINDOWS))
    for night in latest:
        if night not in one.values:
            one.values[night] = night_values(one.read(night), one.reference)
    return judge_unit(one.reference, [one.values[night] for night in latest], prior), ""


def _nights_to_judge(watched: Sequence[Watched]) -> list[str]:
    """Return the nights, in order, of units asked for that lie outside their calibration set and not before it."""
    found = set()
    for one in watched:
        first = one.known.nights[0] if one.known is not None else ""
        found |= {n for n in one.inputs.nights if one.asked and not one.is_calibration(n) and n >= first}
    return sorted(found)
