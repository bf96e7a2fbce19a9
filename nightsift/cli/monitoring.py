"""``nightsift monitor``: whether each unit is still the one that its scores were calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightsift.cli.console import show_table
from nightsift.errors import ConfigurationError

VIEW = ("night", "unit", "state", "message", "p_value", "q_value", "exposures", "candidates")


def monitor(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    night: Annotated[str | None, typer.Option(help="One night only, as 2026-11-20; all by default.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="Unit to judge; may be given several times.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Nights of a new calibration set; the first ten by default."),
    ] = None,
    inject: Annotated[
        int, typer.Option(min=0, help="Exposures of each night that sources are injected into and reduced again.")
    ] = 1,
    rate: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="False alarms a unit-night that are accepted.")
    ] = 0.005,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run.")] = True,
) -> None:
    """Judge what is new or changed against each unit's calibration set; exit code 1 when something drifted."""
    nights = _span(reference) if reference is not None else None
    from flows.monitoring import monitor as run

    summary = run(where, night, unit, nights, inject, rate, _tell, track)
    left = {row["unit"]: row["message"] for row in summary.rows if row["state"] == "unjudged"}
    made = set(summary.judged)
    judged = sum(row["state"] != "unjudged" for row in summary.rows if (row["unit"], row["night"]) in made)
    before = len(summary.rows) - len(made)
    more = f", {before} stand as they were" if before else ""
    typer.echo(f"{judged} unit-nights judged{more}, {len(summary.drifted)} drifted")
    if summary.undated:
        typer.echo(f"  not judged: {summary.undated} exposures without a night")
    for name, why in left.items():  # the latest reason of each unit
        typer.echo(f"  not judged: {name}{f', {why}' if why else ''}")
    if summary.drifted:
        show_table("Drifted", VIEW, [[row.get(name) for name in VIEW] for row in summary.drifted], right=VIEW[4:])
    for problem in summary.problems:
        typer.echo(f"problem: {problem}", err=True)
    for one, path in list(summary.pages.items())[-1:]:
        typer.echo(f"page of {one}: {path}")
    raise typer.Exit(summary.exit_code)


def _span(text: str) -> tuple[str, str]:
    first, colon, last = text.partition(":")
    if not colon or not first or not last or first > last:
        raise ConfigurationError(
            file="nightsift monitor", table="command line", key="--reference", what=f"'{text}' is no span of nights",
            advice="give it as 2026-11-01:2026-11-14",
        )  # fmt: skip
    return first, last


def _tell(unit: str, night: str, state: str) -> None:
    typer.echo(f"{night} {unit}: {state}")
