"""Versions of the catalogue: made beside the one that is served, compared, promoted and removed.

The versions that are served are a stack. Each night of each unit is read from the uppermost version that has it, so
that a version of two years of one unit replaces just these, and tonight, which no version has, goes on in `main`.
Promoting a version puts it on top; promoting one that lies in the stack takes off what lies above it.

Numbers of candidates change when anything does, so candidates of one exposure are compared by their place on it: each
with the nearest of the same sign, and only where each is the nearest of the other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import KDTree

from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import MAIN, RECORD, Archive, serve, served
from nightsift.core import tables
from nightsift.core.errors import BadTable, ConfigurationError, NightsiftError
from nightsift.core.tables import Column, schema
from nightsift.io.atomic import atomic

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
REMOVING = ".removing-"
Row = dict[str, Any]
_V = "nightsift.archive.versions"
_S, _D, _F = pa.string(), pa.float64(), pa.float32()
COMPARISON_COLUMNS = (
    Column("night", _S, "", "local date of the evening", _V),
    Column("unit", _S, "", "telescope unit", _V),
    Column("exposure_id", _S, "", "identity of the exposure", _V),
    Column("kind", _S, "", "first only, second only, changed, or state: the exposure ended otherwise", _V),
    Column("candidate_id", _S, "", "candidate of the first version, of the second where only that has it", _V, True),
    Column("other_id", _S, "", "candidate of the second version at the same place", _V, True),
    Column("ra", _D, "deg", "right ascension, ICRS", _V, True),
    Column("dec", _D, "deg", "declination, ICRS", _V, True),
    Column("separation", _F, "pixel", "distance of the two candidates", _V, True),
    Column("score", _D, "", "real/bogus score in the first version", _V, True),
    Column("other_score", _D, "", "the same in the second", _V, True),
    Column("mag", _F, "mag", "magnitude in the first version", _V, True),
    Column("other_mag", _F, "mag", "the same in the second", _V, True),
    Column("message", _S, "", "how the exposure ended in both, where that differs", _V),
)

COMPARISON = schema(COMPARISON_COLUMNS, "comparison")


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
    """Refuse names of versions that could be mistaken for something else, by a `ConfigurationError`."""
    if name == MAIN or not NAME.fullmatch(name):
        raise _wrong("--version", f"{name!r} cannot be the name of a new version",
                     "letters, digits and _ . + - with a letter or digit first, 64 at most; main is taken")  # fmt: skip


def begin(archive: Archive, name: str, recipes: Mapping[str, str], *, code: str, models: Mapping[str, str]) -> Archive:
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
    """Return an archive that reads and writes one version only, whatever is served."""
    if find(archive, name).name != MAIN:
        return Archive(archive.version(name))
    view = Archive(archive.home)
    object.__setattr__(view, "layers", ((MAIN, archive.home),))
    return view


def _shortfall(archive: Archive, name: str) -> list[str]:
    """One line for each night and unit with exposures that are done in the served catalogue but not in the version."""
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


def promote(
    archive: Archive, name: str, reasons_against: tuple[str, ...] = (), *, force: bool = False
) -> tuple[str, ...]:
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
    against = list(reasons_against) if back else [*reasons_against, *_shortfall(archive, name)]
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


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as the same.

    Attributes
    ----------
    distance : float
        Most pixels between two candidates at the same place.
    score, mag : float
        Most difference of scores, and of magnitudes (mag).
    """

    distance: float = 1.5
    score: float = 0.01
    mag: float = 0.02


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two versions differ, in the nights and units that both have.

    Attributes
    ----------
    rows : pyarrow.Table
        Schema `nightsift.archive.versions.COMPARISON`, one row per difference.
    nights : tuple of str
        Nights that were compared.
    exposures : int
        Exposures in both versions.
    same : int
        Candidates that are in both, with scores and magnitudes that agree.
    """

    rows: pa.Table
    nights: tuple[str, ...]
    exposures: int
    same: int


def compare(
    first: Archive,
    second: Archive,
    night: str | None = None,
    *,
    unit: str | None = None,
    within: Tolerance | None = None,
) -> Comparison:
    """Compare two versions night by night.

    Parameters
    ----------
    first, second : Archive
        Views of the two versions, from `nightsift.archive.versions.alone` or of what is served.
    night, unit : str, optional
        Only these; all when None.
    within : Tolerance, optional
        What still counts as the same.

    Returns
    -------
    Comparison
        The differences; nights of a unit that only one version has are not differences, a version need not be whole.
    """
    within = within or Tolerance()
    rows: list[Row] = []
    nights, exposures, same = [], 0, 0
    for one in sorted(set(first.nights(undated=True)) & set(second.nights(undated=True))):
        if night not in (None, one):
            continue
        ended = [{row["exposure_id"]: row for row in ledger.read(of, one, unit).to_pylist()} for of in (first, second)]
        units = {row["unit"] for row in ended[0].values()} & {row["unit"] for row in ended[1].values()}
        if not units:
            continue
        nights.append(one)
        rows += _states(ended[0], ended[1], units)
        both = {key for key in set(ended[0]) & set(ended[1]) if ended[0][key]["unit"] in units}
        exposures += len(both)
        found_in = [_by_exposure(read_candidates(of, one, unit), both) for of in (first, second)]
        for key in sorted(both):
            found = list(_candidates(found_in[0].get(key, []), found_in[1].get(key, []), within))
            rows += [row for row in found if row["kind"] != "same"]
            same += sum(row["kind"] == "same" for row in found)
    return Comparison(
        tables.table(rows, COMPARISON) if rows else COMPARISON.empty_table(), tuple(nights), exposures, same
    )


def _states(first: dict[str, Row], second: dict[str, Row], units: set[str]) -> Iterator[Row]:
    """Exposures that only one version has, or that ended otherwise in the other."""
    for key in sorted(set(first) | set(second)):
        one, other = first.get(key), second.get(key)
        known = one or other
        assert known is not None
        ends = [f"{row['state']} {row['reason']}".strip() if row else "not there" for row in (one, other)]
        if known["unit"] in units and ends[0] != ends[1]:
            place = {name: known[name] for name in ("night", "unit", "exposure_id", "ra", "dec")}
            yield {**place, "kind": "state", "message": f"{ends[0]}, then {ends[1]}"}


def _by_exposure(candidates: pa.Table, exposures: set[str]) -> dict[str, list[Row]]:
    names = ["night", "unit", "exposure_id", "candidate_id", "x", "y", "ra", "dec", "sign", "score", "mag"]
    wanted = candidates.select(names).filter(
        pc.is_in(candidates["exposure_id"], pa.array(sorted(exposures), pa.string()))
    )
    found: dict[str, list[Row]] = {}
    for row in wanted.to_pylist():
        found.setdefault(row["exposure_id"], []).append(row)
    return found


def _candidates(first: list[Row], second: list[Row], within: Tolerance) -> Iterator[Row]:
    """Candidates of one exposure in both versions."""
    partner = _partners(_places(first), _places(second), within.distance)
    for i, one in enumerate(first):
        if i not in partner:
            yield _difference(one, None, "first only", distance=None)
            continue
        j, distance = partner[i]
        other = second[j]
        agree = _agree(one["score"], other["score"], within.score) and _agree(one["mag"], other["mag"], within.mag)
        yield _difference(one, other, "same" if agree else "changed", distance=distance)
    taken = {j for j, _ in partner.values()}
    yield from (
        _difference(None, other, "second only", distance=None) for j, other in enumerate(second) if j not in taken
    )


def _places(rows: list[Row]) -> npt.NDArray[np.float64]:
    """Pixel coordinates, and the sign as a third one that keeps both kinds apart, shape (n, 3)."""
    return np.array([(row["x"], row["y"], 1e6 * row["sign"]) for row in rows], dtype=np.float64).reshape(-1, 3)


def _partners(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], most: float
) -> dict[int, tuple[int, float]]:
    """Pairs in which each is the nearest of the other, by the number of the first."""
    if not len(first) or not len(second):
        return {}
    distance, nearest = KDTree(second).query(first)
    back = KDTree(first).query(second)[1]
    return {i: (int(j), float(distance[i])) for i, j in enumerate(nearest) if distance[i] <= most and back[j] == i}


def _agree(one: float | None, other: float | None, most: float) -> bool:
    return (one is None) == (other is None) and (one is None or other is None or abs(one - other) <= most)


def _difference(one: Row | None, other: Row | None, kind: str, *, distance: float | None) -> Row:
    known = one or other
    assert known is not None
    return {
        **{name: known[name] for name in ("night", "unit", "exposure_id", "ra", "dec")}, "kind": kind,
        "candidate_id": known["candidate_id"], "other_id": other["candidate_id"] if one and other else None,
        "separation": distance, "score": one and one["score"], "other_score": other and other["score"],
        "mag": one and one["mag"], "other_mag": other and other["mag"], "message": "",
    }  # fmt: skip
