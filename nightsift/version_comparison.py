"""Two versions of a catalogue compared: exposures that ended otherwise, candidates of one only, changed scores.

Numbers of candidates change when anything does, so candidates of one exposure are matched by their place on it: each
with the nearest of the same sign, and only where each is the nearest of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import KDTree

from nightsift import ledger, tables
from nightsift.campaign_tables import COMPARISON
from nightsift.io.parquet import read_candidates
from nightsift.io.paths import Archive

Row = dict[str, Any]


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
        Schema `nightsift.campaign_tables.COMPARISON`, one row a difference.
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
    first: Archive, second: Archive, night: str | None = None, unit: str | None = None, within: Tolerance | None = None
) -> Comparison:
    """Compare two versions night by night.

    Parameters
    ----------
    first, second : Archive
        Views of the two versions, from `nightsift.versions.alone` or of what is served.
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
            yield _difference(one, None, "first only", None)
            continue
        j, distance = partner[i]
        other = second[j]
        agree = _agree(one["score"], other["score"], within.score) and _agree(one["mag"], other["mag"], within.mag)
        yield _difference(one, other, "same" if agree else "changed", distance)
    taken = {j for j, _ in partner.values()}
    yield from (_difference(None, other, "second only", None) for j, other in enumerate(second) if j not in taken)


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


def _difference(one: Row | None, other: Row | None, kind: str, distance: float | None) -> Row:
    known = one or other
    assert known is not None
    return {
        **{name: known[name] for name in ("night", "unit", "exposure_id", "ra", "dec")}, "kind": kind,
        "candidate_id": known["candidate_id"], "other_id": other["candidate_id"] if one and other else None,
        "separation": distance, "score": one and one["score"], "other_score": other and other["score"],
        "mag": one and one["mag"], "other_mag": other and other["mag"], "message": "",
    }  # fmt: skip
