"""Candidates of an archive: read by night and unit, written exposure by exposure."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from nightsift.archive.paths import Archive
from nightsift.core.errors import BadTable
from nightsift.core.tables import CANDIDATES
from nightsift.io.parquet import read_tables, write_table


def read_candidates(archive: Archive, night: str | None = None, unit: str | None = None) -> pa.Table:
    """Return the candidates of a night, of a unit, or all, schema `nightsift.core.tables.CANDIDATES`."""
    return read_tables(archive.tables("candidates", night, unit), CANDIDATES)


def write_candidates(archive: Archive, night: str, unit: str, exposure_id: str, table: pa.Table) -> Path:
    """Write the candidates of an exposure (schema `CANDIDATES`, may be empty); `BadTable` for another schema."""
    path = archive.candidates(night, unit, exposure_id)
    if not table.schema.equals(CANDIDATES):
        raise BadTable(path=str(path), what="its schema is not that of candidates")
    write_table(path, table)
    return path
