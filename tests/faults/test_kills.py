"""Real kills: a worker, the whole night; and two nights at once. Nothing is lost, nothing stands twice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.night import night
from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from tests.forked import Forks

IN_PROCESS = Runner(kind="in-process", workers=1, address="")
POOL = Runner(kind="processes", workers=2, address="")
RUN = """
import sys
from flows.night import night
from nightsift.archive.survey import Runner
if __name__ == "__main__":
    summary = night(sys.argv[1], runner=Runner(kind=sys.argv[2], workers=2, address=""), track=False)
    print(summary.states)
"""


def content(survey: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """State of each exposure, and what was found: identical for every way to get there."""
    archive = Archive(load_survey(survey).archive)
    states = {Path(row["url"]).name: row["state"] for row in ledger.read(archive).to_pylist()}
    columns = ("candidate_id", "x", "y", "flux", "snr", "flags", "stamp_index")
    candidates = read_candidates(archive).select(columns).to_pylist()
    return states, sorted(tuple(row.values()) for row in candidates)


@pytest.fixture(scope="module")
def undisturbed(
    made_survey: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """Content of a run that nobody disturbs, in a copy of its own."""
    folder = tmp_path_factory.mktemp("undisturbed") / "survey"
    shutil.copytree(made_survey, folder)
    summary = night(folder / "nightsift.toml", runner=IN_PROCESS, track=False)
    assert summary.states == {"done": 5}
    reached = content(folder / "nightsift.toml")
    assert reached[1], "without candidates these tests would show nothing"
    return reached


def rows_of(survey: Path) -> list[Path]:
    return Archive(load_survey(survey).archive).tables("ledger")


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_killed_worker_costs_no_exposure(survey: Path, undisturbed: Any) -> None:
    killed = []

    def kill_one(row: Mapping[str, Any], total: int) -> None:
        if not killed:
            victim = multiprocessing.active_children()[0]
            os.kill(victim.pid or 0, signal.SIGKILL)
            killed.append(victim.pid)

    summary = night(survey, runner=POOL, track=False, progress=kill_one)
    assert killed
    assert summary.states == {"done": 5}
    assert content(survey) == undisturbed


@pytest.mark.parametrize("kind", ["in-process", "processes"])
def test_killed_night_is_resumed(kind: str, survey: Path, undisturbed: Any, forks: Forks) -> None:
    process = forks(RUN, str(survey), kind)
    wait_for(lambda: rows_of(survey))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not children_of(process.pid))
    before = len(rows_of(survey))
    assert before >= 1
    summary = night(survey, runner=IN_PROCESS, track=False)
    assert summary.skipped == before
    assert summary.skipped + summary.states.get("done", 0) == 5
    assert content(survey) == undisturbed
    assert set(undisturbed[0].values()) == {"done"}


def children_of(session: int) -> list[int]:
    """Processes of a session that are still alive."""
    alive = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            alive.append(int(entry.parent.name))
    return alive


def test_two_nights_at_once_duplicate_nothing(survey: Path, undisturbed: Any, forks: Forks) -> None:
    both = [forks(RUN, str(survey), "in-process") for _ in range(2)]
    assert [process.wait(240) for process in both] == [0, 0]
    assert content(survey) == undisturbed
    left = list(load_survey(survey).archive.rglob(".writing-*"))
    assert not left
