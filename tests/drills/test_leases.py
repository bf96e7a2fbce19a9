"""The server of `serve` is killed while a watch holds its lease: the watch goes on as the same process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.service import Serving, settings
from tests.drills.engine import ROOT, Engine, engine_on, processes_of, wait_for
from tests.drills.runs import POOL, Runs

pytestmark = pytest.mark.slow
WATCH_SECONDS = 90.0
RENEWAL_SECONDS = 3.0
LEASE_SECONDS = 300.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Engine]:
    """A server that keeps its leases as that of `nightsift serve` does."""
    chosen = settings(Serving(tmp_path / "home", auth=False))
    own = {name: value for name, value in chosen.items() if name.startswith("PREFECT_SERVER_") and "_URL" not in name}
    with engine_on("sqlite", tmp_path, own) as engine:
        yield engine


def test_a_watch_outlives_its_server(served: Engine, survey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRILL_RENEWAL", str(RENEWAL_SECONDS / LEASE_SECONDS))
    runs = Runs(served)
    runs.deployment = runs.ask(
        "POST",
        "/deployments/",
        {
            "name": "watch",
            "flow_id": runs.ask("POST", "/flows/", {"name": "drilled watch"})["id"],
            "work_pool_name": POOL,
            "entrypoint": "tests.drills.drilled.drilled_watch",
            "concurrency_limit": 4,
            "concurrency_options": {"collision_strategy": "ENQUEUE"},
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        },
    )["id"]
    served.start_worker(POOL)
    run = runs.start(survey, seconds=WATCH_SECONDS)
    begun = survey.parent / "watch.pid"
    wait_for(begun.exists, "the watch")
    pid = int(begun.read_text())
    assert runs.ask("GET", f"/flow_runs/{run}")["state"]["state_details"]["deployment_concurrency_lease_id"]
    time.sleep(2 * RENEWAL_SECONDS)
    served.server.kill()
    gone = time.monotonic()
    served.server.start()
    away = time.monotonic() - gone
    time.sleep(8 * RENEWAL_SECONDS)  # several renewals are asked of the server that has come back
    assert pid in processes_of(run), "the watch has ended itself"
    assert runs.state(run) == "RUNNING"
    assert runs.ended(run) == "COMPLETED"
    assert int(begun.read_text()) == pid, "it was begun again"
    print(f"server away for {away:.1f} s, the watch went on as process {pid}: 0 s without a watch")
