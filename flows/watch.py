"""The night while it goes on: frames are reduced as they land, and at dawn the night is closed with its report."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from prefect import flow

from flows.night import _night, record_lost
from flows.pool import Workers
from flows.summary import NightSummary
from flows.tracking import recorded
from flows.watch_state import Priority, WatchState, memory_of, priority_of
from nightsift.archive import ledger
from nightsift.archive.claims import claimed
from nightsift.archive.night_status import Progress, write_progress
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.archive.survey import Survey
from nightsift.core.errors import ConfigurationError
from nightsift.core.parallel import this_process
from nightsift.core.rows import LedgerRow
from nightsift.io.sources import Found
from nightsift.site.clock import Night, night_at
from nightsift.unit.units import Unit
from tasks.classify import model_of
from tasks.discover import reduction_call
from tasks.notify import notify_people
from tasks.record import Work, work_left
from tasks.reduce import reduce_exposure
from tasks.retry import run_logger
from tasks.source_watcher import SourceWatcher
from tasks.steps import check_services, checked_units

TICK_SECONDS = 1.0
"""Longest wait of the loop: it looks after frames, workers and the clock this often."""

WRITE_SECONDS = 2.0
"""The status is written this often."""

OnRow = Callable[[LedgerRow], None]
"""Called with the ledger row of each exposure that ended."""


def watch(
    survey: Survey,
    site: str = "",
    units: Sequence[str] = (),
    *,
    until: datetime | None = None,
    until_idle: bool = False,
    on_row: OnRow | None = None,
    track: bool = True,
) -> NightSummary:
    """Watch a night until dawn and close it; killed at any moment, it goes on when it is started again.

    Parameters
    ----------
    survey : Survey
        The survey.
    site : str, optional
        Site whose units are watched; needed where the survey has several.
    units : sequence of str, optional
        Only these units.
    until : datetime, optional
        When to close the night, instead of after dawn.
    until_idle : bool, optional
        Reduce what is there, close, and end.
    on_row : callable, optional
        Called with the ledger row of each exposure that ended.
    track : bool, optional
        False to run without Prefect.

    Returns
    -------
    NightSummary
        What came out of the night.

    Raises
    ------
    ConfigurationError
        If survey, units, models or sites are wrong.
    UnderWayElsewhere
        If the night is being watched already.
    """
    plan = (
        survey,
        *_site_and_units(survey, site, units, until=until, until_idle=until_idle),
        until,
        until_idle,
        on_row,
    )
    return recorded(watching, f"{survey.name} {plan[1] or 'everywhere'}", *plan, track=track)


def _site_and_units(
    survey: Survey, site: str, only: Sequence[str], *, until: datetime | None, until_idle: bool
) -> tuple[str, dict[str, Unit]]:
    """Return the site to watch (empty where no end depends on the Sun) and its units by name, checked."""
    named = sorted({source.site for source in survey.sources})
    if site and site not in survey.sites:
        _wrong(
            survey, "name", f"there is no site '{site}'", advice=f"the survey has {', '.join(survey.sites) or 'none'}"
        )
    if not site:
        if len(named) > 1:
            _wrong(
                survey,
                "name",
                "the units stand at several sites",
                advice=f"say which: --site {' or --site '.join(named)}",
            )
        site = named[0]
    if not site and until is None and not until_idle:
        advice = "add [site.NAME] with latitude, longitude and timezone, name it in each [[source]], or give --until"
        _wrong(survey, "site", "without a site the end of the night is not known", advice=advice)
    here = [source.unit for source in survey.sources if source.site == site]
    units = checked_units(survey, [unit for unit in here if not only or unit in only] or list(only))
    check_services(survey)
    for unit in units.values():
        longitude = survey.sites[site].longitude if site else unit.site.longitude
        if abs((unit.site.longitude - longitude + 180.0) % 360.0 - 180.0) > 1.0:
            what = f"it stands at longitude {longitude}, but {unit.name} says {unit.site.longitude} in its unit file"
            _wrong(
                survey, "longitude", what, advice="correct one of them: nights are named by it", table=f"site.{site}"
            )
    return site, units


def _watch(
    survey: Survey,
    site: str,
    units: dict[str, Unit],
    until: datetime | None,
    until_idle: bool,
    on_row: OnRow | None,
    tracked: bool,
) -> NightSummary:
    archive, logger, began = Archive(survey.archive), run_logger(), datetime.now(UTC)
    night = night_at(survey.sites[site], began, survey.watch.sun_altitude) if site else None
    end = _end(night, survey, until, until_idle=until_idle)
    name = night.name if night is not None else f"{datetime.now(UTC):%Y-%m-%d}"
    progress = Progress(survey.name, site, name, "watching", asdict(this_process()), f"{datetime.now(UTC):%FT%TZ}")
    if night is not None:
        progress.dusk, progress.dawn = (f"{one:%FT%TZ}" if one else "" for one in (night.dusk, night.dawn))
    logger.info(
        "watching %s %s until %s", site or survey.name, name, "all is done" if until_idle else f"{end:%F %T} UTC"
    )
    with ExitStack() as stack:
        stack.enter_context(claimed(archive, f"watch {survey.name} {site}".strip(), "night watch"))
        state = _watch_state(survey, units, archive, night=night)
        try:
            timeout = survey.watch.exposure_timeout
            with Workers(reduce_exposure, survey.runner.workers, timeout=timeout, tracked=tracked) as workers:
                workers.start()
                for one in state.watchers:
                    one.start()
                _keep_watch(
                    survey,
                    units,
                    state,
                    workers=workers,
                    progress=progress,
                    end=None if until_idle else end,
                    on_row=on_row,
                )
                _notify_problems(survey, state, progress, now=datetime.now(UTC))  # what the last look has brought
            progress.state = "closing"
            write_progress(archive, state.describe(progress, datetime.now(UTC)))
            summary = _night(survey, name if site else None, tuple(units), survey.runner, False, None, tracked=tracked)
            summary = replace(summary, states=_states(archive, summary, units, began=began))
            progress.state = "closed"
        finally:
            progress.state = "closed" if progress.state == "closed" else "stopped"
            for one in state.watchers:
                one.stop()
            write_progress(archive, state.describe(progress, datetime.now(UTC)))
    return summary


watching = flow(name="watch", persist_result=False, validate_parameters=False)(_watch)


def _keep_watch(
    survey: Survey,
    units: Mapping[str, Unit],
    state: WatchState,
    *,
    workers: Workers,
    progress: Progress,
    end: datetime | None,
    on_row: OnRow | None,
) -> None:
    """The loop: take new frames, begin the most urgent ones, record those that ended, write the status, notify."""
    archive, written, problems = Archive(survey.archive), 0.0, list[str]()
    priority: Priority = priority_of(archive)
    while not _is_over(state, end):
        state.take_in()
        while workers.free() and (frame := state.next(priority)) is not None:
            workers.submit(reduction_call(frame.exposure, units[frame.exposure.unit], survey, wait=0.0))
        for ended in workers.collect(TICK_SECONDS):
            row = ended.result if ended.error is None else record_lost(archive, ended, units, problems=problems)
            state.end(row, ended.call["url"])
            if on_row is not None:
                on_row(row)
        if time.monotonic() - written > WRITE_SECONDS:
            written, now = time.monotonic(), datetime.now(UTC)
            priority = priority_of(archive)
            _notify_problems(survey, state, progress, now=now)
            progress.memory = memory_of([os.getpid(), *workers.pids()])
            write_progress(archive, state.describe(progress, now))


def _notify_problems(survey: Survey, state: WatchState, progress: Progress, *, now: datetime) -> None:
    for problem in state.problems(now):
        if notify_people(survey, Archive(survey.archive), progress.night, **asdict(problem)):
            progress.troubles.append(problem.what)


def _states(archive: Archive, summary: NightSummary, units: Mapping[str, Unit], *, began: datetime) -> dict[str, int]:
    """Count by state the exposures of the night, those without a night since it began, and those elsewhere."""
    nights = [night for night in summary.nights if night != WITHOUT_NIGHT]
    rows = [row for night in nights for row in ledger.read(archive, night).to_pylist()]
    rows += [row for row in ledger.read(archive, WITHOUT_NIGHT).to_pylist() if row["recorded_at"] >= began]
    elsewhere = {"elsewhere": summary.states["elsewhere"]} if "elsewhere" in summary.states else {}
    return dict(Counter(row["state"] for row in rows if row["unit"] in units)) | elsewhere


def _is_over(state: WatchState, end: datetime | None) -> bool:
    if end is None:
        return state.is_idle()
    return datetime.now(UTC) >= end and not state.has_work()


def _watch_state(survey: Survey, units: Mapping[str, Unit], archive: Archive, *, night: Night | None) -> WatchState:
    since = (night.begins if night is not None else datetime.now(UTC) - timedelta(hours=18)).timestamp()
    models = {name: model_of(unit) for name, unit in units.items()}
    recent = [WITHOUT_NIGHT, *archive.nights()[-3:]]
    rows = {row["url"]: row for one in recent for row in ledger.read(archive, one).to_pylist()}

    def known(found: Found, unit: Unit) -> bool:
        """Whether the ledger has a final row of this file, which has not been written to since."""
        row = rows.get(found.url)
        if row is None or row["unit"] != unit.name or not found.modified < row["recorded_at"].timestamp():
            return False
        return work_left(row, unit, models[unit.name], archive=archive) is Work.NOTHING

    watchers = []
    for source, unit in survey.sources_of(units):
        times = {"poll": survey.watch.poll, "settle": survey.watch.settle, "since": since}
        watchers.append(SourceWatcher(source, unit, **times, known=partial(known, unit=unit)))
    return WatchState(survey.watch, night, watchers)


def _end(night: Night | None, survey: Survey, until: datetime | None, *, until_idle: bool) -> datetime:
    if until is not None:
        return until
    if night is not None and night.dawn is not None:
        return night.dawn + timedelta(minutes=survey.watch.close_after)
    return datetime.now(UTC)  # the Sun does not go down tonight: what is there is reduced, and the night closed


def _wrong(survey: Survey, key: str, what: str, *, advice: str, table: str = "site") -> None:
    raise ConfigurationError(file=survey.file, table=table, key=key, what=what, advice=advice)
