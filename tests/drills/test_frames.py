"""The frame source goes away and comes back, and a frame is written slowly, while the night is watched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from tests.drills.conftest import NIGHT, VISITS
from tests.drills.engine import wait_for

pytestmark = pytest.mark.slow
Rows = Callable[[], int]
Check = Callable[[], None]
Command = Callable[..., "subprocess.Popen[str]"]
AWAY_SECONDS = 6.0
"""In place of ten minutes: with a poll of 0.3 s as many listings fail as in two minutes of a poll of 5 s."""

WATCH = "\n[watch]\npoll = 0.3\nsettle = 1.0\n\n[notify]\ncommand = ['sh', '-c', 'cat >> {log}']\n"


@pytest.fixture
def taken(survey: Path, tmp_path: Path) -> list[Path]:
    """Frames that have not landed yet, in order of time."""
    survey.write_text(survey.read_text().replace("workers = 2", "workers = 1") + WATCH.format(log=tmp_path / "told"))
    shutil.move(survey.parent / "nights", tmp_path / "taken")
    (survey.parent / "nights" / NIGHT / "tiny-1").mkdir(parents=True)
    return sorted((tmp_path / "taken").rglob("*.fits"))


def seen(survey: Path) -> set[str]:
    return {Path(one["url"]).name for one in ledger.read(Archive(load_survey(survey).archive)).to_pylist()}


def test_source_goes_away_and_a_frame_is_written_slowly(
    survey: Path, taken: list[Path], nightsift: Command, rows: Rows, nothing_lost: Check, tmp_path: Path
) -> None:
    nights = survey.parent / "nights"
    place = nights / NIGHT / "tiny-1"
    watch = nightsift("watch", "--no-track", "--until", "23:59")
    first, slow, replaced, *others = taken
    shutil.copyfile(first, place / first.name)
    wait_for(rows, "the first row")
    content = slow.read_bytes()
    with (place / slow.name).open("wb") as file:
        file.write(content[: len(content) // 3])
        file.flush()
        shutil.copyfile(replaced, place / ".incoming")
        (place / ".incoming").rename(place / replaced.name)  # as rsync does it
        wait_for(lambda: replaced.name in seen(survey), "the frame beside it")
        time.sleep(2.0)  # longer than a file must stay the same
        assert slow.name not in seen(survey), "what is still being written is left alone"
        nights.rename(tmp_path / "away")  # the writer goes on where we cannot see it
        time.sleep(AWAY_SECONDS / 2)
        file.write(content[len(content) // 3 :])
    away = tmp_path / "away" / NIGHT / "tiny-1"
    for one in others[:2]:
        shutil.copyfile(one, away / one.name)
    time.sleep(AWAY_SECONDS / 2)
    assert (tmp_path / "told").read_text().count("What to do") == 1, "people are told once"
    (tmp_path / "away").rename(nights)
    wait_for(lambda: {slow.name, *(one.name for one in others[:2])} <= seen(survey), "what came meanwhile")
    os.killpg(watch.pid, signal.SIGKILL)
    watch.wait()
    for one in others[2:]:
        shutil.copyfile(one, place / one.name)
    said, _ = nightsift("watch", "--no-track", "--once").communicate(timeout=250)
    assert f"{VISITS} done" in said, said
    nothing_lost()
