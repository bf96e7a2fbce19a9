"""``nightsift simulate``, ``score`` and ``report`` for a survey; ``nightsift unit``: telescope units."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nightsift.cli.console import (
    night_given,
    nothing_recorded,
    show_table,
)
from nightsift.core.errors import ConfigurationError

SURVEY = Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")]
app = typer.Typer(help="Telescope units: list them, check one against a header.", no_args_is_help=True)
FOLDER_HELP = "Folder of unit files, searched before those shipped; may be given several times."


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder of the new survey.")],
    preset: Annotated[str, typer.Option(help="Named survey: demo, tiny or training.")] = "demo",
    seed: Annotated[int, typer.Option(help="Everything random depends on it and on nothing else.")] = 1,
    fields: Annotated[int | None, typer.Option(min=1, help="Fields of each unit.")] = None,
    visits: Annotated[int | None, typer.Option(min=1, help="Visits to each field in a night.")] = None,
    night: Annotated[list[str] | None, typer.Option(help="Night to simulate; may be given several times.")] = None,
    compress: Annotated[bool, typer.Option(help="Write tile-compressed .fits.fz.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")] = 2,
) -> None:
    """Simulate a survey of several unlike units, with the truth in a table; done already, it is left as it is."""
    from nightsift.simulate.options import SimulationOptions
    from nightsift.simulate.survey import simulate as write_survey

    given = {
        "fields": fields,
        "visits": visits,
        "nights": tuple(night) if night else None,
        "compress": compress or None,
    }
    options = SimulationOptions.preset(
        preset, seed, **{key: value for key, value in given.items() if value is not None}
    )
    if _is_simulated(out, dataclasses.asdict(options)):
        typer.echo(f"{out} holds this survey already")
        return
    survey = write_survey(out, options, workers, progress=lambda done, of: typer.echo(f"{done}/{of} fields simulated"))
    typer.echo(f"survey file: {survey}")


def _is_simulated(out: Path, options: dict[str, Any]) -> bool:
    """Whether a folder holds a complete survey of these options; one of others is an error."""
    written = out / "options.json"
    if not written.exists():
        return False
    if json.loads(written.read_text()) == json.loads(json.dumps(options)) and (out / "nightsift.toml").exists():
        return True
    raise ConfigurationError(
        file=str(out), table="simulate", key="options", what="another simulated survey lies here",
        advice="choose another folder or remove this one",
    )  # fmt: skip


def score(
    survey: SURVEY,
    truth: Annotated[
        Path | None, typer.Option(help="Table of the truth; truth.parquet beside the survey file.")
    ] = None,
    night: Annotated[str | None, typer.Option(callback=night_given, help="One night only, as 2026-11-20.")] = None,
    by_unit: Annotated[bool, typer.Option(help="A table for each unit as well.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON, too.")] = None,
) -> None:
    """Score the nights of a simulated survey against its truth: recovered transients and false candidates."""
    from nightsift.archive import ledger
    from nightsift.archive.candidates import read_candidates
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey
    from nightsift.core import tables
    from nightsift.io.atomic import atomic
    from nightsift.io.parquet import read_table
    from nightsift.report.score import ALL, score_night

    one = load_survey(survey)
    archive = Archive(one.archive)
    rows = ledger.read(archive, night)
    if not len(rows):
        raise nothing_recorded(archive, night)
    units = sorted(set(rows["unit"].to_pylist()))
    thresholds = {unit: one.load_unit(unit).model.threshold for unit in units}
    known = read_table(truth or survey.parent / "truth.parquet", tables.TRUTH)
    card = score_night(read_candidates(archive, night), rows, known, thresholds=thresholds)
    for unit in (ALL, *units) if by_unit else (ALL,):
        header, *lines = card.table(unit)
        show_table(f"Score, {'all units' if unit == ALL else unit}", header, lines, right=header[2:])
    if not card.classified:
        typer.echo("the candidates have no scores: nothing can be accepted")
    if card.not_searched:
        typer.echo(f"{card.not_searched} true objects lie on exposures that were not reduced")
    if json_file is not None:
        with atomic(json_file) as temporary:
            temporary.write_text(card.to_json())


def report(
    survey: SURVEY,
    night: Annotated[
        str | None, typer.Option(callback=night_given, help="Night, as 2026-11-20; the latest recorded by default.")
    ] = None,
) -> None:
    """Write the report of a night as one HTML file that opens offline."""
    from nightsift.archive import ledger
    from nightsift.archive.paths import WITHOUT_NIGHT, Archive
    from nightsift.archive.survey import load_survey
    from tasks.finish import write_report

    one = load_survey(survey)
    archive = Archive(one.archive)
    recorded = archive.nights()
    undated = len(archive.tables("ledger", WITHOUT_NIGHT))
    if (not recorded and night is None) or night not in (None, *archive.nights(undated=True)):
        raise nothing_recorded(archive, night)
    chosen = night or recorded[-1]
    units = sorted(set(ledger.read(archive, chosen)["unit"].to_pylist()))
    thresholds = {unit: one.load_unit(unit).model.threshold for unit in units}
    typer.echo(f"report: {write_report.fn(archive, chosen, thresholds)}")
    if undated and chosen != WITHOUT_NIGHT:
        typer.echo(f"{undated} exposures without a night are in no report but their own: --night {WITHOUT_NIGHT}")


@app.command("list")
def list_all(folder: Annotated[list[Path] | None, typer.Option(help=FOLDER_HELP)] = None) -> None:
    """List the units that can be named, with the method and model that each uses."""
    from nightsift.unit.units import list_units, load_unit

    folders = tuple(folder or ())
    lines = []
    for name, path in list_units(folders).items():
        one = load_unit(name, folders)
        lines.append([name, one.description, one.subtraction.method, one.model.name, str(path)])
    show_table("Units", ("unit", "description", "method", "model", "file"), lines)


@app.command("check")
def check(
    unit: Annotated[str, typer.Argument(help="Name of a unit, or the path of its TOML file.")],
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="FITS file that the unit took, or its URL.")
    ] = None,
    folder: Annotated[list[Path] | None, typer.Option(help=FOLDER_HELP)] = None,
) -> None:
    """Check a unit's file, and print every fact that it finds in a header; exit code 1 when one is missing."""
    from nightsift.io.fits import read_header
    from nightsift.io.sources import local_copy
    from nightsift.unit.facts import check_header
    from nightsift.unit.units import load_unit
    from tasks.steps import check_unit

    one = check_unit(load_unit(unit, tuple(folder or ())))
    if file is None:
        options = ", ".join(f"{name} = {value!r}" for name, value in one.subtraction.options.items())
        method = f"{one.subtraction.method} ({options})" if options else one.subtraction.method
        typer.echo(f"{one.name} ({one.file}) is good: method {method}, model {one.model.name}")
        typer.echo("name a frame as well to see the facts of its header")
        return
    with local_copy(file) as path:
        header = read_header(path, one.image.hdu)
    reports = check_header(one, header, file)
    lines = [
        (report.fact, report.value, report.unit, report.source, "ok" if report.ok else "wrong") for report in reports
    ]
    show_table(f"{one.name} ({one.file})", ("fact", "value", "unit", "from", ""), lines)
    wrong = [report for report in reports if not report.ok]
    for report in wrong:
        typer.echo(f"{report.fact}: {report.problem}")
        if report.hint:
            typer.echo(f"  -> {report.hint}")
    typer.echo(f"{len(wrong)} of {len(reports)} facts are missing or wrong" if wrong else "all facts are good")
    raise typer.Exit(1 if wrong else 0)
