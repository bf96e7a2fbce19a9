"""Telescope units: what differs between them, read from ``units/<unit>.toml`` over ``units/_defaults.toml``.

No unit is named in code. A fact of an exposure (gain, time, ...) comes from where the unit file says: a header
card, the file name, or a constant; how it is read stands in `nightsift.facts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from nightsift.configuration import Section, closest, read_toml, validate
from nightsift.errors import ConfigurationError
from nightsift.fact_sources import FACT_UNITS, Fact, Facts, FieldFact, TimeFact
from nightsift.site.site import Site
from nightsift.unit_options import (
    AlignmentOptions,
    Artefacts,
    Background,
    Calibration,
    Detection,
    Image,
    ModelOptions,
    PsfOptions,
    StampOptions,
    SubtractionOptions,
    TemplateOptions,
)

__all__ = [
    "FACT_UNITS",
    "AlignmentOptions",
    "Artefacts",
    "Background",
    "Calibration",
    "Detection",
    "Fact",
    "Facts",
    "FieldFact",
    "Image",
    "ModelOptions",
    "PsfOptions",
    "StampOptions",
    "SubtractionOptions",
    "TemplateOptions",
    "TimeFact",
    "Unit",
    "list_units",
    "load_unit",
]

SHIPPED = Path(__file__).resolve().parent.parent / "units"
DEFAULTS = "_defaults.toml"


class Unit(Section):
    """A telescope unit."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="name of the unit: letters, digits and _ . + -"
    )
    description: str = Field("", description="one line for people")
    extends: str = Field("", description="unit whose file this one starts from")
    file: str = Field("", description="file that it was read from (set on reading)")
    facts: Facts
    site: Site
    image: Image
    calibration: Calibration
    background: Background
    detection: Detection
    artefacts: Artefacts
    psf: PsfOptions
    alignment: AlignmentOptions
    template: TemplateOptions
    subtraction: SubtractionOptions
    stamps: StampOptions
    model: ModelOptions


def load_unit(name_or_path: str | Path, folders: Iterable[str | Path] = ()) -> Unit:
    """Read a unit by name or by path.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a unit, or the path of its TOML file.
    folders : iterable of str or Path, optional
        Folders searched for a name before those shipped.

    Returns
    -------
    Unit
        The unit, its file merged over the defaults.

    Raises
    ------
    ConfigurationError
        If there is no such unit, or its file is wrong; the error names file, table, key and a hint.
    """
    searched = tuple(Path(folder) for folder in folders)
    path = _find(name_or_path, searched)
    content = _merged(path, searched, seen=())
    content["file"] = str(path)
    return validate(Unit, content, path)


def list_units(folders: Iterable[Path] = ()) -> dict[str, Path]:
    """Units that can be loaded by name.

    Parameters
    ----------
    folders : iterable of Path, optional
        Folders searched before those shipped.

    Returns
    -------
    dict of str to Path
        Files by name, sorted by name.
    """
    found: dict[str, Path] = {}
    for folder in (*folders, SHIPPED):
        for path in sorted(Path(folder).glob("*.toml")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _find(name_or_path: str | Path, folders: tuple[Path, ...]) -> Path:
    text = str(name_or_path)
    if text.endswith(".toml") or "/" in text:
        return Path(text)
    known = list_units(folders)
    if text not in known:
        raise ConfigurationError(
            file=str(SHIPPED), table="units", key=text, what="no unit of this name", advice=closest(text, known)
        )
    return known[text]


def _merged(path: Path, folders: tuple[Path, ...], seen: tuple[Path, ...]) -> dict[str, Any]:
    """Content of a unit file over that of the unit it extends, or over the defaults."""
    content = read_toml(path)
    content.setdefault("name", path.stem)
    if path in seen:
        raise ConfigurationError(
            file=str(path),
            table="top level",
            key="extends",
            what="units extend each other in a circle",
            advice="remove one extends",
        )
    parent = content.get("extends", "")
    if isinstance(parent, str) and parent:
        base = _merged(_find(parent, (path.parent, *folders)), folders, (*seen, path))
    else:
        base = read_toml(SHIPPED / DEFAULTS)
    return _over(base, content)


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; a fact is replaced as a whole, so that its sources never mix."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
