"""Sky maps: areas and levels against sums over all pixels, distances against the files' own numbers, hostile files."""

from __future__ import annotations

import gzip
import io
import math

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy_healpix import healpix_to_xyz, level_ipix_to_uniq, lonlat_to_healpix

from nightsift.core.errors import BadSkyMap
from nightsift.sky.fields import SkyField, square_field
from nightsift.skyalerts.notices.skyalert import ErrorRegion
from nightsift.skyalerts.planning.field_ranking import coverage, greedy
from nightsift.skyalerts.skymaps import skymap_file
from nightsift.skyalerts.skymaps.skymap import distance_density, distance_moments, make_skymap, mean_distance, skymap_of
from nightsift.skyalerts.skymaps.skymap_file import read_skymap

MULTIORDER = ["S190412m/bayestar.fits", "S190425z/LALInference.fits", "S190425z/bayestar.fits",
              "S190426c/LALInference1.fits", "S190426c/bayestar.fits", "S190602aq/bayestar.multiorder.fits",
              "S190814bv/LALInference.v1.multiorder.fits"]  # fmt: skip
FLAT = ["S190425z/LALInference.fits.gz", "S190425z/bayestar.fits.gz", "S190426c/LALInference1.fits.gz"]


def table_file(columns, extra=(), compress=False):
    hdu = fits.BinTableHDU.from_columns([fits.Column(name, form, array=array) for name, form, array in columns])
    for key, value in extra:
        hdu.header[key] = value
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out)
    return gzip.compress(out.getvalue()) if compress else out.getvalue()


def smooth(level, rng):
    """A smooth map of a few blobs at one level, NESTED."""
    vectors = np.stack(healpix_to_xyz(np.arange(12 * 4**level), 2**level, order="nested"), axis=-1)
    centres = rng.normal(size=(4, 3))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    values = np.exp(20.0 * (vectors @ centres.T - 1.0)).sum(axis=1)
    return values / values.sum()


def area_by_pixels(path, level):
    """The area of the credible region by sorting every pixel of the finest level of a file, read on its own."""
    with fits.open(path) as hdus:
        data = hdus[1].data
        if "UNIQ" in data.names:
            order = np.floor(np.log2(data["UNIQ"] / 4.0) / 2.0).astype(int)
            area = 4.0 * np.pi / (12.0 * 4.0**order)
            probability = data["PROBDENSITY"] * area
        else:
            probability = np.asarray(data["PROB"], dtype=np.float64)
            area = np.full(len(probability), 4.0 * np.pi / len(probability))
    best = np.argsort(-probability / area)
    return float(np.interp(level, np.cumsum(probability[best]), np.cumsum(area[best])) * (180.0 / np.pi) ** 2)


@pytest.mark.real
@pytest.mark.parametrize("name", MULTIORDER + FLAT)
def test_areas_of_real_maps(name, data_dir):
    path = data_dir / "gw/skymaps" / name
    skymap = read_skymap(path)
    assert len(skymap) < 20_000, "flat maps are merged into the cells that they were drawn from"
    assert skymap.probability.sum() == pytest.approx(1.0, abs=1e-12)
    for level in (0.5, 0.9):
        assert skymap.credible_area(level) == pytest.approx(area_by_pixels(path, level), rel=0.01)
    if "S190814bv" in name:
        assert skymap.credible_area(0.9) == pytest.approx(23.0, abs=0.5)


