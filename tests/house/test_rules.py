"""Rules that no linter knows: no swallowed errors, no unit named in code, nothing of one machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(f for p in ("nightsift", "subtraction", "models", "tasks", "flows") for f in (ROOT / p).rglob("*.py"))
TEXT_SUFFIXES = {".py", ".toml", ".md", ".cfg", ".yaml", ".yml", ".json", ".lock", ".html", ".css", ""}
OUR_TEXT = sorted(
    f
    for top in ("nightsift", "subtraction", "models", "tasks", "flows", "units", "docs", "tests", "benchmarks", "infra")
    for f in (ROOT / top).rglob("*")
    if f.is_file() and f.suffix in TEXT_SUFFIXES and not {"__pycache__", "_build"} & set(f.parts)
) + [ROOT / name for name in ("pyproject.toml", "requirements.lock", "Makefile", "README.md", ".ci/run")]

# Catching everything is right in one place only: where one exposure's failure must not cost another (law 6), and the
# whole error goes to the ledger. Each line here needs its reason.
MAY_CATCH_EVERYTHING: dict[str, str] = {
    "tasks/reduce.py": "whatever happens to one exposure becomes its row in the ledger",
    "flows/worker_process.py": "whatever ends a call is handed to the parent, who records it",
    "flows/tracking.py": "whatever Prefect raises without its server, the work goes on; its own error is raised",
    "flows/pool.py": "whatever ends a call in a worker process is handed to the caller, who records it",
}
# A path that exists on one machine only; POSIX folders in prose (/tmp) are caught in code, not in documents.
MACHINE_PATH = re.compile(r"""["'\s(](/wor[k]/|/home/\w|/Users/\w|/root/|/mnt/\w|[A-Z]:\\\\)""")
REGISTRY = re.compile(
    r"\b(pyp[i]\.org|pythonhoste[d]\.org|--(extra-)?index-url|--find-links|artifactory|simple/?index)\b", re.I
)


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def catches_everything(tree: ast.AST) -> list[int]:
    """Lines of handlers for every exception, unless they raise again."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(k is None or (isinstance(k, ast.Name) and k.id in ("Exception", "BaseException")) for k in kinds)
        raises = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if broad and not raises:
            lines.append(node.lineno)
    return lines


def named_strings(tree: ast.AST) -> set[str]:
    """All string constants of a module but its docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return {
        node.value.lower()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


def unit_names() -> list[str]:
    return sorted(f.stem.lower() for f in (ROOT / "units").glob("*.toml") if not f.stem.startswith("_"))


@pytest.mark.parametrize("file", CODE, ids=relative)
def test_no_error_is_swallowed(file: Path) -> None:
    if relative(file) in MAY_CATCH_EVERYTHING:
        return
    lines = catches_everything(ast.parse(file.read_text()))
    assert not lines, f"lines {lines} catch every exception: name the errors that are meant"


@pytest.mark.parametrize("file", CODE, ids=relative)
def test_no_unit_is_named(file: Path) -> None:
    strings = named_strings(ast.parse(file.read_text()))
    named = [name for name in unit_names() if any(re.search(rf"\b{re.escape(name)}\b", one) for one in strings)]
    assert not named, f"units {named} are named in code; what differs between units stands in units/<unit>.toml"


def test_units_exist_to_be_looked_for() -> None:
    assert unit_names(), "without unit files the rule above checks nothing"


@pytest.mark.parametrize("file", OUR_TEXT, ids=relative)
def test_nothing_of_one_machine(file: Path) -> None:
    if file == Path(__file__):
        return
    text = file.read_text(encoding="utf-8")
    assert not (found := MACHINE_PATH.findall(text)), f"paths of one machine: {found}"
    assert not (found := REGISTRY.findall(text)), f"package registries: {found}"


def test_lock_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    names = re.findall(r"^[a-z0-9][\w.-]*", text, re.M)
    assert len(names) > 50
    assert text.count("--hash=sha256:") >= len(names), "each package needs its hashes"


def test_the_detectors_detect() -> None:
    assert catches_everything(ast.parse("try:\n    f()\nexcept Exception:\n    pass\n")) == [3]
    assert catches_everything(ast.parse("try:\n    f()\nexcept:\n    pass\n")) == [3]
    assert not catches_everything(ast.parse("try:\n    f()\nexcept BaseException:\n    g()\n    raise\n"))
    assert named_strings(ast.parse('"""Doc."""\nx = "Unit-1"\n')) == {"unit-1"}
    assert MACHINE_PATH.search('open("/home/ann/x.fits")')
