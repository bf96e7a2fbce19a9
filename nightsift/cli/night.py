"""``nightsift night`` and ``frame`` reduce exposures; ``nightsift status`` shows the state of a night."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import (
    PLANNED_NIGHTS,
    LineProgress,
    RunnerKind,
    console,
    night_given,
    row_line,
    runner_asked,
    starting,
    survey_at,
    text,
    units_asked,
)
from nightsift.core.errors import ConfigurationError
from nightsift.core.probabilities import LEGEND, log_odds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flows.summary import NightSummary
    from nightsift.archive.night_status import Tonight
    from nightsift.archive.survey import Survey

FOLLOW_SECONDS = 2.0
COLUMNS = {
    "unit": "unit",
    "settling": "arriving",
    "queued": "queued",
    "running": "running",
    "done": "done",
    "refused": "refused",
    "waiting": "no template",
    "failed": "failed",
    "accepted": "accepted",
    "depth": "depth mag",
    "seeing": 'seeing "',
    "seconds": "s each",
    "last_frame": "last frame UTC",
    "state": "",
}


def night(
    where: Annotated[str, typer.Argument(metavar="SURVEY.toml|FOLDER", help="Survey file, or a folder of exposures.")],
    night: Annotated[
        str | None,
        typer.Option(callback=night_given, help="Night to reduce, as 2026-11-20; all that are found by default."),
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(help="Unit to reduce; may be given several times; all by default.")
    ] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder of the products (needed with a FOLDER).")] = None,
    runner: Annotated[
        RunnerKind | None, typer.Option(help="How exposures are spread, instead of the survey's way.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Exposures reduced at the same time.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Reduce exposures again that are finished.")] = False,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run; without, nothing is started or asked.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")] = False,
) -> None:
    """Reduce a night: find the exposures, reduce each, publish the candidates, write the report."""
    survey = survey_at(where, unit or [], archive)
    if dry_run:
        _show_work(survey, night, tuple(units_asked(where, unit or []) or ()))
        return
    compile_first(survey, units_asked(where, unit or []) or ())
    from flows.night import night as run_night

    with LineProgress("exposures", row_line, starting(track)) as progress:
        summary = run_night(
            survey,
            night=night,
            units=units_asked(where, unit or []),
            runner=runner_asked(survey, runner, workers),
            redo=redo,
            progress=progress,
            track=track,
        )
    _show_summary(summary, where)
    explain_silent(survey, night, summary.silent)
    raise typer.Exit(summary.exit_code if summary.found else 1)


def explain_silent(survey: Survey, night: str | None, units: Sequence[str]) -> None:
    """Say why nothing was found of some units: an empty folder is as silent as a wrong one."""
    from tasks.discover import explain_absence

    if units:
        for line in explain_absence(survey, survey.load_units(units), night):
            typer.echo(f"nothing found: {line}", err=True)


def _show_work(survey: Survey, night: str | None, units: tuple[str, ...]) -> None:
    from flows.night import look

    sentence, problems, silent = look(survey, night, units)
    typer.echo(sentence)
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    explain_silent(survey, night, silent)
    raise typer.Exit(1 if problems else 0)


def _show_summary(summary: NightSummary, where: str) -> None:
    from flows.summary import sentence

    typer.echo(sentence(summary))
    for problem in summary.problems:
        typer.echo(f"problem: {problem}", err=True)
    if any(state != "done" for state in summary.states):
        typer.echo(f"what became of each exposure: nightsift show {where}")
    for path in summary.reports.values():
        typer.echo(f"report: {path}")


def frame(
    file: Annotated[str, typer.Argument(metavar="FILE", help="FITS file of one exposure, or its URL.")],
    unit: Annotated[str, typer.Option(help="Unit that took it: a name, or the path of its TOML file.")],
    archive: Annotated[Path, typer.Option(help="Archive that holds the template; the products go there too.")],
    keep_difference: Annotated[Path | None, typer.Option(help="Folder for the difference image, as FITS.")] = None,
    best: Annotated[int, typer.Option(min=0, help="Candidates to print, best score first.")] = 20,
) -> None:
    """Reduce one exposure in this process and print its ledger row and its candidates."""
    from nightsift.archive.paths import Archive
    from nightsift.cli.show import show_candidates, show_row
    from nightsift.unit.units import load_unit
    from tasks.reduce import reduce_file
    from tasks.steps import check_unit

    loaded = check_unit(load_unit(unit))
    if not archive.is_dir():
        raise ConfigurationError(
            file="nightsift frame", table="command line", key="--archive", what=f"there is no folder {archive}",
            advice="name the archive that holds the template of this frame; nightsift template makes one",
        )  # fmt: skip
    compile_first()
    reduction = reduce_file(file, loaded, Archive(archive), redo=True)
    show_row(reduction.row)
    show_candidates(reduction.candidates, best)
    if keep_difference is not None:
        _keep_difference(reduction, keep_difference)
    raise typer.Exit(0 if reduction.row["state"] == "done" else 1)


def _keep_difference(reduction: Any, folder: Path) -> None:
    from nightsift.io.fits import write_difference

    if reduction.difference is None or reduction.pair is None:
        typer.echo("no difference image was made", err=True)
        return
    typer.echo(f"difference: {write_difference(folder, reduction.pair, reduction.difference)}")


def status(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    night: Annotated[
        str | None, typer.Option(callback=night_given, help="Night, as 2026-11-20; the one that is watched by default.")
    ] = None,
    best: Annotated[int, typer.Option(min=0, help="Best candidates to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it again every two seconds.")] = False,
) -> None:
    """Show tonight: exposures waiting, running, done, refused, failed by unit; lag, depth and best candidates."""
    from nightsift.archive.night_status import tonight
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    archive = Archive(survey.archive)
    units = list(survey.load_units())

    def now() -> Tonight:
        return tonight(archive, night, units, best=best)

    if as_json:
        typer.echo(json.dumps(asdict(now()), indent=1, default=str))
    elif not follow:
        console().print(_picture(survey.name, now()))
    else:
        _follow(survey.name, now)


def _follow(name: str, now: Any) -> None:
    from rich.live import Live

    with Live(_picture(name, now()), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(FOLLOW_SECONDS)
            live.update(_picture(name, now()), refresh=True)


def _picture(survey: str, one: Tonight) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from nightsift.archive.paths import WITHOUT_NIGHT, night_title

    name = f"night {one.night}" if one.night else "no night with exposures yet"
    name = night_title(one.night) if one.night == WITHOUT_NIGHT else name
    parts: list[Any] = [Text(f"{survey}, {name}: {_watch(one)}", style="bold")]
    if one.latency_median is not None:
        latency = (
            f"frame on disk to ledger row: {one.latency_median:.0f} s in the median, {one.latency_worst:.0f} s at worst"
        )
        parts.append(Text(latency if one.lag is None else f"lag {one.lag:.0f} s; {latency}"))
    parts.append(_table(COLUMNS, one.units))
    if one.without_night and one.night != WITHOUT_NIGHT:
        more = f"nightsift show says why: --night {WITHOUT_NIGHT}"
        parts.append(Text(f"{one.without_night} exposures without a night, as no time could be read; {more}"))
    if one.running:
        parts.append(Text("reducing: " + "; ".join(one.running)))
    if one.other_work:
        parts.append(Text("also running: " + "; ".join(one.other_work)))
    parts += [Text(f"notified: {message}", style="yellow") for message in one.troubles]
    if one.best:
        parts.append(Text("\nbest candidates without a flag", style="bold"))
        parts.append(_table({key: {"score": "log odds"}.get(key, key) for key in one.best[0]}, one.best))
        parts.append(Text(LEGEND))
    return Group(*parts)


def _watch(one: Tonight) -> str:
    if one.watch == "nobody":
        return f"nobody watches it (nightsift watch, nightsift serve; planned nights: {PLANNED_NIGHTS})"
    if one.watch == "died":
        return f"its watch died after {one.updated}: start it again, it goes on where it was"
    hours = f", dark from {one.dusk[11:16]} to {one.dawn[11:16]} UTC" if one.dusk and one.dawn else ""
    return f"{one.watch}{hours}, as of {one.updated[11:19]} UTC"


def _table(columns: dict[str, str], rows: list[dict[str, Any]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, title in columns.items():
        words = key in ("unit", "candidate_id", "field", "state", "last_frame")
        table.add_column(title, justify="left" if words else "right")
    for row in rows:
        style = "red" if row.get("state") or row.get("failed") else None
        table.add_row(*(_cell(key, row[key]) for key in columns), style=style)
    return table


def _cell(key: str, value: Any) -> str:
    if key == "last_frame":
        return str(value)[11:19]
    if key == "score":
        return log_odds_text(value)
    return (
        "" if value == 0 and key in ("settling", "queued", "running", "refused", "waiting", "failed") else text(value)
    )
