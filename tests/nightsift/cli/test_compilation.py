"""Loops are compiled by one process before they are needed, and what an update made stale is forgotten."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nightsift.cli import compilation


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a tree of sources of its own: one loop calls another, a third stands alone."""
    root, folder = tmp_path / "tree", tmp_path / "cache"
    (root / "room").mkdir(parents=True)
    for name, text in {
        "inner": "@nb.njit(cache=True)\ndef a(): ...\n",
        "outer": "from room.inner import a\n\n\n@nb.njit(cache=True)\ndef b(): ...\n",
        "alone": "@nb.njit(cache=True)\ndef c(): ...\n",
        "plain": "from room.inner import a\n",
    }.items():
        (root / "room" / f"{name}.py").write_text(text)
    (folder / "room_1").mkdir(parents=True)
    for name in ("inner.a-1", "outer.b-4", "alone.c-1"):
        (folder / "room_1" / f"{name}.py311.nbi").touch()
        (folder / "room_1" / f"{name}.py311.1.nbc").touch()
    (folder / "room_1" / "other.txt").touch()
    monkeypatch.setattr(compilation, "ROOT", root)
    monkeypatch.setattr(compilation, "PACKAGES", ("room",))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.rglob("*.nb?")}


def test_only_modules_with_loops_are_looked_at(cache: Path) -> None:
    assert set(compilation.sources()) == {"room/inner.py", "room/outer.py", "room/alone.py"}


def test_a_cache_is_complete_until_a_source_a_file_or_the_processor_changes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not compilation.is_compiled()
    compilation._write_record()
    assert compilation.is_compiled()
    monkeypatch.setenv("NUMBA_CPU_NAME", "another")
    assert not compilation.is_compiled()
    monkeypatch.delenv("NUMBA_CPU_NAME")
    (compilation.ROOT / "room" / "plain.py").write_text("changed = True\n")
    assert compilation.is_compiled(), "it has no loops"
    (cache / "room_1" / "inner.a-1.py311.nbi").unlink()
    assert not compilation.is_compiled()
    compilation._write_record()
    (compilation.ROOT / "room" / "alone.py").write_text("@nb.njit(cache=True)\ndef c(): return 1\n")
    assert not compilation.is_compiled()


def test_what_calls_a_changed_loop_is_forgotten_and_nothing_else(cache: Path) -> None:
    compilation._write_record()
    assert compilation.changed_sources() == set()
    (compilation.ROOT / "room" / "inner.py").write_text("@nb.njit(cache=True)\ndef a(): return 1\n")
    assert compilation.changed_sources() == {"room/inner.py", "room/outer.py"}
    assert compilation.forget_compiled(compilation.changed_sources()) == 4
    assert names(cache) == {"alone"}
    assert compilation.forget_compiled() == 2
    assert [path.name for path in (cache / "room_1").iterdir()] == ["other.txt"]


def test_without_a_record_nothing_is_taken_for_changed(cache: Path) -> None:
    assert compilation.changed_sources() == set()
    (cache / compilation._record_name()).write_text("{ damaged")
    assert compilation.changed_sources() == set()
    assert not compilation.is_compiled()


@pytest.fixture
def compilations(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the compilations, which here only make the record."""
    made: list[int] = []

    def compile_loops(on_loop: compilation.OnLoop | None = None) -> dict[str, float]:
        made.append(1)
        if on_loop is not None:
            on_loop(2, "templates")
        return {"templates": 1.0}

    monkeypatch.setattr(compilation, "compile_loops", compile_loops)
    return made


def test_two_commands_at_the_same_time_compile_one_time(
    cache: Path, compilations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with (cache / "nightsift-loops.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=compilation.compile_now, args=(False,))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive(), "it waits for the other command"
        compilation._write_record()  # which has compiled meanwhile
    waiting.join(20.0)
    assert not waiting.is_alive()
    assert compilations == []
    assert "another command compiles" in capsys.readouterr().out


def test_nobody_waits_for_ever(cache: Path, compilations: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "LONGEST_WAIT", 0.3)
    with (cache / "nightsift-loops.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        compilation.compile_now(False)
    assert compilations == [1]
    assert compilation.is_compiled()


def test_the_lock_of_a_process_that_died_is_free(cache: Path, compilations: list[int]) -> None:
    code = "import fcntl, os, sys; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX); os.abort()"
    subprocess.run([sys.executable, "-c", code, str(cache / "nightsift-loops.lock")], check=False)
    compilation.compile_now(False)
    assert compilations == [1]


def test_progress_is_told_where_there_is_no_terminal(
    cache: Path, compilations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    compilation.compile_now(False)
    said = capsys.readouterr().out
    assert "compiling: 2 of up to 3 loops, for templates" in said
    compilation.compile_now(False)
    assert capsys.readouterr().out == "all is compiled\n"
    compilation.compile_now(True)
    assert "6 compiled files deleted" in capsys.readouterr().out


def test_commands_compile_in_a_process_of_its_own_only_where_something_is_left(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def call(command: list[str]) -> int:
        calls.append(command)
        return 1

    monkeypatch.setattr(compilation.subprocess, "call", call)
    compilation.compile_first()
    assert [one[-2:] for one in calls] == [["nightsift", "compile"]]
    assert "nightsift doctor" in capsys.readouterr().err, "a failure is said, and the command goes on"
    compilation._write_record()
    compilation.compile_first()
    assert len(calls) == 1


def test_a_cache_that_cannot_be_written_to_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache / "room_1" / "other.txt"))
    monkeypatch.setattr(compilation.subprocess, "call", lambda command: pytest.fail("nothing can be stored"))
    compilation.compile_first()
    assert "NUMBA_CACHE_DIR" in capsys.readouterr().err


def test_every_package_with_compiled_loops_is_looked_at(project_root: Path) -> None:
    with_loops = {
        path.relative_to(project_root).parts[0]
        for path in project_root.glob("*/**/*.py")
        if compilation.LOOP.search(path.read_text(encoding="utf-8"))
    }
    assert with_loops - {"tests", "benchmarks", ".venv"} <= set(compilation.PACKAGES)


def test_the_record_names_what_compiled_code_depends_on(cache: Path) -> None:
    compilation._write_record()
    record = json.loads((cache / compilation._record_name()).read_text())
    assert set(record["made_by"]) == {"sources", "times", "numba", "python", "processor"}
    assert len(record["files"]) == 3
