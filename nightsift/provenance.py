"""Identity of a result: hash of its inputs, of the options that change it, and of the code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

# Code that changes results; the command line, reports and simulations do not.
SOURCES = ("nightsift/images", "nightsift/io", "nightsift/*.py", "subtraction", "models")
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


def key(inputs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Hash that changes whenever a result could change.

    Parameters
    ----------
    inputs : mapping of str to object
        What went in: checksums, template and model identities.
    options : mapping of str to object
        Options that change the result; pydantic models, dataclasses, paths and plain values.

    Returns
    -------
    str
        SHA-256, hexadecimal: of canonical JSON, so the order of keys does not matter.

    Raises
    ------
    TypeError
        If a value has no canonical form.
    """
    content = {"inputs": _canonical(inputs), "options": _canonical(options), "code": code_version()}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of nightsift with a digest of the code that makes results.

    Returns
    -------
    str
        Such as ``"0.1.0+3f9a0c12"``: an edited method is a new version, also before it is released.
    """
    from nightsift import __version__

    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for source in SOURCES:
        files = root.glob(source) if "*" in source else (root / source).rglob("*.py")
        for path in sorted(files):
            if path.name not in WITHOUT_EFFECT:
                digest.update(path.relative_to(root).as_posix().encode())
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
