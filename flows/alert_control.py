"""What operators order about an alert, from the Prefect UI: a deployment asks for event, order and subject.

An order is a file in the archive, the same that ``nightsift alert approve`` and its like write, and what is wanted
follows at once. So it works whether or not a listener runs, and who ordered what stands in one place.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from nightsift.alerts.inbox import notices
from nightsift.alerts.orders import Action, give
from nightsift.alerts.planning import fields_of, make_plan, ruling, sites_of
from nightsift.configuration import closest
from nightsift.errors import ConfigurationError
from nightsift.io.paths import Archive
from nightsift.survey import load_survey
from nightsift.times import mjd_of
from tasks.logs import run_logger


def order(survey: str, event: str, action: Action, subject: str = "", by: str = "") -> str:
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
    give(archive, event, action, subject, by)
    planned = make_plan(opened, archive, event, fields, sites_of(opened, units), mjd_of(datetime.now(UTC)))
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
    told = order(survey, event, action, subject, by)
    run_logger().info("%s", told)
    return told
