"""Scripts of benchmarks/ start by file and by module, wherever one stands."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(file for file in (ROOT / "benchmarks").rglob("*.py") if file.parent.name != "peers")


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_no_module_hides_a_library(file: Path) -> None:
    """A script that is run by file has its own folder first on the path."""
    assert importlib.util.find_spec(file.stem) is None


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_a_docstring_shows_the_command_of_its_own_file(file: Path) -> None:
    shown = re.findall(r"^    python (\S+\.py)", file.read_text(encoding="utf-8"), flags=re.M)
    assert set(shown) <= {relative(file)}


def test_peers_are_called_in_a_process_of_their_own(tmp_path: Path) -> None:
    """As comparison.py calls them, with an interpreter that may know nothing of nightsift."""
    command = [sys.executable, "-m", "benchmarks.subtraction.peers.child", "pyzogy", "-", str(tmp_path / "out"), "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": ""})
    assert set(json.loads(done.stdout)) == {"reason"}
