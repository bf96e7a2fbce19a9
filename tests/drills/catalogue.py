"""Whether two archives hold the same catalogue, row by row."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.core import tables
from nightsift.io.parquet import read_stamps, read_tables

TIMES = ("seconds", "stage_seconds", "recorded_at")
"""Columns of the ledger that differ between equal runs: how long it took, and when it was written."""

PLACES = ("url",)
"""Columns that tell where the exposure lay: they are compared by the name of the file."""


def same_catalogue(one: Path, other: Path) -> None:
    """Compare ledger, candidates and stamps of two archives.

    Every exposure has one row in the ledger, every candidate stands once and has its stamps, and all columns are equal
    to the last bit but those of `TIMES`, and `PLACES` beyond the name of the file.
    """
    first, second = Archive(one), Archive(other)
    rows, expected = ledger_rows(first), ledger_rows(second)
    assert rows == expected, difference(rows, expected)
    found, wanted = candidate_rows(first), candidate_rows(second)
    assert found == wanted, difference(found, wanted)
    assert stamps(first) == stamps(second), "stamps differ"


def ledger_rows(archive: Archive) -> list[dict[str, Any]]:
    """Rows of the ledger, one an exposure, sorted, without what differs between equal runs."""
    rows = ledger.read(archive).drop_columns(list(TIMES)).to_pylist()
    for key in ("exposure_id", "url"):
        assert len({row[key] for row in rows}) == len(rows), f"an exposure has two fates: {twice(rows, key)}"
    for row in rows:
        row |= {place: Path(row[place]).name for place in PLACES}
    return [comparable(row) for row in sorted(rows, key=lambda row: row["exposure_id"])]


def candidate_rows(archive: Archive) -> list[dict[str, Any]]:
    """Rows of the catalogue, sorted: each stands once and belongs to an exposure that is done."""
    rows = read_tables(archive.tables("candidates"), tables.CANDIDATES).to_pylist()
    assert len({row["candidate_id"] for row in rows}) == len(rows), f"stand twice: {twice(rows, 'candidate_id')}"
    told = {row["exposure_id"]: row["n_candidates"] or 0 for row in ledger.read(archive).to_pylist()}
    counted = Counter(row["exposure_id"] for row in rows)
    assert {key: number for key, number in told.items() if number} == dict(counted), "ledger and catalogue disagree"
    return [comparable(row) for row in sorted(rows, key=lambda row: row["candidate_id"])]


def stamps(archive: Archive) -> dict[str, str]:
    """Hash of identities and pixels of the stamps of each exposure."""
    found = {}
    for path in archive.tables("stamps"):
        ids, cut = read_stamps(path)
        found[path.name] = hashlib.sha256(repr(ids).encode() + cut.data.tobytes() + cut.mask.tobytes()).hexdigest()
    return found


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row in which NaN equals NaN."""
    return {key: "NaN" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def twice(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return [value for value, number in Counter(row[key] for row in rows).items() if number > 1]


def difference(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> str:
    """What differs, in a few lines."""
    if len(rows) != len(expected):
        return f"{len(rows)} rows, expected {len(expected)}"
    lines = [
        f"{key}: {value!r}, expected {wanted[key]!r}"
        for row, wanted in zip(rows, expected, strict=True)
        for key, value in row.items()
        if value != wanted[key]
    ]
    return "\n".join(lines[:10])
