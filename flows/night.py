"""A night: find the exposures of each unit, reduce each, finish the night, report. What happens, in order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from prefect import flow

from flows.pool import Outcome, run_all
from flows.summary import NightSummary, publish_artifacts, sentence, summarise
from flows.tracking import recorded
from nightsift.archive import ledger
from nightsift.archive.claims import UnderWayElsewhere, claimed, claims_of
from nightsift.archive.paths import Archive, sort_nights
from nightsift.archive.survey import Runner, Survey, load_survey
from nightsift.core.errors import NightsiftError, ProcessDied, TimedOut
from nightsift.core.parallel import give_back_memory
from nightsift.core.rows import LedgerRow, ReducedRow
from nightsift.io.sources import checksum, exposure_identity
from nightsift.unit.units import Unit
from tasks.classify import model_of
from tasks.discover import Exposure, find_in_sources, pending, reduction_call
from tasks.finish import finish_night, write_report
from tasks.record import PATIENCE, Work, closing_columns, opening_row, verdict_on
from tasks.reduce import reduce_exposure
from tasks.references import keep_model
from tasks.retry import run_logger
from tasks.steps import checked_units

Progress = Callable[[ReducedRow, int], None]
"""Called with the ledger row of each exposure that ended, and the number of exposures to reduce."""


def night(
    survey: Survey | str | Path,
    night: str | None = None,
    units: Sequence[str] | None = None,
    *,
    runner: Runner | None = None,
    redo: bool = False,
    progress: Progress | None = None,
    track: bool = True,
) -> NightSummary:
    """Reduce a night, tracked by Prefect where a server answers or can be started.

    Parameters
    ----------
    survey : Survey, str or Path
        The survey, or its file.
    night : str, optional
        Only this night (``YYYY-MM-DD``); every one that is found when None.
    units : sequence of str, optional
        Only these units.
    runner : Runner, optional
        How exposures are spread, instead of what the survey says.
    redo : bool, optional
        Reduce exposures again that are finished.
    progress : callable, optional
        Called with the row of each exposure that ended and the number of exposures to reduce.
    track : bool, optional
        False to run without Prefect.

    Returns
    -------
    NightSummary
        What came out.

    Raises
    ------
    ConfigurationError
        If survey, unit files or models are wrong; nothing was reduced.
    """
    survey = survey if isinstance(survey, Survey) else load_survey(survey)
    plan = (survey, night, tuple(units or ()), runner or survey.runner, redo, progress)
    checked_units(survey, units or ())  # a wrong configuration ends the run before anything is started
    return recorded(nightly, f"{survey.name} {night or 'all nights'}", *plan, track=track)


def _night(
    survey: Survey,
    night: str | None,
    only: tuple[str, ...],
    runner: Runner,
    redo: bool,
    progress: Progress | None,
    tracked: bool,
) -> NightSummary:
    began, logger, archive = time.perf_counter(), run_logger(), Archive(survey.archive)
    units = survey.load_units(only)
    models = {name: model_of(unit) for name, unit in units.items()}
    found, problems = find_in_sources(survey, units, night)
    todo = dict.fromkeys(found, Work.REDUCE) if redo else pending(found, units, models, archive=archive)
    logger.info("%s", _forecast(found, todo))
    # well below the time limit, so that waiting for another process is not taken for hanging
    wait = min(PATIENCE, 0.5 * survey.watch.exposure_timeout)
    calls = [reduction_call(one, units[one.unit], survey, redo=redo, wait=wait) for one in todo]
    rows: list[ReducedRow] = []
    for ended in run_all(reduce_exposure, calls, runner, tracked=tracked, timeout=survey.watch.exposure_timeout):
        rows.append(ended.result if ended.error is None else record_lost(archive, ended, units, problems=problems))
        if rows[-1]["state"] == "elsewhere":
            problems.append(f"{Path(rows[-1]['url']).name} is left to a later run: {rows[-1]['message']}")
        if progress is not None:
            progress(rows[-1], len(todo))
    give_back_memory()  # which this process kept, where it reduced exposures itself
    _keep_models(archive, [units[name] for name in sorted({one.unit for one in found})], problems)
    nights = sort_nights({row["night"] for row in rows} | {one.night for one in found if one.night})
    reports: dict[str, Path] = {}
    thresholds = {name: unit.model.threshold for name, unit in units.items()}
    finish, report = (finish_night, write_report) if tracked else (finish_night.fn, write_report.fn)
    for one in nights:
        try:
            finish(archive, one, units)
            reports[one] = report(archive, one, thresholds, tuple(problems))
        except (NightsiftError, OSError) as error:
            logger.error("night %s could not be finished: %s", one, error)
            problems.append(f"night {one} could not be finished: {error}")
    summary = summarise(archive, nights, rows, problems=problems, found=len(found), skipped=len(found) - len(todo))
    silent = tuple(name for name in units if name not in {one.unit for one in found})
    summary = replace(summary, reports=reports, silent=silent, seconds=time.perf_counter() - began, tracked=tracked)
    if tracked:
        publish_artifacts(summary)
    logger.info("%s", sentence(summary))
    return summary


nightly = flow(name="night", persist_result=False, validate_parameters=False)(_night)


def _forecast(found: Sequence[Exposure], todo: Mapping[Exposure, Work]) -> str:
    """Return in one sentence how many exposures were found, are to be reduced, or only scored again."""
    of = Counter(todo.values())
    return f"{len(found)} exposures found, {of[Work.REDUCE]} to reduce, {of[Work.RESCORE]} to score again"


def look(survey: Survey, night: str | None = None, units: Sequence[str] = ()) -> tuple[str, list[str], list[str]]:
    """Return the work of a night in one sentence; nothing is done.

    Parameters
    ----------
    survey : Survey
        The survey.
    night : str, optional
        Only this night; every one that is found when None.
    units : sequence of str, optional
        Only these units.

    Returns
    -------
    sentence : str
        How many exposures there are, how many would be reduced, and how many only scored again.
    problems : list of str
        Places that could not be looked into.
    silent : list of str
        Units of which no exposure was found.

    Raises
    ------
    ConfigurationError
        If unit files or models are wrong.
    """
    loaded = checked_units(survey, units)
    models = {name: model_of(unit) for name, unit in loaded.items()}
    found, problems = find_in_sources(survey, loaded, night)
    silent = [name for name in loaded if name not in {one.unit for one in found}]
    return _forecast(found, pending(found, loaded, models, archive=Archive(survey.archive))), problems, silent


def record_lost(archive: Archive, ended: Outcome, units: Mapping[str, Unit], *, problems: list[str]) -> ReducedRow:
    """Record an exposure whose task could not write its row: its process died or was killed, or the disk is full.

    Where even that fails, the problem is added to those of the run, and the next run tries the exposure again.

    Parameters
    ----------
    archive : Archive
        The archive.
    ended : Outcome
        A call of `tasks.reduce.reduce_exposure` that ended with an error.
    units : mapping of str to Unit
        Units by name.
    problems : list of str
        What went wrong outside of any exposure; added to.

    Returns
    -------
    dict
        The row.
    """
    row = _lost_row(archive, ended, units)
    with ExitStack() as stack:
        try:
            # the claim of the dead process is taken over, so that nobody begins between its end and its row
            stack.enter_context(claimed(archive, row["exposure_id"]))
            ledger.record(archive, row)
        except UnderWayElsewhere as error:
            run_logger().warning("%s: %s", row["url"], error)
        except (NightsiftError, OSError) as error:
            run_logger().error("%s: %s", row["url"], error)
            problems.append(f"{row['url']} failed and could not be recorded: {error}")
    return {**row, "skipped": False, "rescored": False}


def _lost_row(archive: Archive, ended: Outcome, units: Mapping[str, Unit]) -> LedgerRow:
    assert isinstance(ended.error, Exception)
    unit = next(one.name for one in units.values() if ended.call["unit"] in (one.name, one.file))
    row = opening_row(unit, ended.call["night"], ended.call["url"])
    # What hung its reader or killed it is not read again here: its claim names the exposure.
    left = [one.exposure_id for one in claims_of(archive, ended.pid) if one.kind == "exposure"] if ended.pid else []
    if left:
        row["exposure_id"] = left[0]
    elif not isinstance(ended.error, TimedOut | ProcessDied):
        try:
            row["checksum"] = checksum(row["url"])
            row["exposure_id"] = exposure_identity(unit, row["checksum"])
        except NightsiftError as error:
            run_logger().debug("%s", error)
    return closing_columns({**row, **verdict_on(ended.error)}, {}, 0.0, provenance_key="")


def _keep_models(archive: Archive, units: Sequence[Unit], problems: list[str]) -> None:
    """Copy the models that scored a night into the archive: selection functions need them when they are replaced."""
    for unit in units:
        try:
            keep_model(archive, unit, model_of(unit))
        except (NightsiftError, OSError) as error:
            run_logger().error("the model of %s could not be kept: %s", unit.name, error)
            problems.append(f"the model of {unit.name} could not be kept: {error}")
