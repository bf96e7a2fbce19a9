"""The clock of the day jumps, forwards and back, under processes that run: a library loaded first moves it.

File times keep the true clock, as those of a file server do whose clock is not ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drills.conftest import VISITS
from tests.drills.engine import wait_for

Rows = Callable[[], int]
Check = Callable[[], None]
Command = Callable[..., "subprocess.Popen[str]"]
HOUR = 3600
JUMPS = [9 * HOUR, -9 * HOUR, 400 * 24 * HOUR, 0]
SOURCE = Path(__file__).with_name("jump.c")


class Clock:
    """The clock that processes see which are started with its settings."""

    def __init__(self, library: Path, file: Path) -> None:
        self.file = file
        self.settings = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(file)}
        self.jump(0)

    def jump(self, seconds: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self.file)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("moving the clock under a process needs Linux and a C compiler")
    built = tmp_path_factory.mktemp("clock") / "jump.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-ldl"], check=True)
    return built


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> Clock:
    return Clock(library, tmp_path / "ahead")


def test_the_clock_of_a_process_can_be_moved(clock: Clock) -> None:
    asked = [sys.executable, "-c", "import time, datetime; print(time.time(), datetime.datetime.now().timestamp())"]
    clock.jump(9 * HOUR)
    said = subprocess.run(asked, env=clock.settings, capture_output=True, text=True, check=True).stdout
    for told in map(float, said.split()):
        assert told - time.time() == pytest.approx(9 * HOUR, abs=60)


@pytest.mark.slow
def test_clock_jumps_in_the_middle_of_a_night(
    clock: Clock, nightsift: Command, rows: Rows, nothing_lost: Check
) -> None:
    one = nightsift("night", "--no-track", "--workers", "1", settings=clock.settings)
    for number, ahead in enumerate(JUMPS, start=1):
        wait_for(lambda number=number: rows() >= number or one.poll() is not None, f"row {number}")
        clock.jump(ahead)
    said, _ = one.communicate(timeout=250)
    assert one.returncode == 0, said
    assert f"{VISITS} done" in said
    nothing_lost()


@pytest.mark.slow
def test_clock_jumps_under_two_who_want_the_same(
    clock: Clock, nightsift: Command, rows: Rows, nothing_lost: Check
) -> None:
    """Claims are not renewed sooner, nor held for dead, because a clock has jumped: no clocks are compared."""
    right = nightsift("night", "--no-track", "--workers", "1")
    wrong = nightsift("night", "--no-track", "--workers", "1", settings=clock.settings)
    for number, ahead in enumerate(JUMPS, start=1):
        wait_for(lambda number=number: rows() >= number, f"row {number}")
        clock.jump(ahead)
    for one in (right, wrong):
        said, _ = one.communicate(timeout=250)
        assert one.returncode == 0, said
        assert "taken over" not in said
    nothing_lost()
