"""Identity of a result: hash of its inputs, of the options that change it, and of the code that makes it.

Three codes are told apart: that which makes pixels and candidates of an exposure, that which scores the candidates,
and all of it, by which training sets are known. What only trains, evaluates or watches makes nothing anew.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

REDUCTION = ("nightsift/images", "nightsift/io", "nightsift/*.py", "subtraction")
"""Code that changes what is found in an exposure; the command line, reports and simulations do not."""

SCORING = "tasks/classify.py"
"""Where scores are made: of `models`, only what it imports changes a score."""

SOURCES = (*REDUCTION, "models")
WITHOUT_EFFECT = (
    "doctor.py",
    "plots.py",
    "report.py",
    "survey.py",
    "ledger.py",
    "provenance.py",
    "claims.py",
    "processes.py",
    "campaigns.py",
    "campaign_cost.py",
    "campaign_tables.py",
    "chunk_ledger.py",
    "chunks.py",
    "layers.py",
    "tonight.py",
    "version_comparison.py",
    "versions.py",
)


def key(inputs: Mapping[str, Any], options: Mapping[str, Any], code: str = "") -> str:
    """Hash that changes whenever a result could change.

    Parameters
    ----------
    inputs : mapping of str to object
        What went in: checksums, template and model identities.
    options : mapping of str to object
        Options that change the result; pydantic models, dataclasses, paths and plain values.
    code : str, optional
        Version of the code that makes the result; that of the reduction if not given.

    Returns
    -------
    str
        SHA-256, hexadecimal: of canonical JSON, so the order of keys does not matter.

    Raises
    ------
    TypeError
        If a value has no canonical form.
    """
    content = {"inputs": _canonical(inputs), "options": _canonical(options), "code": code or reduction_code()}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of nightsift with a digest of all code that makes results, networks and training sets.

    Returns
    -------
    str
        Such as ``"0.1.0+3f9a0c12"``: an edited method is a new version, also before it is released.
    """
    return _version(_files(SOURCES))


@lru_cache(maxsize=1)
def reduction_code() -> str:
    """Version of nightsift with a digest of the code that makes pixels and candidates.

    Returns
    -------
    str
        As `code_version`.
    """
    return _version(_files(REDUCTION))


@lru_cache(maxsize=1)
def scoring_code() -> str:
    """Version of nightsift with a digest of the code that scores candidates.

    Returns
    -------
    str
        As `code_version`.
    """
    return _version(scoring_files())


def scoring_files() -> list[Path]:
    """Files of the code that scores: where scores are made, and what that imports of `models`, directly or not.

    Returns
    -------
    list of Path
        The files, sorted; imports inside functions count.
    """
    root = _root()
    found: set[Path] = set()
    waiting = {root / SCORING}
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in found:
            found.add(path)
            waiting |= set(_imported(path, root))
    return sorted(found)


def _imported(path: Path, root: Path) -> Iterable[Path]:
    """Files of the modules of `models` that a file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        for name in names:
            if name.partition(".")[0] == "models":
                yield root.joinpath(*name.split(".")).with_suffix(".py")


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _files(sources: Iterable[str]) -> list[Path]:
    """Files of folders and patterns, in the order of the sources."""
    root = _root()
    files: list[Path] = []
    for source in sources:
        files += sorted(root.glob(source) if "*" in source else (root / source).rglob("*.py"))
    return [path for path in files if path.name not in WITHOUT_EFFECT]


def _version(files: Iterable[Path]) -> str:
    from nightsift import __version__

    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(_root()).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def _canonical(value: Any) -> Any:
    """Plain JSON values; numbers keep all their digits, NaN and infinity become texts."""
    if isinstance(value, BaseModel):
        return _canonical(value.model_dump(mode="python"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _canonical(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _canonical(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(_canonical(one) for one in value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy scalars
        return _canonical(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no canonical form in a provenance: {value!r}")
