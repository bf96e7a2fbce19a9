from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightsift.core.errors import BadTable
from nightsift.refcats.catalogues import COLUMNS, DISTANCES, EXTENDED, HUBBLE, read_galaxies


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


def glade(path: Path, **changes: list[object] | None) -> Path:
    table = {
        "PGC": ["12", "13", "14", "15", "null"], "GLADE+": [1, 2, 3, 4, 5],
        "GWGC": ["NGC0012", None, "null", "NGC0015", ""],
        "RAJ2000": [10.0, 20.0, 30.0, 40.0, 50.0], "DEJ2000": [-5.0, 5.0, 6.0, 7.0, 8.0],
        "Bmag": [14.0, 15.0, 16.0, 17.0, math.nan], "logd25Hyp": [1.0, 0.5, 0.4, 0.3, 0.2],
        "logr25Hyp": [0.301, math.nan, 0.0, 0.0, 0.0], "PAHyp": [36.0, math.nan, 1.0, 2.0, 3.0],
        "Dist": [100.0, 100.0, 100.0, math.nan, 100.0], "f_dL": [1.0, 2.0, 3.0, 3.0, math.nan],
        "z_best": [0.023, 0.023, 0.023, 0.023, 0.023],
    }  # fmt: skip
    pq.write_table(pa.table({name: values for name, values in (table | changes).items() if values is not None}), path)
    return path


def test_names_distances_and_redshifts_of_glade(tmp_path: Path) -> None:
    found = read_galaxies(glade(tmp_path / "g.parquet"), distances=True)
    assert tuple(found.column_names) == EXTENDED
    assert found["name"].to_pylist() == ["NGC0012", "PGC 13", "PGC 14", "GLADE+ 5"], "without a distance it is no host"
    assert found["object_id"].to_pylist() == ["12", "13", "14", "null"], "identities as without distances"
    photometric = 0.015 * (1.0 + 100.0 / HUBBLE)
    np.testing.assert_allclose(
        found["distance_err"], [HUBBLE * photometric, 15.0, math.hypot(300 / 70, 0.1), HUBBLE * photometric]
    )
    assert found["redshift"].to_pylist() == 4 * [0.023]
    redshift_err = found["redshift_err"].to_numpy()
    np.testing.assert_allclose(redshift_err[[0, 2, 3]], [photometric, 1e-3, photometric], rtol=1e-3)
    assert np.isnan(redshift_err[1]), "a measured distance says nothing about the redshift"


def test_galaxies_are_the_same_with_and_without_distances(tmp_path: Path) -> None:
    path = glade(tmp_path / "g.parquet", Dist=[100.0] * 5, Bmag=[14.0] * 5)
    assert read_galaxies(path, distances=True).select(COLUMNS).equals(read_galaxies(path))


def test_redshifts_may_be_absent_distances_not(tmp_path: Path) -> None:
    found = read_galaxies(glade(tmp_path / "g.parquet", z_best=None), distances=True)
    assert np.isnan(found["redshift"].to_numpy()).all()
    assert np.isnan(found["redshift_err"].to_numpy()).all()
    bare = glade(tmp_path / "h.parquet", Dist=None)
    assert read_galaxies(bare).num_rows == 5
    with pytest.raises(BadTable, match="Dist, as GLADE"):
        read_galaxies(bare, distances=True)


def test_own_columns_with_distances(tmp_path: Path) -> None:
    own = {name: ["g1", "g2", "g3"] if name == "object_id" else [1.5, 1.5, 0.0] for name in (*COLUMNS, *DISTANCES)}
    pq.write_table(pa.table({**own, "redshift": [0.1, 0.2, 0.3], "more": [1, 2, 3]}), tmp_path / "g.parquet")
    found = read_galaxies(tmp_path / "g.parquet", distances=True)
    assert tuple(found.column_names) == EXTENDED
    assert found["name"].to_pylist() == ["g1", "g2"], "the name is the identity, and nothing is without a size"
    assert found["redshift"].to_pylist() == [0.1, 0.2]
    assert found["distance"].to_pylist() == [1.5, 1.5]
