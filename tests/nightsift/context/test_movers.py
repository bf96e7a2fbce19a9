"""Ephemerides of minor planets against an independent integration with JPL DE440 (ASSIST 1.2.3, REBOUND 4.6)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nightsift.context.movers import earth, eccentric_anomaly, movers_in_field, propagate, two_body
from nightsift.context.orbits import Orbits, packed_epoch, read_orbits
from nightsift.core.errors import BadTable
from nightsift.site.site import Site

EPOCH = 61000.0
# a (au), e, inclination, node, perihelion, mean anomaly (rad); place at MJD 61365 and 60300 (au, equatorial)
REFERENCE = [
    ((2.471541794, 0.095935396, 0.193120696, 2.506910846, 3.757326828, 1.104820684),
     (-2.503326670, 0.848216240, 0.515610217), (-1.451871397, -2.107411555, -0.372935133)),
    ((2.404863262, 0.253478040, 0.326362989, 0.936435325, 4.224730978, 1.522127289),
     (-1.299024414, 2.017778735, 1.823737772), (-2.498016580, 0.000565748, 0.813411129)),
    ((2.740929924, 0.072040598, 0.054893917, 5.567374435, 2.786547926, 4.911487012),
     (-1.251412451, 2.012750881, 0.923498478), (-0.788441733, -2.476478540, -1.229418477)),
    ((2.124072383, 0.058207643, 0.097283368, 5.472740557, 3.151998895, 2.629978337),
     (1.756182764, 1.021167402, 0.666196231), (1.178961805, 1.496188477, 0.865378688)),
]  # fmt: skip
EARTH = {61365.0: (0.519067249, 0.771317409, 0.334344688), 60300.0: (0.008151276, 0.902554376, 0.391245268)}


def orbits_of(*elements: tuple[float, ...], H: float = 15.0) -> Orbits:
    a, e, inclination, node, peri, anomaly = np.array(elements).T
    n = len(a)
    names = np.array([f"m{k}" for k in range(n)])
    return Orbits(names, np.full(n, EPOCH), a, e, inclination, node, peri, anomaly, np.full(n, H), np.full(n, 0.15))


@pytest.fixture(scope="module")
def orbits() -> Orbits:
    return orbits_of(*(one[0] for one in REFERENCE))


@pytest.mark.parametrize(("mjd", "column", "limit"), [(61365.0, 1, 0.06), (60300.0, 2, 0.15)])
def test_within_tenths_of_an_arcsecond_of_an_independent_integration(
    orbits: Orbits, mjd: float, column: int, limit: float
) -> None:
    true = np.array([one[column] for one in REFERENCE])
    np.testing.assert_allclose(earth(mjd), EARTH[mjd], atol=2e-7)
    found, _ = propagate(orbits, mjd)

    def off(place: np.ndarray) -> np.ndarray:
        one, two = place - EARTH[mjd], true - EARTH[mjd]
        return np.rad2deg(np.linalg.norm(np.cross(one, two), axis=1) / np.sum(one * two, axis=1)) * 3600.0

    assert off(found).max() < limit
    assert off(two_body(orbits, mjd)[0]).max() > 10.0, "two bodies alone would not do"


def test_kepler_is_solved_for_all_eccentricities() -> None:
    mean, e = (a.ravel() for a in np.meshgrid(np.linspace(-np.pi, np.pi, 181), np.linspace(0.0, 0.995, 60)))
    E = eccentric_anomaly(mean, e)
    np.testing.assert_allclose(E - e * np.sin(E), mean, atol=1e-12)


def test_a_minor_planet_is_found_where_it_stands_and_nowhere_else(orbits: Orbits) -> None:
    mjd = 61365.0 - 69.184 / 86400.0
    seen = np.array(REFERENCE[2][1]) - EARTH[61365.0]
    ra, dec = np.rad2deg(np.arctan2(seen[1], seen[0])) % 360.0, np.rad2deg(np.arcsin(seen[2] / np.linalg.norm(seen)))
    found = movers_in_field(orbits, mjd, float(ra), dec=float(dec), radius=0.5)
    assert found.name.tolist() == ["m2"]
    # the light has travelled for a quarter of an hour; in that time it moved by seconds of arc
    off = np.hypot((found.ra[0] - ra) * np.cos(np.deg2rad(dec)), found.dec[0] - dec) * 3600.0
    assert 0.5 < off < 15.0
    assert 0.05 < found.rate[0] < 1.0
    assert 16.5 < found.mag[0] < 20.5
    assert len(movers_in_field(orbits, mjd, float(ra), dec=float(dec) - 3.0, radius=0.5)) == 0
    assert len(movers_in_field(orbits, mjd, float(ra), dec=float(dec), radius=0.5, faintest=14.0)) == 0


def test_parallax_agrees_with_astropy(orbits: Orbits) -> None:
    from astropy import units as u
    from astropy.coordinates import EarthLocation
    from astropy.time import Time

    from nightsift.context.movers import _parallax

    for mjd in (60000.3, 61000.9):
        place = EarthLocation.from_geodetic(149.07 * u.deg, -31.27 * u.deg)
        when = Time(mjd, format="mjd", scale="utc")
        when.delta_ut1_utc = 0.0
        theirs, _ = place.get_gcrs_posvel(when)
        ours = _parallax(mjd, Site(longitude=149.07, latitude=-31.27))
        assert np.linalg.norm(ours - theirs.xyz.to_value("au")) * 149597870.7 < 5.0, "km"


def line(number: str, epoch: str = "K25BL", e: str = "0.0789126", H: str = " 3.34", a: str = "  2.7660512") -> str:
    """A line in the format of the Minor Planet Center."""
    head = f"{number:<7} {H:>5} {' 0.12':>5} {epoch} {188.70269:>9.5f}  {73.27343:>9.5f}  {80.25221:>9.5f}  "
    return f"{head}{10.58780:>9.5f}  {e:>9} {0.21424651:>11.8f} {a:>11}  0 E2024-V47  7330 125 1801-2024 0.80 M-v 30k"


def test_file_of_the_minor_planet_center(tmp_path: Path) -> None:
    lines = ["MINOR PLANET CENTER ORBIT DATABASE", "and other words", "-" * 160, line("00001"), "",
             line("K25A01B", H=""), line("bad", e="1.2000000"), line("bad", epoch="K25ZZ"), "short"]  # fmt: skip
    (tmp_path / "MPCORB.DAT").write_text("\n".join(lines) + "\n")
    with gzip.open(tmp_path / "MPCORB.DAT.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    for name in ("MPCORB.DAT", "MPCORB.DAT.gz"):
        found = read_orbits(tmp_path / name)
        assert found.name.tolist() == ["00001", "K25A01B"]
        assert found.left_out == 3
        assert found.a[0] == 2.7660512
        assert found.e[0] == 0.0789126
        assert found.epoch[0] == 61000.0
        np.testing.assert_allclose(np.rad2deg(found.anomaly[0]), 188.70269)
        np.testing.assert_allclose(np.rad2deg(found.node[0]), 80.25221)
        np.testing.assert_allclose(np.rad2deg(found.inclination[0]), 10.5878)
        assert found.H[0] == 3.34
        assert np.isnan(found.H[1])
    assert len(read_orbits(tmp_path / "MPCORB.DAT", faintest=3.0)) == 1, "without a magnitude it stays"
    (tmp_path / "empty").write_text("nothing\n")
    for name in ("empty", "absent"):
        with pytest.raises(BadTable):
            read_orbits(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "mjd"), [("K25BL", 61000.0), ("J9611", 50083.0), ("K2570", np.nan), ("K25", np.nan), ("K252U", np.nan)]
)
def test_packed_dates(text: str, mjd: float) -> None:
    np.testing.assert_equal(packed_epoch(text), mjd)


def test_movers_on_a_frame_become_rows_without_fluxes(orbits: Orbits) -> None:
    from nightsift.context.known_objects import on_frame, predicted_truth
    from nightsift.core.frames import Frame
    from tests.nightsift.conftest import make_meta
    from tests.nightsift.context.test_galaxies import camera

    mjd = 61365.0 - 69.184 / 86400.0
    seen = np.array(REFERENCE[2][1]) - EARTH[61365.0]
    ra, dec = np.rad2deg(np.arctan2(seen[1], seen[0])) % 360.0, np.rad2deg(np.arcsin(seen[2] / np.linalg.norm(seen)))
    wcs = camera(float(dec))
    wcs.wcs.crval = [ra, dec]
    plane = np.ones((400, 600), np.float32)
    frame = Frame(plane, plane, np.zeros(plane.shape, np.uint16), make_meta(mjd=mjd, path="a/one.fits"), wcs=wcs)
    rows = predicted_truth(frame, wcs, orbits, site=None, faintest=25.0)
    assert rows["object_id"].to_pylist() == ["m2"]
    assert rows["exposure_file"].to_pylist() == ["one.fits"]
    assert np.isnan(rows["flux"][0].as_py())
    x, y = rows["x"][0].as_py(), rows["y"][0].as_py()
    assert np.hypot(x - 300, y - 200) < 10, "light time apart it stands in the middle"
    np.testing.assert_allclose(on_frame(wcs, (400, 600), rows["ra"].to_numpy(), dec=rows["dec"].to_numpy()), [[x, y]])
    assert len(on_frame(wcs, (400, 600), np.array([ra + 5.0]), dec=np.array([dec]))) == 0
    assert len(predicted_truth(frame, wcs, orbits, site=None, faintest=14.0)) == 0
