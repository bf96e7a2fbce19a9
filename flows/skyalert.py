"""A sky alert, step by step, and the orders that operators give about one.

One flow run takes up a notice that rules, and one each time new exposures have come. The archive holds the state
(notices, orders, targets, ledger): a run that is killed is started again, and a run that finds a newer notice or an
order ends at once and leaves the event to the next.
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
    session: SkyAlertSession,
    event: str,
    workers: Workers | None = None,
    *,
    tracked: bool = True,
    poll: Poll | None = None,
) -> Target:
    """Plan an event by the notice that rules it, reduce its exposures, rank its candidates: one flow run.

    Parameters
    ----------
    session : SkyAlertSession
        Fields, units and plans, held in memory.
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
    return _run(_alert, "alert", session, event=event, workers=workers, tracked=tracked, poll=poll)


def follow_alert(
    session: SkyAlertSession,
    event: str,
    workers: Workers | None = None,
    *,
    tracked: bool = True,
    poll: Poll | None = None,
) -> Target:
    """Take in the exposures that have come for an alert since it was ranked: one flow run.

    Parameters
    ----------
    session : SkyAlertSession
        Fields, units and plans, held in memory.
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
    return _run(_follow_up, "alert follow-up", session, event=event, workers=workers, tracked=tracked, poll=poll)


def _run(
    body: Any,
    name: str,
    session: SkyAlertSession,
    *,
    event: str,
    workers: Workers | None,
    tracked: bool,
    poll: Poll | None,
) -> Target:
    """Run a flow with the event alone as its parameter: parameters go to the server, sessions and processes cannot."""

    def steps(event: str, revision: int, tracked: bool) -> Target:
        if workers is not None:
            workers.tracked = tracked
        return body(session, event, workers, tracked, poll)

    revision = len(notices(session.archive, event))
    made: Flow[Any, Target] = flow(name=name, persist_result=False, validate_parameters=False)(steps)
    return run_recorded(made, f"{event} notice {revision}", event, revision, tracked=tracked)


def _alert(session: SkyAlertSession, event: str, workers: Workers | None, tracked: bool, poll: Poll | None) -> Target:
    run = _runner(tracked)
    alert = run(read_ruling)(session, event)
    problems: list[str] = []
    if alert.kind != "retraction":
        try:
            run(fetch_map)(session, event)
        except (SourceError, BadSkyMap) as error:
            problems.append(f"its sky map could not be fetched: {error}")
    target: Target = run(plan_fields)(session, event)
    _notify(session, event)
    if target.state != "retracted":
        problems += run(check_templates)(session, event)
    return _follow(session, event, workers, tracked=tracked, problems=tuple(problems), poll=poll)


def _follow_up(
    session: SkyAlertSession, event: str, workers: Workers | None, tracked: bool, poll: Poll | None
) -> Target:
    return _follow(session, event, workers, tracked=tracked, problems=(), poll=poll)


def _follow(
    session: SkyAlertSession,
    event: str,
    workers: Workers | None,
    *,
    tracked: bool,
    problems: tuple[str, ...],
    poll: Poll | None,
) -> Target:
    """Reduce the exposures that an alert wants, and rank its candidates: at once, every few seconds, at the end."""
    run, target, ranked = _runner(tracked), session.plans[event].target, float("-inf")
    while True:
        if workers is not None and target.state == "active":
            for frame in session.pending(target)[: max(workers.free(), 0)]:
                session.tried[frame.exposure.url] = float("inf")
                unit = session.units[frame.exposure.unit]
                workers.submit(reduction_call(frame.exposure, unit, session.survey, wait=0.0))
        busy = workers is not None and workers.under_way() > 0
        if not busy or time.monotonic() - ranked > RANK_SECONDS:
            if target.state != "retracted":
                run(gather_candidates)(session, event)
            run(write_products)(session, event, problems)
            ranked = time.monotonic()
        if workers is None or not busy:
            return target
        for ended in workers.collect(TICK_SECONDS):
            end_exposure(session, ended)
        if poll is not None:
            poll()
        if session.is_stale(event):
            run_logger().info("%s: a newer notice or an order has come: this run ends, the next goes on", event)
            return target


def end_exposure(session: SkyAlertSession, ended: Outcome) -> None:
    """Record how the reduction of an exposure ended: one without a ledger row gets it, one under way elsewhere waits.

    Parameters
    ----------
    session : SkyAlertSession
        With the archive.
    ended : Outcome
        How its call ended.
    """
    if ended.error is not None:
        problems: list[str] = []
        record_lost(session.archive, ended, session.units, problems=problems)
        for problem in problems:
            run_logger().error("%s", problem)
    elif ended.result["state"] == "elsewhere":
        session.tried[ended.call["url"]] = time.monotonic() + AGAIN_SECONDS


def _runner(tracked: bool) -> Callable[[Any], Any]:
    """Return what makes a task a call: tracked as a task run, or its plain function."""
    return (lambda task: task) if tracked else (lambda task: task.fn)


def _notify(session: SkyAlertSession, event: str) -> None:
    """Notify people of the alert and of each change of its state, at most once a day."""
    planned = session.plans[event]
    alert, state = planned.alert, planned.target.state
    advice = {
        "active": f"look at {folder_of(session.archive, event) / 'alert.html'}",
        "waiting": f"nightsift alert approve {session.survey.file} {event}, or let it be",
        "retracted": "nothing: no exposure jumps the queue for it any more",
    }.get(state, f"nightsift alert status {session.survey.file}")
    what = f"{event}: {alert.kind.replace('_', ' ')} of {alert.sender}, {state} ({planned.why})"
    key, today = f"{event} {alert.kind} {state}", f"{datetime.now(UTC):%F}"
    notify_people(session.survey, session.archive, today, key=key, what=what, advice=advice)


def order(survey: str, event: str, action: Action, *, subject: str = "", by: str = "") -> str:
    """Record an order about an alert in the archive and plan the alert again, whether or not a listener runs.

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
        State of the alert now, in one sentence.

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
    """Give an order about an alert: approve, pause, resume, stop, add a field, take a unit out or back in.

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
        State of the alert now.
    """
    state = order(survey, event, action, subject=subject, by=by)
    run_logger().info("%s", state)
    return state
