"""Tables and stamps on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightsift.archive.candidates import read_candidates, write_candidates
from nightsift.archive.paths import Archive
from nightsift.core.errors import BadTable
from nightsift.core.frames import Stamps
from nightsift.core.tables import CANDIDATES, LEDGER
from nightsift.io.parquet import read_stamps, read_table, read_tables, write_stamps, write_table


def candidates(n: int, prefix: str = "c") -> pa.Table:
    columns = []
    for field in CANDIDATES:
        if pa.types.is_string(field.type):
            columns.append(pa.array([f"{prefix}{i}" for i in range(n)], field.type))
        else:
            columns.append(pa.array(np.arange(n), pa.int64()).cast(field.type))
    return pa.Table.from_arrays(columns, schema=CANDIDATES)


def test_round_trip_keeps_schema_and_values(tmp_path: Path) -> None:
    table = candidates(5)
    write_table(tmp_path / "t.parquet", table)
    again = read_table(tmp_path / "t.parquet", CANDIDATES)
    assert again.equals(table)
    assert again.schema.equals(CANDIDATES, check_metadata=True)
    assert again.schema.field("ra").metadata[b"unit"] == b"deg"


def test_nothing_is_a_typed_empty_table(tmp_path: Path) -> None:
    table = read_candidates(Archive(tmp_path), "2026-11-20")
    assert len(table) == 0
    assert table.schema.equals(CANDIDATES, check_metadata=True)


def test_a_night_is_read_from_many_files(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for night, unit, name, n in (("1", "a", "x", 3), ("1", "b", "y", 0), ("1", "b", "z", 2), ("2", "a", "w", 7)):
        write_candidates(archive, night, unit, name, candidates(n, name))
    assert read_candidates(archive, "1")["candidate_id"].to_pylist() == ["x0", "x1", "x2", "z0", "z1"]
    assert len(read_candidates(archive, unit="a")) == 10
    assert len(read_candidates(archive)) == 12


def test_a_column_added_later_is_null_in_old_files(tmp_path: Path) -> None:
    write_table(tmp_path / "old.parquet", candidates(3).drop_columns(["model_id"]))
    table = read_tables([tmp_path / "old.parquet"], CANDIDATES)
    assert table["model_id"].null_count == 3


def test_candidates_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They have scores of half the digits, and no place in the file."""
    archive = Archive(tmp_path)
    write_candidates(archive, "2026-11-20", "u", "e1", candidates(2, "a"))
    old = candidates(3).drop_columns(["x_file", "y_file"])
    place = old.schema.get_field_index("score")
    old = old.set_column(place, pa.field("score", pa.float32()), pa.array([0.25, 1.0, None], pa.float32()))
    write_table(archive.candidates("2026-11-20", "u", "e0"), old)
    read = read_candidates(archive)
    assert read.schema == CANDIDATES
    assert sorted(read["score"].to_pylist()[:3], key=lambda one: one or 0) == [None, 0.25, 1.0]
    assert read["x_file"].to_pylist()[:3] == [None] * 3


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    for name in ("text.parquet", "none.parquet"):
        with pytest.raises(BadTable, match=name):
            read_table(tmp_path / name, CANDIDATES)
        with pytest.raises(BadTable, match=name):
            read_stamps(tmp_path / name)
    with pytest.raises(BadTable, match="schema"):
        write_candidates(Archive(tmp_path), "1", "a", "x", LEDGER.empty_table())


def make_stamps(rng: np.random.Generator, n: int, size: int) -> Stamps:
    data = rng.normal(0, 1e3, (n, size, size, 3)).astype(np.float32)
    data[rng.random(data.shape) < 0.01] = np.nan
    return Stamps(data, rng.random((n, size, size)) < 0.1)


@pytest.mark.parametrize(("n", "size"), [(0, 31), (1, 11), (700, 31)])
def test_stamps_keep_every_bit(tmp_path: Path, rng: np.random.Generator, n: int, size: int) -> None:
    stamps = make_stamps(rng, n, size)
    ids = [f"c{i}" for i in range(n)]
    write_stamps(tmp_path / "s.parquet", ids, stamps)
    found, again = read_stamps(tmp_path / "s.parquet")
    assert found == ids
    assert again.data.tobytes() == stamps.data.tobytes()
    assert again.data.shape == stamps.data.shape
    np.testing.assert_array_equal(again.mask, stamps.mask)


def test_single_stamps_are_picked(tmp_path: Path, rng: np.random.Generator) -> None:
    stamps = make_stamps(rng, 700, 15)
    write_stamps(tmp_path / "s.parquet", [f"c{i}" for i in range(700)], stamps)
    assert pq.ParquetFile(tmp_path / "s.parquet").num_row_groups == 3
    rows = [699, 3, 3, 260, 0]
    ids, some = read_stamps(tmp_path / "s.parquet", rows)
    assert ids == [f"c{i}" for i in rows]
    assert some.data.tobytes() == stamps.data[rows].tobytes()
    np.testing.assert_array_equal(some.mask, stamps.mask[rows])
    ids, none = read_stamps(tmp_path / "s.parquet", [])
    assert ids == []
    assert none.data.shape == (0, 15, 15, 3)
    with pytest.raises(BadTable, match="the file has 700"):
        read_stamps(tmp_path / "s.parquet", [700])


def test_candidates_and_stamps_must_be_as_many(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="2 candidates and 3 stamps"):
        write_stamps(tmp_path / "s.parquet", ["a", "b"], make_stamps(rng, 3, 11))
    assert list(tmp_path.iterdir()) == []
