"""What deployments run: the flows of nightsift with plain parameters, as a schedule, a page or a command can give them.

A flow run that meets trouble of the world (a server restarting, a disk away) is begun again after half a minute, three
times; what is wrong with a frame never fails a run. Beginning again is cheap and safe: what the ledger has is not done
twice. Shorter troubles of network and disk are waited out inside an exposure (`tasks.retry`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow

from flows.backfill import backfill as run_campaign
from flows.campaign_plan import Request
from flows.launching import How
from flows.monitoring import monitor
from flows.plan_nights import plan
from flows.templates import build_templates
from flows.training import train_model
from flows.watch import watch
from nightsift.errors import ConfigurationError
from nightsift.survey import load_survey

RETRIES = 3
PAUSE = 30
"""Seconds before a run is begun again."""


@flow(name="nightly", persist_result=False, log_prints=False, retries=RETRIES, retry_delay_seconds=PAUSE)
def nightly(survey: str, site: str = "") -> str:
    """Watch the night of a site from now until after dawn, and close it with its report.

    Parameters
    ----------
    survey : str
        Survey file.
    site : str
        Site; may be empty where the survey has one.

    Returns
    -------
    str
        What came out, in one sentence.
    """
    from flows.summary import sentence

    return sentence(watch(load_survey(survey), site))


@flow(name="plan", persist_result=False, retries=RETRIES, retry_delay_seconds=PAUSE)
def plan_nights(survey: str, days: int = 3) -> list[str]:
    """Schedule the coming nights: each begins when it gets dark at its site.

    Parameters
    ----------
    survey : str
        Survey file.
    days : int
        How many nights ahead.

    Returns
    -------
    list of str
        Site and time of each.
    """
    return plan(load_survey(survey), survey, days)


@flow(name="templates", persist_result=False, retries=RETRIES, retry_delay_seconds=PAUSE)
def templates(survey: str, units: list[str] | None = None, until: str | None = None, redo: bool = False) -> str:
    """Build and refresh the templates of a survey.

    Parameters
    ----------
    survey : str
        Survey file.
    units : list of str
        Only these units.
    until : str
        Use frames up to this night only.
    redo : bool
        Build again what is up to date.

    Returns
    -------
    str
        Templates by state.
    """
    return str(build_templates(load_survey(survey), units, until, redo=redo).states)


@flow(name="monitoring", persist_result=False, retries=RETRIES, retry_delay_seconds=PAUSE)
def monitoring(survey: str, night: str | None = None, units: list[str] | None = None) -> str:
    """Judge whether each unit is still the one that its model was calibrated on.

    Parameters
    ----------
    survey : str
        Survey file.
    night : str
        Only this night.
    units : list of str
        Only these units.

    Returns
    -------
    str
        Units that drifted, by night.
    """
    drifted = [f"{row['unit']} in {row['night']}" for row in monitor(load_survey(survey), night, units).drifted]
    return ", ".join(drifted) or "no unit drifted"


@flow(name="campaign", persist_result=False, retries=RETRIES, retry_delay_seconds=PAUSE)
def backfill(
    survey: str, first: str = "", last: str = "", units: list[str] | None = None, version: str = "", keep: bool = False
) -> str:
    """Run a campaign over an archive of years, or go on with it; it pauses while a night goes on.

    Parameters
    ----------
    survey : str
        Survey file.
    first, last : str
        First and last night, both included; empty for no limit.
    units : list of str
        Only these units.
    version : str
        Version of the catalogue to make beside the one that is served.
    keep : bool
        Leave what other code, options, models or templates have made.

    Returns
    -------
    str
        Chunks by state.
    """
    loaded = load_survey(survey)
    request = Request(first, last, tuple(units or ()), version, in_place=False, keep=keep)
    chunks = Counter(row["state"] for row in run_campaign(loaded, request, How(loaded.runner)).rows)
    return ", ".join(f"{number} chunks {state}" for state, number in sorted(chunks.items()))


@flow(name="training", persist_result=False)
def training(out: str, workers: int = 2) -> dict[str, Any]:
    """Train a real/bogus model on simulated nights of random units.

    Parameters
    ----------
    out : str
        Folder of the model, from the root on: a run stands in a folder of its own, which is gone when it ends.
    workers : int
        Processes.

    Returns
    -------
    dict
        What its card says.

    Raises
    ------
    ConfigurationError
        If the folder is not given from the root on.
    """
    if not Path(out).is_absolute():
        raise ConfigurationError(
            file="training", table="parameters", key="out", what=f"'{out}' would be lost with the folder of the run",
            advice="give it from the root on",
        )  # fmt: skip
    return train_model(out, workers=workers)
