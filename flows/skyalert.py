"""A sky alert, step by step: one flow run a notice that rules, and one each time new exposures have come.

The archive holds the state: notices, orders, wants, ledger. So a run that is killed is simply started again, and a run
that finds a newer notice or an order ends at once and leaves the event to the next.

What operators order about an alert, from the Prefect UI: a deployment asks for event, order and subject.

An order is a file in the archive, the same that ``nightsift alert approve`` and its like write, and what is wanted
follows at once. So it works whether or not a listener runs, and who ordered what stands in one place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Flow, flow

from flows.night import record_lost
from flows.pool import Outcome, Workers
from flows.tracking import run_recorded
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.core.configuration import closest
from nightsift.core.errors import BadSkyMap, ConfigurationError, SourceError
from nightsift.core.times import mjd_of
from nightsift.skyalerts.event_store.inbox import notices
from nightsift.skyalerts.event_store.targets import Target, folder_of
from nightsift.skyalerts.planning.planning import Action, fields_of, give_order, make_plan, ruling, sites_of
from nightsift.skyalerts.skyalert_session import SkyAlertSession
from tasks.discover import reduction_call
from tasks.notify import notify_people
from tasks.retry import run_logger
from tasks.skyalert import check_templates, fetch_map, gather_candidates, plan_fields, read_ruling, write_products

TICK_SECONDS = 0.25
RANK_SECONDS = 5.0
"""While exposures are being reduced, candidates are ranked again this often."""

AGAIN_SECONDS = 20.0
"""An exposure that another process is at is looked at again after so long."""

Poll = Callable[[], None]
"""Called while exposures are reduced: takes in notices and frames that have come meanwhile."""


def run_alert(
    desk: SkyAlertSession, event: str, workers: Workers | None = None, tracked: bool = True, poll: Poll | None = None
) -> Target:
    """Plan an event by the notice that rules it, reduce its exposures, rank its candidates: one flow run.

    Parameters
    ----------
    desk : Desk
        What is kept warm.
    event : str
        The event.
    workers : Workers, optional
        Processes that reduce; without, only what others have reduced is ranked.
    tracked : bool, optional
        Whether a Prefect API is there.
    poll : callable, optional
        Called while exposures are reduced.

    Returns
    -------
    Target
        What is wanted now.

    Raises
    ------
    NightsiftError
        If there is nothing to plan by.
    """
    return _run(_alert, "alert", desk, event=event, workers=workers, tracked=tracked, poll=poll)


def follow_alert(
    desk: SkyAlertSession, event: str, workers: Workers | None = None, tracked: bool = True, poll: Poll | None = None
) -> Target:
    """Take in the exposures that have come for an alert since it was ranked: one flow run.

    Parameters
    ----------
    desk : Desk
        What is kept warm.
    event : str
        The event.
    workers : Workers, optional
        Processes that reduce.
    tracked : bool, optional
        Whether a Prefect API is there.
    poll : callable, optional
        Called while exposures are reduced.

    Returns
    -------
    Target
        What is wanted now.
    """
    return _run(_follow_up, "alert follow-up", desk, event=event, workers=workers, tracked=tracked, poll=poll)


def _run(
    body: Any,
    name: str,
    desk: SkyAlertSession,
    *,
    event: str,
    workers: Workers | None,
    tracked: bool,
    poll: Poll | None,
) -> Target:
    """Run a flow of the event alone: what is kept warm stays out of its parameters, which go to the server."""

    def steps(event: str, revision: int, tracked: bool) -> Target:
        if workers is not None:
            workers.tracked = tracked
        return body(desk, event, workers, tracked, poll)

    revision = len(notices(desk.archive, event))
    made: Flow[Any, Target] = flow(name=name, persist_result=False, validate_parameters=False)(steps)
    return run_recorded(made, f"{event} notice {revision}", event, revision, tracked=tracked)


def _alert(desk: SkyAlertSession, event: str, workers: Workers | None, tracked: bool, poll: Poll | None) -> Target:
    run = _steps(tracked)
    alert = run(read_ruling)(desk, event)
    problems: list[str] = []
    if alert.kind != "retraction":
        try:
            run(fetch_map)(desk, event)
        except (SourceError, BadSkyMap) as error:
            problems.append(f"its sky map could not be fetched: {error}")
    target: Target = run(plan_fields)(desk, event)
    _tell(desk, event)
    if target.state != "retracted":
        problems += run(check_templates)(desk, event)
    return _follow(desk, event, workers, tracked=tracked, problems=tuple(problems), poll=poll)


def _follow_up(desk: SkyAlertSession, event: str, workers: Workers | None, tracked: bool, poll: Poll | None) -> Target:
    return _follow(desk, event, workers, tracked=tracked, problems=(), poll=poll)


def _follow(
    desk: SkyAlertSession,
    event: str,
    workers: Workers | None,
    *,
    tracked: bool,
    problems: tuple[str, ...],
    poll: Poll | None,
) -> Target:
    """Reduce what waits for an alert, and rank its candidates: at once, every few seconds, and at the end."""
    run, target, ranked = _steps(tracked), desk.plans[event].target, float("-inf")
    while True:
        if workers is not None and target.state == "active":
            for frame in desk.pending(target)[: max(workers.free(), 0)]:
                desk.tried[frame.exposure.url] = float("inf")
                unit = desk.units[frame.exposure.unit]
                workers.submit(reduction_call(frame.exposure, unit, desk.survey, wait=0.0))
        busy = workers is not None and workers.under_way() > 0
        if not busy or time.monotonic() - ranked > RANK_SECONDS:
            if target.state != "retracted":
                run(gather_candidates)(desk, event)
            run(write_products)(desk, event, problems)
            ranked = time.monotonic()
        if workers is None or not busy:
            return target
        for ended in workers.collect(TICK_SECONDS):
            end_exposure(desk, ended)
        if poll is not None:
            poll()
        if desk.is_stale(event):
            run_logger().info("%s: a newer notice or an order has come: this run ends, the next goes on", event)
            return target


def end_exposure(desk: SkyAlertSession, ended: Outcome) -> None:
    """Take in how an exposure ended: a lost one gets its ledger row here, one under way elsewhere is looked at again.

    Parameters
    ----------
    desk : Desk
        With the archive.
    ended : Ended
        How its call ended.
    """
    if ended.error is not None:
        problems: list[str] = []
        record_lost(desk.archive, ended, desk.units, problems=problems)
        for problem in problems:
            run_logger().error("%s", problem)
    elif ended.result["state"] == "elsewhere":
        desk.tried[ended.call["url"]] = time.monotonic() + AGAIN_SECONDS


def _steps(tracked: bool) -> Callable[[Any], Any]:
    return (lambda task: task) if tracked else (lambda task: task.fn)


def _tell(desk: SkyAlertSession, event: str) -> None:
    """Tell people of the alert and of each change of its state, once a day."""
    planned = desk.plans[event]
    alert, state = planned.alert, planned.target.state
    advice = {
        "active": f"look at {folder_of(desk.archive, event) / 'alert.html'}",
        "waiting": f"nightsift alert approve {desk.survey.file} {event}, or let it be",
        "retracted": "nothing: no exposure jumps the queue for it any more",
    }.get(state, f"nightsift alert status {desk.survey.file}")
    what = f"{event}: {alert.kind.replace('_', ' ')} of {alert.sender}, {state} ({planned.why})"
    notify_people(desk.survey, desk.archive, f"{datetime.now(UTC):%F}", f"{event} {alert.kind} {state}", what, advice)


def order(survey: str, event: str, action: Action, *, subject: str = "", by: str = "") -> str:
    """Give an order about an alert, and let what is wanted follow.

    Parameters
    ----------
    survey : str
        Survey file.
    event : str
        Name of the event.
    action : str
        ``approve``, ``pause``, ``resume``, ``stop``, ``add-field``, ``exclude-unit`` or ``include-unit``.
    subject : str, optional
        Field or unit, where the order needs one.
    by : str, optional
        Who gives it.

    Returns
    -------
    str
        How the alert stands now, in one sentence.

    Raises
    ------
    NoSuchAlert
        If the archive knows no such event.
    ConfigurationError
        If there is no such field or unit, or the order needs another subject.
    """
    opened = load_survey(Path(survey))
    archive, units = Archive(opened.archive), opened.load_units()
    if not notices(archive, event):
        ruling(archive, event)  # says which events there are
    fields = fields_of(opened, archive, tuple(units))
    known = {"add-field": [one.name for one in fields]}.get(action, list(units) if action.endswith("-unit") else [""])
    if subject not in known:
        what = f"the order {action} takes no subject" if known == [""] else f"there is no '{subject}'"
        advice = "leave it empty" if known == [""] else closest(subject, known[:40])
        raise ConfigurationError(file=survey, table="order", key=action, what=what, advice=advice)
    give_order(archive, event, action, subject=subject, by=by)
    planned = make_plan(
        opened, archive, event, fields=fields, sites=sites_of(opened, units), now=mjd_of(datetime.now(UTC))
    )
    return f"{event}: {planned.target.state}, {planned.why}; {len(planned.target.fields)} fields wanted"


@flow(name="alert-control", flow_run_name="{action} {event}", persist_result=False)
def alert_control(survey: str, event: str, action: Action, subject: str = "", by: str = "Prefect UI") -> str:
    """Order something about an alert: approve, pause, resume, stop, add a field, take a unit out or back in.

    Parameters
    ----------
    survey : str
        Survey file.
    event : str
        Name of the event.
    action : str
        What to do.
    subject : str, optional
        Field or unit, where the order needs one.
    by : str, optional
        Who gives it.

    Returns
    -------
    str
        How the alert stands now.
    """
    told = order(survey, event, action, subject=subject, by=by)
    run_logger().info("%s", told)
    return told
