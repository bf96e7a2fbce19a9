"""Only what runs as a Prefect task is one: every `@task` is called, or handed to what runs it, somewhere in flows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOWS = sorted((ROOT / "flows").rglob("*.py"))


def tasks_of(tree: ast.AST) -> Iterator[str]:
    """Names of the functions that a module makes tasks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(_is_task(one) for one in node.decorator_list):
            yield node.name


def _is_task(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(name, ast.Name) and name.id == "task"


def names_used_as_tasks(tree: ast.AST) -> set[str]:
    """Names that a module uses otherwise than by their function alone (``name.fn``), which is no task run."""
    plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "fn"}
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in plain
    }


@pytest.fixture(scope="module")
def used() -> set[str]:
    return {name for file in FLOWS for name in names_used_as_tasks(ast.parse(file.read_text()))}


@pytest.mark.parametrize("file", sorted((ROOT / "tasks").rglob("*.py")), ids=lambda file: file.stem)
def test_every_task_runs_as_one(file: Path, used: set[str]) -> None:
    never = set(tasks_of(ast.parse(file.read_text()))) - used
    assert not never, f"{sorted(never)}: no flow runs it as a task: take @task away and call it"


def test_the_measure_itself() -> None:
    made = ast.parse("@task(name='a')\ndef a(): ...\n@task\ndef b(): ...\ndef c(): ...")
    assert set(tasks_of(made)) == {"a", "b"}
    assert names_used_as_tasks(ast.parse("run_all(a, calls)\nb.fn(1)")) == {"run_all", "a", "calls"}
