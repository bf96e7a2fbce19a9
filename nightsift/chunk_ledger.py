"""What has become of the chunks of a campaign: one row a chunk, each in a file of its own, replaced as a whole."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from nightsift import campaigns, tables
from nightsift.campaign_tables import CHUNKS
from nightsift.io.parquet import read_table, read_tables, write_table
from nightsift.io.paths import Archive

STATES = ("planned", "running", "done", "failed")
COUNTS = ("done", "refused", "failed", "waiting")


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
        Schema `nightsift.campaign_tables.CHUNKS`, one row a chunk, those not begun included, sorted by number; then
        the rows of the nights that were finished.
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
    """Write the row of a chunk.

    Parameters
    ----------
    archive : Archive
        The archive.
    row : mapping of str to object
        Columns of `nightsift.campaign_tables.CHUNKS`.

    Returns
    -------
    Path
        The file; writing the same chunk again replaces it.

    Raises
    ------
    ValueError
        If the state is unknown or a column does not fit.
    """
    if row["state"] not in STATES:
        raise ValueError(f"the state of a chunk is one of {STATES}, got {row['state']!r}")
    path = _file(archive, row["campaign"], row)
    write_table(path, tables.table([dict(row)], CHUNKS))
    return path


def read_one(archive: Archive, row: Mapping[str, Any]) -> dict[str, Any]:
    """Read the row of a chunk as it is now.

    Parameters
    ----------
    archive : Archive
        The archive.
    row : mapping of str to object
        Its row as it was once.

    Returns
    -------
    dict
        The row on disk, or the one given where it was not begun.
    """
    path = _file(archive, row["campaign"], row)
    return dict(read_table(path, CHUNKS).to_pylist()[0]) if path.is_file() else dict(row)


def label_of(row: Mapping[str, Any]) -> str:
    """How a chunk is called in task runs and logs.

    Parameters
    ----------
    row : mapping
        Its row.

    Returns
    -------
    str
        Such as ``"2023-01-01 north-1 #12"``.
    """
    return f"{row['night']} {row['unit']} #{row['chunk']}"


def begun(row: Mapping[str, Any]) -> dict[str, Any]:
    """Row of a chunk that is begun, for the first time or again.

    Parameters
    ----------
    row : mapping of str to object
        Its row so far.

    Returns
    -------
    dict
        The row, running, without the counts of an earlier attempt.
    """
    return {
        **row, **dict.fromkeys((*COUNTS, "skipped", "candidates"), 0), "state": "running", "message": "",
        "attempt": row["attempt"] + 1, "seconds": 0.0, "host": f"{platform.node()} {os.getpid()}",
        "started_at": datetime.now(UTC), "ended_at": None,
    }  # fmt: skip


def opening(name: str, chunk: int, unit: str, night: str, exposures: int, kind: str = "reduce") -> dict[str, Any]:
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
    return opening(name, one["chunk"], one["unit"], one["night"], one["count_all"])


def _file(archive: Archive, name: str, row: Mapping[str, Any]) -> Path:
    stem = f"{row['chunk']:07d}" if row["kind"] == "reduce" else f"finish-{row['night'].replace('/', '-')}"
    return archive.campaign(name) / "chunks" / f"{stem}.parquet"
