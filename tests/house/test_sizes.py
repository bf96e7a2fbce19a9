"""One idea a file: short modules, short functions, telling names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(f for p in ("nightsift", "subtraction", "models", "tasks", "flows") for f in (ROOT / p).rglob("*.py"))
LONGEST_MODULE = 320  # the law says about 300
LONGEST_FUNCTION = 60  # lines, its docstring apart
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def function_lengths(tree: ast.AST) -> dict[str, int]:
    lengths = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            lengths[f"{node.name}:{node.lineno}"] = length
    return lengths


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_module_is_short(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= LONGEST_MODULE, f"{lines} lines: more than one idea stands in this file"


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_functions_are_short(file: Path) -> None:
    long = {name: n for name, n in function_lengths(ast.parse(file.read_text())).items() if n > LONGEST_FUNCTION}
    assert not long, f"functions of more than {LONGEST_FUNCTION} lines: {long}"


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_name_says_what_it_holds(file: Path) -> None:
    assert file.stem not in EMPTY_NAMES


def test_the_measure_itself() -> None:
    tree = ast.parse('def short():\n    """Doc.\n\n    More.\n    """\n    return 1\n')
    assert function_lengths(tree) == {"short:1": 2}
