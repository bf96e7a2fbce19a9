"""``nightsift status``: how the night stands, as tables, as JSON, or followed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.console import console, text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nightsift.nights.tonight import Tonight

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


def status(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    night: Annotated[str | None, typer.Option(help="Night, as 2026-11-20; the one that is watched by default.")] = None,
    best: Annotated[int, typer.Option(min=0, help="Best candidates to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it again every two seconds.")] = False,
) -> None:
    """Show tonight: exposures waiting, running, done, refused, failed by unit; lag, depth and best candidates."""
    from nightsift.io.paths import Archive
    from nightsift.nights.tonight import tonight
    from nightsift.survey import load_survey

    survey = load_survey(where)
    archive = Archive(survey.archive)
    units = list(survey.load_units())

    def now() -> Tonight:
        return tonight(archive, night, units, best)

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

    from nightsift.io.paths import WITHOUT_NIGHT, night_title

    name = f"night {one.night}" if one.night else "no night with exposures yet"
    name = night_title(one.night) if one.night == WITHOUT_NIGHT else name
    parts: list[Any] = [Text(f"{survey}, {name}: {_watch(one)}", style="bold")]
    if one.latency_median is not None:
        told = (
            f"frame on disk to ledger row: {one.latency_median:.0f} s in the median, {one.latency_worst:.0f} s at worst"
        )
        parts.append(Text(told if one.lag is None else f"lag {one.lag:.0f} s; {told}"))
    parts.append(_table(COLUMNS, one.units))
    if one.without_night and one.night != WITHOUT_NIGHT:
        more = f"nightsift show says why: --night {WITHOUT_NIGHT}"
        parts.append(Text(f"{one.without_night} exposures without a night, as no time could be read; {more}"))
    if one.running:
        parts.append(Text("reducing: " + "; ".join(one.running)))
    if one.other_work:
        parts.append(Text("also running: " + "; ".join(one.other_work)))
    parts += [Text(f"told: {trouble}", style="yellow") for trouble in one.troubles]
    if one.best:
        parts.append(Text("\nbest candidates without a flag", style="bold"))
        parts.append(_table({key: key for key in one.best[0]}, one.best))
    return Group(*parts)


def _watch(one: Tonight) -> str:
    if one.watch == "nobody":
        return "nobody watches it (nightsift watch, nightsift serve)"
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
    return (
        "" if value == 0 and key in ("settling", "queued", "running", "refused", "waiting", "failed") else text(value)
    )
