"""Spreading calls over processes: real kills, found by which call they come from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from flows.pool import ProcessDied, Workers, run_all
from nightsift.archive.survey import Runner
from nightsift.core.errors import TimedOut

POOL = Runner(kind="processes", workers=2, address="")
HERE = Runner(kind="in-process", workers=1, address="")
TASKS = """
import ctypes, os, signal
from pathlib import Path
from prefect import task

@task
def square(n, folder="", label=""):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 8:
        ctypes.CDLL(None).sleep(600)  # hangs in C, where no Python signal or thread gets in
    if n == 5:
        raise ValueError("five")
    if folder:
        with open(Path(folder) / str(n), "a") as file:
            file.write("x")
    return n * n, os.environ.get("OMP_NUM_THREADS")
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "tasks_that_die.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    import tasks_that_die

    yield tasks_that_die
    sys.modules.pop("tasks_that_die")


def test_the_call_that_kills_is_given_up_and_all_others_end(tasks: ModuleType, tmp_path: Path) -> None:
    calls = [{"n": n, "folder": str(tmp_path)} for n in (1, 2, 3, 4, 5, 6, 7)]
    ended = {one.call["n"]: one for one in run_all(tasks.square, calls, POOL, tracked=False)}
    assert sorted(ended) == [1, 2, 3, 4, 5, 6, 7]
    assert isinstance(ended[3].error, ProcessDied)
    assert isinstance(ended[5].error, ValueError)
    assert {n: ended[n].result[0] for n in (1, 2, 4, 6, 7)} == {1: 1, 2: 4, 4: 16, 6: 36, 7: 49}
    assert ended[7].result[1] == os.environ.get("OMP_NUM_THREADS", "1"), "a process of a pool keeps to one thread"


def test_the_call_that_hangs_is_stopped_and_all_others_end(tasks: ModuleType) -> None:
    calls = [{"n": n, "label": f"frame {n}"} for n in (8, 1, 2, 4, 6)]
    ended = {one.call["n"]: one for one in run_all(tasks.square, calls, POOL, tracked=False, timeout=3.0)}
    assert isinstance(ended[8].error, TimedOut)
    assert "frame 8 took longer than 3 s" in str(ended[8].error)
    assert {n: ended[n].result[0] for n in (1, 2, 4, 6)} == {1: 1, 2: 4, 4: 16, 6: 36}
    with pytest.raises(ProcessLookupError):
        os.kill(ended[8].pid, 0)


def test_processes_stay_warm(tasks: ModuleType) -> None:
    with Workers(tasks.square, 1, timeout=60.0) as workers:
        for n in (1, 2):
            workers.submit({"n": n})
        first, second = [one for _ in range(2) for one in workers.collect()]
        assert first.pid == second.pid
        assert workers.collect(0.05) == []


def test_in_process_keeps_the_order(tasks: ModuleType) -> None:
    ended = list(run_all(tasks.square, [{"n": n} for n in (4, 1, 2)], HERE, tracked=False))
    assert [one.result[0] for one in ended] == [16, 1, 4]


def test_no_calls(tasks: ModuleType) -> None:
    assert list(run_all(tasks.square, [], POOL, tracked=False)) == []


def test_server_ends_with_a_killed_parent() -> None:
    """The temporary server must not outlive a night that was killed with -9."""
    code = (
        "import os, signal, subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import flows.tracking as s, threading, time, sys;"
        "threading.Thread(target=s.end_with_parent, daemon=True).start(); time.sleep(60)'], stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    child = int(done.stdout)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{child}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the server is still there")
