"""Importing does nothing: no files, no heavy libraries by the back door, no logging configured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nightsift", "subtraction", "models", "tasks", "flows")
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for file in (ROOT / package).rglob("*.py")
    if file.stem != "__main__"
)
PROBE = """
import importlib, json, logging, os, sys
names = json.loads(sys.argv[1])
before = dict(os.environ)
for name in names:
    importlib.import_module(name)
print(json.dumps({
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "handlers": [repr(h) for h in logging.getLogger("nightsift").handlers],
    "environment": sorted(k for k in os.environ if os.environ[k] != before.get(k) and k[:3] in ("OMP", "TF_", "NIG")),
}))
"""


def load(names: list[str], cwd: Path) -> dict[str, list[str]]:
    """Import modules in a fresh interpreter with an empty home and tell what that did."""
    environment = {**os.environ, "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(names)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_import_leaves_nothing_behind(package: str, tmp_path: Path) -> None:
    ours = [name for name in MODULES if name.partition(".")[0] == package]
    if package in ("tasks", "flows"):
        (tmp_path / ".prefect").mkdir()  # Prefect makes its own folder in the home
    told = load(ours, tmp_path)
    left = [str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file() and ".prefect" not in f.parts]
    left = [name for name in left if not name.startswith((".cache", ".astropy", ".config"))]  # third parties' caches
    assert not left
    assert not told["handlers"]
    assert not told["environment"], "an import must not change the environment"
    assert "tensorflow" not in told["loaded"], "TensorFlow is imported on use only"
    assert "keras" not in told["loaded"], "Keras is imported on use only"
    if package not in ("tasks", "flows"):
        assert "prefect" not in told["loaded"]


def test_command_line_is_light(tmp_path: Path) -> None:
    heavy = {
        "numpy",
        "astropy",
        "pyarrow",
        "numba",
        "scipy",
        "prefect",
        "tensorflow",
        "keras",
        "matplotlib",
        "pydantic",
    }
    told = load(["nightsift.cli"], tmp_path)
    assert not heavy & set(told["loaded"]), "help must come at once: import inside the commands"
