"""The report of a night, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift import ledger
from nightsift.errors import BadTable
from nightsift.frames import Stamps
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_stamps
from nightsift.io.paths import Archive
from nightsift.report.choice import Choice, choose
from nightsift.report.page import render
from tasks.finish import committed

MOST = 200
"""Candidates shown in a report."""


@task(name="report", task_run_name="report {night}", persist_result=False, cache_policy=NO_CACHE)
def write_report(archive: Archive, night: str, thresholds: Mapping[str, float], problems: tuple[str, ...] = ()) -> Path:
    """Write the report of a night from what the archive holds.

    Parameters
    ----------
    archive : Archive
        The archive.
    night : str
        Night label.
    thresholds : mapping of str to float
        Score from which a candidate counts as accepted, by unit name.
    problems : tuple of str, optional
        What went wrong outside of any exposure.

    Returns
    -------
    Path
        The file.
    """
    rows = ledger.read(archive, night)
    candidates = committed(archive, rows.to_pylist())
    choice = choose(candidates, thresholds, MOST)
    stamps = stamps_of(archive, choice, night)
    path = archive.report(night)
    with atomic(path) as temporary:
        temporary.write_text(render(night, rows, candidates, choice, stamps, thresholds, problems), encoding="utf-8")
    return path


def stamps_of(archive: Archive, choice: Choice, night: str) -> dict[str, Stamps]:
    """Stamps of the chosen candidates, read file by file.

    Parameters
    ----------
    archive : Archive
        The archive.
    choice : Choice
        The candidates to be shown.
    night : str
        Night label.

    Returns
    -------
    dict of str to Stamps
        One stamp each, by candidate identity; those that cannot be read are left out.
    """
    files: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in pa.concat_tables([choice.best, choice.flagged]).to_pylist():
        files.setdefault((row["unit"], row["exposure_id"]), []).append(row)
    stamps: dict[str, Stamps] = {}
    for (unit, exposure_id), rows in files.items():
        try:
            ids, found = read_stamps(archive.stamps(night, unit, exposure_id), [row["stamp_index"] for row in rows])
        except BadTable:
            continue
        stamps |= {one: Stamps(found.data[i : i + 1], found.mask[i : i + 1]) for i, one in enumerate(ids)}
    return stamps
