"""Commands that reduce: a night, or a single exposure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.console import LineProgress, row_line
from nightsift.cli.place import RunnerKind, runner_asked, survey_at, units_asked

if TYPE_CHECKING:
    from flows.summary import NightSummary
    from nightsift.survey import Survey


def night(
    where: Annotated[str, typer.Argument(metavar="SURVEY.toml|FOLDER", help="Survey file, or a folder of exposures.")],
    night: Annotated[
        str | None, typer.Option(help="Night to reduce, as 2026-11-20; all that are found by default.")
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; do nothing.")] = False,
) -> None:
    """Reduce a night: find the exposures, reduce each, publish the candidates, write the report."""
    survey = survey_at(where, unit or [], archive)
    if dry_run:
        _tell_work(survey, night, tuple(units_asked(where, unit or []) or ()))
        return
    from flows.nightly import night as run_night

    with LineProgress("exposures", row_line) as progress:
        summary = run_night(
            survey,
            night=night,
            units=units_asked(where, unit or []),
            runner=runner_asked(survey, runner, workers),
            redo=redo,
            progress=progress,
            track=track,
        )
    _tell(summary, where)
    raise typer.Exit(summary.exit_code)


def _tell_work(survey: Survey, night: str | None, units: tuple[str, ...]) -> None:
    from flows.nightly import look

    sentence, problems = look(survey, night, units)
    typer.echo(sentence)
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def _tell(summary: NightSummary, where: str) -> None:
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
    from nightsift.cli.show import show_candidates, show_row
    from nightsift.io.paths import Archive
    from nightsift.units import load_unit
    from tasks.reduce import reduce_file

    reduction = reduce_file(file, load_unit(unit), Archive(archive), redo=True)
    show_row(reduction.row)
    show_candidates(reduction.candidates, best)
    if keep_difference is not None:
        _keep_difference(reduction, keep_difference)
    raise typer.Exit(0 if reduction.row["state"] == "done" else 1)


def _keep_difference(reduction: Any, folder: Path) -> None:
    from nightsift.io.differences import write_difference

    if reduction.difference is None or reduction.pair is None:
        typer.echo("no difference image was made", err=True)
        return
    typer.echo(f"difference: {write_difference(folder, reduction.pair, reduction.difference)}")
