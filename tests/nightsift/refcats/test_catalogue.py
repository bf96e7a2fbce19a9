"""Positions are read from the catalogues that people have."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightsift.core.errors import BadTable
from nightsift.refcats.catalogues import read_positions


def test_names_of_columns_differ(tmp_path, monkeypatch):
    pq.write_table(
        pa.table({"RAJ2000": [10.0, None], "DEJ2000": [-5.0, 3.0], "VType": ["EA", "EW"]}), tmp_path / "v.parquet"
    )
    (tmp_path / "v.csv").write_text("name,ra,Dec\nx,10,-5\n")
    monkeypatch.setenv("CATALOGUES", str(tmp_path))
    for name in ("v.parquet", "v.csv"):
        ra, dec = read_positions(f"$CATALOGUES/{name}")
        assert (ra.tolist(), dec.tolist()) == ([10.0], [-5.0])


def test_text_files_begin_with_positions(tmp_path):
    (tmp_path / "quasars.txt").write_text("ra dec name\n  0.0006250 -20.0743611  UVQSJ0  QX\n12.5 91.0 nowhere\n\n")
    ra, dec = read_positions(tmp_path / "quasars.txt")
    assert (ra.tolist(), dec.tolist()) == ([0.0006250], [-20.0743611])
    (tmp_path / "words.txt").write_text("no numbers\n")
    with pytest.raises(BadTable, match="no line begins"):
        read_positions(tmp_path / "words.txt")


def test_no_positions_is_said(tmp_path):
    (tmp_path / "v.csv").write_text("name,l,b\nx,10,-5\n")
    with pytest.raises(BadTable, match="only name, l, b"):
        read_positions(tmp_path / "v.csv")
    with pytest.raises(BadTable):
        read_positions(tmp_path / "absent.parquet")
