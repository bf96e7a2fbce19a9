"""Launching chunks of a campaign, a few at a time: from this process, or through workers of a Prefect server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows.pool import run_all
from nightsift.archive.claims import claims_held
from nightsift.archive.night_status import DuringNight
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner
from nightsift.backfill import chunk_ledger
from nightsift.backfill.campaigns import Campaign
from nightsift.core.errors import ConfigurationError, NightsiftError, ProcessDied
from tasks.batch import claim_name, note_death, reduce_batch
from tasks.retry import run_logger

DEPLOYMENT = "backfill-batch/backfill-batch"
"""Deployment whose runs reduce chunks, on the work pool `backfill`."""

POLL_SECONDS = 2.0
CLAIM_SECONDS = 10.0
"""A chunk that was begun and has been without a claim for so long has lost its process."""

MOST_ATTEMPTS = 5
"""A chunk is begun again after deaths so often, and twice more for each of its exposures."""

CRASHED = "crashed"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run of a campaign.

    Attributes
    ----------
    runner : Runner
        How chunks are spread; as many run at the same time as it has workers.
    during_night : str
        What to do while a night is going on: ``"pause"``, ``"narrow"`` or ``"go-on"``.
    retry_failed : bool
        Begin chunks again that failed, or in which exposures wait for a template.
    through_workers : bool or None
        Hand chunks to the workers of a Prefect server; None where it has a deployment and a worker for them.
    """

    runner: Runner
    during_night: DuringNight = "pause"
    retry_failed: bool = False
    through_workers: bool | None = None


def launch_here(
    home: Archive, campaign: Campaign, todo: Sequence[Row], *, options: RunOptions, tracked: bool, problems: list[str]
) -> Iterator[Row]:
    """Run chunks from this process, by its runner; one whose process died is begun again, and its killer given up.

    Parameters
    ----------
    home : Archive
        The archive.
    campaign : Campaign
        The campaign.
    todo : sequence of dict
        Rows of the chunks to run.
    options : RunOptions
        Options of the run.
    tracked : bool
        Whether each is a task run of Prefect.
    problems : list of str
        What went wrong outside of any exposure is added to it.

    Yields
    ------
    dict
        Row of each chunk that ended.

    Raises
    ------
    ConfigurationError
        If code, options or model are not those of the campaign.
    """
    rows = {row["chunk"]: row for row in todo}
    calls = [_parameters(home, campaign, row, options=options) for row in todo]
    while calls:
        again, elsewhere = [], []
        for ended in run_all(reduce_batch, calls, options.runner, tracked=tracked):
            row = rows[ended.call["chunk"]]
            if ended.error is None and ended.result["state"] == "elsewhere":
                elsewhere.append(row)
            elif ended.error is None:
                yield ended.result
            elif isinstance(ended.error, ConfigurationError):
                raise ended.error
            elif isinstance(ended.error, ProcessDied) and note_death(home, campaign.name, row["chunk"], times=2):
                again.append(row)
            else:
                yield _failed(home, row, str(ended.error) or type(ended.error).__name__, problems=problems)
        calls = [_parameters(home, campaign, chunk_ledger.read_one(home, row), options=options) for row in again]
        for row in elsewhere:
            while claim_name(campaign.name, row["chunk"]) in {claim.exposure_id for claim in claims_held(home)}:
                time.sleep(POLL_SECONDS)
            calls.append(_parameters(home, campaign, row, options=options))


def _parameters(home: Archive, campaign: Campaign, row: Row, *, options: RunOptions) -> dict[str, Any]:
    return {
        "archive": str(home.home), "campaign": campaign.name, "chunk": row["chunk"],
        "label": chunk_ledger.label_of(row), "attempt": row["attempt"], "during_night": options.during_night,
        "workers": options.runner.workers,
    }  # fmt: skip


def _failed(home: Archive, row: Row, message: str, *, problems: list[str]) -> Row:
    """Row of a chunk that could not write one itself."""
    row = chunk_ledger.read_one(home, row)
    row = {**row, "state": "failed", "failed": row["exposures"], "done": 0, "refused": 0, "waiting": 0,
           "message": message, "ended_at": datetime.now(UTC)}  # fmt: skip
    try:
        chunk_ledger.record(home, row)
    except (NightsiftError, OSError) as unwritten:
        problems.append(f"{chunk_ledger.label_of(row)} failed and could not be recorded: {unwritten}")
    return row


@flow(name="backfill-batch", persist_result=False, validate_parameters=False)
def batch_flow(
    archive: str,
    campaign: str,
    chunk: int,
    label: str = "",
    attempt: int = 0,
    during_night: DuringNight = "pause",
    workers: int = 1,
) -> dict[str, Any]:
    """Reduce one chunk as a flow run of its own: what a deployment on the work pool `backfill` runs.

    Parameters
    ----------
    archive : str
        Folder of the archive, as the worker sees it.
    campaign : str
        Identity of the campaign.
    chunk : int
        Number of the chunk.
    label : str, optional
        Name of the chunk in logs.
    attempt : int, optional
        How often the chunk had been begun when this was asked for.
    during_night : str, optional
        What to do while a night is going on.
    workers : int, optional
        How many chunks are under way at the same time.

    Returns
    -------
    dict
        Counts of the chunk; all of its row stands in the ledger of the campaign.
    """
    lower_priority()
    row = reduce_batch.fn(archive, campaign, chunk, label, attempt, during_night, workers)
    return {name: row[name] for name in ("state", "exposures", *chunk_ledger.COUNTS)}


