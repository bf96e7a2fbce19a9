"""Commands by which operators order: approve, pause, resume, stop an alert, add a field, take a unit out or back in."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nightsift.alerts.orders import Action

SURVEY = Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")]
EVENT = Annotated[str, typer.Argument(metavar="EVENT", help="Name of the event, as nightsift alert status shows it.")]
FIELD = Annotated[str, typer.Argument(metavar="FIELD", help="Name of the field in its grid.")]
UNIT = Annotated[str, typer.Argument(metavar="UNIT", help="Name of the unit.")]


def approve(where: SURVEY, event: EVENT) -> None:
    """Let a waiting alert go ahead."""
    _give(where, event, "approve")


def pause(where: SURVEY, event: EVENT) -> None:
    """Let exposures of an alert wait like all others until it is resumed."""
    _give(where, event, "pause")


def resume(where: SURVEY, event: EVENT) -> None:
    """Go on with a paused alert."""
    _give(where, event, "resume")


def stop(where: SURVEY, event: EVENT) -> None:
    """End an alert for good: nothing jumps the queue for it any more."""
    _give(where, event, "stop")


def add_field(where: SURVEY, event: EVENT, field: FIELD) -> None:
    """Put a field first, whatever its probability."""
    _give(where, event, "add-field", field)


def exclude_unit(where: SURVEY, event: EVENT, unit: UNIT) -> None:
    """Take a unit out of an alert."""
    _give(where, event, "exclude-unit", unit)


def include_unit(where: SURVEY, event: EVENT, unit: UNIT) -> None:
    """Put a unit back that was taken out."""
    _give(where, event, "include-unit", unit)


def _give(where: Path, event: str, action: Action, subject: str = "") -> None:
    """Give an order, and let the wants of the alert follow at once, whether or not anything listens."""
    from flows.alert_control import order

    typer.echo(order(str(where), event, action, subject, getpass.getuser()))
