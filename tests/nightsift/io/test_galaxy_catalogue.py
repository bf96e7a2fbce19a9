from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightsift.errors import BadTable
from nightsift.io.galaxy_catalogue import COLUMNS, read_galaxies


def test_half_light_radii_are_taken_as_they_are(tmp_path: Path) -> None:
    own = pa.table({name: ["g1"] if name == "object_id" else [1.5] for name in COLUMNS} | {"more": [1]})
    pq.write_table(own, tmp_path / "g.parquet")
    assert read_galaxies(tmp_path / "g.parquet").to_pylist() == [own.drop_columns(["more"]).to_pylist()[0]]


def test_isophotal_diameters_become_half_light_radii(tmp_path: Path) -> None:
    table = pa.table({
        "PGC": ["12", "13", "14"], "RAJ2000": [10.0, 20.0, 30.0], "DEJ2000": [-5.0, 5.0, 6.0],
        "Bmag": [14.0, 15.0, 16.0],
        "logd25Hyp": [1.0, 0.5, math.nan], "logr25Hyp": [0.301, math.nan, 0.0], "PAHyp": [36.0, math.nan, 1.0],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "g.parquet")
    found = read_galaxies(tmp_path / "g.parquet")
    assert found["object_id"].to_pylist() == ["12", "13"], "without a size it is no host"
    assert found["radius"][0].as_py() == pytest.approx(0.272 * 60.0), "one arc minute across"
    np.testing.assert_allclose(found["axis_ratio"].to_numpy(), [0.5, 1.0], atol=1e-3)
    assert found["angle"].to_pylist() == [36.0, 0.0]


def test_what_is_no_catalogue_of_galaxies_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ra": [1.0]}), tmp_path / "g.parquet")
    for name in ("g.parquet", "absent.parquet"):
        with pytest.raises(BadTable):
            read_galaxies(tmp_path / name)