@pytest.mark.real
def test_flat_and_multiorder_say_the_same(data_dir, rng):
    one = read_skymap(data_dir / "gw/skymaps/S190425z/bayestar.fits")
    two = read_skymap(data_dir / "gw/skymaps/S190425z/bayestar.fits.gz")
    ra, dec = rng.uniform(0, 360, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    np.testing.assert_allclose(one.density_at(ra, dec), two.density_at(ra, dec), rtol=1e-9)
    np.testing.assert_allclose(one.credible_level_at(ra, dec), two.credible_level_at(ra, dec), atol=1e-6)
    inside = one.credible_level_at(ra, dec) <= 0.9
    assert inside.mean() * 41252.96 == pytest.approx(one.credible_area(0.9), rel=0.1)


@pytest.mark.real
@pytest.mark.parametrize("name", MULTIORDER[::3])
def test_distances_of_real_maps(name, data_dir):
    path = data_dir / "gw/skymaps" / name
    skymap = read_skymap(path)
    header = fits.getheader(path, 1)
    mean, deviation = mean_distance(skymap)
    assert mean == pytest.approx(header["DISTMEAN"], rel=0.03)
    assert deviation == pytest.approx(header["DISTSTD"], rel=0.05)
    cells = np.argsort(-skymap.probability)[:20]
    r = np.linspace(0.5, 6000.0, 12_000)
    for cell in cells:
        density = distance_density(skymap, np.full(len(r), cell), r)
        assert np.trapezoid(density, r) == pytest.approx(1.0, abs=0.01)
    # a distance with an error is the average over that error
    centre, error = distance_moments(skymap, cells[:1])[0][0], 40.0
    around = centre + error * np.linspace(-6, 6, 2001)
    weight = np.exp(-0.5 * ((around - centre) / error) ** 2)
    average = (weight * distance_density(skymap, np.full(2001, cells[0]), around)).sum() / weight.sum()
    told = distance_density(skymap, cells[:1], np.array([centre]), error=error)[0]
    assert told == pytest.approx(average, rel=1e-3)


@pytest.mark.parametrize("form", ["uniq", "nested", "ring", "ring-density", "partial"])
def test_every_form_of_a_map_is_the_same_map(form, rng):
    level = 4
    values = smooth(level, rng)
    pixel = np.arange(len(values))
    if form == "uniq":
        density = values * len(values) / (4.0 * np.pi)
        file = table_file(
            [("UNIQ", "K", level_ipix_to_uniq(level, pixel)), ("PROBDENSITY", "D", density)], compress=True
        )
    elif form == "nested":
        file = table_file([("PROB", "D", values)], [("ORDERING", "NESTED"), ("NSIDE", 16)])
    elif form == "partial":
        rows = rng.permutation(len(values))
        file = table_file([("PIXEL", "J", rows), ("PROB", "D", values[rows])], [("ORDERING", "NESTED"), ("NSIDE", 16)])
    else:
        ring = np.empty(len(values))
        vectors = np.stack(healpix_to_xyz(pixel, 16, order="nested"), axis=-1)
        lon, lat = np.arctan2(vectors[:, 1], vectors[:, 0]), np.arcsin(vectors[:, 2])
        ring[lonlat_to_healpix(lon * u.rad, lat * u.rad, 16, order="ring")] = values
        if form == "ring-density":
            ring = ring * len(values) / (4.0 * np.pi)
        name = "PROBDENSITY" if form == "ring-density" else "PROB"
        # as older maps: 1024 pixels a row
        file = table_file([(name, "1024D", ring.reshape(-1, 1024))], [("ORDERING", "RING"), ("NSIDE", 16)])
    skymap = read_skymap(file)
    np.testing.assert_allclose(skymap.probability_of(level, pixel), values, rtol=1e-9, atol=1e-14)
    assert skymap.probability_of(2, np.arange(192)).sum() == pytest.approx(1.0)


def test_hostile_files_are_refused_with_their_reason(rng, monkeypatch):
    monkeypatch.setattr(skymap_file, "LARGEST", 2**21)  # a bomb of hundreds of megabytes would only take longer
    values = smooth(2, rng)
    pixel = np.arange(192)
    uniq = level_ipix_to_uniq(2, pixel)
    density = values * 192 / (4 * np.pi)
    good = table_file([("UNIQ", "K", uniq), ("PROBDENSITY", "D", density)])
    assert len(read_skymap(good)) == 192
    truncated = good[: len(good) - 2880]
    bomb = gzip.compress(good[:2880] + bytes(2**22))
    bad = np.where(pixel == 7, np.nan, density)
    for content, why in [
        (b"", "no FITS"),
        (b"SIMPLE  =                    T" + b" " * 5000, "no FITS|no table"),
        (good[:4000], "no FITS|no table|too short"),
        (truncated, "too short"),
        (bomb, "larger than"),
        (gzip.compress(good)[:-20], "breaks off"),
        (b"\x1f\x8b" + b"x" * 100, "gzip"),
        (table_file([("UNIQ", "K", uniq), ("PROBDENSITY", "D", bad)]), "not a number"),
        (table_file([("UNIQ", "K", uniq), ("PROBDENSITY", "D", -density)]), "negative"),
        (table_file([("UNIQ", "K", uniq), ("PROBDENSITY", "D", 3 * density)]), "add up"),
        (table_file([("UNIQ", "K", uniq - 400), ("PROBDENSITY", "D", density)]), "no cells"),
        (table_file([("UNIQ", "K", np.where(uniq == 70, 71, uniq)), ("PROBDENSITY", "D", density)]), "overlap"),
        (table_file([("UNIQ", "K", np.append(uniq[:-1], 4)), ("PROBDENSITY", "D", density)]), "overlap|add up"),
        (table_file([("UNIQ", "20A", ["x"] * 192), ("PROBDENSITY", "D", density)]), "format"),
        (table_file([("PROB", "D", values)], [("ORDERING", "NESTED"), ("COORDSYS", "G")]), "coordinates"),
        (table_file([("PROB", "D", values)]), "ORDERING"),
        (table_file([("PROB", "D", values[:100] / values[:100].sum())], [("ORDERING", "RING")]), "no HEALPix sky"),
        (table_file([("FLUX", "D", values)]), "no table has a column"),
        (table_file([("PROB", "PD()", np.array([values] * 2, dtype=object))], [("ORDERING", "NESTED")]), "format"),
    ]:
        with pytest.raises(BadSkyMap, match=why):
            read_skymap(content)
    with pytest.raises(BadSkyMap, match="No such file"):
        read_skymap("nowhere.fits")


def test_flipped_bytes_are_read_or_refused(rng):
    good = table_file([("UNIQ", "K", level_ipix_to_uniq(2, np.arange(192))),
                       ("PROBDENSITY", "D", smooth(2, rng) * 192 / (4 * np.pi))])  # fmt: skip
    for _ in range(200):
        content = bytearray(good)
        for place in rng.integers(0, len(content) if rng.random() < 0.5 else 8640, 8):
            content[place] = rng.integers(0, 256)
        try:
            read_skymap(bytes(content))
        except BadSkyMap:
            continue


@pytest.mark.parametrize(("ra", "dec", "radius"), [(10.0, 89.5, 0.05), (200.0, -30.0, 1.0), (0.0, 0.0, 11.0)])
def test_a_circle_holds_what_it_says(ra, dec, radius):
    skymap = skymap_of(ErrorRegion(ra, dec, radius, radius, 0.9))
    held = coverage(skymap, [SkyField("c", ra, dec, (), radius)]).of_each()[0]
    assert held == pytest.approx(0.9, abs=0.005)
    assert skymap.credible_area(0.9) == pytest.approx(
        2 * math.pi * (1 - math.cos(math.radians(radius))) * 3282.8, rel=0.01
    )
    assert skymap.credible_level_at(ra, dec) < 0.02


def test_an_ellipse_and_the_systematics_of_gbm():
    tilted = skymap_of(ErrorRegion(50.0, 20.0, 0.8, 0.3, 0.9, angle=90.0))
    assert tilted.credible_area(0.9) == pytest.approx(math.pi * 0.8 * 0.3, rel=0.01)
    east, north = 50.0 + 0.7 / math.cos(math.radians(20.0)), 20.7
    assert tilted.credible_level_at(east, 20.0) < 0.9 < tilted.credible_level_at(50.0, north)
    region = ErrorRegion(100.0, -40.0, 1.0, 1.0, 0.6827)
    with_systematics = skymap_of(ErrorRegion(100.0, -40.0, 1.0, 1.0, 0.6827, 0.0, ((0.9, 3.7), (0.1, 14.0))))
    circle = [SkyField("c", 100.0, -40.0, (), math.hypot(1.0, 3.7))]
    assert coverage(skymap_of(region), circle).of_each()[0] > 0.99
    core = coverage(with_systematics, circle).of_each()[0]
    assert 0.9 * 0.68 < core < 0.9 * 0.69 + 0.1 * 0.15, "the core holds 68 % of nine in ten, the tail a little"


def test_fields_hold_what_the_pixels_in_them_hold(rng):
    values = smooth(5, rng)
    skymap = make_skymap(np.full(len(values), 5), np.arange(len(values)), values, layers=None, where="")
    fields = [square_field(str(k), ra, dec, width=6.0) for k, (ra, dec) in enumerate(
        zip(rng.uniform(0, 360, 12), np.degrees(np.arcsin(rng.uniform(-1, 1, 12))), strict=True))]  # fmt: skip
    fields += [square_field("pole", 30.0, 90.0, width=20.0), SkyField("cap", 10.0, -80.0, (), 30.0)]
    found = coverage(skymap, fields)
    vectors = np.stack(healpix_to_xyz(np.arange(12 * 4**8), 2**8, order="nested"), axis=-1)
    weight = np.repeat(values / 64.0, 64)
    union = np.zeros(len(weight), dtype=bool)
    for field, held in zip(fields, found.of_each(), strict=True):
        inside = np.ones(len(weight), dtype=bool)
        for cap in field.caps:
            inside[inside] = vectors[inside] @ cap[:3] >= np.cos(cap[3])
        assert held == pytest.approx(weight[inside].sum(), abs=1e-5 + 0.015 * held)
        union |= inside
    assert found.of_union(range(len(fields))) == pytest.approx(weight[union].sum(), rel=0.01)


@pytest.mark.parametrize("dec", [0.0, 47.0, -90.0])
def test_on_an_even_sky_a_field_holds_its_solid_angle(dec):
    even = make_skymap(np.zeros(12, dtype=np.int64), np.arange(12), np.full(12, 1 / 12), layers=None, where="")
    # a rectangle of the tangent plane, half sides x and y, has 4 asin(x y / sqrt((1 + x2)(1 + y2)))
    x, y = math.tan(math.radians(2.1)), math.tan(math.radians(3.3))
    solid = 4.0 * math.asin(x * y / math.sqrt((1 + x * x) * (1 + y * y)))
    held = coverage(
        even, [square_field("f", 77.0, dec, width=4.2, height=6.6), SkyField("c", 300.0, dec, (), 5.0)]
    ).of_each()
    cap = 2 * math.pi * (1 - math.cos(math.radians(5.0)))
    assert held * 4 * math.pi == pytest.approx([solid, cap], rel=1e-3)


def test_greedy_counts_nothing_twice_and_is_never_worse_than_plain(rng):
    values = smooth(4, rng)
    skymap = make_skymap(np.full(len(values), 4), np.arange(len(values)), values, layers=None, where="")
    fields = [square_field(str(k), ra, dec, width=15.0) for k, (ra, dec) in enumerate(
        zip(rng.uniform(0, 360, 80), rng.uniform(-80, 80, 80), strict=True))]  # fmt: skip
    found = coverage(skymap, fields)
    allowed = np.arange(80) % 7 != 0
    order, gain = greedy(found, allowed, 10)
    assert all(allowed[order])
    assert gain == sorted(gain, reverse=True)
    assert sum(gain) == pytest.approx(found.of_union(order), rel=1e-9)
    plain = [int(k) for k in np.argsort(-found.of_each()) if allowed[k]][:10]
    assert sum(gain) >= found.of_union(plain) - 1e-12
    # greedy by trying everything at each step
    taken: list[int] = []
    for _ in range(5):
        taken.append(max((k for k in range(80) if allowed[k]), key=lambda k: found.of_union([*taken, k])))
    assert found.of_union(taken) == pytest.approx(sum(gain[:5]), rel=1e-9)
