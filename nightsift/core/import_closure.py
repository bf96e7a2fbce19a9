"""Import closure of code: the definitions that a function reaches through names and imports, each with its digest.

What is followed is the syntax of the source: from the names in a definition, through the imports of its module and its
own, to the definitions of our packages that they stand for. Neither a module that lies beside what is used, nor another
definition of the same module, belongs to the closure. Digests are of syntax without docstrings and comments, the same
for all versions of Python.

- A class belongs to it whole; what a module does at import beside defining names, with each of its definitions.
- A module that is passed on as an object belongs to it whole, and so does each module of a package of which one is
  imported by a name made at run time: ``import_module(f"package.{name}")``.
- Local variables count as names: one that is called like a definition of its module draws that in.
- Decorators of Prefect say how a step runs, not what it gives: they are left out.
"""

from __future__ import annotations

import ast
import gc
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

PACKAGES = ("flows", "tasks", "subtraction", "models", "nightsift")
"""Packages that imports are followed into."""
AT_IMPORT = ""
"""Name under which stands what a module does at import beside defining names."""
EACH_MODULE = "*"
"""Stands for each module of a package."""

_DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_IMPORT = ast.Import | ast.ImportFrom


@dataclass(frozen=True, slots=True)
class Definition:
    """A function, class or constant of a module.

    Attributes
    ----------
    digest : str
        SHA-256 (hexadecimal) of its syntax and of what its names stand for.
    reached : frozenset of str
        Dotted names of ours that it names.
    """

    digest: str
    reached: frozenset[str]


@dataclass(frozen=True, slots=True)
class Module:
    """What stands in one source file.

    Attributes
    ----------
    imports : dict of str to str
        What its imports bind, by local name: ``"module"`` or ``"module:name"``.
    definitions : dict of str to Definition
        By name.
    """

    imports: dict[str, str]
    definitions: dict[str, Definition]


