"""Worker and flow die together: nobody is left to tell the server, and the missing heartbeat does.

In production a heart beats every 30 s and 120 s of silence end a run; here 12 s of silence do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drills.engine import kill, processes_of, wait_for
from tests.drills.runs import POOL, Runs

pytestmark = pytest.mark.slow
Rows = Callable[[], int]
Check = Callable[[], None]
SILENT_SECONDS = 12


@pytest.fixture
def _watched_hearts(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from prefect.client.orchestration import get_client
    from prefect.context import refresh_global_settings_context

    from flows import deployments

    for name, value in runs.engine.server.client_settings.items():
        monkeypatch.setenv(name, value)
    refresh_global_settings_context()
    monkeypatch.setattr(deployments, "SILENT_SECONDS", SILENT_SECONDS)
    with get_client(sync_client=True) as client:
        deployments._watch_hearts(client)
    monkeypatch.undo()
    refresh_global_settings_context()
    yield
    listen_no_more(runs)


def listen_no_more(runs: Runs) -> None:
    """Hearts beat every 30 s, so that so short a silence ends every run that lasts."""
    for one in runs.ask("POST", "/automations/filter", {}):
        runs.ask("DELETE", f"/automations/{one['id']}")


@pytest.mark.usefixtures("_watched_hearts")
def test_worker_and_flow_are_killed(runs: Runs, survey: Path, rows: Rows, nothing_lost: Check) -> None:
    before = runs.running()
    worker = runs.engine.start_worker(POOL)
    run = runs.start(survey)
    wait_for(rows, "the first row")
    flow = runs.processes(run)[0]
    kill(worker.pid)
    kill(flow)
    worker.wait()
    wait_for(lambda: not processes_of(run), "the end of the processes that it started")
    assert runs.state(run) == "RUNNING", "nobody is left to say what happened"
    assert runs.ended(run) == "CRASHED"
    wait_for(lambda: runs.running() <= before, "the end of the run inside it", pause=0.5)
    listen_no_more(runs)
    runs.engine.start_worker(POOL)
    assert runs.ended(runs.start(survey)) == "COMPLETED"
    nothing_lost()


@pytest.mark.usefixtures("_watched_hearts")
def test_false_alarm(runs: Runs, survey: Path, rows: Rows, nothing_lost: Check) -> None:
    runs.engine.start_worker(POOL)
    run = runs.start(survey)
    wait_for(rows, "the first row")
    stopped = runs.processes(run)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)  # a laptop that sleeps, a machine that swaps
    assert runs.ended(run) == "CRASHED", "it says nothing and is taken for dead"
    listen_no_more(runs)
    again = runs.start(survey)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert runs.ended(again) == "COMPLETED"
    wait_for(lambda: not processes_of(run), "the end of the run that was taken for dead")
    nothing_lost()
