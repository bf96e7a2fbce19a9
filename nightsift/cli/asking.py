"""``nightsift ask``: which candidates of a unit are worth a person's label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nightsift.cli.calibration import read_labels


def ask(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    unit: Annotated[str, typer.Option(help="Unit whose candidates are looked at.")],
    out: Annotated[Path, typer.Option(help="CSV file to write; the page to label on is beside it, as .html.")],
    count: Annotated[int, typer.Option(min=1, help="How many candidates.")] = 50,
    rule: Annotated[str, typer.Option(help="batch, bald, entropy or random.")] = "batch",
    labels: Annotated[Path | None, typer.Option(help="Labels that are there already; these are not asked for.")] = None,
    seed: Annotated[int, typer.Option(help="Everything random depends on it.")] = 0,
) -> None:
    """Write a list of the candidates whose labels would teach a unit's model most, and a page to label them on."""
    import pyarrow.csv as csv

    from models.active import RULES
    from models.asking import questions
    from nightsift.errors import ConfigurationError
    from nightsift.io.atomic import atomic
    from nightsift.io.paths import Archive
    from nightsift.report.labelling import render
    from nightsift.survey import load_survey

    if rule not in RULES:
        raise ConfigurationError(
            file="command line", table="ask", key="--rule", what=f"there is no rule '{rule}'",
            advice=f"give one of {', '.join(RULES)}",
        )  # fmt: skip
    survey = load_survey(where)
    known = read_labels(labels) if labels else {}
    found, bias, stamps = questions(Archive(survey.archive), survey.load_unit(unit), count, rule, known, seed)
    with atomic(out) as temporary:
        csv.write_csv(found, temporary)
    page, labelled = out.with_suffix(".html"), f"{out.stem}-labelled.csv"
    step = "calibrate" if rule == "random" else f"transfer models/{unit} --survey"
    command = f"nightsift {step} {where} --unit {unit} --labels {labelled}"
    with atomic(page) as temporary:
        temporary.write_text(render(unit, found.to_pylist(), stamps, labelled, command), encoding="utf-8")
    typer.echo(f"{found.num_rows} candidates of {unit} written to {out}")
    typer.echo(f"label them in a browser: {page} (or fill in the column label of the table: real or bogus)")
    for line in _told(bias):
        typer.echo(line)
    if rule != "random":
        typer.echo("these are no fair draw: rates and calibrations from them hold for what was asked, not for the unit")


def _told(bias: list[dict[str, Any]]) -> list[str]:
    """Parts asked for less than half or more than twice as often as in a fair draw, unless chance explains it."""
    return [
        f"  {row['name']} {part['part']}: {part['asked']:.0%} of those asked for, {part['pool']:.0%} of all"
        for row in bias
        if row["p"] < 0.01
        for part in row["shares"]
        if part["ratio"] is not None and not 0.5 <= part["ratio"] <= 2.0
    ]
