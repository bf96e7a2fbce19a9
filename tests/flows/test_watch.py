"""A night that is watched while frames land one by one: real processes, real files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import watch_state
from flows.night import night
from flows.templates import build_templates
from flows.watch import watch
from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from nightsift.io.sources import checksum, exposure_identity
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate

HERE = Runner(kind="in-process", workers=1, address="")
NIGHTSIFT = (sys.executable, "-c", "from nightsift.cli import main; main()")
NIGHTS = "nights/2026-11-20/tiny-1"
WATCH = "\n[watch]\npoll = 0.5\nsettle = 2.0\nexposure_timeout = 200.0\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    file = simulate(folder, SimulationOptions.preset("tiny", seed=5, visits=4))
    for unit in (folder / "units").glob("*.toml"):
        unit.write_text(unit.read_text().replace('name = "base"', 'name = "none"'))
    assert build_templates(file, runner=HERE, track=False).states == {"done": 1}
    file.write_text(file.read_text().replace("workers = 2", "workers = 1") + WATCH)
    return folder


@pytest.fixture
def survey(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "survey")
    shutil.move(tmp_path / "survey" / "nights", tmp_path / "taken")
    (tmp_path / "survey" / NIGHTS).mkdir(parents=True)
    return tmp_path / "survey" / "nightsift.toml"


@pytest.fixture
def taken(survey: Path) -> list[Path]:
    return sorted((survey.parent.parent / "taken").rglob("*.fits"))


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(survey: Path) -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        command = [*NIGHTSIFT, "watch", str(survey), "--no-track", *options]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return begun[-1]

    yield begin
    for one in begun:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
        one.communicate()


def land(survey: Path, file: Path) -> Path:
    target = survey.parent / NIGHTS / file.name
    shutil.copyfile(file, target)
    return target


def states(survey: Path) -> dict[str, str]:
    rows = ledger.read(Archive(load_survey(survey).archive)).to_pylist()
    assert len({row["url"] for row in rows}) == len(rows), "one row an exposure"
    return {Path(row["url"]).name: row["state"] for row in rows}


def status(survey: Path) -> Any:
    (file,) = (load_survey(survey).archive / "status").glob("[0-9]*.json")
    return json.loads(file.read_text())


def wait_for(condition: Callable[[], Any], seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_frames_land_one_by_one_one_is_written_slowly_and_the_watch_is_killed(
    survey: Path, taken: list[Path], start: Start
) -> None:
    first = start("--until", "23:59")
    land(survey, taken[0])
    wait_for(lambda: states(survey) == {taken[0].name: "done"})
    content = taken[1].read_bytes()
    slow = survey.parent / NIGHTS / taken[1].name
    with slow.open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        land(survey, taken[2])
        wait_for(lambda: states(survey).get(taken[2].name) == "done")
        time.sleep(3.0)  # longer than a file must stay the same to be taken
        assert taken[1].name not in states(survey), "a frame that is still being written is not reduced"
        assert status(survey)["units"]["tiny-1"]["settling"] == 1
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        file.write(content[len(content) // 2 :])
    second = start("--once")
    third = land(survey, taken[3])
    out, _ = second.communicate(timeout=250)
    assert second.returncode == 0, out
    assert states(survey) == {one.name: "done" for one in taken}
    assert third.exists()
    told = status(survey)
    assert told["state"] == "closed"
    assert sum(told["units"]["tiny-1"]["ended"].values()) == 2, "what the first watch had done was not done again"
    assert list((load_survey(survey).archive / "reports").rglob("report.html"))


def test_second_watch_of_the_same_night_says_so(survey: Path, taken: list[Path], start: Start) -> None:
    start("--until", "23:59")
    archive = load_survey(survey).archive
    wait_for(lambda: list((archive / "claims").glob("watch*.0")))
    command = [*NIGHTSIFT, "watch", str(survey), "--no-track", "--once"]
    other = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert other.returncode == 1
    assert "process" in other.stderr


HOLD = """
import sys, time
from pathlib import Path
from nightsift.archive.claims import claimed
from nightsift.archive.paths import Archive
with claimed(Archive(Path(sys.argv[1])), sys.argv[2]):
    print("held", flush=True)
    time.sleep(900)
"""


def test_a_night_is_closed_although_a_process_elsewhere_hangs_with_an_exposure(
    survey: Path, taken: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey.write_text(survey.read_text().replace("exposure_timeout = 200.0", "exposure_timeout = 30.0"))
    one = load_survey(survey)
    held = land(survey, taken[0])
    monkeypatch.setattr(watch_state, "AGAIN_SECONDS", 0.2, raising=False)
    monkeypatch.setattr(watch_state, "ELSEWHERE_MARGIN", 3.0 - one.watch.exposure_timeout, raising=False)
    looks: list[str] = []

    def on_row(row: Any) -> None:
        looks.append(row["state"])
        assert len(looks) < 60, "the night is never closed"

    command = [sys.executable, "-c", HOLD, str(one.archive), exposure_identity("tiny-1", checksum(str(held)))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            summary = watch(one, until_idle=True, track=False, on_row=on_row)
        finally:
            holder.kill()
    assert set(looks) == {"elsewhere"}
    assert summary.states == {"elsewhere": 1}
    assert summary.exit_code == 1
    (problem,) = summary.problems
    assert held.name in problem
    assert f"process {holder.pid}" in problem
    assert f"process {holder.pid}" in status(survey)["troubles"][0]
    assert held.name in (one.archive / "reports/night=2026-11-20/report.html").read_text()
    assert states(survey) == {}, "nobody has written a row for it"
    assert night(one, runner=HERE, track=False).states == {"done": 1}, "a later run takes it"


def test_source_away_is_told_once_and_survived(survey: Path, taken: list[Path], start: Start) -> None:
    log = survey.parent / "told.txt"
    text = survey.read_text().replace("poll = 0.5", "poll = 0.3")
    survey.write_text(f"{text}\n[notify]\ncommand = ['sh', '-c', 'cat >> {log}']\n")
    nights = survey.parent / "nights"
    nights.rename(survey.parent / "unmounted")
    start("--until", "23:59")
    wait_for(log.exists)
    time.sleep(3.0)
    (survey.parent / "unmounted").rename(nights)
    land(survey, taken[0])
    wait_for(lambda: states(survey) == {taken[0].name: "done"})
    assert log.read_text().count("What to do") == 1
    assert "nights" in log.read_text()
