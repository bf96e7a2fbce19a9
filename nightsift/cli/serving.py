"""``nightsift serve``, ``deploy`` and ``watch``: nights that run by themselves."""

from __future__ import annotations

import logging
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import PLANNED_NIGHTS, row_line
from nightsift.core.errors import ConfigurationError

if TYPE_CHECKING:
    from nightsift.archive.survey import Survey

ANSWER_SECONDS = 60.0
SURVEY = Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")]


def serve(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the pages and the API.")] = 4200,
    home: Annotated[
        Path | None, typer.Option(help="Folder of password, database and logs; 'serve' beside the survey file.")
    ] = None,
    auth: Annotated[bool, typer.Option(help="Ask for a password; without, only on this machine.")] = True,
) -> None:
    """Run nights by schedule: Prefect server with its pages, workers and deployments, until Ctrl-C or SIGTERM."""
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    from flows.service import Serving, check_binding
    from flows.service import serve as run
    from tasks.steps import check_services, checked_units

    serving = Serving((home or where.absolute().parent / "serve").absolute(), host, port, auth)
    check_binding(serving, survey)
    checked_units(survey)
    check_services(survey)
    compile_first()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    printed = set[str]()

    def report(line: str) -> None:
        if line not in printed:  # planning again reports the same again
            printed.add(line)
            typer.echo(f"{datetime.now(UTC):%H:%M:%S} {line}")

    report(f"pages: http://{host}:{port}" + (f", password in {serving.home / 'password'}" if auth else ""))
    report(f"state of the night: nightsift status {where}; planned nights: {PLANNED_NIGHTS}")
    run(survey, where, serving, stop=stop, progress=report)


def deploy(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file, at its path on the workers.")],
) -> None:
    """Make work pools, deployments and the watch over silent runs on the server of PREFECT_API_URL."""
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    from flows.deployments import declare, server_address
    from nightsift.cli.console import console
    from tasks.steps import checked_units

    checked_units(survey)
    address = server_address(ANSWER_SECONDS)
    zone = next((survey.sites[one.site].timezone for one in survey.sources if one.site), "UTC")
    names = declare(str(where.absolute()), zone)
    console().print(f"{address} knows {len(names)} deployments: {', '.join(names)}", highlight=False)


def watch(
    where: SURVEY,
    site: Annotated[str, typer.Option(help="Site to watch, where the survey has several.")] = "",
    unit: Annotated[list[str] | None, typer.Option(help="Unit; may be given several times; all by default.")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="When to close the night, as 06:30 in the clock of the site, or 2026-11-21T06:30."),
    ] = None,
    one_pass: Annotated[bool, typer.Option("--once", help="Reduce what is there, close the night, and end.")] = False,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run; without, nothing is started or asked.")] = True,
) -> None:
    """Watch the night: reduce frames as they land, and close the night with its report after dawn."""
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    end = _moment(until, survey, site) if until else None
    compile_first(survey, unit or ())
    from flows.summary import sentence
    from flows.watch import watch as keep_watch

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        summary = keep_watch(
            survey, site=site, units=unit or (), until=end, until_idle=one_pass, track=track,
            on_row=lambda row: typer.echo(f"{datetime.now(UTC):%H:%M:%S} {row_line(row)}"),
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("stopped; started again, it goes on where it was", err=True)
        raise typer.Exit(1) from None
    typer.echo(sentence(summary))
    for problem in summary.problems:
        typer.echo(f"problem: {problem}", err=True)
    for path in summary.reports.values():
        typer.echo(f"report: {path}")
    raise typer.Exit(summary.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _moment(text: str, survey: Survey, site: str) -> datetime:
    """A moment in the clock of the site; a time of day is the next one."""
    named = site or next((source.site for source in survey.sources), "")
    zone = survey.sites[named].zone if named in survey.sites else ZoneInfo("UTC")
    now = datetime.now(zone)
    from nightsift.core.times import moment_of

    try:
        if ":" in text and "-" not in text:
            clock = datetime.strptime(text, "%H:%M").time()
            found = datetime.combine(now.date(), clock, zone)
            return found if found > now else datetime.combine(now.date() + timedelta(days=1), clock, zone)
        return moment_of(text, zone)
    except ValueError as error:
        raise ConfigurationError(
            file=survey.file, table="command line", key="--until", what=f"'{text}' is no time",
            advice="write 06:30, or 2026-11-21T06:30, with an offset or in the clock of the site",
        ) from error  # fmt: skip
