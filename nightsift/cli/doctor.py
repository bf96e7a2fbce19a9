"""``nightsift doctor``: tell whether this installation is fit to run a night."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    archive: Annotated[Path, typer.Option(help="Folder where products would go: its disk is looked at.")] = Path(),
    quick: Annotated[bool, typer.Option(help="Leave out what imports TensorFlow and Prefect.")] = False,
) -> None:
    """Check Python, dependencies, Prefect, TensorFlow, disk, cores, caches, units and the model; say what to do."""
    from rich.text import Text

    from nightsift.cli.console import console
    from nightsift.doctor import run_checks

    out = console()
    failed = 0
    for one in run_checks(archive, quick):
        failed += one.state == "fail"
        out.print(Text(f"{one.state:<4} ", style=STYLES[one.state]), Text(f"{one.name}: {one.found}"), sep="")
        if one.advice:
            out.print(Text(f"     -> {one.advice}"))
    raise typer.Exit(1 if failed else 0)
