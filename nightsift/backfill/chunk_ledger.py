"""The ledger of the chunks of a campaign, one file of one row per chunk, and the estimated cost of a campaign."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.backfill import campaigns
from nightsift.backfill.campaigns import CHUNKS
from nightsift.core import tables
from nightsift.io.parquet import read_table, read_tables, write_table

STATES = ("planned", "running", "done", "failed")
COUNTS = ("done", "refused", "failed", "waiting")
GUESSED_SECONDS = 10.0
GUESSED_BYTES = 2_000_000
SAMPLE = 50
"""Exposures of each unit whose products are measured."""

RUN_BYTES = 18_000
"""Database of Prefect that a task run takes, logs included (measured)."""


def read(archive: Archive, name: str) -> pa.Table:
    """Read what has become of every chunk of a campaign.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        Identity of the campaign.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.backfill.campaigns.CHUNKS`, one row per chunk, begun or not, sorted by number; then the rows
        of the nights that were finished.
    """
    plan = (
        campaigns.read_plan(archive, name)
        .group_by(["chunk", "unit", "night"], use_threads=False)
        .aggregate([([], "count_all")])
    )
    rows = {one["chunk"]: _planned(name, one) for one in plan.to_pylist()}
    finished = []
    for row in read_tables(sorted((archive.campaign(name) / "chunks").glob("[!.]*.parquet")), CHUNKS).to_pylist():
        if row["kind"] == "finish":
            finished.append(row)
        elif row["chunk"] in rows:
            rows[row["chunk"]] = row
    ordered = [rows[number] for number in sorted(rows)] + sorted(finished, key=lambda row: row["night"])
    return tables.table(ordered, CHUNKS) if ordered else CHUNKS.empty_table()


def record(archive: Archive, row: Mapping[str, Any]) -> Path:
    """Write the row of a chunk (schema `CHUNKS`) in place of an earlier one; `ValueError` for an unknown state."""
    if row["state"] not in STATES:
        raise ValueError(f"the state of a chunk is one of {STATES}, got {row['state']!r}")
    path = _file(archive, row["campaign"], row)
    write_table(path, tables.table([dict(row)], CHUNKS))
    return path


def read_one(archive: Archive, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a chunk as it is on disk, or the one given where the chunk was not begun."""
    path = _file(archive, row["campaign"], row)
    return dict(read_table(path, CHUNKS).to_pylist()[0]) if path.is_file() else dict(row)


def label_of(row: Mapping[str, Any]) -> str:
    """Return the name of a chunk in task runs and logs, such as ``"2023-01-01 north-1 #12"``."""
    return f"{row['night']} {row['unit']} #{row['chunk']}"


def begun(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a chunk that begins, for the first time or again, without the counts of an earlier attempt."""
    return {
        **row, **dict.fromkeys((*COUNTS, "skipped", "candidates"), 0), "state": "running", "message": "",
        "attempt": row["attempt"] + 1, "seconds": 0.0, "host": f"{platform.node()} {os.getpid()}",
        "started_at": datetime.now(UTC), "ended_at": None,
    }  # fmt: skip


def opening(name: str, chunk: int, unit: str, *, night: str, exposures: int, kind: str = "reduce") -> dict[str, Any]:
    """Row of a chunk that was not begun.

    Parameters
    ----------
    name : str
        Identity of the campaign.
    chunk : int
        Its number.
    unit, night : str
        What it is of.
    exposures : int
        How many exposures it holds.
    kind : str, optional
        ``"reduce"`` or ``"finish"``.

    Returns
    -------
    dict
        The row.
    """
    zeros: dict[str, Any] = dict.fromkeys((*COUNTS, "skipped", "candidates", "attempt"), 0)
    return {
        "campaign": name, "chunk": chunk, "kind": kind, "unit": unit, "night": night, "state": "planned",
        "exposures": exposures, **zeros, "seconds": 0.0, "message": "", "host": "", "started_at": None,
        "ended_at": None,
    }  # fmt: skip


def _planned(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return opening(name, one["chunk"], one["unit"], night=one["night"], exposures=one["count_all"])


def _file(archive: Archive, name: str, row: Mapping[str, Any]) -> Path:
    stem = f"{row['chunk']:07d}" if row["kind"] == "reduce" else f"finish-{row['night'].replace('/', '-')}"
    return archive.campaign(name) / "chunks" / f"{stem}.parquet"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a campaign will cost.

    Attributes
    ----------
    exposures : dict of str to int
        Exposures by unit.
    seconds : dict of str to float
        Seconds per exposure by unit.
    product_bytes : dict of str to float
        Bytes per exposure by unit.
    guessed : tuple of str
        Units of which the archive knows nothing: their figures are guesses.
    chunks : int
        Chunks, each a task run.
    workers : int
        Chunks that run at the same time.
    free : int
        Bytes free on the disk of the archive.
    """

    exposures: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    product_bytes: dict[str, float] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    chunks: int = 0
    workers: int = 1
    free: int = 0

    @property
    def work(self) -> float:
        """Seconds of all exposures one after the other."""
        return sum(number * self.seconds[unit] for unit, number in self.exposures.items())

    @property
    def wall(self) -> float:
        """Seconds that it will take, as many exposures as workers at the same time."""
        return self.work / max(min(self.workers, self.chunks), 1)

    @property
    def written(self) -> float:
        """Bytes that will be written to the archive."""
        return sum(number * self.product_bytes[unit] for unit, number in self.exposures.items())

    @property
    def database(self) -> int:
        """Bytes that tracking will take in the database of Prefect."""
        return self.chunks * RUN_BYTES

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what will be written, a tenth more for safety."""
        return 1.1 * self.written < self.free


def estimate(archive: Archive, units: Iterable[str], chunks: int, *, workers: int) -> Cost:
    """Estimate what exposures will cost.

    Parameters
    ----------
    archive : Archive
        The archive that knows what exposures of these units have cost.
    units : iterable of str
        Unit of each exposure.
    chunks : int
        Number of chunks.
    workers : int
        Chunks that run at the same time.

    Returns
    -------
    Cost
        The estimate; units that the archive does not know count like the others, or as a guess.
    """
    exposures = dict(Counter(units))
    known = {unit: _known(archive, unit) for unit in exposures}
    measured = [one for one in known.values() if one is not None]
    usual = (
        (statistics.median(one[0] for one in measured), statistics.median(one[1] for one in measured))
        if measured
        else (GUESSED_SECONDS, float(GUESSED_BYTES))
    )
    each = {unit: one or usual for unit, one in known.items()}
    return Cost(
        exposures,
        {unit: one[0] for unit, one in each.items()},
        {unit: one[1] for unit, one in each.items()},
        tuple(sorted(unit for unit, one in known.items() if one is None)),
        chunks,
        workers,
        shutil.disk_usage(_existing(archive.home)).free,
    )


def _known(archive: Archive, unit: str) -> tuple[float, float] | None:
    """Median seconds and mean bytes of an exposure in the latest nights of a unit; None where there are none."""
    rows = []
    for night in reversed(archive.nights()):
        some = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
        rows += some
        if len(rows) >= SAMPLE:  # the machine and the code of today tell more than those of last year
            break
    if not rows:
        return None
    sizes = [_bytes(archive, row) for row in rows[:SAMPLE]]
    return statistics.median(row["seconds"] for row in rows), statistics.fmean(sizes)


def _bytes(archive: Archive, row: Mapping[str, str]) -> int:
    where = row["night"], row["unit"], row["exposure_id"]
    files = archive.ledger(*where), archive.candidates(*where), archive.stamps(*where)
    return sum(path.stat().st_size for path in files if path.exists())


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
