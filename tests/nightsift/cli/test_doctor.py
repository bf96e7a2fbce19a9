"""The doctor tells a good installation from a bad one."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from nightsift.cli import installation

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("version", "state"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")])
def test_python(version: tuple[int, int], state: str) -> None:
    check = installation.check_python(version)
    assert check.state == state
    assert bool(check.advice) == (state == "fail")


def test_this_environment_has_what_is_asked_for() -> None:
    assert installation.check_dependencies().state == "ok"


def test_wrong_and_absent_dependencies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=999", "no-such-thing-at-all>=1", "other-absent; extra == 'dev'", "pydantic>=2"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    check = installation.check_dependencies()
    assert check.state == "fail"
    assert "numpy" in check.found
    assert "no-such-thing-at-all is absent" in check.found
    assert "other-absent" not in check.found
    assert "pydantic" not in check.found


@pytest.mark.parametrize(("free_gb", "state"), [(0.5, "fail"), (5.0, "warn"), (500.0, "ok")])
def test_disk(free_gb: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1e15, 0, free_gb * 1e9))
    check = installation.check_disk(tmp_path / "not" / "yet" / "there")
    assert check.state == state
    assert str(tmp_path) in check.found


@pytest.mark.parametrize(("threads", "state"), [("1", "ok"), ("8", "warn")])
def test_blas_threads(threads: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert installation.check_cores().state == state


def test_numba_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert installation.check_numba_cache().state == "ok"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert installation.check_numba_cache().state == "warn"


def test_trial_in_a_process_of_its_own() -> None:
    assert installation.try_out("sum", "print('noise'); print(1 + 1)", "").found == "2"
    crashed = installation.try_out("crash", "raise RuntimeError('bad wheel')", "reinstall")
    assert (crashed.state, crashed.found, crashed.advice) == ("fail", "RuntimeError: bad wheel", "reinstall")
    killed = installation.try_out("abort", "import os; os.abort()", "reinstall")
    assert killed.state == "fail"


def test_trial_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "TRIAL_SECONDS", 0.3)
    assert installation.try_out("hang", "import time; time.sleep(30)", "").state == "fail"


def test_broken_unit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.toml").write_text("nonsense = 1\n")
    monkeypatch.setattr("nightsift.unit.units.list_units", lambda: {"broken": tmp_path / "broken.toml"})
    monkeypatch.setattr("nightsift.unit.units.load_unit", _load_from(tmp_path))
    states = {check.name: check for check in installation.check_units()}
    assert states["unit broken"].state == "fail"
    assert "nonsense" in states["unit broken"].found


def _load_from(folder: Path):
    from nightsift.unit.units import load_unit

    return lambda name: load_unit(folder / f"{name}.toml")
