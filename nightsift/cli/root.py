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
    sources,
    survey,
    template,
    training,
)
from nightsift.core.errors import ConfigurationError, NightsiftError

EPILOG = "Exit codes: 0 done, 1 some exposures refused or failed or none found, 2 wrong configuration or arguments."

# Exposures are reduced side by side: threads of BLAS in each would only fight over the cores (a small solve takes
# 0.2 s with one thread and 3.7 s with one a core). Whoever sets a variable is obeyed; worker processes inherit them.
QUIET_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

app = typer.Typer(
    name="nightsift",
    help="Sift real transients out of the images of modular sky surveys.\n\nA first look: nightsift simulate demo; "
    "then template, night, show and report, each with demo/nightsift.toml.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Commands stand in the help as here: by what people want to do, the first of the day first.
START, NIGHTS, LOOK = "Start here", "Nights that run by themselves", "Look closer"
ARCHIVES, ALERTS, MODELS, MACHINE = "Archives of years", "Sky alerts", "Real/bogus models", "This installation"

app.command("simulate", rich_help_panel=START, short_help="Simulate a survey of several unlike units, with its truth.")(
    survey.simulate
)
app.add_typer(
    survey.app, name="unit", rich_help_panel=START, short_help="List telescope units, check one against a header."
)
app.add_typer(
    template.app,
    name="template",
    rich_help_panel=START,
    short_help="Build templates, or import some from elsewhere.",
)
app.command("night", rich_help_panel=START, short_help="Reduce a night and write its report.")(night.night)
app.command("show", rich_help_panel=START, short_help="Show what became of exposures, candidates, one subtraction.")(
    show.show
)
app.command("report", rich_help_panel=START, short_help="Write the report of a night as one HTML file.")(survey.report)
app.command("serve", rich_help_panel=NIGHTS, short_help="Run every night by schedule, with pages and workers.")(
    serving.serve
)
app.command("watch", rich_help_panel=NIGHTS, short_help="Watch one night: reduce frames as they land, until dawn.")(
    serving.watch
)
app.command("status", rich_help_panel=NIGHTS, short_help="Show how tonight stands.")(night.status)
app.command("monitor", rich_help_panel=NIGHTS, short_help="Judge whether a unit is still the one it was.")(
    evaluation.monitor
)
app.command("deploy", rich_help_panel=NIGHTS, short_help="Put the deployments on a Prefect server of your own.")(
    serving.deploy
)
app.command("frame", rich_help_panel=LOOK, short_help="Reduce one exposure and print its candidates.")(night.frame)
app.command("extract", rich_help_panel=LOOK, short_help="Catalogue the sources of any FITS image.")(sources.extract)
app.command("photometry", rich_help_panel=LOOK, short_help="Measure positions on every exposure: light curves.")(
    archive.photometry
)
app.command("score", rich_help_panel=LOOK, short_help="Score the nights of a simulated survey against its truth.")(
    survey.score
)
app.command("backfill", rich_help_panel=ARCHIVES, short_help="Reduce an archive in chunks that resume anywhere.")(
    backfill.backfill
)
app.add_typer(
    archive.app,
    name="catalog",
    rich_help_panel=ARCHIVES,
    short_help="Versions of the catalogue: list, compare, promote.",
)
app.add_typer(
    skyalert.app, name="alert", rich_help_panel=ALERTS, short_help="Plan, run and listen for sky alerts, give orders."
)
app.command("ask", rich_help_panel=MODELS, short_help="Choose the candidates whose labels would teach most.")(
    labels.ask
)
app.command("calibrate", rich_help_panel=MODELS, short_help="Calibrate the scores of one unit on labels.")(
    labels.calibrate
)
app.command("transfer", rich_help_panel=MODELS, short_help="Carry a model over to a new unit with few labels.")(
    training.transfer
)
app.command("dataset", rich_help_panel=MODELS, short_help="Make a training set without people.")(training.dataset)
app.command("train", rich_help_panel=MODELS, short_help="Train a model and write it with its card.")(training.train)
app.command("evaluate", rich_help_panel=MODELS, short_help="Evaluate a model on labelled stamps, as one page.")(
    evaluation.evaluate
)
app.command("doctor", rich_help_panel=MACHINE, short_help="Check this installation and say what to do.")(
    installation.doctor
)
app.command("compile", rich_help_panel=MACHINE, short_help="Compile the loops over pixels now.")(
    compilation.compile_now
)


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
    """Take the options that stand before a command."""


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