def import_closure(root: Path, entries: Iterable[str], cuts: Collection[str] = ()) -> dict[str, str]:
    """Find all definitions that entry points reach.

    Parameters
    ----------
    root : Path
        Folder of the packages.
    entries : iterable of str
        Dotted names of functions, or of whole modules, to begin with.
    cuts : collection of str, optional
        Dotted names of definitions, modules or packages that are not followed.

    Returns
    -------
    dict of str to str
        Digests by ``"module.definition"``; two are equal where nothing differs that could change a result.

    Raises
    ------
    LookupError
        If an entry or a cut names nothing that is there.
    ValueError
        If an import cannot be followed: a relative one, one of ``*``, or one by a text that names no package.
    """
    tree = _Tree(root)
    for name in cuts:
        tree.places(name, strict=True)
    waiting = {place for name in entries for place in tree.places(name, strict=True)}
    found: dict[str, str] = {}
    while waiting:
        module, name = waiting.pop()
        dotted = f"{module}.{name}"
        if dotted in found or any(f"{dotted}.".startswith(f"{cut}.") for cut in cuts):
            continue
        definition = tree.module(module).definitions[name]
        found[dotted] = definition.digest
        waiting |= {place for reached in definition.reached for place in tree.places(reached)}
        parts = module.split(".")
        around = (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        waiting |= {(one, AT_IMPORT) for one in around if AT_IMPORT in tree.module(one).definitions}
    return found


class _Tree:
    """Source files of our packages by module."""

    def __init__(self, root: Path) -> None:
        self._files: dict[str, Path] = {}
        for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            self._files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self._modules: dict[str, Module] = {}

    def module(self, name: str) -> Module:
        """What a module imports and defines; a package by its ``__init__``."""
        if name not in self._modules:
            if name not in self._files:
                raise LookupError(f"there is no module {name}")
            path = self._files[name]
            self._modules[name] = _parsed(path, name, path.stat().st_mtime_ns)
        return self._modules[name]

    def places(self, dotted: str, strict: bool = False) -> list[tuple[str, str]]:
        """Definitions (module, name) that a name of ours stands for: one, or all of a module or package.

        In ``"module:name"``, which is what an import binds, names of the package come before modules of the same name.
        """
        module, colon, name = dotted.partition(":")
        rest = name.split(".") if colon else module.split(".")
        if not colon:
            module = rest.pop(0)
            while rest and f"{module}.{rest[0]}" in self._files:
                module = f"{module}.{rest.pop(0)}"
        while rest:
            known = self.module(module)
            target = known.imports.get(rest[0], "")
            if rest[0] == EACH_MODULE:
                inside = [one for one in self._files if one == module or one.rpartition(".")[0] == module]
                return [place for one in inside for place in self.places(one)]
            if rest[0] in known.definitions:
                return [(module, rest[0])]
            if target and target != f"{module}:{rest[0]}":
                return self.places(".".join([target, *rest[1:]]), strict) if _is_ours(target) else []
            if f"{module}.{rest[0]}" in self._files:
                module = f"{module}.{rest.pop(0)}"
            elif strict:
                raise LookupError(f"{dotted}: there is no {rest[0]} in {module}")
            else:
                break  # such as __path__
        return [(module, name) for name in self.module(module).definitions]


@lru_cache(maxsize=1024)
def _parsed(path: Path, module: str, _changed_ns: int) -> Module:
    with _no_collection():
        return _module(ast.parse(path.read_bytes(), path).body, module)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No search for garbage: it would look through syntax trees again and again, two thirds of the time of parsing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _module(body: Sequence[ast.stmt], module: str) -> Module:
    imports = {name: target for one in body if not isinstance(one, _DEFINITION) for name, target in _imports_in(one)}
    statements: dict[str, list[ast.stmt]] = {}
    for statement in body:
        for name in _defined(statement):
            statements.setdefault(name, []).append(statement)
    here = {name: f"{module}:{name}" for name in statements}
    return Module(imports, {name: _definition(nodes, here | imports) for name, nodes in statements.items()})


def _imports_in(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """What a statement of a module imports, also under a condition."""
    for node in ast.walk(statement):
        if isinstance(node, _IMPORT):
            yield from _bindings(node)


def _bindings(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Local names that an import binds, and what they stand for: ``"module"`` or ``"module:name"``."""
    if isinstance(node, ast.Import):
        for one in node.names:
            yield (one.asname, one.name) if one.asname else (one.name.partition(".")[0],) * 2
        return
    for one in node.names:
        if node.level or one.name == "*":
            raise ValueError(f"line {node.lineno}: an import that is relative, or of *, cannot be followed")
        yield one.asname or one.name, f"{node.module}:{one.name}"


def _defined(statement: ast.stmt) -> set[str]:
    """Names that a statement of a module defines, with `AT_IMPORT` where it does more than that."""
    if isinstance(statement, _DEFINITION):
        return {statement.name}
    inner = [one for one in ast.walk(statement) if isinstance(one, ast.stmt)]
    if all(isinstance(one, _IMPORT | ast.If | ast.Pass) or _is_docstring(one) for one in inner):
        return set()  # imports, perhaps for type checking only
    names = {one.id for one in ast.walk(statement) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    names |= {one.name for one in inner if isinstance(one, _DEFINITION)}
    return names if names and isinstance(statement, ast.Assign | ast.AnnAssign) else names | {AT_IMPORT}


def _definition(statements: Iterable[ast.stmt], names: Mapping[str, str]) -> Definition:
    """Digest of statements, and what they reach, where names stand for dotted names."""
    syntax = _Syntax(dict(names))
    for statement in statements:
        syntax.write(statement)
    bound = syntax.bound
    text = "\n".join((*syntax.words, *(f"{name}={bound[name]}" for name in sorted(bound)), *sorted(syntax.also)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Definition(digest, frozenset(filter(_is_ours, (*bound.values(), *syntax.also))))


def _is_ours(dotted: str) -> bool:
    return _root_of(dotted) in PACKAGES


def _root_of(dotted: str) -> str:
    return dotted.partition(":")[0].partition(".")[0]


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _dotted(node: ast.AST) -> str:
    """Dotted name that an expression is; empty where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    before = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before and isinstance(node, ast.Attribute) else ""


@dataclass(slots=True)
class _Syntax:
    """Syntax as words, the same for all versions of Python: a field that is empty says nothing and is left out.

    `ast.dump` writes fields that only some versions have, and takes more than twice as long.
    """

    imports: dict[str, str]
    words: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    also: set[str] = field(default_factory=set)

    @property
    def bound(self) -> dict[str, str]:
        """What the names stand for, where they are imported or defined in the module."""
        heads = {name: name.partition(".") for name in self.names}
        return {n: "".join((self.imports[h], dot, rest)) for n, (h, dot, rest) in heads.items() if h in self.imports}

    def write(self, node: ast.AST) -> None:
        kind = type(node)
        if kind in (ast.Import, ast.ImportFrom):
            for name, target in _bindings(node):  # type: ignore[arg-type]
                if self.imports.setdefault(name, target) != target:  # another function within has another by this name
                    self.also |= {self.imports[name], target}
                self.imports[name] = target
            return
        if kind is ast.Expr and _is_docstring(node):
            return
        self.words.append(kind.__name__)
        if kind in (ast.Name, ast.Attribute) and (dotted := _dotted(node)):
            self.names.add(dotted)
            self.words += (dotted, type(node.ctx).__name__)  # type: ignore[attr-defined]
            return
        if kind is ast.Call and _dotted(node.func).rpartition(".")[2] == "import_module":  # type: ignore[attr-defined]
            self.also.add(_imported_by_text(node))  # type: ignore[arg-type]
        for name in kind._fields:
            value = getattr(node, name, None)
            if name == "decorator_list":
                value = [one for one in value or () if not self._is_of_prefect(one)]
            if isinstance(value, ast.AST):
                self.words.append(name)
                self.write(value)
            elif isinstance(value, list):
                if value:
                    self._write_list(name, value)
            elif value is not None:
                self.words += (name, repr(value))

    def _write_list(self, name: str, values: list[object]) -> None:
        self.words += (name, "[")
        for one in values:
            self.write(one) if isinstance(one, ast.AST) else self.words.append(repr(one))
        self.words.append("]")

    def _is_of_prefect(self, decorator: ast.expr) -> bool:
        name = _dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        return _root_of(self.imports.get(_root_of(name), "")) == "prefect"


def _imported_by_text(call: ast.Call) -> str:
    """Dotted name of what ``import_module`` imports; each module of a package where the name is made at run time."""
    match call.args:
        case [ast.Constant(value=str(text))]:
            return text
        case [ast.JoinedStr(values=[ast.Constant(value=str(text)), *_])] if text.endswith("."):
            return text + EACH_MODULE
    raise ValueError(f"line {call.lineno}: import_module of a text that names no package cannot be followed")
