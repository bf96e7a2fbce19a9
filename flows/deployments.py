"""Deployments of nightsift on a Prefect server: their flows, work pools, limits, and what becomes of silent runs.

The flows take plain parameters, as a schedule, a page or a command can give them. A run that fails for the world's
reasons (a server restarting, a disk away) is begun again after half a minute, three times; what the ledger has is not
done twice. ``infra/prefect.yaml`` declares the same for other servers; it is written from here: run ``make docs`` (or
``python -P -m flows.deployments infra/prefect.yaml``) after a change.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from flows.backfill import backfill as run_campaign
from flows.campaign_launch import RunOptions
from flows.campaign_plan import Request
from flows.monitoring import monitor
from flows.plan_nights import plan
from flows.prefect_internals import parameters_of
from flows.summary import sentence
from flows.templates import build_templates
from flows.tracking import answers
from flows.training import train_model
from flows.watch import watch
from nightsift.archive.survey import load_survey
from nightsift.core.errors import ConfigurationError
from tasks.retry import run_logger

RETRIES = 3
PAUSE = 30
"""Seconds before a run is begun again."""

POOLS = {"night": 4, "backfill": 4, "alert": 4}
"""Runs at the same time by work pool: none starves another."""

PULL_STEPS: list[dict[str, Any]] = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
"""Without a step of its own Prefect copies the sources for each run, and copied code is compiled anew. A run stays in
the empty folder that its worker made for it: Prefect imports from the working directory first, and in the folder of a
survey somebody's ``tasks.py`` would be taken for ours."""

SILENT_SECONDS = 120
"""A run whose heart has not beaten for so long (four beats) is marked as crashed; claims keep exposures safe."""

OUR_PACKAGES = ("flows", "tasks", "subtraction", "models", "nightsift")
"""What a module is imported from that cannot be missing: where it is, its name is wrong."""

