"""Worker, flow or both are killed in the middle of a deployed night; the next run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drills.engine import kill, processes_of, wait_for
from tests.drills.runs import POOL, Runs

pytestmark = pytest.mark.slow
Rows = Callable[[], int]
Check = Callable[[], None]


def test_worker_is_killed(runs: Runs, survey: Path, rows: Rows, nothing_lost: Check) -> None:
    worker = runs.engine.start_worker(POOL)
    run = runs.start(survey)
    wait_for(rows, "the first row")
    kill(worker.pid)
    worker.wait()
    assert runs.state(run) == "RUNNING"
    runs.engine.start_worker(POOL)
    assert runs.ended(run) == "COMPLETED", "the flow does not need the worker that started it"
    nothing_lost()


def test_flow_is_killed(runs: Runs, survey: Path, rows: Rows, nothing_lost: Check) -> None:
    runs.engine.start_worker(POOL)
    run = runs.start(survey)
    wait_for(rows, "the first row")
    kill(runs.processes(run)[0])
    assert runs.ended(run) == "CRASHED", "the worker says so"
    wait_for(lambda: not processes_of(run), "the end of the processes that it started")
    left = rows()
    again = runs.start(survey)
    assert runs.ended(again) == "COMPLETED"
    assert left < 8, "it was killed too late to show anything"
    nothing_lost()


def test_the_same_night_is_started_twice(runs: Runs, survey: Path, nothing_lost: Check) -> None:
    for _ in range(2):
        runs.engine.start_worker(POOL)
    both = [runs.start(survey) for _ in range(2)]
    assert [runs.ended(one) for one in both] == ["COMPLETED"] * 2
    nothing_lost()
