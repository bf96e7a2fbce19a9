"""Nights as scheduled runs: one for each site and night, at the moment when it gets dark there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Scheduled

from nightsift.archive.claims import claims_held
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey
from nightsift.core.errors import NightsiftError
from nightsift.core.times import mjd_of, night_of
from nightsift.site.clock import next_dusk, night_at
from tasks.retry import run_logger

EARLY = timedelta(minutes=10)
"""A run begins so long before dark: the processes are warm when the first frame lands."""


STARTING = timedelta(minutes=2)
"""A run that has begun claims its night within this time."""


class NotDeployed(NightsiftError):
    """The Prefect server has no such deployment."""

    problem = "the Prefect server has no deployment '{name}'"
    hint = "nightsift serve makes it; elsewhere: prefect --no-prompt deploy --all --prefect-file infra/prefect.yaml"


def plan(survey: Survey, file: str, days: int = 3, *, now: datetime | None = None) -> list[str]:
    """Schedule the coming nights of every site, and the one that goes on where nobody watches it.

    Parameters
    ----------
    survey : Survey
        The survey.
    file : str
        Its file, for the runs.
    days : int, optional
        Nights ahead.
    now : datetime, optional
        The moment; the clock when None.

    Returns
    -------
    list of str
        Site and time of each run, in the clock of the site; running it again makes no run twice.

    Raises
    ------
    NotDeployed
        If the server has no deployment of nights.
    """
    now, planned = now or datetime.now(UTC), []
    with get_client(sync_client=True) as client:
        for site in sorted({source.site for source in survey.sources if source.site}):
            for moment in _moments(survey, site, now, days=days):
                run = _schedule(client, survey, file, site=site, moment=moment, now=now)
                local = (run.expected_start_time or moment).astimezone(survey.sites[site].zone)
                planned.append(f"{site} {local:%Y-%m-%d %H:%M %Z}: {run.state_name or 'planned'}")
    run_logger().info("nights planned: %s", "; ".join(planned) or "none: no source names a site")
    return planned


def _moments(survey: Survey, site: str, now: datetime, *, days: int) -> list[datetime]:
    place, altitude = survey.sites[site], survey.watch.sun_altitude
    moments = []
    tonight = night_at(place, now, altitude)
    if tonight.dusk is not None and tonight.dawn is not None and tonight.dusk - EARLY <= now < tonight.dawn:
        moments.append(now)
    after = now + EARLY
    for _ in range(days):
        dusk = next_dusk(place, after, altitude)
        if dusk is None:
            break
        moments.append(dusk - EARLY)
        after = dusk + timedelta(hours=1)
    return moments


def _schedule(
    client: SyncPrefectClient, survey: Survey, file: str, *, site: str, moment: datetime, now: datetime
) -> FlowRun:
    """Return the run of a night, made if need be; another one where it has ended early and nobody watches."""
    name = "nightly/nightly"
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        raise NotDeployed(name=name) from None
    night = night_of(mjd_of(moment + EARLY), survey.sites[site].longitude)
    for attempt in range(100):
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"survey": file, "site": site},
            name=f"{survey.name} {site} {night}",
            state=Scheduled(scheduled_time=moment),
            idempotency_key=f"night {survey.name} {site} {night} {attempt}",
        )
        if moment > now or _is_watched(survey, site) or not _is_over(client, run, now):
            return run
    return run


def _is_over(client: SyncPrefectClient, run: FlowRun, now: datetime) -> bool:
    """Whether the run of a night that nobody watches has ended badly; a run whose process died is crashed here."""
    if run.state is None or run.state.is_completed():
        return False
    started = run.start_time
    if run.state.is_running() and started is not None and now - started > STARTING:
        message = "its process is gone, and nobody watches the night: another run begins"
        client.set_flow_run_state(run.id, Crashed(message=message), force=True)
        return True
    return run.state.is_final()


def _is_watched(survey: Survey, site: str) -> bool:
    name = f"watch {survey.name} {site}".strip()
    return any(claim.exposure_id == name for claim in claims_held(Archive(survey.archive)))
