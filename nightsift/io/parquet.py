"""Tables on disk: explicit schemas, atomic files, and a whole night read in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nightsift.core.errors import BadTable
from nightsift.core.frames import Stamps
from nightsift.io.atomic import atomic
from nightsift.sky.sphere import Values

ROW_GROUP = 65536
STAMP_ROW_GROUP = 256  # single stamps are looked up: small groups


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table atomically; `DiskFull` where it does not fit."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP)


def read_table(path: str | Path, schema: pa.Schema) -> pa.Table:
    """Read one file as a table of a schema (see `read_tables`); columns that the file lacks are null."""
    return read_tables([Path(path)], schema)


def read_tables(paths: Sequence[Path], schema: pa.Schema) -> pa.Table:
    """Read many files of one schema as one table.

    Parameters
    ----------
    paths : sequence of Path
        The files, in the order of the rows; none give an empty table.
    schema : pyarrow.Schema
        The schema.

    Returns
    -------
    pyarrow.Table
        The table, typed also when empty.

    Raises
    ------
    BadTable
        If a file is missing, no parquet file, or does not fit the schema.
    """
    if not paths:
        return schema.empty_table()
    try:
        table = ds.dataset([str(path) for path in paths], schema=schema, format="parquet").to_table()
        return table.combine_chunks().cast(schema)
    except (OSError, pa.ArrowException) as error:
        where = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files under {Path(paths[0]).parent}"
        raise BadTable(path=where, what=" ".join(str(error).split())[:300]) from error


def write_stamps(path: str | Path, candidate_ids: Sequence[str], stamps: Stamps) -> None:
    """Write stamps, one row per candidate; float32 values keep every bit.

    Parameters
    ----------
    path : str or Path
        The file.
    candidate_ids : sequence of str
        One per stamp.
    stamps : Stamps
        The stamps, in the order of the candidates.

    Raises
    ------
    ValueError
        If the numbers of candidates and stamps differ.
    """
    n, size, _, channels = stamps.data.shape
    if len(candidate_ids) != n:
        raise ValueError(f"{len(candidate_ids)} candidates and {n} stamps must be as many")
    planes = np.ascontiguousarray(np.moveaxis(stamps.data, 3, 1), dtype="<f4")  # plane after plane compresses better
    bits = np.packbits(stamps.mask.reshape(n, size * size), axis=1)
    meta = {
        "table": "stamps",
        "size": str(size),
        "channels": str(channels),
        "planes": "little-endian float32 [channel, y, x]",
        "mask": "one bit a pixel [y, x], the first pixel in the highest bit",
    }
    schema = pa.schema(
        [
            pa.field("candidate_id", pa.string(), nullable=False),
            pa.field("size", pa.int16(), nullable=False),
            pa.field("planes", pa.binary(channels * size * size * 4), nullable=False),
            pa.field("mask", pa.binary(bits.shape[1]), nullable=False),
        ],
        metadata=meta,
    )
    columns = [
        pa.array(list(candidate_ids), pa.string()),
        pa.array(np.full(n, size, dtype=np.int16)),
        _fixed(planes.reshape(n, channels * size * size).view(np.uint8)),
        _fixed(bits),
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=STAMP_ROW_GROUP, use_dictionary=False)


def read_stamps(path: str | Path, rows: Sequence[int] | None = None) -> tuple[list[str], Stamps]:
    """Read stamps.

    Parameters
    ----------
    path : str or Path
        The file.
    rows : sequence of int, optional
        Only these rows (`stamp_index` of the candidates); all when None.

    Returns
    -------
    candidate_ids : list of str
        One per stamp.
    stamps : Stamps
        The stamps, in the order asked for.

    Raises
    ------
    BadTable
        If the file is missing or no stamp file.
    """
    try:
        with pq.ParquetFile(path) as file:
            meta = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
            size, channels = int(meta["size"]), int(meta["channels"])
            table = file.read() if rows is None else _rows(file, rows)
    except (OSError, pa.ArrowException, KeyError, ValueError, IndexError) as error:
        raise BadTable(path=str(path), what=f"no stamp file: {' '.join(str(error).split())[:300]}") from error
    n = len(table)
    planes = _bytes(table["planes"], n).view("<f4").reshape(n, channels, size, size)
    data = np.ascontiguousarray(np.moveaxis(planes, 1, 3), dtype=np.float32)
    mask = np.unpackbits(_bytes(table["mask"], n), axis=1, count=size * size).astype(bool).reshape(n, size, size)
    return table["candidate_id"].to_pylist(), Stamps(data, mask)


def _rows(file: pq.ParquetFile, rows: Sequence[int]) -> pa.Table:
    """Read only the row groups that hold the rows."""
    wanted = np.asarray(rows, dtype=np.int64)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= file.metadata.num_rows):
        raise IndexError(f"rows up to {wanted.max()} asked for, the file has {file.metadata.num_rows}")
    lengths = np.array([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)], dtype=np.int64)
    ends = np.cumsum(lengths)
    groups = np.searchsorted(ends, wanted, side="right")  # the group of each row
    needed = np.unique(groups)
    if not needed.size:
        return file.schema_arrow.empty_table()
    # first row of each needed group, in the file and in the table that is read
    before = dict(zip(needed.tolist(), (np.cumsum(lengths[needed]) - lengths[needed]).tolist(), strict=True))
    shift = np.array([before[int(group)] for group in groups]) - (ends - lengths)[groups]
    return file.read_row_groups(needed.tolist()).take(pa.array(wanted + shift, pa.int64()))


def _fixed(rows: npt.NDArray[np.uint8]) -> pa.Array:
    """Rows of bytes as a fixed-size binary column, without a copy."""
    rows = np.ascontiguousarray(rows)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), rows.shape[0], [None, pa.py_buffer(rows)])


def _bytes(column: pa.ChunkedArray, n: int) -> npt.NDArray[np.uint8]:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # several chunks stay chunked when empty
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    width = column.type.byte_width
    if n == 0:
        return np.zeros((0, width), dtype=np.uint8)
    buffer = array.buffers()[1]
    return np.frombuffer(buffer, dtype=np.uint8, count=n * width, offset=array.offset * width).reshape(n, width)


def numbers(table: pa.Table, name: str) -> Values:
    """Return a column of numbers as an array of float64, shape (n,), NaN where they are null."""
    return np.asarray(pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy(), dtype=np.float64)
