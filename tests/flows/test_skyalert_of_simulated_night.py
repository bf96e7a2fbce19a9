"""A simulated night, reduced by the real pipeline, as an alert delivers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flows.night import night
from flows.templates import build_templates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from nightsift.context.hosts import HostCatalogue
from nightsift.context.known_objects import KnownPositions
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from nightsift.skyalerts.event_store.targets import Target
from nightsift.skyalerts.products.rank import Catalogues
from nightsift.skyalerts.products.write import Products, write_products
from tests.nightsift.skyalerts.made_up_skyalert import fields_at, skyalert_of, skymap_at

pytestmark = pytest.mark.slow
IN_PROCESS = Runner(kind="in-process", workers=1, address="")


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    file = simulate(folder, SimulationOptions.preset("tiny", seed=5, visits=4))
    for unit in (folder / "units").glob("*.toml"):
        unit.write_text(unit.read_text().replace('name = "base"', 'name = "none"'))
    assert build_templates(file, runner=IN_PROCESS, track=False).states == {"done": 1}
    assert night(load_survey(file), runner=IN_PROCESS, track=False).states == {"done": 4}
    return folder


def truth_of(folder: Path) -> list[dict[str, Any]]:
    """The brightest appearance of each object."""
    table = pq.read_table(folder / "truth.parquet").sort_by([("snr", "descending")])
    first: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        first.setdefault(row["object_id"], row)
    return list(first.values())


def deliver(folder: Path, t0: float, ra: float, dec: float) -> Products:
    """Products of an event whose distance is that of the host of the supernova."""
    truth = truth_of(folder)
    galaxies = pq.read_table(folder / "sky.parquet")
    galaxies = galaxies.filter(pc.equal(galaxies["kind"], "galaxy"))
    host = next(row["host_id"] for row in truth if row["kind"] == "supernova")
    names = galaxies["object_id"].to_numpy(zero_copy_only=False)
    distance = np.where(names == host, 205.0, 700.0)
    columns = [
        np.asarray(galaxies[one], dtype=np.float64) for one in ("ra", "dec", "radius", "axis_ratio", "angle", "mag")
    ]
    hosts = HostCatalogue(names, *columns, distance, np.full(len(names), 8.0))
    stars = np.array([(row["ra"], row["dec"]) for row in truth if row["kind"] == "variable"])
    known = KnownPositions("variables", "star", *stars.T)
    fields = fields_at(ra, dec)
    target = Target("S261120ab", t0, t0 + 3.0, "active", fields, (0.1,) * len(fields), (), 1)
    archive = Archive(folder / "archive")
    return write_products(
        archive, skyalert_of(), skymap_at(ra, dec, 1.0), target=target, catalogues=Catalogues(hosts, (known,))
    )


def nearest(ranked: pa.Table, row: dict[str, Any], most: float = 4.0) -> dict[str, Any] | None:
    """The ranked object at the place of a true one."""
    for one in ranked.to_pylist():
        east = (one["ra"] - row["ra"]) * np.cos(np.deg2rad(row["dec"]))
        if np.hypot(east, one["dec"] - row["dec"]) * 3600.0 < most:
            return one
    return None


def test_supernova_of_a_simulated_night_is_first(reduced: Path) -> None:
    truth = truth_of(reduced)
    supernova = next(row for row in truth if row["kind"] == "supernova")
    found = deliver(reduced, min(row["mjd"] for row in truth) - 0.2, supernova["ra"], supernova["dec"])
    ranked = found.ranked
    first = ranked.slice(0, 1).to_pylist()[0]
    assert nearest(ranked, supernova) == first
    assert first["host_name"] == supernova["host_id"]
    assert first["detections"] == 4
    variables = [nearest(ranked, row) for row in truth if row["kind"] == "variable" and row["snr"] > 15]
    assert variables
    assert all(one is None or "known variable star" in one["reasons"] for one in variables)
    movers = [one for row in truth if row["kind"] == "asteroid" and row["snr"] > 15 if (one := nearest(ranked, row))]
    assert movers
    assert all(one["detections"] == 1 and one["p_static"] <= 0.5 and one["rank"] > 1 for one in movers)
    html = found.page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64") > min(ranked.num_rows, 24)
    assert "no stamps" not in html


def test_what_was_there_before_the_event_is_told(reduced: Path) -> None:
    truth = truth_of(reduced)
    supernova = next(row for row in truth if row["kind"] == "supernova")
    times = sorted(set(pq.read_table(reduced / "truth.parquet")["mjd"].to_pylist()))
    ranked = deliver(reduced, 0.5 * (times[1] + times[2]), supernova["ra"], supernova["dec"]).ranked
    older = nearest(ranked, supernova)
    assert older is not None
    assert "seen 2 times before the event" in older["reasons"]
    assert older["p_new"] < 0.3
    assert older["detections"] == 2
