"""One command brings everything up on one machine, keeps it alive, and takes it down in order: real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.service import Serving, SupervisedProcess, check_binding, environment, password
from nightsift.archive.survey import load_survey
from nightsift.core.errors import ConfigurationError

SURVEY = """
name = "demo"
archive = "archive"
units = "units"
[[source]]
unit = "tiny"
frames = "nights"
site = "here"
[site.here]
latitude = 28.76
longitude = -17.88
timezone = "Atlantic/Canary"
"""


@pytest.fixture
def survey(tmp_path: Path, project_root: Path) -> Path:
    (tmp_path / "units").mkdir()
    (tmp_path / "nights").mkdir()
    unit = (project_root / "units" / "decam.toml").read_text()
    lines = ['name = "tiny"' if line.startswith("name =") else line for line in unit.splitlines()]
    lines = ["longitude = -17.88" if line.startswith("longitude") else line for line in lines]
    (tmp_path / "units" / "tiny.toml").write_text("\n".join(lines))
    (tmp_path / "survey.toml").write_text(SURVEY)
    return tmp_path / "survey.toml"


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


def test_password_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = password(tmp_path / "home")
    assert first == password(tmp_path / "home")
    assert len(first) > 30
    file = tmp_path / "home" / "password"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        password(tmp_path / "home")


@pytest.mark.parametrize(("host", "refused"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("a.b", True)])
def test_no_open_server_beyond_this_machine(survey: Path, tmp_path: Path, host: str, refused: bool) -> None:
    loaded = load_survey(survey)
    check_binding(Serving(tmp_path, host), loaded)
    open_to_all = Serving(tmp_path, host, auth=False)
    if not refused:
        check_binding(open_to_all, loaded)
        return
    with pytest.raises(ConfigurationError, match="password"):
        check_binding(open_to_all, loaded)


def test_what_dies_is_started_again_and_stops_when_asked(tmp_path: Path) -> None:
    (tmp_path / "lives.py").write_text("import time; time.sleep(600)")
    kept = SupervisedProcess("one", ("lives",), environment(PYTHONPATH=str(tmp_path)), tmp_path / "log")
    kept.look()
    assert kept.process is not None
    first = kept.process.pid
    os.kill(first, signal.SIGKILL)
    kept.process.wait()
    wait_for(lambda: kept.look() or (kept.process is not None and kept.process.pid != first))
    assert kept.starts == 2
    last = kept.process.pid
    kept.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


@pytest.mark.slow
def test_serve_from_start_to_stop(survey: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name in ("tasks", "models"):  # somebody's own, in the folder where it is started and where the survey file lies
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not the module that was meant')")
    command = [sys.executable, "-P", "-m", "nightsift", "serve", str(survey), "--port", str(port)]
    lines = (tmp_path / "said").open("w")
    process = subprocess.Popen(command, stdout=lines, stderr=lines, start_new_session=True, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: "night at here" in (tmp_path / "said").read_text(), 250)
        secret = tuple((tmp_path / "serve" / "password").read_text().strip().split(":", 1))
        assert httpx.post(f"{url}/deployments/filter", json={}, trust_env=False).status_code == 401

        def asked(what: str) -> Any:
            return httpx.post(f"{url}/{what}/filter", json={}, auth=secret, trust_env=False).json()

        assert {one["name"] for one in asked("deployments")} >= {"nightly", "plan", "templates", "monitoring"}
        assert {one["name"] for one in asked("work_pools")} == {"night", "backfill", "alert"}
        assert [one for one in asked("flow_runs") if one["name"].startswith("demo here")]
        assert "heartbeat" in str(asked("automations"))
        plan = next(one["id"] for one in asked("deployments") if one["name"] == "plan")
        begun = {"state": {"type": "SCHEDULED"}, "parameters": {"survey": str(survey), "days": 1}}
        place = f"{url}/deployments/{plan}/create_flow_run"
        run = httpx.post(place, json=begun, auth=secret, trust_env=False).json()["id"]

        def state() -> str:
            return str(next(one["state_type"] for one in asked("flow_runs") if one["id"] == run))

        wait_for(lambda: state() in ("COMPLETED", "FAILED", "CRASHED"), 200)
        assert state() == "COMPLETED"
    finally:
        process.terminate()
        assert process.wait(100) == 0
        lines.close()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/health", trust_env=False)
