"""The front door: which commands there are, and how errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nightsift import __version__
from nightsift.cli import (
    archive,
    backfill,
    compilation,
    evaluation,
    installation,
    labels,
    night,
    serving,
    show,
    skyalert,
    survey,
    training,
)
from nightsift.core.errors import ConfigurationError, NightsiftError

EPILOG = "Exit codes: 0 done, 1 some exposures refused or failed, 2 wrong configuration or arguments."

# Exposures are reduced side by side: threads of BLAS in each would only fight over the cores (a small solve takes
# 0.2 s with one thread and 3.7 s with one a core). Whoever sets a variable is obeyed; worker processes inherit them.
QUIET_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

app = typer.Typer(
    name="nightsift",
    help="Sift real transients out of the images of modular sky surveys.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("night")(night.night)
app.command("watch")(serving.watch)
app.command("serve")(serving.serve)
app.command("status")(night.status)
app.command("deploy")(serving.deploy)
app.command("frame")(night.frame)
app.command("backfill")(backfill.backfill)
app.command("simulate")(survey.simulate)
app.command("template")(survey.template)
app.command("score")(survey.score)
app.command("report")(survey.report)
app.command("photometry")(archive.photometry)
app.command("show")(show.show)
app.command("train")(training.train)
app.command("transfer")(training.transfer)
app.command("dataset")(training.dataset)
app.command("calibrate")(labels.calibrate)
app.command("monitor")(evaluation.monitor)
app.command("ask")(labels.ask)
app.command("evaluate")(evaluation.evaluate)
app.add_typer(survey.app, name="unit")
app.add_typer(archive.app, name="catalog")
app.add_typer(skyalert.app, name="alert")
app.command("compile")(compilation.compile_now)
app.command("doctor")(installation.doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"nightsift {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sift real transients out of the images of modular sky surveys."""


def main() -> None:
    """Run the command line and exit: errors raised on purpose as plain text, all others with their traceback."""
    for name, value in QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except NightsiftError as error:
        wrong_configuration = isinstance(error, ConfigurationError)
        typer.echo(
            f"{'configuration error' if wrong_configuration else 'error'}: {error.problem.format(**error.facts)}",
            err=True,
        )
        if error.hint:
            typer.echo(f"  -> {error.hint.format(**error.facts)}", err=True)
        sys.exit(2 if wrong_configuration else 1)
