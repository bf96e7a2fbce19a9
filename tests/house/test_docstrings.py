"""Every public object has a numpydoc docstring whose sections fit its signature."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import textwrap
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nightsift", "subtraction", "models", "tasks", "flows")
CHECKS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["numpydoc_validation"]["checks"])
# Docstrings of commands are the help that a user reads; their options are described where they are declared.
NOT_NUMPYDOC = ("nightsift.cli",)
SHORT_BODY = 5  # lines: a function of so few needs no sections, its shapes and units stand in a sentence


def module_names() -> list[str]:
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def public_objects(module: ModuleType) -> Iterator[str]:
    """Names of the functions and classes defined in a module, and of their public methods and properties."""
    for name, value in list(vars(module).items()):  # numpydoc may import what adds names
        value = getattr(value, "fn", value)  # a Prefect flow or task wraps its function
        value = getattr(value, "py_func", value)  # and so does numba
        if getattr(value, "__name__", name).startswith("_"):
            continue  # the flow of a private function: the public function beside it is documented
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}"
        elif inspect.isclass(value):
            yield f"{module.__name__}.{name}"
            for member, of in list(vars(value).items()):  # pydantic adds some when a signature is asked for
                function = getattr(of, "__func__", of)
                if not member.startswith("_") and (inspect.isfunction(function) or isinstance(of, property)):
                    yield f"{module.__name__}.{name}.{member}"


def errors_of(name: str) -> list[str]:
    """What is wrong with one docstring, less what does not fit our kinds of objects."""
    kind = load(name)
    codes = {code: text for code, text in validate(name)["errors"] if code in CHECKS}
    if inspect.isclass(kind):
        # Fields may stand under Attributes as well, or each under its own field; enums and errors have none of theirs.
        codes = {code: text for code, text in codes.items() if not code.startswith("PR")}
        if missing := undescribed_fields(kind):
            codes["fields"] = f"{missing} not described"
    elif is_short(kind) or ("\n" not in (kind.__doc__ or "") and (is_member(name) or not named_parameters(kind))):
        # "Return the width (pixel)." says it all, and so do some lines for a function that is no longer than they are.
        codes.pop("RT01", None)
        codes.pop("PR01", None)
    if hasattr(kind, "__wrapped__"):
        codes.pop("YD01", None)  # a context manager yields, but not to its caller
    return [f"{name}: {code} {text}" for code, text in codes.items()]


def load(name: str) -> object:
    """The object behind a dotted name."""
    module, _, rest = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(load(module), rest)


def undescribed_fields(kind: type) -> list[str]:
    """Public fields of a dataclass or pydantic model that neither the class nor the field describes."""
    model_fields = getattr(kind, "model_fields", None)
    if model_fields is not None:
        names = [
            name
            for name, field in model_fields.items()
            if not field.description and not hasattr(field.annotation, "model_fields")  # a table describes itself
        ]
    elif dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        return []
    doc = get_doc_object(kind, what="class")
    own = set(vars(kind).get("__annotations__", {}))
    described = {
        one.strip() for part in ("Attributes", "Parameters") for row in doc[part] for one in row.name.split(",")
    }
    return [name for name in names if name in own and not name.startswith("_") and name not in described]


def is_short(kind: object) -> bool:
    """Whether the body of a function has no more lines of code than `SHORT_BODY`."""
    function = kind.fget if isinstance(kind, property) else inspect.unwrap(kind) if callable(kind) else None
    function = getattr(function, "fn", function)
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(function, "py_func", function)))).body  # type: ignore[arg-type]
    except (TypeError, OSError):
        return False
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return sum((one.end_lineno or one.lineno) - one.lineno + 1 for one in body) <= SHORT_BODY


def is_member(name: str) -> bool:
    return inspect.isclass(load(name.rpartition(".")[0]))


def named_parameters(function: object) -> list[str]:
    if isinstance(function, property) or not callable(function):
        return []
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.name not in ("self", "cls") and p.kind not in kinds]


@pytest.mark.parametrize("name", module_names())
def test_docstrings(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what third parties say at import is not the subject here
        module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} does not say what it is for"
    if name.startswith(NOT_NUMPYDOC):
        return
    wrong = []
    for one in public_objects(module):
        wrong += errors_of(one)
    assert not wrong, "\n".join(wrong)
