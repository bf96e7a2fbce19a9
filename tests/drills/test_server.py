"""Prefect server and PostgreSQL die in the middle of a night, or are not there when it begins: the night goes on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drills.conftest import VISITS
from tests.drills.engine import Engine, wait_for
from tests.drills.runs import POOL, Runs

pytestmark = pytest.mark.slow
Rows = Callable[[], int]
Check = Callable[[], None]
Command = Callable[..., "subprocess.Popen[str]"]
AWAY_SECONDS = 6.0


@pytest.fixture(autouse=True)
def _up_again(engine: Engine) -> Iterator[None]:
    """The next drill finds everything up."""
    yield
    assert engine.postgres is not None
    if engine.postgres.process is None or engine.postgres.process.poll() is not None:
        engine.postgres.start()
    engine.server.kill()
    engine.server.start()


def test_server_is_killed_and_comes_back(runs: Runs, survey: Path, rows: Rows, nothing_lost: Check) -> None:
    runs.engine.start_worker(POOL)
    run = runs.start(survey)
    wait_for(rows, "the first row")
    runs.engine.server.kill()
    assert rows() < VISITS, "it was killed too late to show anything"
    time.sleep(AWAY_SECONDS)
    runs.engine.server.start()
    assert runs.ended(run) == "COMPLETED"
    nothing_lost()


def test_server_is_killed_and_stays_away(engine: Engine, nightsift: Command, rows: Rows, nothing_lost: Check) -> None:
    # Prefect asks five times, for a minute, and gives up after several such minutes; here it asks twice
    one = nightsift("night", settings={**engine.server.client_settings, "PREFECT_CLIENT_MAX_RETRIES": "2"})
    wait_for(rows, "the first row")
    engine.server.kill()
    said, _ = one.communicate(timeout=250)
    assert one.returncode == 0, said
    assert f"{VISITS} done" in said
    assert "its record is not complete" in said
    nothing_lost()


def test_database_is_killed_and_comes_back(runs: Runs, survey: Path, rows: Rows, nothing_lost: Check) -> None:
    runs.engine.start_worker(POOL)
    run = runs.start(survey)
    wait_for(rows, "the first row")
    assert runs.engine.postgres is not None
    runs.engine.postgres.kill()
    assert rows() < VISITS, "it was killed too late to show anything"
    time.sleep(AWAY_SECONDS)
    runs.engine.postgres.start()
    assert runs.ended(run) == "COMPLETED"
    nothing_lost()


def test_database_is_away_when_the_night_begins(engine: Engine, nightsift: Command, nothing_lost: Check) -> None:
    assert engine.postgres is not None
    engine.postgres.kill()
    one = nightsift("night", settings=engine.server.client_settings)
    said, _ = one.communicate(timeout=250)
    assert one.returncode == 0, said
    assert "not tracked" in said
    nothing_lost()


def test_password_is_wrong(engine: Engine, nightsift: Command, nothing_lost: Check) -> None:
    settings = {**engine.server.client_settings, "PREFECT_API_AUTH_STRING": "drill:wrong"}
    one = nightsift("night", settings=settings)
    said, _ = one.communicate(timeout=250)
    assert one.returncode == 0, said
    assert "PREFECT_API_AUTH_STRING" in said
    nothing_lost()
