"""Results to the archive: products first, the ledger row last, because that row is the commit point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift import ledger
from nightsift.frames import Stamps
from nightsift.io.parquet import write_candidates, write_stamps
from nightsift.io.paths import Archive
from nightsift.tables import CANDIDATES


@task(name="publish", persist_result=False, cache_policy=NO_CACHE)
def publish(archive: Archive, row: Mapping[str, Any], candidates: pa.Table, stamps: Stamps | None) -> None:
    """Write stamps and candidates of one exposure; a table without rows is written too, typed and empty.

    Parameters
    ----------
    archive : Archive
        Where to.
    row : mapping of str to object
        Ledger row of the exposure, not yet written.
    candidates : pyarrow.Table
        Its candidates.
    stamps : Stamps or None
        Their stamps.
    """
    where = (row["night"], row["unit"], row["exposure_id"])
    if stamps is not None:
        write_stamps(archive.stamps(*where), candidates["candidate_id"].to_pylist(), stamps)
    write_candidates(archive, *where, candidates)


@task(name="commit", persist_result=False, cache_policy=NO_CACHE)
def commit(archive: Archive, row: Mapping[str, Any]) -> None:
    """Write the ledger row of one exposure: from here on it counts.

    Parameters
    ----------
    archive : Archive
        Where to.
    row : mapping of str to object
        The complete row.
    """
    ledger.record(archive, row)


def withdraw(archive: Archive, row: Mapping[str, Any]) -> None:
    """Empty the candidates of an exposure that failed now but had some from an earlier run or a half-written one.

    Parameters
    ----------
    archive : Archive
        The archive.
    row : mapping of str to object
        Ledger row of the exposure, not yet written.
    """
    where = (row["night"], row["unit"], row["exposure_id"])
    if archive.candidates(*where).exists():
        write_candidates(archive, *where, CANDIDATES.empty_table())
    archive.stamps(*where).unlink(missing_ok=True)
