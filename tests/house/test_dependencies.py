"""What is imported is declared, what is declared is locked, and the known trap stays shut."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
OURS = ("nightsift", "subtraction", "models", "tasks", "flows")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAIN = [Requirement(one) for one in PROJECT["dependencies"]]
EXTRAS = [Requirement(one) for extra in PROJECT["optional-dependencies"].values() for one in extra]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def imported() -> dict[str, set[str]]:
    """Third-party modules imported anywhere in the packages, with the files that do."""
    found: dict[str, set[str]] = {}
    for file in (f for package in OURS for f in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {one.partition(".")[0] for one in names} - sys.stdlib_module_names - set(OURS):
                found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


def test_every_import_is_declared() -> None:
    declared = {canonical(one.name) for one in MAIN + EXTRAS}
    owners = importlib.metadata.packages_distributions()
    loose = {
        name: sorted(files)
        for name, files in imported().items()
        if not declared & {canonical(one) for one in owners.get(name, [name])}
    }
    assert not loose, f"imported but not declared in pyproject.toml: {loose}"


def test_every_dependency_at_work_is_imported() -> None:
    """Dead weight is found here; fastapi and sqlalchemy are only held at versions that Prefect can use."""
    owners = importlib.metadata.packages_distributions()
    used = {canonical(owner) for name in imported() for owner in owners.get(name, [name])} | {"fastapi", "sqlalchemy"}
    used |= {"tensorflow", "tensorflow-cpu"} if used & {"tensorflow", "tensorflow-cpu"} else set()
    assert not {canonical(one.name) for one in MAIN} - used


def test_every_declared_dependency_is_explained() -> None:
    page = (ROOT / "docs/dependencies.md").read_text().lower()
    missing = [one.name for one in MAIN + EXTRAS if f"`{one.name.lower()}`" not in page]
    assert not missing


def test_lock_fits_what_is_declared() -> None:
    text = (ROOT / "requirements.lock").read_text()
    pins = {canonical(n): v for n, v in re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, re.M)}
    wrong = [
        f"{one} against {pins.get(canonical(one.name))}"
        for one in MAIN + EXTRAS
        if canonical(one.name) not in pins or not one.specifier.contains(pins[canonical(one.name)], prereleases=True)
    ]
    assert not wrong, "run: make lock"


def test_fastapi_is_held_below_the_version_that_breaks_the_server() -> None:
    fastapi = next(one.specifier for one in MAIN if one.name == "fastapi")
    assert "0.150.0" in fastapi
    assert "0.155.0" not in fastapi
    assert importlib.metadata.version("fastapi") in fastapi
    assert importlib.metadata.version("prefect") in SpecifierSet(">=3.8.8,<3.10")


def test_server_of_prefect_loads(tmp_path: Path) -> None:
    """The trap shows on building the application, not on importing Prefect."""
    code = "from prefect.server.api.server import create_app; print(len(create_app(ephemeral=True).routes))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 1
