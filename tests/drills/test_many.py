"""64 runs at the same moment. PostgreSQL records all of them; whatever the database does, no exposure is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drills.engine import ROOT, Engine, engine_on
from tests.drills.runs import Runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Check = Callable[[], None]
RUNS = 64


def run_all(engine: Engine, survey: Path, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    command = [sys.executable, "-m", "tests.drills.many", str(survey), str(RUNS), str(folder)]
    environment = {**os.environ, **engine.server.client_settings}
    subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=800)
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(RUNS)]


def told_by(engine: Engine) -> Counter[str]:
    """States of the nights that the server knows."""
    return Counter(one["state_type"] for one in Runs(engine).all())


def test_postgresql(engine: Engine, survey: Path, nothing_lost: Check, tmp_path: Path) -> None:
    before = told_by(engine)
    ended = run_all(engine, survey, tmp_path / "ended")
    assert [one["error"] for one in ended if one["error"]] == []
    assert all(one["tracked"] for one in ended)
    assert told_by(engine) - before == Counter(COMPLETED=RUNS)
    nothing_lost()


def test_sqlite(survey: Path, nothing_lost: Check, tmp_path: Path) -> None:
    with engine_on("sqlite", tmp_path / "engine") as engine:
        ended = run_all(engine, survey, tmp_path / "ended")
        print("runs that the server knows:", dict(told_by(engine)))
    print("runs that were not tracked to their end:", sum(not one["tracked"] for one in ended))
    assert [one["error"] for one in ended if one["error"]] == [], "a database that is locked costs its record, no run"
    nothing_lost()
