"""``nightsift unit``: which telescope units there are, and what a unit finds in a header."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightsift.cli.console import show_table

app = typer.Typer(help="Telescope units: list them, check one against a header.", no_args_is_help=True)

FOLDER_HELP = "Folder of unit files, searched before those shipped; may be given several times."


@app.command("list")
def list_all(folder: Annotated[list[Path] | None, typer.Option(help=FOLDER_HELP)] = None) -> None:
    """List the units that can be named, with the method and model that each uses."""
    from nightsift.units import list_units, load_unit

    folders = tuple(folder or ())
    lines = []
    for name, path in list_units(folders).items():
        one = load_unit(name, folders)
        lines.append([name, one.description, one.subtraction.method, one.model.name, str(path)])
    show_table("Units", ("unit", "description", "method", "model", "file"), lines)


@app.command("check")
def check(
    unit: Annotated[str, typer.Argument(help="Name of a unit, or the path of its TOML file.")],
    file: Annotated[str, typer.Argument(help="FITS file that the unit took, or its URL.")],
    folder: Annotated[list[Path] | None, typer.Option(help=FOLDER_HELP)] = None,
) -> None:
    """Print every fact that a unit finds in a header, and what is missing; exit code 1 when something is."""
    from nightsift.facts import check_header
    from nightsift.io.fits import read_header
    from nightsift.io.paths import local_copy
    from nightsift.units import load_unit

    one = load_unit(unit, tuple(folder or ()))
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
