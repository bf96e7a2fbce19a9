"""The ledger: one row for every exposure, written last, so that a row means that all else is on disk.

Each row is a file of its own, put in place atomically: no locks, safe on network file systems and against ``kill -9``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nightsift.archive.paths import Archive
from nightsift.core import tables
from nightsift.core.rows import LedgerRow
from nightsift.io.parquet import read_tables, write_table

FINAL = ("done", "refused")  # the other states, failed and waiting, are tried again
STATES = (*FINAL, "failed", "waiting")


def record(archive: Archive, row: LedgerRow) -> Path:
    """Write the row of an exposure: the commit point of its reduction.

    Parameters
    ----------
    archive : Archive
        The archive.
    row : LedgerRow
        Columns of `nightsift.core.tables.LEDGER`; `recorded_at` is set if absent.

    Returns
    -------
    Path
        The file; writing the same exposure again replaces it.

    Raises
    ------
    ValueError
        If the state is unknown or a column does not fit.
    DiskFull
        If it does not fit on the disk.
    """
    if row.get("state") not in STATES:
        raise ValueError(f"the state of an exposure is one of {STATES}, got {row.get('state')!r}")
    complete: LedgerRow = {"recorded_at": datetime.now(UTC), **row}
    table = tables.table([dict(complete)], tables.LEDGER)
    path = archive.ledger(complete["night"], complete["unit"], complete["exposure_id"])
    write_table(path, table)
    return path


def read(archive: Archive, night: str | None = None, unit: str | None = None) -> pa.Table:
    """Return ledger rows (schema `LEDGER`), sorted by time and exposure; the columns are typed when there are none."""
    table = read_tables(archive.tables("ledger", night, unit), tables.LEDGER)
    return table.sort_by([("mjd", "ascending"), ("exposure_id", "ascending")])


def finished(archive: Archive, night: str | None = None) -> dict[str, str]:
    """Return the provenance of each exposure that is done or refused, by its identity."""
    rows = read(archive, night)
    rows = rows.filter(pc.is_in(rows["state"], pa.array(FINAL)))
    return dict(zip(rows["exposure_id"].to_pylist(), rows["provenance"].to_pylist(), strict=True))
