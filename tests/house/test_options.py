"""Every option of a unit file and of a survey file has a reader: one without changes nothing but hashes.

A reader is an attribute access outside the section's own class, or in a property or method of it that is read there.
That the object read is of the section is inferred from annotations (arguments, fields, properties, results), so that
an option of a common name is not taken to be read by whoever reads another thing of that name.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel

from nightsift.archive.survey import Survey
from nightsift.unit.units import Unit

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("nightsift", "subtraction", "models", "tasks", "flows")

READ_OTHERWISE = {
    ("Unit", "extends"): "followed in the text of the file, before there is a unit (nightsift.unit.units)"
}
"""Options that no code reads as an attribute, with the reason why that is right."""

Type = tuple[str, ast.expr]
"""A type: the module that its annotation stands in, and the annotation."""


def sections(root: type[BaseModel]) -> set[type[BaseModel]]:
    """All pydantic models that are reached from the fields of one."""
    found, waiting = set(), [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in found:
                found.add(one)
                waiting += [each.annotation for each in one.model_fields.values()]
        else:
            waiting += typing.get_args(one)
    return found


def assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets of an assignment, each with its value."""
    for target in node.targets if isinstance(node, ast.Assign) else ():
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


@dataclass
class Module:
    """What can be said of a module without running it."""

    name: str
    tree: ast.Module
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    functions: dict[str, ast.expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                self.imports |= {one.asname or one.name: (node.module, one.name) for one in node.names}
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
            elif isinstance(node, ast.FunctionDef) and node.returns is not None:
                self.functions[node.name] = node.returns


class Code:
    """Modules by name; follows names and types through them."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.modules = {name: Module(name, ast.parse(text)) for name, text in sources.items()}
        self.reads: set[tuple[str, str, str]] = set()
        """Module and name of a class, and what is read of it outside of it."""
        self.within: set[tuple[str, str, str, str]] = set()
        """The same of a class that reads itself, with the method that does."""
        for module in self.modules.values():
            self._scope(module, module.tree.body, {}, "")

    def owner(self, module: str, name: str) -> tuple[str, str]:
        """The module where a name was defined, and its name there."""
        for _ in range(9):
            here = self.modules.get(module)
            if here is None or name in here.classes or name in here.functions or name not in here.imports:
                break
            module, name = here.imports[name]
            if f"{module}.{name}" in self.modules:
                break
        return module, name

    def class_of(self, of: Type | None) -> tuple[str, ast.ClassDef] | None:
        """The class that an annotation names, unions with None included."""
        for module, part in self._parts(of):
            if isinstance(part, ast.Name):
                where, name = self.owner(module, part.id)
                here = self.modules.get(where)
                if here is not None and name in here.classes:
                    return where, here.classes[name]
        return None

    def _parts(self, of: Type | None) -> Iterator[Type]:
        if of is None:
            return
        module, note = of
        if isinstance(note, ast.Constant) and isinstance(note.value, str):
            note = ast.parse(note.value, mode="eval").body
        if isinstance(note, ast.BinOp):
            yield from self._parts((module, note.left))
            yield from self._parts((module, note.right))
        elif isinstance(note, ast.Subscript) and ast.unparse(note.value) in ("type", "Annotated", "ClassVar"):
            inner = note.slice.elts[0] if isinstance(note.slice, ast.Tuple) else note.slice
            yield from self._parts((module, inner))
        else:
            yield module, note

    def element(self, of: Type | None, key: bool = False) -> Type | None:
        """What a container of this type holds: the values of a mapping, or its keys."""
        for module, part in self._parts(of):
            if isinstance(part, ast.Subscript):
                inner = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
                is_mapping = len(inner) == 2 and not isinstance(inner[1], ast.Constant)
                return module, inner[0] if key or not is_mapping else inner[1]
        return None

    def member(self, of: Type | None, name: str) -> Type | None:
        """Type of an attribute of a class, or of what its method or property returns."""
        found = self.class_of(of)
        if found is None:
            return None
        module, body = found
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                return module, node.annotation
            if isinstance(node, ast.FunctionDef) and node.name == name and node.returns is not None:
                return module, node.returns
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                notes = {one.arg: one.annotation for one in (*node.args.args, *node.args.kwonlyargs)}
                for target, value in (pair for line in ast.walk(node) for pair in assigned(line)):
                    note = notes.get(value.id) if isinstance(value, ast.Name) else None
                    if ast.unparse(target) == f"self.{name}" and note is not None:
                        return module, note
        return next((got for base in body.bases if (got := self.member((module, base), name)) is not None), None)

    def infer(self, module: Module, node: ast.expr, names: dict[str, Type]) -> Type | None:
        """Type of an expression, as far as annotations say."""
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if isinstance(node, ast.Attribute):
            return self.member(self.infer(module, node.value, names), node.attr)
        if isinstance(node, ast.Subscript):
            return self.element(self.infer(module, node.value, names))
        if isinstance(node, ast.BoolOp | ast.IfExp | ast.NamedExpr):
            inner = node.values if isinstance(node, ast.BoolOp) else [node.value] if isinstance(
                node, ast.NamedExpr) else [node.body, node.orelse]  # fmt: skip
            return next((got for one in inner if (got := self.infer(module, one, names)) is not None), None)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            inner_names = dict(names)
            for one in node.generators:
                self._bind(module, one.target, self._iterated(module, one.iter, names), inner_names)
            got = self.infer(module, node.elt, inner_names)
            return None if got is None else (got[0], ast.Subscript(ast.Name("list"), got[1]))
        return self._called(module, node, names) if isinstance(node, ast.Call) else None

    def _called(self, module: Module, node: ast.Call, names: dict[str, Type]) -> Type | None:
        target = node.func
        if isinstance(target, ast.Attribute):
            of = self.infer(module, target.value, names)
            if target.attr in ("model_copy", "copy"):
                return of
            if target.attr in ("values", "get", "pop"):
                got = self.element(of)
                return None if got is None else got if target.attr != "values" else (
                    got[0], ast.Subscript(ast.Name("list"), got[1]))  # fmt: skip
            return self.member(of, target.attr)
        if isinstance(target, ast.Name):
            if target.id in ("next", "max", "min", "replace") and node.args:
                of = self.infer(module, node.args[0], names)
                return of if target.id == "replace" else self.element(of)
            if target.id in ("sorted", "list", "tuple", "set") and node.args:
                return self.infer(module, node.args[0], names)
            where, name = self.owner(module.name, target.id)
            here = self.modules.get(where)
            if here is not None and name in here.functions:
                return where, here.functions[name]
            if here is not None and name in here.classes:
                return where, ast.Name(name)
        return None

    def _iterated(self, module: Module, node: ast.expr, names: dict[str, Type]) -> list[Type | None] | Type | None:
        """Type of what a loop runs over; a list for those that unpack into several names."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items":
            of = self.infer(module, node.func.value, names)
            return [self.element(of, key=True), self.element(of)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("zip", "enumerate"):
            inner = [self.element(self.infer(module, one, names)) for one in node.args]
            return [None, *inner] if node.func.id == "enumerate" else inner
        if isinstance(node, ast.Tuple | ast.List):
            return next((got for one in node.elts if (got := self.infer(module, one, names)) is not None), None)
        return self.element(self.infer(module, node, names))

    def _bind(
        self, module: Module, target: ast.expr, of: list[Type | None] | Type | None, names: dict[str, Type]
    ) -> None:
        if isinstance(target, ast.Name):
            names.pop(target.id, None)
            if of is not None and not isinstance(of, list):
                names[target.id] = of
        elif isinstance(target, ast.Tuple):
            parts = of if isinstance(of, list) else [None] * len(target.elts)
            for one, part in zip(target.elts, parts, strict=False):
                self._bind(module, one, part, names)

    def _scope(self, module: Module, body: list[ast.stmt], names: dict[str, Type], own: str) -> None:
        """Read statements in order: what they bind, and what they read."""
        for node in body:
            if isinstance(node, ast.ClassDef):
                self._scope(module, node.body, {**names, "self": (module.name, ast.Name(node.name))}, node.name)
                continue
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args
                inner = dict(names)
                for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                    if one.annotation is not None:
                        inner[one.arg] = (module.name, one.annotation)
                    elif one.arg != "self":
                        inner.pop(one.arg, None)
                self._scope(module, node.body, inner, f"{own.partition('.')[0]}.{node.name}" if own else "")
                continue
            if isinstance(node, ast.For):
                self._bind(module, node.target, self._iterated(module, node.iter, names), names)
            blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            blocks += [one.body for one in getattr(node, "handlers", [])]
            held = {id(one) for block in blocks for one in block}
            self._expressions(module, [one for one in ast.iter_child_nodes(node) if id(one) not in held], names, own)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names[node.target.id] = (module.name, node.annotation)
            for target, value in assigned(node):
                self._bind(module, target, self.infer(module, value, names), names)
            for block in blocks:
                self._scope(module, block, names, own)

    def _expressions(self, module: Module, nodes: list[ast.AST], names: dict[str, Type], own: str) -> None:
        for node in nodes:
            inner = names
            if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
                inner = dict(names)
                for one in node.generators:
                    self._bind(module, one.target, self._iterated(module, one.iter, inner), inner)
            if isinstance(node, ast.Lambda):
                inner = {name: of for name, of in names.items() if name not in {a.arg for a in node.args.args}}
            if isinstance(node, ast.NamedExpr):
                self._bind(module, node.target, self.infer(module, node.value, names), names)
            if isinstance(node, ast.Attribute):
                self._read(self.infer(module, node.value, inner), node.attr, own)
            is_getattr = isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr"
            if is_getattr:  # by a name that is known only when it runs: all that the module names count
                texts = {one.value for one in ast.walk(module.tree) if isinstance(one, ast.Constant)}
                of = self.infer(module, node.args[0], inner)
                for name in {one for one in texts if isinstance(one, str) and one.isidentifier()} if of else ():
                    self._read(of, name, own)
            self._expressions(module, list(ast.iter_child_nodes(node)), inner, own)

    def _read(self, of: Type | None, name: str, own: str) -> None:
        found = self.class_of(of)
        inside, _, method = own.partition(".")
        if found is not None and found[1].name != inside:
            self.reads.add((found[0], found[1].name, name))
        elif found is not None:
            self.within.add((found[0], found[1].name, name, method))

    def is_read(self, where: str, section: str, name: str) -> bool:
        """Whether an option is read outside of its class, or by a method or property of it that is."""
        through = [one[3] for one in self.within if one[:3] == (where, section, name)]
        return any((where, section, one) in self.reads for one in (name, *through))


def product() -> dict[str, str]:
    """Product code by name of its module."""
    found = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def unread(code: Code, roots: tuple[type[BaseModel], ...]) -> set[tuple[str, str]]:
    """Options that nobody reads."""
    found = set()
    for section in set().union(*map(sections, roots)):
        bases = [one for one in section.__mro__ if issubclass(one, BaseModel)]
        # a class that stands below reads by itself, or through the name of what it derives from or is derived into
        family = {(one.__module__, one.__name__) for one in bases} | {
            (one.__module__, one.__name__) for one in section.__subclasses__()
        }
        for name in section.model_fields:
            if not any(code.is_read(*one, name) for one in family):
                found.add((section.__name__, name))
    return found


@pytest.fixture(scope="module")
def code() -> Code:
    return Code(product())


def test_every_option_has_a_reader(code: Code) -> None:
    assert unread(code, (Unit, Survey)) - set(READ_OTHERWISE) == set()


def test_no_exception_is_out_of_date(code: Code) -> None:
    assert set(READ_OTHERWISE) <= unread(code, (Unit, Survey))


def test_an_option_of_a_common_name_is_not_read_by_others() -> None:
    class Inner(BaseModel):
        size: int = 0

    class Outer(BaseModel):
        inner: Inner
        size: int = 0

    Inner.__module__ = Outer.__module__ = "a"
    classes = "class Inner:\n    size: int\nclass Outer:\n    inner: Inner\n    size: int\n"
    other = "from a import Outer\nclass Other:\n    size: int\ndef f(o: Outer, x: Other):\n    i = o.inner\n"
    assert unread(Code({"a": classes, "b": other + "    return x.size + o.size\n"}), (Outer,)) == {("Inner", "size")}
    assert unread(Code({"a": classes, "b": other + "    return i.size + o.size\n"}), (Outer,)) == set()


def test_a_property_counts_where_it_is_read_and_a_validator_never() -> None:
    class Section(BaseModel):
        size: int = 0
        width: int = 0

    Section.__module__ = "a"
    section = """
class Section:
    size: int
    width: int
    @property
    def half(self) -> int:
        return self.size // 2
    def check(self) -> None:
        assert self.width
"""
    reader = "from a import Section\ndef f(one: Section | None) -> int:\n    return one.half\n"
    assert unread(Code({"a": section}), (Section,)) == {("Section", "size"), ("Section", "width")}
    assert unread(Code({"a": section, "b": reader}), (Section,)) == {("Section", "width")}
