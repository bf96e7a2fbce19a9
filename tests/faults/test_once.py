"""Two workers that are told the same exposure: it is reduced once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from tests.forked import Forked, Forks

WORKER = """
import json, sys, time
from pathlib import Path
from nightsift.archive.survey import load_survey
from nightsift.archive.paths import Archive
from tasks.reduce import reduce_file

survey, url, me, other, wait = load_survey(sys.argv[1]), *sys.argv[2:5], float(sys.argv[5])
unit, archive = survey.load_unit(survey.sources[0].unit), Archive(survey.archive)
Path(me).touch()
while other != "alone" and not Path(other).exists():
    time.sleep(0.001)
one = reduce_file(url, unit, archive, wait=wait, redo=sys.argv[6] == "redo")
print(json.dumps([one.skipped, one.row["state"], one.row["reason"]]))
"""


Start = Callable[..., Forked]


@pytest.fixture
def worker(survey: Path, forks: Forks) -> Start:
    """Start a process that reduces an exposure as soon as another one is there."""

    def start(url: Path, me: str, other: str, wait: float, redo: str = "") -> Forked:
        places = [str(survey.parent / one) if one != "alone" else one for one in (me, other)]
        return forks(WORKER, str(survey), str(url), *places, str(wait), redo)

    return start


def said(process: Forked) -> Any:
    text, errors = process.communicate(timeout=240)
    assert text, errors
    return json.loads(text.splitlines()[-1])


@pytest.mark.parametrize("redo", ["", "redo"])
def test_one_reduces_and_the_other_waits_for_its_row(
    survey: Path, frames: list[Path], worker: Start, redo: str
) -> None:
    both = [worker(frames[0], "a", "b", 120, redo), worker(frames[0], "b", "a", 120, redo)]
    assert sorted(map(said, both)) == [[False, "done", ""], [True, "done", ""]]
    archive = Archive(load_survey(survey).archive)
    assert ledger.read(archive).num_rows == 1
    assert not list((archive.root / "claims").iterdir())


def test_one_who_does_not_wait_says_that_it_is_under_way(survey: Path, frames: list[Path], worker: Start) -> None:
    both = [worker(frames[0], "a", "b", 0), worker(frames[0], "b", "a", 0)]
    assert sorted(map(said, both)) == [[False, "done", ""], [True, "elsewhere", "UnderWayElsewhere"]]
    assert ledger.read(Archive(load_survey(survey).archive)).to_pylist()[0]["state"] == "done"


def test_the_claim_of_a_killed_worker_is_inherited_at_once(survey: Path, frames: list[Path], worker: Start) -> None:
    claims = load_survey(survey).archive / "claims"
    first = worker(frames[0], "a", "alone", 0)
    deadline = time.monotonic() + 60
    while not list(claims.glob("*.0")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert said(worker(frames[0], "b", "alone", 0)) == [False, "done", ""]
    assert not list(claims.glob("*.[0-9]*"))
