"""Candidates ranked on real sky maps with a real catalogue of galaxies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import default_ranking
from nightsift.context.hosts import HostCatalogue, load_hosts, nearest_hosts
from nightsift.context.known_objects import load_known
from nightsift.skyalerts.products.gather import footprint_of, gather
from nightsift.skyalerts.products.rank import Catalogues, rank_again, rank_candidates
from nightsift.skyalerts.products.sky_figure import part_of
from nightsift.skyalerts.skymaps.skymap import SkyMap
from nightsift.skyalerts.skymaps.skymap_file import read_skymap
from tests.nightsift.skyalerts.made_up_skyalert import T0, MadeUp, at

pytestmark = pytest.mark.real
OPTIONS = default_ranking()
MAPS = {
    "narrow": "gw/skymaps/S190814bv/LALInference.v1.multiorder.fits",
    "wide": "gw/skymaps/S190425z/LALInference.fits.gz",
}  # fmt: skip


@pytest.fixture(scope="module")
def hosts(data_dir: Path) -> HostCatalogue:
    return load_hosts(data_dir / "catalogs/gladeplus_hyperleda.parquet")


@pytest.fixture(scope="module", params=list(MAPS))
def skymap(request: pytest.FixtureRequest, data_dir: Path) -> SkyMap:
    return read_skymap(data_dir / MAPS[request.param])


def galaxy_at(skymap: SkyMap, hosts: HostCatalogue, away: bool) -> int:
    """A galaxy of known distance inside the 50 % region, as far as the map says or far beyond."""
    cells = skymap.cells_at(hosts.ra, hosts.dec)
    assert skymap.distmu is not None
    assert skymap.distsigma is not None
    offset = (hosts.distance - skymap.distmu[cells]) / skymap.distsigma[cells]
    inside = (cells >= 0) & (skymap.credible_level_at(hosts.ra, hosts.dec) < 0.5) & (hosts.distance_err < 10.0)
    right = offset > 6.0 if away else np.abs(offset) < 0.5
    found = np.flatnonzero(inside & right & np.isfinite(offset))
    assert len(found)
    return int(found[np.argmax(hosts.radius[found])])


def test_transient_in_a_host_at_the_right_distance_is_first(
    tmp_path: Path, data_dir: Path, skymap: SkyMap, hosts: HostCatalogue
) -> None:
    right, wrong = galaxy_at(skymap, hosts, away=False), galaxy_at(skymap, hosts, away=True)
    known = load_known([data_dir / "catalogs/vsx.parquet"], [])
    star = int(np.argmin(np.hypot(known[0].ra - hosts.ra[right], known[0].dec - hosts.dec[right])))
    made = MadeUp(Archive(tmp_path), float(hosts.ra[right]), float(hosts.dec[right]))
    objects: dict[str, Any] = {
        "right": at(hosts.ra[right], hosts.dec[right], 0.6 * hosts.radius[right], 2.0),
        "wrong": at(hosts.ra[wrong], hosts.dec[wrong], 1.0, 1.0), "star": at(known[0].ra[star], known[0].dec[star]),
        "older": at(hosts.ra[right], hosts.dec[right], 900.0, 900.0),
        "outside": at((hosts.ra[right] + 180.0) % 360.0, 10.0),
    }  # fmt: skip
    wide = {"area": 4.0, "ra": made.ra, "dec": made.dec}
    made.expose(-30.0, {"older": objects["older"]}, **wide)
    for hours in (2.0, 5.0):
        made.expose(hours, objects, **wide)
    found = gather(made.archive, T0, (), history_days=OPTIONS.history_days)
    ranked = rank_candidates(found, skymap, Catalogues(hosts, known), options=OPTIONS)
    owner = {one: row for row in ranked.to_pylist() for one in row["candidate_ids"]}
    rows = {name: owner[ids[-1]] for name, ids in made.ids.items()}
    assert rows["right"]["rank"] == 1
    assert rows["right"]["host_name"] == hosts.name[right]
    assert rows["right"]["reasons"] == ""
    assert rows["right"]["distance_factor"] > 1.0 > rows["wrong"]["distance_factor"]
    assert "vsx" in rows["star"]["reasons"]
    assert "before the event" in rows["older"]["reasons"]
    assert rows["outside"]["credible_level"] > 0.9
    seen = footprint_of(found.exposures, T0, (), probability=(), skymap=skymap)
    assert 0.0 < (seen.probability or 0.0) < 0.5


def test_another_real_map_gives_another_order(tmp_path: Path, data_dir: Path, hosts: HostCatalogue) -> None:
    narrow, wide = (read_skymap(data_dir / MAPS[one]) for one in ("narrow", "wide"))
    made = MadeUp(Archive(tmp_path), 12.0, -25.0)
    places = {name: galaxy_at(one, hosts, away=False) for name, one in (("narrow", narrow), ("wide", wide))}
    objects = {name: at(hosts.ra[k], hosts.dec[k], 2.0, 2.0) for name, k in places.items()}
    for hours in (2.0, 5.0):
        made.expose(hours, objects)
    ranked = rank_candidates(
        gather(made.archive, T0, (), history_days=30.0), narrow, Catalogues(hosts), options=OPTIONS
    )
    again = rank_again(ranked, wide, hosts, t0=T0, options=OPTIONS)
    assert set(ranked["candidate_ids"][0].as_py()) == set(made.ids["narrow"])
    assert set(again["candidate_ids"][0].as_py()) == set(made.ids["wide"])


def test_pictures_zoom_where_the_map_is_small(data_dir: Path) -> None:
    small = part_of(read_skymap(data_dir / MAPS["narrow"]), ())
    assert small is not None
    assert 5.0 < max(small.width, small.height) < 15.0
    assert part_of(read_skymap(data_dir / MAPS["wide"]), ()) is None


def test_host_of_the_counterpart_of_gw170817(hosts: HostCatalogue) -> None:
    owner, galaxy, separation, _ = nearest_hosts(np.array([197.450354]), np.array([-23.381484]), hosts, options=OPTIONS)
    assert hosts.name[galaxy].tolist() == ["NGC4993"]
    assert separation[0] == pytest.approx(10.0, abs=0.5)
    assert hosts.chance(hosts.mag[galaxy], separation, hosts.radius[galaxy])[0] < 1e-3
    assert owner.tolist() == [0]


def test_catalogue_thins_out_with_distance(hosts: HostCatalogue) -> None:
    share = hosts.completeness(np.array([20.0, 50.0, 130.0, 300.0, 1000.0]))
    assert (np.diff(share) < 0).all()
    assert share[0] > 0.8
    assert share[3] < 0.3
    grid = np.linspace(1.0, 8000.0, 40000)
    assert np.trapezoid(hosts.distance_density(grid), grid) == pytest.approx(1.0, abs=0.01)
