"""A listener killed with -9 while it reduces, and started again: nothing is lost, nothing stands twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from flows.templates import build_templates
from nightsift.simulate import SimulationOptions, simulate
from nightsift.survey import Runner
from tests.nightsift.alerts.conftest import blob, notice  # noqa: F401

EVENT = "S261120ab"
LISTEN = [sys.executable, "-c", "from nightsift.cli import main; main()", "alert", "listen"]


def start(survey: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen([*LISTEN, str(survey), "--no-track"], stdout=out, stderr=out, start_new_session=True)


def wait(done, process, log, seconds=400.0):
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def reduced(folder: Path) -> int:
    path = folder / "progress.json"
    return int(json.loads(path.read_text())["reduced"]) if path.is_file() else 0


def sources(folder: Path) -> list[tuple[str, str, int, float]]:
    rows = pq.read_table(folder / "candidates.parquet").to_pylist()
    return [(one["source_id"], one["candidate_id"], one["n_detections"], round(one["counterpart"], 4)) for one in rows]


@pytest.mark.slow
def test_a_listener_killed_and_started_again_ends_where_an_undisturbed_one_does(tmp_path, notice, blob):  # noqa: F811
    tonight = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    survey = simulate(tmp_path / "one", SimulationOptions.preset("tiny", seed=5, visits=3, nights=(tonight,)))
    unit = next((tmp_path / "one/units").glob("*.toml"))
    unit.write_text(unit.read_text().replace('name = "base"', 'name = "none"'))
    build_templates(survey, runner=Runner(kind="in-process", workers=1, address=""), track=False)
    survey.write_text(survey.read_text() + '\n[watch]\npoll = 0.5\n[alert]\nfolder = "notices"\nhours = 100\n')
    frames = sorted((tmp_path / "one/nights").rglob("*.fits"))
    header = fits.getheader(frames[0])
    t0 = datetime.fromisoformat(header["DATE-OBS"]) - timedelta(hours=1)
    content = json.loads(notice(skymap=blob(header["RA"], header["DEC"]), time=f"{t0:%Y-%m-%dT%H:%M:%S}Z"))
    content["time_created"] = f"{t0 + timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}Z"
    (tmp_path / "one/notices").mkdir()
    (tmp_path / "one/notices/n.json").write_text(json.dumps(content))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    folders, log = [tmp_path / one / "archive/alerts" / EVENT for one in ("one", "two")], tmp_path / "log.txt"
    calm = start(survey, log)
    try:
        wait(lambda: reduced(folders[0]) == len(frames), calm, log)
    finally:
        os.killpg(calm.pid, signal.SIGTERM)
        calm.wait(30)
    hit = start(tmp_path / "two" / survey.name, log)
    try:
        wait(lambda: any((tmp_path / "two/archive").glob("claims/*")) or reduced(folders[1]) > 0, hit, log)
        os.kill(hit.pid, signal.SIGKILL)
        hit.wait()
        hit = start(tmp_path / "two" / survey.name, log)
        wait(lambda: reduced(folders[1]) == len(frames), hit, log)
    finally:
        os.killpg(hit.pid, signal.SIGTERM)
        hit.wait(30)
    assert sources(folders[0]) == sources(folders[1])
    assert len(sources(folders[1])) > 0
    assert len(list((tmp_path / "two/archive").glob("ledger/*/*/*.parquet"))) == len(frames)