def lower_priority(nice: int = 10) -> None:
    """Raise the niceness of this process, and of those it starts from here on, to at least `nice`."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))


def uses_workers(options: RunOptions) -> bool:
    """Whether chunks are handed to workers of the Prefect server that this run is tracked by.

    Parameters
    ----------
    options : RunOptions
        Options of the run.

    Returns
    -------
    bool
        True where that was asked for, or where there is a deployment for chunks and somebody who runs it.

    Raises
    ------
    ConfigurationError
        If it was asked for and there is no deployment.
    """
    if options.through_workers is False:
        return False
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            if options.through_workers:
                raise ConfigurationError(
                    file="nightsift backfill", table="command line", key="--through-workers",
                    what=f"the Prefect server has no deployment {DEPLOYMENT}",
                    advice="deploy it: prefect --no-prompt deploy --all --prefect-file infra/prefect.yaml",
                ) from None  # fmt: skip
            return False
        pool = deployment.work_pool_name
        online = not pool or any(one.status.value == "ONLINE" for one in client.read_workers_for_work_pool(pool))
    if options.through_workers and not online:
        run_logger().warning("no worker of the pool '%s' is online yet: chunks wait for one", pool)
    return bool(options.through_workers or online)


@dataclass(slots=True)
class _Launched:
    """A chunk that was handed to a worker."""

    row: Row
    run: FlowRun
    tries: int = 0
    unclaimed_since: float | None = None


def launch_through_workers(
    home: Archive, campaign: Campaign, todo: Sequence[Row], *, options: RunOptions, tracked: bool, problems: list[str]
) -> Iterator[Row]:
    """Hand chunks to workers, never more than may run at the same time, and watch the ledger of the campaign.

    The key of a run is made of campaign, chunk and attempt, so that the server makes one run of it however often this
    process is killed and started again. A run whose process is lost is marked as crashed, and its chunk is begun again.

    Parameters
    ----------
    home : Archive
        The archive.
    campaign : Campaign
        The campaign.
    todo : sequence of dict
        Rows of the chunks to run.
    options : RunOptions
        Options of the run.
    tracked : bool
        True.
    problems : list of str
        What went wrong outside of any exposure is added to it.

    Yields
    ------
    dict
        Row of each chunk that ended.
    """
    waiting, under_way = list(reversed(todo)), list[_Launched]()
    with get_client(sync_client=True) as client:
        while waiting or under_way:
            while waiting and len(under_way) < options.runner.workers:
                under_way.append(_launch(home, campaign, waiting.pop(), options=options))
            time.sleep(POLL_SECONDS)
            held = {claim.exposure_id for claim in claims_held(home)}
            for one in list(under_way):
                now = chunk_ledger.read_one(home, one.row)
                if now["attempt"] > one.row["attempt"] and now["ended_at"] is not None:
                    under_way.remove(one)
                    yield now
                elif claim_name(campaign.name, now["chunk"]) in held:
                    one.unclaimed_since = None
                elif fate := _fate(client, one, now):
                    under_way.remove(one)
                    died = fate == CRASHED and now["attempt"] < MOST_ATTEMPTS + 2 * now["exposures"]
                    if died:
                        note_death(home, campaign.name, now["chunk"])
                        run_logger().warning("%s: its process died; it is begun again", chunk_ledger.label_of(now))
                        under_way.append(_launch(home, campaign, now, options=options, tries=one.tries + 1))
                    else:
                        yield _failed(home, now, fate, problems=problems)


def _launch(home: Archive, campaign: Campaign, row: Row, *, options: RunOptions, tries: int = 0) -> _Launched:
    parameters = _parameters(home, campaign, row, options=options)
    run = run_deployment(
        DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False, flow_run_name=parameters["label"],
        idempotency_key=f"{campaign.name}/{row['chunk']}/{row['attempt']}/{tries}", tags=[campaign.name],
    )  # fmt: skip
    assert isinstance(run, FlowRun)
    return _Launched(row, run, tries)


def _fate(client: SyncPrefectClient, one: _Launched, now: Row) -> str:
    """Return how a run that holds no claim on its chunk has ended; empty while it waits, starts or ends."""
    state = client.read_flow_run(one.run.id).state
    begun = now["attempt"] > one.row["attempt"]
    if state is not None and (state.is_final() or (begun and state.is_running())):
        one.unclaimed_since = one.unclaimed_since or time.monotonic()
        if time.monotonic() - one.unclaimed_since < (CLAIM_SECONDS if begun else POLL_SECONDS):
            return ""  # its row may be on its way
        if state.is_running():
            lost: State[Any] = Crashed(message="its process is gone; the chunk is begun again")
            client.set_flow_run_state(one.run.id, lost, force=True)
        return (
            CRASHED if state.is_crashed() or state.is_running() else f"its run ended as {state.name}: {state.message}"
        )
    return ""
