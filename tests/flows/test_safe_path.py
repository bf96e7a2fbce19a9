"""Somebody's own ``tasks.py`` and ``models.py`` in the folder where a command is started are never taken for ours."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.service import SupervisedProcess, environment
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(file for package in ("nightsift", "models", "tasks", "flows") for file in (ROOT / package).rglob("*.py"))
BROKEN = "raise SystemExit('this is not the module that was meant')\n"
OURS = {"PYTHONPATH": str(ROOT)}
NAMES = ("tasks", "models", "subtraction", "flows", "units")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules of somebody's own, under our names."""
    place = tmp_path / "somebody"
    place.mkdir()
    for name in NAMES:
        (place / f"{name}.py").write_text(BROKEN)
    return place


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    where = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | OURS
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("start", [[], pytest.param(["-P"], marks=pytest.mark.slow)], ids=["as people type it", "-P"])
def test_a_night_with_worker_processes(start: list[str], folder: Path, tmp_path: Path) -> None:
    survey = simulate(tmp_path / "survey", SimulationOptions.preset("tiny", seed=5, visits=1))
    options = ["night", str(survey), "--no-track", "--workers", "1", "--runner", "processes"]
    done = run([sys.executable, *start, "-m", "nightsift", *options], folder)
    assert "this is not the module" not in done.stdout + done.stderr
    # without templates each exposure waits for one, by the word of the worker process that looked at it
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NoTemplate" in done.stdout


@pytest.mark.parametrize("module", ["flows.service", "flows.tracking", "nightsift"])
def test_what_serve_keeps_alive_starts_there(module: str, folder: Path, tmp_path: Path) -> None:
    kept = SupervisedProcess("one", (module, "--help"), environment(**OURS), tmp_path / "log")
    before = Path.cwd()
    os.chdir(folder)
    try:
        kept.look()
    finally:
        os.chdir(before)
    assert kept.process is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        kept.process.wait(60.0 if module == "nightsift" else 3.0)
    kept.stop()
    assert "this is not the module" not in kept.log.read_text()


def test_children_of_children_are_safe_too(folder: Path, tmp_path: Path) -> None:
    assert environment()["PYTHONSAFEPATH"] == "1"
    (folder / "asks.py").write_text("")
    code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import tasks; tasks.__path__']))"
    where = environment(**OURS)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def starts(source: str) -> list[int]:
    """Lines on which a Python is started without ``-P``."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
            second = node.elts[1] if len(node.elts) > 1 else None
            if not (isinstance(second, ast.Constant) and second.value == "-P"):
                wrong.append(node.lineno)
    return wrong


def test_every_python_that_we_start_is_started_with_p() -> None:
    wrong = {str(file.relative_to(ROOT)): lines for file in CODE if (lines := starts(file.read_text()))}
    assert not wrong
    assert starts("f([sys.executable, '-m', 'x'])") == [1]
    assert not starts("f([sys.executable, '-P', '-m', 'x'])")
