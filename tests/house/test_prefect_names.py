"""What we use of Prefect beside its documented interface stands in one file: an upgrade has one file to look at."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTERNALS = "flows/prefect_internals.py"
CODE = sorted(file for package in ("flows", "tasks") for file in (ROOT / package).rglob("*.py"))
DOCUMENTED = re.compile(
    r"""prefect(_dask)?$
    | prefect\.(artifacts | cache_policies | deployments | exceptions | logging | settings | states)$
    | prefect\.blocks\.(core | system | notifications)$
    | prefect\.client\.(orchestration$ | schemas\.)
    | prefect\.events\.(actions$ | schemas\.)
    | prefect\.workers\.process$
    | prefect_dask\.task_runners$""",
    re.VERBOSE,
)
"""Modules that Prefect's documentation tells its users to import from."""

OURS_TO_TOUCH = {"self", "cls", "os", "sys"}


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def undocumented(source: str) -> list[str]:
    """Imports of undocumented names of Prefect, and private attributes of what is not our own, with their lines."""
    wrong, uses_prefect = [], False
    for node in ast.walk(ast.parse(source)):
        modules = {}
        if isinstance(node, ast.Import):
            modules = {one.name: [""] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {node.module: [one.name for one in node.names]}
        for module, names in modules.items():
            if module.partition(".")[0] not in ("prefect", "prefect_dask"):
                continue
            uses_prefect = True
            if not DOCUMENTED.match(module) or any(name.startswith("_") for name in [*module.split("."), *names]):
                wrong.append(f"line {node.lineno}: {module} {' '.join(names)}")
    for node in ast.walk(ast.parse(source)) if uses_prefect else ():
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            owner = getattr(node.value, "id", "")
            if owner not in OURS_TO_TOUCH:
                wrong.append(f"line {node.lineno}: {owner}.{node.attr}")
    return wrong


@pytest.mark.parametrize("file", CODE, ids=relative)
def test_only_documented_names_of_prefect(file: Path) -> None:
    if relative(file) == INTERNALS:
        return
    assert not (wrong := undocumented(file.read_text())), f"{wrong}: put them into {INTERNALS}, with their reason"


def test_each_internal_name_has_its_reason() -> None:
    source = (ROOT / INTERNALS).read_text()
    exported = re.search(r"__all__ = \[(.*?)\n\]", source, re.DOTALL)
    assert exported is not None
    lines = exported.group(1).strip().splitlines()
    assert lines
    assert all(re.search(r'",\s+# \w+', line) for line in lines), "each name needs its reason behind it"
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert all(ast.get_docstring(node) for node in functions)


def test_the_detector_detects() -> None:
    assert undocumented("from prefect.context import serialize_context")
    assert undocumented("from prefect._internal.retries import x")
    assert undocumented("from prefect.client.orchestration import _get")
    assert undocumented("import prefect\nfor one in x._instances: one._queue.get()")
    assert not undocumented("from prefect import flow\nfrom prefect.client.schemas.objects import State\nself._x = 1")
    assert undocumented((ROOT / INTERNALS).read_text()), "the file has nothing in it that it is made for"
