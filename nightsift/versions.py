"""Versions of the catalogue: made beside the one that is served, promoted in one step, gone back from in another.

The versions that are served are a stack. Each night of each unit is read from the uppermost version that has it, so
that a version of two years of one unit replaces just these, and tonight, which no version has, goes on in `main`.
Promoting a version puts it on top; promoting one that lies in the stack takes off what lies above it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nightsift import ledger
from nightsift.errors import BadTable, ConfigurationError, NightsiftError
from nightsift.io.atomic import atomic
from nightsift.io.layers import MAIN, RECORD, serve, served
from nightsift.io.paths import Archive

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
REMOVING = ".removing-"


class NotPromoted(NightsiftError):
    """A version must not be served as it is."""

    problem = "version '{version}' was not promoted: {what}"
    hint = "{advice}"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the catalogue.

    Attributes
    ----------
    name : str
        Its name.
    recipes : dict of str to str
        Hash of code, options and model of each unit that it was made with.
    code : str
        Version of the code.
    models : dict of str to str
        Model of each unit.
    created : str
        When it was begun, UTC.
    place : int or None
        Place in the stack of what is served, 0 on top; None where it is not served.
    """

    name: str
    recipes: dict[str, str] = field(default_factory=dict)
    code: str = ""
    models: dict[str, str] = field(default_factory=dict)
    created: str = ""
    place: int | None = None


def check_name(name: str) -> None:
    """Refuse names of versions that could be mistaken for something else.

    Parameters
    ----------
    name : str
        The name.

    Raises
    ------
    ConfigurationError
        If it is `main`, empty or holds other signs than letters, digits and ``_ . + -``.
    """
    if name == MAIN or not NAME.fullmatch(name):
        raise _wrong("--version", f"{name!r} cannot be the name of a new version",
                     "letters, digits and _ . + - with a letter or digit first, 64 at most; main is taken")  # fmt: skip


def begin(archive: Archive, name: str, recipes: Mapping[str, str], code: str, models: Mapping[str, str]) -> Archive:
    """Begin a version, or go on with one that was made by the same recipes.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        Its name.
    recipes, models : mapping of str to str
        Recipe and model of each unit.
    code : str
        Version of the code.

    Returns
    -------
    Archive
        The version, alone.

    Raises
    ------
    ConfigurationError
        If the name is no good, or the version was begun with another recipe.
    """
    check_name(name)
    folder = archive.version(name)
    before = _record(folder) if (folder / RECORD).is_file() else Version(name)
    other = sorted(unit for unit in set(recipes) & set(before.recipes) if recipes[unit] != before.recipes[unit])
    if other:
        raise _wrong("--version", f"version '{name}' was begun by another recipe for {other[0]} (code, options, model)",
                     f"name a new version; '{name}' was made by {before.code}, this is {code}")  # fmt: skip
    if set(recipes) - set(before.recipes):
        facts = {
            "recipes": {**before.recipes, **recipes}, "code": code, "models": {**before.models, **models},
            "created": before.created or f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
        with atomic(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return Archive(folder)


def known(archive: Archive) -> list[Version]:
    """Versions of an archive.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of Version
        Those that are served first, from top to bottom; then the others, newest first.
    """
    order = served(archive.home)
    found = {MAIN: Version(MAIN)}
    for path in sorted((archive.home / "versions").glob(f"[!.]*/{RECORD}")):
        found[path.parent.name] = _record(path.parent)
    placed = [_placed(one, order) for one in found.values()]
    on_top = sorted((one for one in placed if one.place is not None), key=lambda one: one.place or 0)
    return on_top + sorted((one for one in placed if one.place is None), key=lambda one: one.created, reverse=True)


def find(archive: Archive, name: str) -> Version:
    """Find a version by its name.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        The name.

    Returns
    -------
    Version
        The version.

    Raises
    ------
    ConfigurationError
        If there is none of that name.
    """
    versions = known(archive)
    for one in versions:
        if one.name == name:
            return one
    raise _wrong("version", f"there is no version '{name}' in {archive.home}",
                 f"known here: {', '.join(one.name for one in versions)}")  # fmt: skip


def alone(archive: Archive, name: str) -> Archive:
    """One version by itself, whatever is served.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        Name of the version.

    Returns
    -------
    Archive
        What reads and writes only that version.
    """
    if find(archive, name).name != MAIN:
        return Archive(archive.version(name))
    view = Archive(archive.home)
    object.__setattr__(view, "layers", ((MAIN, archive.home),))
    return view


def shortfall(archive: Archive, name: str) -> list[str]:
    """What the served catalogue has and would lose by a promotion.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        Name of the version.

    Returns
    -------
    list of str
        One line for each night and unit of the version in which exposures that are done now are missing or not done.
    """
    version, now = alone(archive, name), Archive(archive.home)
    lines = []
    for night in version.nights(undated=True):
        rows = ledger.read(version, night)
        for unit in pc.unique(rows["unit"]).to_pylist():
            new = _done(rows.filter(pc.equal(rows["unit"], unit)))
            lost = _done(ledger.read(now, night, unit)) - new
            if lost:
                lines.append(f"{night} {unit}: {len(lost)} exposures that are done now are not done in it")
    return lines


def promote(archive: Archive, name: str, reasons_against: tuple[str, ...] = (), force: bool = False) -> tuple[str, ...]:
    """Serve a version, or go back to one that lies in the stack of what is served.

    Readers that open the archive from now on see it; those that have opened it before go on with what they saw.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        The version.
    reasons_against : tuple of str, optional
        What the caller knows: a campaign that goes on, a night of it that is being reduced.
    force : bool, optional
        Serve it for all that.

    Returns
    -------
    tuple of str
        What is served now, from top to bottom.

    Raises
    ------
    ConfigurationError
        If there is no such version.
    NotPromoted
        If something speaks against it and `force` was not given; nothing has changed.
    """
    find(archive, name)
    before = served(archive.home)
    back = name in before
    now = before[before.index(name) :] if back else (name, *before)
    against = list(reasons_against) if back else [*reasons_against, *shortfall(archive, name)]
    if against and not force:
        more = f" (and {len(against) - 3} more)" if len(against) > 3 else ""
        advice = "mend it, or look at nightsift catalog compare and add --force"
        raise NotPromoted(version=name, what="; ".join(against[:3]) + more, advice=advice)
    entry = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "promoted": name, "served": list(now), "force": force}
    if now != before:
        serve(archive.home, now, entry)
    return tuple(now)


def remove(archive: Archive, name: str) -> None:
    """Remove a version that is not served.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        The version.

    Raises
    ------
    ConfigurationError
        If there is no such version, or it is served.
    """
    if find(archive, name).place is not None:
        raise _wrong("version", f"'{name}' is served",
                     "promote a version that lies below it first; main is never removed")  # fmt: skip
    folder = archive.version(name)
    gone = folder.with_name(f"{REMOVING}{name}-{os.urandom(4).hex()}")
    folder.rename(gone)  # from here on nobody finds it, also when this process is killed
    for left in folder.parent.glob(f"{REMOVING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _record(folder: Path) -> Version:
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Version(folder.name, **content)
    except (OSError, ValueError, TypeError) as error:
        raise BadTable(path=str(path), what=str(error)) from error


def _placed(version: Version, order: tuple[str, ...]) -> Version:
    place = order.index(version.name) if version.name in order else None
    return Version(**{**asdict(version), "place": place})


def _done(rows: pa.Table) -> set[str]:
    return set(rows.filter(pc.equal(rows["state"], "done"))["exposure_id"].to_pylist())


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="command line", table="catalog", key=key, what=what, advice=advice)
