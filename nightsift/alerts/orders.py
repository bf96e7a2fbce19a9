"""What operators order about an alert, and the state that follows from it.

An order is a small file ``archive/alerts/<event>/orders/<time>.json``, written once: whoever gives it, by a command
or from the Prefect UI, at the same time as others or not, nothing is overwritten and all of it can be read later.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from nightsift.alerts.alert import Alert
from nightsift.alerts.errors import BadAlertFile
from nightsift.alerts.options import AlertOptions
from nightsift.alerts.targets import State, folder_of
from nightsift.io.exclusive import create_exclusively
from nightsift.io.paths import Archive

Action = Literal["approve", "pause", "resume", "stop", "add-field", "exclude-unit", "include-unit"]
ACTIONS: tuple[Action, ...] = ("approve", "pause", "resume", "stop", "add-field", "exclude-unit", "include-unit")


@dataclass(frozen=True, slots=True)
class Order:
    """One order.

    Attributes
    ----------
    action : str
        What to do: ``approve``, ``pause``, ``resume``, ``stop``, ``add-field``, ``exclude-unit``, ``include-unit``.
    subject : str
        Field or unit, where the action needs one.
    by : str
        Who gave it.
    at : str
        When, UTC.
    """

    action: Action
    subject: str = ""
    by: str = ""
    at: str = ""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"an order is one of {', '.join(ACTIONS)}, got {self.action!r:.40}")
        if self.action.endswith(("-field", "-unit")) != bool(self.subject):
            raise ValueError(f"the order {self.action} {'takes no' if self.subject else 'needs a'} subject")


def give(archive: Archive, event: str, action: Action, subject: str = "", by: str = "") -> Order:
    """Give an order.

    Parameters
    ----------
    archive : Archive
        The archive.
    event : str
        The event.
    action : str
        What to do.
    subject : str, optional
        Field or unit.
    by : str, optional
        Who gives it.

    Returns
    -------
    Order
        The order.
    """
    order = Order(action, subject, by[:80], f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    folder = folder_of(archive, event) / "orders"
    while not create_exclusively(
        folder / f"{time.time_ns():020d}-{os.urandom(3).hex()}.json", json.dumps(asdict(order)).encode()
    ):
        continue
    return order


def orders(archive: Archive, event: str) -> list[Order]:
    """Orders given about an event.

    Parameters
    ----------
    archive : Archive
        The archive.
    event : str
        The event.

    Returns
    -------
    list of Order
        In the order in which they were given.

    Raises
    ------
    BadAlertFile
        If one cannot be read: an order to stop must not be overlooked.
    """
    found = []
    for path in sorted((folder_of(archive, event) / "orders").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(Order(**content))
        except (OSError, ValueError, TypeError) as error:
            raise BadAlertFile(path=str(path), what=" ".join(str(error).split())) from error
    return found


def excluded_units(given: Iterable[Order]) -> tuple[str, ...]:
    """Units that operators have taken out and not put back.

    Parameters
    ----------
    given : iterable of Order
        The orders.

    Returns
    -------
    tuple of str
        The units.
    """
    out: dict[str, bool] = {}
    for one in given:
        if one.action in ("exclude-unit", "include-unit"):
            out[one.subject] = one.action == "exclude-unit"
    return tuple(unit for unit, is_out in out.items() if is_out)


def added_fields(given: Iterable[Order]) -> tuple[str, ...]:
    """Fields that operators have added.

    Parameters
    ----------
    given : iterable of Order
        The orders.

    Returns
    -------
    tuple of str
        Their names, each once.
    """
    return tuple(dict.fromkeys(one.subject for one in given if one.action == "add-field"))


def decide(alert: Alert, area: float, options: AlertOptions, given: Iterable[Order]) -> tuple[State, str]:
    """Decide what state an alert is in.

    Parameters
    ----------
    alert : Alert
        What the notice that rules says.
    area : float
        Area that holds 90 % (deg2).
    options : AlertOptions
        Which alerts are acted on without asking.
    given : iterable of Order
        What operators ordered.

    Returns
    -------
    state : str
        ``active``, ``waiting``, ``paused``, ``stopped`` or ``retracted``.
    why : str
        Why, in words for people.
    """
    if alert.kind == "retraction":
        return "retracted", "its sender has retracted it"
    actions = {one.action: one for one in given}
    if stop := actions.get("stop"):
        return "stopped", f"stopped by {stop.by or 'an operator'} at {stop.at}"
    last = next((one for one in reversed(list(given)) if one.action in ("pause", "resume")), None)
    if last is not None and last.action == "pause":
        return "paused", f"paused by {last.by or 'an operator'} at {last.at}"
    doubt = needs_approval(alert, area, options)
    if doubt and "approve" not in actions:
        return "waiting", f"waits for approval: {doubt}"
    if approve := actions.get("approve"):
        return "active", f"approved by {approve.by or 'an operator'} at {approve.at}"
    return "active", "acted on without asking"


def needs_approval(alert: Alert, area: float, options: AlertOptions) -> str:
    """Why an alert is not acted on without asking.

    Parameters
    ----------
    alert : Alert
        What the notice that rules says.
    area : float
        Area that holds 90 % (deg2).
    options : AlertOptions
        Which alerts are acted on without asking.

    Returns
    -------
    str
        The reason; empty where it is acted on.
    """
    if alert.role not in options.roles:
        return f"it is a {alert.role} notice"
    if options.approval:
        return "every alert does ([alert] approval)"
    if options.significant and alert.significant is False:
        return "its sender does not call it significant"
    if alert.far is not None and alert.far > options.far:
        return f"its false-alarm rate {alert.far:.2g} Hz is above {options.far:.2g} Hz"
    if area > options.largest_area:
        return f"its 90 % area {area:.0f} deg2 is above {options.largest_area:.0f} deg2"
    return next(iter(alert.remarks), "") if any("not a burst" in one for one in alert.remarks) else ""