HEADER = """\
# Written from flows/deployments.py by `make docs`: change it there.
#
# Deployments of nightsift for a Prefect server that is run for itself (containers, Kubernetes, a server that others use
# too). On one machine "nightsift serve" does all this and more.
#
#   for pool in {pools}; do prefect work-pool create $pool --type process; done
#   NIGHTSIFT_SURVEY=/data/survey.toml prefect --no-prompt deploy --all --prefect-file infra/prefect.yaml
#   prefect worker start --pool night        # one for each pool, wherever nightsift is installed
#
# Entry points are modules of the installed package, so workers need no sources. Nothing is fetched: a run starts in the
# empty folder that its worker makes for it. What the world does to a run (a server restarting, a disk away) is tried
# again: retries stand in flows/deployments.py.
"""


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
    chunks = Counter(row["state"] for row in run_campaign(loaded, request, RunOptions(loaded.runner)).rows)
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


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deployment.

    Attributes
    ----------
    name : str
        Its name; the flow has the name that its own definition gives.
    entrypoint : str
        Module and flow.
    pool : str
        Work pool.
    parameters : tuple of str
        Parameters that the survey file fills.
    cron : str
        Schedule in the clock of the first site; empty for none.
    limit : int
        Runs at the same time.
    tags : tuple of str
        Tags of its runs.
    """

    name: str
    entrypoint: str
    pool: str
    parameters: tuple[str, ...] = ("survey",)
    cron: str = ""
    limit: int = 1
    tags: tuple[str, ...] = ("nightsift",)


DEPLOYMENTS = (
    Deployed("nightly", "flows.deployments.nightly", "night", limit=4),
    Deployed("plan", "flows.deployments.plan_nights", "night", cron="0 12 * * *"),
    Deployed("templates", "flows.deployments.templates", "backfill"),
    Deployed("monitoring", "flows.deployments.monitoring", "backfill", cron="0 10 * * *"),
    Deployed("training", "flows.deployments.training", "backfill", parameters=()),
    Deployed("backfill", "flows.deployments.backfill", "backfill"),
    Deployed("backfill-batch", "flows.campaign_launch.batch_flow", "backfill", parameters=(), limit=2),
    Deployed("alert", "flows.skyalert_listener.alert", "alert", limit=4),
    Deployed("alert-control", "flows.skyalert.alert_control", "alert", limit=4),
)
"""All deployments; those whose flow needs a package that is not installed are left out."""


def load_flow(entrypoint: str) -> Flow[..., Any] | None:
    """Load the flow of a deployment.

    Parameters
    ----------
    entrypoint : str
        Module and flow, as ``flows.deployments.nightly``.

    Returns
    -------
    Flow or None
        The flow; None where a package that it needs is not installed.

    Raises
    ------
    ConfigurationError
        If there is no such module or flow: its name is wrong.
    """
    module, _, name = entrypoint.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] not in (module.partition(".")[0], *OUR_PACKAGES):
            run_logger().warning("%s is left out: the package %s is not installed", entrypoint, missing)
            return None
        raise _wrong_name(entrypoint, f"there is no module {missing}") from error
    if not isinstance(found, Flow):
        raise _wrong_name(entrypoint, f"the module {module} has no flow {name}")
    return found


def _wrong_name(entrypoint: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        file=__file__, table="deployments", key=entrypoint, what=what, advice="correct the name of module and flow"
    )


def server_address(seconds: float) -> str:
    """Address of the configured Prefect server, once it answers.

    Parameters
    ----------
    seconds : float
        How long to wait for it.

    Returns
    -------
    str
        What PREFECT_API_URL says.

    Raises
    ------
    ConfigurationError
        If no server is configured, or it does not answer.
    """
    url = PREFECT_API_URL.value()
    if url and answers(url, seconds):
        return url
    what = f"no server answers at {url} within {seconds:.0f} s" if url else "no Prefect server is named"
    advice = "set PREFECT_API_URL (and PREFECT_API_AUTH_STRING), or let nightsift serve run one"
    raise ConfigurationError(file="environment", table="prefect", key="PREFECT_API_URL", what=what, advice=advice)


def declare(survey: str, timezone: str = "UTC") -> list[str]:
    """Declare work pools, deployments and limits on the server; declared again, nothing is there twice.

    Parameters
    ----------
    survey : str
        Survey file, the parameter of the runs.
    timezone : str, optional
        Clock of daily schedules.

    Returns
    -------
    list of str
        Names of the deployments.
    """
    names = []
    with get_client(sync_client=True) as client:
        for pool, limit in POOLS.items():
            _pool(client, pool, limit)
        for one in DEPLOYMENTS:
            loaded = load_flow(one.entrypoint)
            if loaded is not None:
                _deploy(client, one, loaded, survey=survey, timezone=timezone)
                names.append(f"{loaded.name}/{one.name}")
        _watch_hearts(client)
    return names


def _pool(client: SyncPrefectClient, name: str, limit: int) -> None:
    # with its template from the beginning: workers that write it themselves, all at once, lock SQLite
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.create_work_pool(
            WorkPoolCreate(name=name, type="process", concurrency_limit=limit, base_job_template=template)
        )
    except ObjectAlreadyExists:
        return


def _deploy(client: SyncPrefectClient, one: Deployed, loaded: Flow[..., Any], *, survey: str, timezone: str) -> None:
    schedules = []
    if one.cron:
        schedules = [DeploymentScheduleCreate(schedule=CronSchedule(cron=one.cron, timezone=timezone), active=True)]
    parameters = {name: survey for name in one.parameters if name in loaded.parameters.properties}
    client.create_deployment(
        flow_id=client.create_flow(loaded),
        name=one.name,
        entrypoint=one.entrypoint,
        work_pool_name=one.pool,
        schedules=schedules,
        concurrency_limit=one.limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        parameters=parameters,
        parameter_openapi_schema=parameters_of(loaded),
        enforce_parameter_schema=True,
        description=_description(loaded),
        tags=list(one.tags),
        pull_steps=PULL_STEPS,
    )


def _watch_hearts(client: SyncPrefectClient) -> None:
    """Let the server crash runs whose heartbeat is missing: their process and worker both died."""
    name = "runs that fell silent are crashed"
    if client.read_automations_by_name(name):
        return
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *ends},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_SECONDS),
    )
    message = "no heartbeat for two minutes: its process is gone; what is done stays done"
    crash = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message, force=False)
    client.create_automation(AutomationCore(name=name, trigger=trigger, actions=[crash], description=message))


def _description(loaded: Flow[..., Any]) -> str:
    return (loaded.description or "").partition("\n")[0]


def prefect_file() -> str:
    """Return the text of ``infra/prefect.yaml``.

    Returns
    -------
    str
        All deployments as ``prefect deploy`` reads them; their survey is that of the variable NIGHTSIFT_SURVEY.
    """
    content = {"name": "nightsift", "build": None, "push": None, "pull": PULL_STEPS}
    deployments = [_entry(one, loaded) for one in DEPLOYMENTS if (loaded := load_flow(one.entrypoint)) is not None]
    lines = [HEADER.format(pools=" ".join(POOLS)).rstrip(), *_lines(content), "", "deployments:"]
    for entry in deployments:
        first, *rest = _lines(entry)
        lines += [f"  - {first}", *(f"    {line}" for line in rest), ""]
    return "\n".join(lines)


def _entry(one: Deployed, loaded: Flow[..., Any]) -> dict[str, Any]:
    return {
        "name": one.name,
        "description": _description(loaded),
        "entrypoint": one.entrypoint,
        "parameters": dict.fromkeys(one.parameters, "{{ $NIGHTSIFT_SURVEY }}"),
        "tags": list(one.tags),
        "concurrency_limit": {"limit": one.limit, "collision_strategy": "ENQUEUE"},
        "work_pool": {"name": one.pool},
        "schedules": [{"cron": one.cron, "timezone": "UTC"}] if one.cron else [],
    }


def _lines(content: dict[str, Any]) -> list[str]:
    # what JSON writes is YAML too
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(prefect_file(), encoding="utf-8")
