"""``nightsift backfill``: plan a campaign over an archive of years, run it, go on with it, or list what there is."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import RunnerKind, night_given, runner_asked, show_table, units_asked

if TYPE_CHECKING:
    from flows.backfill import Advance, BackfillSummary
    from flows.campaign_plan import Draft
    from nightsift.archive.survey import Runner, Survey

MANY = 200


def backfill(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    first: Annotated[
        str, typer.Option("--from", callback=night_given, help="First night, as 2023-01-01; no limit by default.")
    ] = "",
    last: Annotated[str, typer.Option("--to", callback=night_given, help="Last night, that one included.")] = "",
    unit: Annotated[list[str] | None, typer.Option(help="Unit; may be given several times; all by default.")] = None,
    version: Annotated[str, typer.Option(metavar="NAME", help="Make this version of the catalogue beside it.")] = "",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace what other code, options, models or templates have made.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave what other code, options, models or templates have made.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Most exposures in a chunk.")] = 20,
    at_most: Annotated[int | None, typer.Option(min=1, max=MANY, help="Chunks that run at the same time.")] = None,
    order: Annotated[Literal["oldest", "newest", "unit"], typer.Option(help="What comes first.")] = "oldest",
    during_night: Annotated[
        Literal["pause", "narrow", "go-on"],
        typer.Option(help="While a night is going on: pause, narrow down to one worker's share, or go on."),
    ] = "pause",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and print the cost; write nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Begin failed chunks again.")] = False,
    look_again: Annotated[
        bool, typer.Option("--look-again", help="Add exposures that have come since the campaign was planned.")
    ] = False,
    runner: Annotated[RunnerKind | None, typer.Option(help="How chunks are spread, instead of the survey's.")] = None,
    through_workers: Annotated[
        bool | None,
        typer.Option(
            "--through-workers/--here", help="Hand chunks to workers of the Prefect server, or run them here."
        ),
    ] = None,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run.")] = True,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the campaigns of the archive and their state.")
    ] = False,
) -> None:
    """Reduce an archive of years in chunks, less urgent than tonight; started again it goes on where it was."""
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    if list_all:
        _list(survey)
        return
    from flows.backfill import backfill as run
    from flows.campaign_launch import RunOptions, lower_priority
    from flows.campaign_plan import Request, draft

    units = tuple(units_asked(str(where), unit or []) or ())
    request = Request(first, last, units, version, in_place, keep, batch, order)
    run_options = RunOptions(runner_asked(survey, runner, at_most), during_night, retry_failed, through_workers)
    plan = draft(survey, request, look_again)
    _show_plan(survey, plan, run_options.runner)
    if dry_run:
        return
    lower_priority()
    compile_first()
    with _Progress() as progress:
        summary = run(survey, request, run_options, plan=plan, progress=progress, track=track)
    _show_summary(summary)
    raise typer.Exit(summary.exit_code)


def _show_plan(survey: Survey, plan: Draft, runner: Runner) -> None:
    """What there is to do and what it will cost."""
    from nightsift.archive.paths import Archive
    from nightsift.backfill import chunk_ledger
    from nightsift.backfill.chunk_ledger import estimate

    archive, campaign = Archive(survey.archive), plan.campaign
    units = [one.unit for chunk in plan.chunks for one in chunk]
    chunks, made = len(plan.chunks), f"version '{campaign.version}'" if campaign.version else "the served catalogue"
    typer.echo(f"campaign {campaign.name}: {made}, {'begun ' + campaign.created if plan.begun else 'new'}")
    if plan.begun:
        rows = [row for row in chunk_ledger.read(archive, campaign.name).to_pylist() if row["kind"] == "reduce"]
        states = Counter(row["state"] for row in rows)
        typer.echo("  chunks: " + ", ".join(f"{states[state]} {state}" for state in chunk_ledger.STATES))
        left = [row for row in rows if row["state"] in ("planned", "running")]
        units += [row["unit"] for row in left for _ in range(row["exposures"])]
        chunks += len(left)
    if plan.found:
        typer.echo(
            f"  {plan.found} exposures found, {plan.outside} of other nights, {plan.finished} finished, "
            f"{plan.other_recipe} finished by other code, options, model or template"
            f" ({plan.rescored} of them need only new scores)"
        )
    for problem in plan.problems:
        typer.echo(f"problem: {problem}", err=True)
    cost = estimate(archive, units, chunks, workers=runner.workers)
    typer.echo(f"  {len(units)} exposures to do in {chunks} chunks, {runner.workers} at the same time")
    for unit, number in sorted(cost.exposures.items()):
        guess = ", a guess" if unit in cost.guessed else ""
        size = cost.product_bytes[unit] / 1e6
        typer.echo(f"  {unit}: {number} exposures, {cost.seconds[unit]:.1f} s and {size:.2f} MB each{guess}")
    typer.echo(f"  {duration(cost.work)} of work, {duration(cost.wall)} at this width")
    typer.echo(
        f"  {volume(cost.written)} of products, {volume(cost.free)} free{'' if cost.fits else ': NOT ENOUGH'}; "
        f"{volume(cost.database)} of Prefect's database"
    )


def _show_summary(summary: BackfillSummary) -> None:
    from nightsift.archive.paths import night_title

    counts = ", ".join(f"{summary.count(name)} {name}" for name in ("done", "refused", "failed", "waiting"))
    typer.echo(
        f"{summary.campaign.name}: {summary.count('exposures')} exposures: {counts}; "
        f"{summary.count('candidates')} candidates; {duration(summary.seconds)}"
    )
    for problem in summary.problems:
        typer.echo(f"problem: {problem}", err=True)
    failed = [row for row in summary.rows if row["state"] == "failed"]
    for row in failed[:20]:
        typer.echo(f"failed: {night_title(row['night'])} {row['unit']} #{row['chunk']}: {row['message']}", err=True)
    if failed:
        typer.echo(f"{len(failed)} chunks failed: mend the cause and add --retry-failed to the same command", err=True)
    elif summary.campaign.version:
        typer.echo(f"next: nightsift catalog compare, then nightsift catalog promote {summary.campaign.version}")


def _list(survey: Survey) -> None:
    from nightsift.archive.paths import Archive
    from nightsift.backfill import campaigns, chunk_ledger

    archive = Archive(survey.archive)
    lines = []
    for name in campaigns.names(archive):
        campaign = campaigns.read(archive, name)
        rows = [row for row in chunk_ledger.read(archive, name).to_pylist() if row["kind"] == "reduce"]
        states = Counter(row["state"] for row in rows)
        sums = [sum(row[key] for row in rows) for key in ("exposures", *chunk_ledger.COUNTS)]
        lines.append([name, campaign.version, campaign.created, *(states[one] for one in chunk_ledger.STATES), *sums])
    header = ("campaign", "version", "created", *(f"{one} chunks" for one in chunk_ledger.STATES), "exposures",
              *chunk_ledger.COUNTS)  # fmt: skip
    show_table("Campaigns", header, lines, right=header[3:])


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if math.isnan(seconds):
        return "unknown"
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"


def volume(size: float) -> str:
    """Bytes as people read them."""
    for scale, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= scale:
            return f"{size / scale:.1f} {name}"
    return f"{size:.0f} B"


class _Progress:
    """A bar of exposures with the time left on a terminal, a plain line per chunk elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Progress:
        import sys

        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            from nightsift.cli.console import console

            columns = (TextColumn("exposures"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console())
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, row: dict[str, Any], advance: Advance) -> None:
        from nightsift.archive.paths import night_title

        counts = ", ".join(f"{row[name]} {name}" for name in ("done", "refused", "failed", "waiting") if row[name])
        left = "" if math.isnan(advance.seconds_left) else f"{duration(advance.seconds_left)} left"
        chunk = f"{night_title(row['night'])} {row['unit']} #{row['chunk']}"
        line = f"{chunk} {row['state']}: {counts}, {row['seconds']:.0f} s"
        if self._bar is None:
            share = f"{advance.ended}/{advance.total} exposures"
            typer.echo(f"{advance.chunks_ended}/{advance.chunks} {line}; {share}" + (f", {left}" if left else ""))
            return
        self._bar.console.print(line, markup=False, highlight=False)
        self._bar.update(self._task, completed=advance.ended, total=advance.total, description=left)
