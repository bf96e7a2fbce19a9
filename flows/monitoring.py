"""Monitoring: each night and unit against the unit's calibration set. What happens, in order.

The first nights that a unit's model scored are its calibration set, or those that are named; sources are injected where
that has not been done; every later night is judged, written to the archive and drawn for people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow

from flows.nightly import load_units
from flows.runner import run_all
from flows.server import tracking
from models.errors import TooFewNights
from models.judgement import RATE, TOGETHER, WINDOWS, ChannelVerdict, NightVerdict, judge_night, judge_unit, priors
from models.night_channels import CHANNELS, NightData, Reference, learn_reference, night_values
from models.night_tests import LEAST_NIGHTS
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_tables
from nightsift.io.paths import Archive
from nightsift.report.drift import render
from nightsift.survey import Survey, load_survey
from nightsift.tables import MONITORING
from nightsift.units import Unit
from tasks.classify import model_of
from tasks.injection import inject_exposure
from tasks.logs import run_logger
from tasks.monitor import injected_by, read_night, rows_to_inject, scored_by, verdict_rows, write_verdict
from tasks.references import CalibrationSet, current_reference, name_reference, write_completeness

NIGHTS = 10
"""Nights that make a calibration set by themselves, where none are named."""
TITLES = {channel.name: channel.title for channel in (*CHANNELS, TOGETHER)}

Progress = Callable[[str, str, str], None]
"""Called with unit, night and its state, as each night is judged."""


@dataclass(slots=True)
class Watched:
    """A unit that is watched.

    Attributes
    ----------
    unit : Unit
        The unit.
    model : str
        Identity of model and calibration that serve it now.
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
    known: CalibrationSet | None = None
    reference: Reference | None = None
    why: str = ""
    nights: dict[str, NightData] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonitorSummary:
    """What monitoring found.

    Attributes
    ----------
    rows : list of dict
        The rows of all nights judged, of the channel ``all`` (schema `nightsift.tables.MONITORING`).
    pages : dict of str to Path
        Pages by night.
    problems : list of str
        What went wrong.
    """

    rows: list[dict[str, Any]]
    pages: dict[str, Path]
    problems: list[str]

    @property
    def drifted(self) -> list[dict[str, Any]]:
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
        Only this night; all after the calibration sets when None.
    units : sequence of str, optional
        Only these units.
    reference : (str, str), optional
        First and last night of a new calibration set, instead of the one that is known.
    inject : int, optional
        Exposures of each night that sources are injected into; 0 for none.
    rate : float, optional
        False alarms a unit-night that are accepted.
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
    plan = (survey, night, tuple(units or ()), reference, inject, rate, progress)
    if not track:
        return _monitor(*plan, tracked=False)
    with tracking() as tracked:
        if not tracked:
            return _monitor(*plan, tracked=False)
        return monitoring.with_options(flow_run_name=f"monitor {survey.name}")(*plan, tracked=True)


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
    archive = Archive(survey.archive)
    watched = [Watched(unit, model_of(unit)) for unit in load_units(survey, only).values()]
    for one in watched:
        _find_reference(archive, one, asked)
    nights = [night] if night is not None else _nights_to_judge(archive, watched)
    problems = _inject(archive, survey, watched, nights, inject, tracked)
    for one in watched:
        _learn(archive, one)
    prior = priors([one.reference for one in watched if one.reference is not None])
    summary = MonitorSummary([], {}, problems)
    for now in nights:
        rows = []
        present = [one for one in watched if archive.tables("ledger", now, one.unit.name)]
        told = {one.unit.name: _judge(archive, one, now, prior) for one in present}
        judged = [verdict for verdict, _ in told.values() if verdict is not None]
        final = {verdict.unit: verdict for verdict in judge_night(judged, rate)}
        for one in present:
            verdict, why = final.get(one.unit.name), told[one.unit.name][1]
            state = "unjudged" if verdict is None or not np.isfinite(verdict.p) else "steady"
            if one.known is not None and now in one.known.nights:
                continue  # its rows were written when the set was learnt
            if verdict is not None and np.isfinite(verdict.clouds):
                state, why = "weather", f"no exposure was clear: {verdict.clouds:.1f} mag of extinction at least"
            if verdict is not None and verdict.drifted:
                state, why = "drifted", ", ".join(TITLES[name] for name in verdict.reasons)
            rows.append(verdict_rows(_night(archive, one, now), verdict, state, why, one.known, one.model))
            write_verdict(archive, rows[-1])
            summary.rows.append(rows[-1][0])
            if progress is not None:
                progress(one.unit.name, now, state)
        if rows:
            summary.pages[now] = _write_page(archive, survey, watched, now, rate, problems)
    for one in watched:
        write_completeness(archive, one.unit.name, one.model)
    run_logger().info("%d unit-nights judged, %d drifted", len(summary.rows), len(summary.drifted))
    return summary


monitoring = flow(name="monitoring", persist_result=False, validate_parameters=False)(_monitor)


