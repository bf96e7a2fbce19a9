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
from nightsift.archive.survey import Runner
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tests.nightsift.skyalerts.conftest import blob, notice  # noqa: F401

EVENT = "S261120ab"
QUIET_SECONDS = 12.0  # longer than the pauses between two rankings
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


def latest(folder: Path) -> Path:
    """Ranked table of the newest revision."""
    return max(folder.glob("[0-9][0-9][0-9]/candidates.parquet"), default=folder / "none")


def settled(folder: Path, exposures: int) -> bool:
    """All exposures have their row, and the table that was ranked after them has not changed for a while."""
    rows = list(folder.parents[1].glob("ledger/*/*/*.parquet"))
    table = latest(folder)
    if len(rows) < exposures or not table.exists():
        return False
    written = table.stat().st_mtime
    return written > max(one.stat().st_mtime for one in rows) and time.time() - written > QUIET_SECONDS


def objects(folder: Path) -> list[tuple[str, str, int, float]]:
    rows = pq.read_table(latest(folder)).to_pylist()
    return [(one["name"], one["object_id"], one["detections"], round(one["probability"], 6)) for one in rows]


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
        wait(lambda: settled(folders[0], len(frames)), calm, log)
    finally:
        os.killpg(calm.pid, signal.SIGTERM)
        calm.wait(30)
    hit = start(tmp_path / "two" / survey.name, log)
    try:
        wait(lambda: any((tmp_path / "two/archive").glob("ledger/*/*/*.parquet")), hit, log)
        os.kill(hit.pid, signal.SIGKILL)
        hit.wait()
        hit = start(tmp_path / "two" / survey.name, log)
        wait(lambda: settled(folders[1], len(frames)), hit, log)
    finally:
        os.killpg(hit.pid, signal.SIGTERM)
        hit.wait(30)
    assert objects(folders[0]) == objects(folders[1])
    assert len(objects(folders[1])) > 0
    assert len(list((tmp_path / "two/archive").glob("ledger/*/*/*.parquet"))) == len(frames)
