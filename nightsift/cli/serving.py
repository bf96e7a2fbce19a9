"""``nightsift serve``: everything that runs nights by itself, on one machine."""

from __future__ import annotations

import logging
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


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
    from nightsift.survey import load_survey

    survey = load_survey(where)
    from flows.serve import Serving, check_binding
    from flows.serve import serve as run

    serving = Serving((home or where.absolute().parent / "serve").absolute(), host, port, auth)
    check_binding(serving, survey)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    told = set[str]()

    def tell(line: str) -> None:
        if line not in told:  # planning again says the same again
            told.add(line)
            typer.echo(f"{datetime.now(UTC):%H:%M:%S} {line}")

    tell(f"pages: http://{host}:{port}" + (f", password in {serving.home / 'password'}" if auth else ""))
    tell(f"how the night stands: nightsift status {where}")
    run(survey, where, serving, stop, tell)
