"""Identity of a result: hash of its inputs, of the options that change it, and of the code that makes it.

The code of a product is the import closure of what makes it (`nightsift.core.import_closure`): a comment, a docstring
or a report changes none; a changed step changes that of every product it has a part in.
"""

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

import nightsift
from nightsift.core.import_closure import import_closure

MAKERS: dict[str, tuple[str, ...]] = {
    "reduction": (
        "tasks.reduce.run_steps",
        "tasks.record.publish",
        "nightsift.images.photometry.candidate_flags.flag_repeated_pixels",
    ),
    "scoring": ("tasks.classify.score",),
    "template": ("tasks.template.build",),
    "imported template": ("tasks.outside_template.import_images",),
    "photometry": ("tasks.photometry.measure_exposure",),
    "injection": ("tasks.monitor.recover_injected",),
    "monitoring": (
        "models.drift.alarm.judge_unit",
        "models.drift.alarm.judge_night",
        "models.drift.alarm.priors",
        "models.drift.night_channels",
        "tasks.monitor.read_night",
    ),
    "training": (
        "tasks.examples.make_examples",
        "tasks.examples.make_exposure_examples",
        "models.training.dataset",
        "models.training.train.train",
        "models.transfer.transfer.transfer",
    ),
}
"""Functions (or whole modules) that make each product, by dotted name: the one place that knows them."""

WITHOUT_EFFECT: dict[str, str] = {
    "nightsift.archive.paths.Archive": "says where products lie, not what is in them",
    "nightsift.core.provenance": "asks what all this is the answer to",
    "tasks.steps.Stopwatch": "measures how long a step takes",
    "tasks.retry": "writes the log",
}
"""Definitions and modules that makers use and that change no result, each with its reason: they are not followed."""

APART: dict[str, tuple[str, ...]] = {"reduction": MAKERS["scoring"]}
"""What is not followed from one product because it has a code of its own: candidates are scored again by themselves."""


def key(inputs: Mapping[str, Any], options: Mapping[str, Any], code: str = "") -> str:
    """Hash that changes whenever a result could change.

    Parameters
    ----------
    inputs : mapping of str to object
        What went in: checksums, template and model identities.
    options : mapping of str to object
        Options that change the result; pydantic models, dataclasses, paths and plain values.
    code : str, optional
        Version of the code that makes the result (`code_of`); that of the reduction if not given.

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


def reduction_code() -> str:
    """Return the version and code digest of what makes pixels and candidates, such as ``"0.1.0+3f9a0c12"``."""
    return code_of("reduction")


def scoring_code() -> str:
    """Return the version and code digest of what scores candidates."""
    return code_of("scoring")


def code_version() -> str:
    """Return the version and code digest of all that makes products, training sets and networks among them."""
    return code_of(*MAKERS)


@lru_cache(maxsize=16)
def code_of(*products: str) -> str:
    """Return the version of nightsift with a digest of the code that makes `products`, keys of `MAKERS`.

    It is computed only one time per process; an edited method is a new version, also before it is released.
    """
    digest = hashlib.sha256(json.dumps([closure_of(product) for product in products], sort_keys=True).encode())
    return f"{nightsift.__version__}+{digest.hexdigest()[:8]}"


def closure_of(product: str, root: Path | None = None) -> dict[str, str]:
    """Return the digests of all definitions that make a product (key of `MAKERS`), by ``"module.definition"``."""
    root = Path(str(nightsift.__file__)).resolve().parent.parent if root is None else root
    return import_closure(root, MAKERS[product], (*WITHOUT_EFFECT, *APART.get(product, ())))


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
