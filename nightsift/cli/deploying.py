"""``nightsift deploy``: tell a Prefect server that is run for itself what ``nightsift serve`` tells its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ANSWER_SECONDS = 60.0


def deploy(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file, at its path on the workers.")],
) -> None:
    """Make work pools, deployments and the watch over silent runs on the server of PREFECT_API_URL."""
    from nightsift.survey import load_survey

    survey = load_survey(where)
    from flows.deployments import declare, server_address
    from nightsift.cli.console import console

    address = server_address(ANSWER_SECONDS)
    zone = next((survey.sites[one.site].timezone for one in survey.sources if one.site), "UTC")
    names = declare(str(where.absolute()), zone)
    console().print(f"{address} knows {len(names)} deployments: {', '.join(names)}", highlight=False)
