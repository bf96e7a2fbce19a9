"""The shape of the house: sizes, names, circles, and how many modules serve one importer only."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nightsift", "subtraction", "models", "tasks", "flows")
PRODUCT = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
FILES = [*PRODUCT, *sorted((ROOT / "benchmarks").rglob("*.py"))]

LONGEST_MODULE = 250  # lines of code: no blanks, no comments, no docstrings
LONGEST_FUNCTION = 60  # lines of code
MOST_FILES = 20  # modules of a folder
MOST_POSITIONAL = 3  # parameters; those after them are keyword-only
MOST_MODULES = 320
MOST_SINGLE_IMPORTERS = 60
CALLERS = [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
PROTOCOLS = {"subtract", "redirect_request"}  # one signature for all methods; that of urllib
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
PRIVATE_DIALECT = {
    "told", "kept", "once", "wishes", "vigil", "lookout", "desk", "standing", "judgement", "careless", "heard", "ear",
    "trouble", "how",
}  # fmt: skip
"""Words that only we would understand; no module, class, function, parameter or variable is named by them."""


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def docstring_lines(tree: ast.AST) -> set[int]:
    """Numbers of the lines that docstrings fill."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        may_have = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if may_have and node.body and ast.get_docstring(node, clean=False) is not None:
            lines |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def lines_of_code(text: str) -> set[int]:
    """Numbers of the lines that are neither blank nor comment nor docstring."""
    docstrings = docstring_lines(ast.parse(text))
    return {
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in docstrings
    }


def long_functions(text: str) -> dict[str, int]:
    """Functions with more lines of code than the law allows."""
    code, long = lines_of_code(text), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            if length > LONGEST_FUNCTION:
                long[f"{node.name}:{node.lineno}"] = length
    return long


def words(name: str) -> set[str]:
    """The words of an identifier, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def names_of(tree: ast.AST) -> Iterator[str]:
    """Names that a module gives: to classes, functions, parameters, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def imports_of(tree: ast.AST, modules: Iterable[str]) -> set[str]:
    """Modules among those given that a module imports, inside functions too."""
    known, found = set(modules), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found |= {full if full in known else node.module} & known
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import each other in a circle (strongly connected components; Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            circle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters of a function may be given by position, its own object not counted."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def passed_on(trees: Iterable[ast.AST]) -> set[str]:
    """Names that are used as values and not only called: callbacks, whose callers give parameters by position."""
    named: set[str] = set()
    for tree in trees:
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in called:
                named.add(node.id if isinstance(node, ast.Name) else node.attr)
    return named


def spread(trees: Iterable[ast.AST]) -> set[str]:
    """Names of functions that are called with a sequence spread: the planes of one image, coordinates, a path."""
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    of = [call.func for call in calls if any(isinstance(one, ast.Starred) for one in call.args)]
    return {
        one.id if isinstance(one, ast.Name) else one.attr for one in of if isinstance(one, ast.Name | ast.Attribute)
    }


def is_flow(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether Prefect calls a function, with the parameters of a deployment."""
    return any(ast.unparse(one).startswith("flow") for one in node.decorator_list)


def is_compiled(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether numba compiles a function: its compiled functions know no keyword-only parameters."""
    return any(re.search(r"\b(n?jit|vectorize|guvectorize)\b", ast.unparse(one)) for one in node.decorator_list)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    names = {module_name(file): file for file in PRODUCT}
    return {name: imports_of(ast.parse(file.read_text()), names) - {name} for name, file in names.items()}


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_modules_and_functions_are_short(file: Path) -> None:
    text = file.read_text()
    assert len(lines_of_code(text)) <= LONGEST_MODULE, "more than one idea stands in this file"
    assert not long_functions(text)


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_names_are_those_of_the_field(file: Path) -> None:
    assert file.stem not in EMPTY_NAMES
    named = {name for name in [file.stem, *names_of(ast.parse(file.read_text()))] if words(name) & PRIVATE_DIALECT}
    assert not named, f"{sorted(named)}: name them by what a colleague would search for"


def test_parameters_after_the_third_are_given_by_name() -> None:
    """But for compiled functions, which know no such parameters, commands and flows (called by name from outside)."""
    trees = {relative(file): ast.parse(file.read_text()) for file in PRODUCT}
    callers = [*trees.values(), *(ast.parse(file.read_text()) for file in CALLERS)]
    free = passed_on(trees.values()) | spread(callers) | PROTOCOLS
    found = [
        f"{file}:{node.lineno} {node.name}"
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and positional(node) > MOST_POSITIONAL
        and not is_compiled(node)
        and not is_flow(node)
        and not file.startswith("nightsift/cli/")
        and node.name not in free
    ]
    assert not found


def test_folders_are_small() -> None:
    count: dict[str, int] = defaultdict(int)
    for file in FILES:
        count[relative(file.parent)] += file.name != "__init__.py"
    assert not {folder: n for folder, n in count.items() if n > MOST_FILES}


def test_no_module_imports_itself_by_way_of_others(graph: dict[str, set[str]]) -> None:
    assert not circles(graph)


def test_modules_are_few_and_serve_many(graph: dict[str, set[str]]) -> None:
    importers: dict[str, set[str]] = defaultdict(set)
    for name, imported in graph.items():
        for one in imported:
            importers[one].add(name)
    single = sorted(
        name for name in graph if len(importers[name]) == 1 and not (ROOT / name.replace(".", "/")).is_dir()
    )
    assert len(graph) <= MOST_MODULES
    assert len(single) <= MOST_SINGLE_IMPORTERS, single


def test_the_measures_themselves() -> None:
    text = 'def short():\n    """Doc.\n\n    More.\n    """\n    # why\n    return 1\n'
    assert lines_of_code(text) == {1, 7}
    assert long_functions("def f():\n" + "    x = 1\n" * 60) == {"f:1": 61}
    assert words("_run_onceMore") == {"run", "once", "more"}
    assert set(names_of(ast.parse("class A:\n    def f(self, b): c = d; self.e = 1"))) == {
        "A",
        "f",
        "self",
        "b",
        "c",
        "e",
    }
    assert imports_of(ast.parse("from a import b\ndef f():\n    import c"), ["a", "a.b", "c"]) == {"a.b", "c"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert positional(ast.parse("def f(self, a, /, b, *, c): pass").body[0]) == 2  # type: ignore[arg-type]
    assert passed_on([ast.parse("run(f, a.g)\nh()")]) == {"f", "g", "a"}
    assert spread([ast.parse("f(*a, 1)\nb.g(1, *a)\nh(1, 2)")]) == {"f", "g"}
    assert is_flow(ast.parse("@flow(name='a')\ndef f(): pass").body[0])  # type: ignore[arg-type]
    assert is_compiled(ast.parse("@nb.njit(cache=True)\ndef f(): pass").body[0])  # type: ignore[arg-type]