def _find_reference(archive: Archive, one: Watched, asked: tuple[str, str] | None) -> None:
    """Find or name the calibration set of a unit."""
    name = one.unit.name
    scored = [night for night in _nights_of(archive, name) if scored_by(archive, name, night) <= {one.model}]
    if asked is not None:
        chosen = [night for night in scored if asked[0] <= night <= asked[1]]
        if len(chosen) < LEAST_NIGHTS:
            raise TooFewNights(found=len(chosen), needed=LEAST_NIGHTS, unit=name)
        one.known = name_reference.fn(archive, one.unit, one.model, chosen)
        return
    one.known = current_reference(archive, name, one.model)
    if one.known is None and len(scored) >= NIGHTS:
        one.known = name_reference.fn(archive, one.unit, one.model, scored[:NIGHTS])
    if one.known is None:
        one.why = f"no calibration set yet: {len(scored)} nights scored by {one.model}, {NIGHTS} needed"


def _inject(
    archive: Archive, survey: Survey, watched: Sequence[Watched], nights: Sequence[str], exposures: int, tracked: bool
) -> list[str]:
    """Inject sources where it is wanted and was not done, one task an exposure; tell what kept it from being done."""
    calls = [
        {
            "row": row, "unit": one.unit.file or one.unit.name, "archive": str(archive.root),
            "folders": [str(folder) for folder in survey.unit_folders],
        }
        for one in watched
        if one.known is not None
        for night in sorted({*one.known.nights, *nights})
        for row in rows_to_inject(archive, one.unit.name, night, exposures, one.model)
    ]  # fmt: skip
    problems = []
    for ended in run_all(inject_exposure, calls, survey.runner, tracked) if calls else ():
        if ended.error is not None:
            problems.append(f"{ended.call['row']['url']}: no sources could be injected: {ended.error}")
            run_logger().warning(problems[-1])
    return problems


def _learn(archive: Archive, one: Watched) -> None:
    """Learn the calibration set of a unit, and write the values of its nights."""
    if one.known is None:
        return
    one.reference = learn_reference([_night(archive, one, night) for night in one.known.nights])
    for place, night in enumerate(one.known.nights):
        values = {channel.name: float(one.reference.values[channel.name][place]) for channel in CHANNELS}
        channels = tuple(ChannelVerdict(channel, value) for channel, value in values.items())
        verdict = NightVerdict(one.unit.name, channels, float("nan"))
        rows = verdict_rows(_night(archive, one, night), verdict, "reference", "", one.known, one.model)
        write_verdict(archive, rows)


def _judge(archive: Archive, one: Watched, now: str, prior: Any) -> tuple[NightVerdict | None, str]:
    """What is said of one night of one unit, not yet adjusted for the others, or why nothing is."""
    if one.reference is None or one.known is None:
        return None, one.why
    if now in one.known.nights:
        return None, "a night of the calibration set"
    other = scored_by(archive, one.unit.name, now) - {one.model}
    if other:
        return None, f"its candidates were scored by {', '.join(sorted(other))}: nightsift night scores it again"
    since = [n for n in _nights_of(archive, one.unit.name) if one.known.nights[0] <= n <= now]
    latest = [n for n in since if n not in one.known.nights and scored_by(archive, one.unit.name, n) <= {one.model}]
    for night in latest[-max(WINDOWS) :]:
        if night not in one.values:
            one.values[night] = night_values(_night(archive, one, night), one.reference)
    return judge_unit(one.reference, [one.values[night] for night in latest[-max(WINDOWS) :]], prior), ""


def _write_page(
    archive: Archive, survey: Survey, watched: Sequence[Watched], now: str, rate: float, problems: Sequence[str]
) -> Path:
    names = pa.array([one.unit.name for one in watched])
    table = read_tables(
        [p for n in archive.nights("monitoring") if n <= now for p in archive.tables("monitoring", n)], MONITORING
    )
    history = table.filter(pc.is_in(table["unit"], names)).to_pylist()
    logits, injections = {}, {}
    for one in watched:
        if one.reference is None or one.known is None or now not in one.nights:
            continue
        logits[one.unit.name] = (one.nights[now].logits, np.concatenate([n.logits for n in one.reference.nights]))
        tonight, before = (injected_by(archive, one.unit.name, n, one.model) for n in ([now], one.known.nights))
        injections[one.unit.name] = (tonight.to_pylist(), before.to_pylist())
    page = render(
        now, history, TITLES, logits, injections, Path(survey.file).name, str(archive.home / "models"), rate, problems
    )
    path = archive.report(now, "drift")
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _nights_of(archive: Archive, unit: str) -> list[str]:
    return [night for night in archive.nights() if archive.tables("ledger", night, unit)]


def _nights_to_judge(archive: Archive, watched: Sequence[Watched]) -> list[str]:
    """Nights of any unit that are none of its calibration set and not before it, in order."""
    found = set()
    for one in watched:
        nights = one.known.nights if one.known is not None else ()
        found |= {n for n in _nights_of(archive, one.unit.name) if n not in nights and n >= (nights or ("",))[0]}
    return sorted(found)


def _night(archive: Archive, one: Watched, night: str) -> NightData:
    if night not in one.nights:
        one.nights[night] = read_night.fn(archive, one.unit, night)
    return one.nights[night]
