"""Catalogues that people have, as hooks of the factory of training sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nightsift.refcats.catalogues import read_galaxies, read_positions

pytestmark = pytest.mark.real


@pytest.mark.parametrize(("name", "least"), [("vsx.parquet", 1_000_000), ("gcvs.parquet", 50_000),
                                             ("milliquas_extract.txt", 100)])  # fmt: skip
def test_positions_of_variables_and_quasars(data_dir: Path, name: str, least: int) -> None:
    ra, dec = read_positions(data_dir / "catalogs" / name)
    assert len(ra) >= least
    assert np.abs(dec).max() <= 90


def test_galaxies_with_diameters(data_dir: Path) -> None:
    found = read_galaxies(data_dir / "catalogs" / "gladeplus_hyperleda.parquet")
    radius = found["radius"].to_numpy()
    assert 1.0 < np.median(radius) < 30.0
    assert found.num_rows > 50_000
    assert np.isfinite(radius).all()
