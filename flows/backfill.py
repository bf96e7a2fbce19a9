"""Backfill: an archive of years reduced in chunks, a few at a time, less urgent than tonight, resumable at any moment.

The ledger of the campaign (`nightsift.backfill.chunk_ledger`) says what is done; whatever launches chunks only asks
it. So a campaign that was killed is started again by the same command, and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from flows.campaign_launch import Row, RunOptions, launch_here, launch_through_workers, uses_workers
from flows.campaign_plan import Draft, Request, begin, draft
from flows.tracking import recorded
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey, load_survey
from nightsift.backfill import chunk_ledger
from nightsift.backfill.campaigns import Campaign
from nightsift.core.errors import ConfigurationError, NightsiftError
from tasks.finish import finish_night, write_report
from tasks.retry import run_logger

HOPELESS = 5
"""Chunks in a row in which nothing succeeded, after which a campaign stops: the disk is full, or the source is away."""

Progress = Callable[[Row, "Advance"], None]
"""Called with the row of each chunk that ended, and the progress of the campaign."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Progress of a campaign.

    Attributes
    ----------
    ended, total : int
        Exposures that have ended, earlier runs included, and all that are planned.
    chunks_ended, chunks : int
        The same for chunks.
    seconds_left : float
        Expected seconds to its end at the pace of this run; NaN before it is known.
    """

    ended: int
    total: int
    chunks_ended: int
    chunks: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class BackfillSummary:
    """Result of a run of a campaign.

    Attributes
    ----------
    campaign : Campaign
        The campaign.
    rows : tuple of dict
        Row of every chunk, those of earlier runs included.
    problems : tuple of str
        What went wrong outside of any exposure.
    seconds : float
        Wall seconds of this run.
    """

    campaign: Campaign
    rows: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    def count(self, name: str) -> int:
        """Sum of a column over all chunks."""
        return sum(row[name] for row in self.rows if row["kind"] == "reduce")

    @property
    def exit_code(self) -> int:
        """0 when every exposure of the campaign is done, 1 otherwise."""
        return 0 if not self.problems and self.count("done") == self.count("exposures") else 1


def backfill(
    survey: Survey | str | Path,
    request: Request,
    options: RunOptions | None = None,
    *,
    plan: Draft | None = None,
    progress: Progress | None = None,
    track: bool = True,
) -> BackfillSummary:
    """Run a campaign, or go on with it, tracked by Prefect where a server answers or can be started.

    Parameters
    ----------
    survey : Survey, str or Path
        The survey, or its file.
    request : Request
        What is wanted.
    options : RunOptions, optional
        Options of the run; by the runner of the survey when None.
    plan : Draft, optional
        The plan, where it was made already.
    progress : callable, optional
        Called with the row of each chunk that ended.
    track : bool, optional
        False to run without Prefect.

    Returns
    -------
    BackfillSummary
        What came out.

    Raises
    ------
    ConfigurationError
        If request, survey, unit files or models are wrong, or exposures would be replaced without being asked to.
    """
    survey = survey if isinstance(survey, Survey) else load_survey(survey)
    options = options or RunOptions(survey.runner)
    plan = plan or draft(survey, request)
    if plan.other_recipe and not (request.version or request.in_place or request.keep):
        raise ConfigurationError(
            file="nightsift backfill", table="command line", key="--version",
            what=f"{plan.other_recipe} exposures were reduced by other code, options, model or templates"
            f" ({plan.rescored} of them need only new scores)",
            advice="--version NAME makes a new version beside them, --in-place replaces them, --keep leaves them",
        )  # fmt: skip
    begin(survey, plan)
    given = (survey, plan.campaign, options, plan.problems, progress)
    return recorded(campaign_flow, plan.campaign.name, *given, track=track)


def _run(
    survey: Survey,
    campaign: Campaign,
    options: RunOptions,
    problems: Sequence[str],
    progress: Progress | None,
    tracked: bool,
) -> BackfillSummary:
    began, home = time.monotonic(), Archive(survey.archive)
    rows = {row["chunk"]: row for row in chunk_ledger.read(home, campaign.name).to_pylist() if row["kind"] == "reduce"}
    todo = [row for row in rows.values() if _is_open(row, options.retry_failed)]
    nights: dict[str, list[int]] = {}
    for row in rows.values():
        nights.setdefault(row["night"], []).append(row["chunk"])
    all_problems, meter = list(problems), _Meter(rows, todo)
    run_logger().info("campaign %s: %d chunks, %d to do", campaign.name, len(rows), len(todo))
    through_workers = tracked and uses_workers(options)
    launch = launch_through_workers if through_workers else launch_here
    for row in launch(home, campaign, todo, options=options, tracked=tracked, problems=all_problems):
        rows[row["chunk"]] = row
        meter.count(row)
        if progress is not None:
            progress(row, meter.advance())
        _finish(
            home,
            survey,
            campaign,
            of_night=[rows[number] for number in nights[row["night"]]],
            tracked=tracked,
            problems=all_problems,
        )
        if meter.hopeless >= HOPELESS:
            all_problems.append(
                f"stopped: nothing succeeded in {HOPELESS} chunks in a row; the last one says: {row['message']}"
            )
            break
    for numbers in nights.values():
        _finish(
            home,
            survey,
            campaign,
            of_night=[rows[number] for number in numbers],
            tracked=tracked,
            problems=all_problems,
        )
    final = tuple(chunk_ledger.read(home, campaign.name).to_pylist())
    return BackfillSummary(campaign, final, tuple(all_problems), time.monotonic() - began)


campaign_flow = flow(name="backfill", persist_result=False, validate_parameters=False)(_run)


def _is_open(row: Row, retry_failed: bool) -> bool:
    """Whether a chunk is to be begun: it never ended, or it failed and that is to be tried again."""
    return row["state"] in ("planned", "running") or (retry_failed and row["failed"] + row["waiting"] > 0)


def _finish(
    home: Archive, survey: Survey, campaign: Campaign, *, of_night: Sequence[Row], tracked: bool, problems: list[str]
) -> None:
    """Finish a night when all its chunks have ended, and it was not finished since."""
    night = of_night[0]["night"]
    if any(row["ended_at"] is None for row in of_night):
        return
    opening = chunk_ledger.opening(
        campaign.name, -1, "", night=night, exposures=sum(row["exposures"] for row in of_night), kind="finish"
    )
    before = chunk_ledger.read_one(home, opening)
    if before["state"] == "done" and before["started_at"] > max(row["ended_at"] for row in of_night):
        return
    row, archive = chunk_ledger.begun(before), Archive(Path(campaign.archive))
    began, units = time.monotonic(), survey.load_units(tuple(campaign.units))
    finish, report = (finish_night, write_report) if tracked else (finish_night.fn, write_report.fn)
    try:
        finish(archive, night, units)
        report(archive, night, {name: unit.model.threshold for name, unit in units.items()})
        row |= {"state": "done"}
    except (NightsiftError, OSError) as error:
        problems.append(f"night {night} could not be finished: {error}")
        row |= {"state": "failed", "message": str(error)}
    row |= {name: sum(one[name] for one in of_night) for name in (*chunk_ledger.COUNTS, "candidates")}
    chunk_ledger.record(home, {**row, "seconds": time.monotonic() - began, "ended_at": datetime.now(UTC)})


class _Meter:
    """Counts what has ended, and estimates how long the rest will take at the pace of this run."""

    def __init__(self, rows: Mapping[int, Row], todo: Sequence[Row]) -> None:
        self.total = sum(row["exposures"] for row in rows.values())
        self.chunks, self.open = len(rows), len(todo)
        self.left = sum(row["exposures"] for row in todo)
        self.reduced = 0
        self.hopeless = 0
        self._began = time.monotonic()

    def count(self, row: Row) -> None:
        self.open -= 1
        self.left -= row["exposures"]
        self.reduced += row["exposures"] - row["skipped"]  # those that were skipped say nothing about the pace
        self.hopeless = self.hopeless + 1 if row["failed"] == row["exposures"] else 0

    def advance(self) -> Advance:
        elapsed = time.monotonic() - self._began
        left = self.left * elapsed / self.reduced if self.reduced else float("nan")
        return Advance(self.total - self.left, self.total, self.chunks - self.open, self.chunks, left)
