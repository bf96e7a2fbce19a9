"""TOML files checked against pydantic models; every problem becomes an error that names file, table, key and hint."""

from __future__ import annotations

import difflib
import inspect
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from nightsift.core.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Base of every table of a configuration file: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    ConfigurationError
        If the file is missing, is not UTF-8 text or is not TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        what = error.strerror or str(error)
        advice = "check the path and its permissions"
    except UnicodeDecodeError as error:
        what, advice = f"not UTF-8 text (byte {error.start})", "save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        what, advice = f"not valid TOML: {error}", "texts need quotes, and a table or a key may appear only one time"
    raise ConfigurationError(file=str(path), table="file", key=path.name, what=what, advice=advice)


def validate(model: type[Model], content: Mapping[str, Any], path: Path) -> Model:
    """Check the content of a configuration file against its model.

    Parameters
    ----------
    model : type
        The pydantic model.
    content : mapping
        What was read.
    path : Path
        Where it was read, for the error.

    Returns
    -------
    BaseModel
        The checked model.

    Raises
    ------
    ConfigurationError
        With the first problem in full, and the keys of all others.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        problems = error.errors(include_url=False)
    # a misspelt key explains the missing one that follows from it, so it is reported first
    problems.sort(key=lambda one: one["type"] != "extra_forbidden")
    first, others = problems[0], problems[1:]
    what, advice = _explain(model, first)
    if others:
        places = ", ".join(sorted({".".join(map(str, one["loc"])) for one in others}))
        advice = f"{advice}; then look at {places}"
    table, key = _place(first["loc"])
    raise ConfigurationError(file=str(path), table=table, key=key, what=what, advice=advice)


def check_values(options: Any, **limits: tuple[float, float] | tuple[str, ...]) -> None:
    """Check the values of an object of options.

    Parameters
    ----------
    options : object
        With the options as attributes.
    **limits : tuple
        Smallest and largest value of each number, or all words that a text may be.

    Raises
    ------
    ValueError
        If a value is none of these; its text says what is allowed.
    """
    for name, allowed in limits.items():
        value = getattr(options, name)
        if isinstance(value, str):
            if value not in allowed:
                raise ValueError(f"{name} = '{value}' is none of {', '.join(map(str, allowed))}")
        elif not allowed[0] <= value <= allowed[1]:
            raise ValueError(f"{name} = {value} lies outside {allowed[0]} to {allowed[1]}")


def closest(word: str, known: typing.Iterable[str]) -> str:
    """Return advice that names the known word nearest to a misspelt one, or lists all words that exist."""
    words = sorted(known)
    near = difflib.get_close_matches(word.lower(), [w.lower() for w in words], n=1, cutoff=0.6)
    if near:
        return f"did you mean '{next(w for w in words if w.lower() == near[0])}'?"
    return f"known here: {', '.join(words)}" if words else "nothing is known here"


def _place(loc: tuple[int | str, ...]) -> tuple[str, str]:
    parts = [str(part) for part in loc]
    return ".".join(parts[:-1]) or "top level", parts[-1] if parts else "file"


def _explain(model: type[BaseModel], problem: Any) -> tuple[str, str]:
    """What is wrong and what to do, in the words of the file rather than of pydantic."""
    loc, kind, given = problem["loc"], problem["type"], problem.get("input")
    owner = _owner(model, loc[:-1])
    if kind == "extra_forbidden":
        return "unknown key", closest(str(loc[-1]), _keys(owner))
    if kind == "missing":
        field = _keys(owner).get(str(loc[-1]))
        meaning = f" ({field.description})" if field is not None and field.description else ""
        return "missing, and there is no default for it", f"add it{meaning}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message, _, advice = message.partition(" | ")
    shown = "" if kind == "value_error" and isinstance(given, dict) else f", got {given!r}"
    return message[:1].lower() + message[1:] + shown, advice or "see docs/units.md"


def _owner(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Follow a location through nested models."""
    found: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = _keys(found).get(part)
        found = _model_in(field.annotation) if field else None
    return found


def _keys(model: type[BaseModel] | None) -> dict[str, FieldInfo]:
    """Fields by the key that stands in the file."""
    fields = model.model_fields if model else {}
    return {field.alias or name: field for name, field in fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(typing.get_origin(annotation) or annotation, BaseModel):
        return typing.cast(type[BaseModel], annotation)
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
