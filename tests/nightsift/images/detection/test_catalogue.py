"""Catalogues of sources: positions, shapes, radii and fluxes against drawn truth, flags, and images without sources."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from nightsift.core.errors import BlankFrame, DetectionFailed
from nightsift.core.flags import Mask, SourceFlag
from nightsift.images.detection import catalogue
from nightsift.images.detection.catalogue import SOURCES, source_catalogue

SIGMA = 5.0


def draw(rng, x, y, flux, *, a=2.0, b=2.0, theta=0.0, shape=(400, 500), noise=SIGMA):
    """Elliptical Gaussians on noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    data = rng.normal(0, noise, shape)
    for cx, cy, light in zip(x, y, np.broadcast_to(flux, np.shape(x)), strict=True):
        along = (columns - cx) * np.cos(theta) + (rows - cy) * np.sin(theta)
        across = -(columns - cx) * np.sin(theta) + (rows - cy) * np.cos(theta)
        data += light / (2 * np.pi * a * b) * np.exp(-0.5 * ((along / a) ** 2 + (across / b) ** 2))
    return data.astype("f4"), np.full(shape, noise**2, "f4")


def grid(rng, shape=(400, 500), step=50):
    x, y = (g.ravel() for g in np.meshgrid(np.arange(30, shape[1] - 20, step), np.arange(30, shape[0] - 20, step)))
    return x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)


def matched(table, x, y):
    """Columns of the row nearest to each place."""
    columns = {name: table[name].to_numpy(zero_copy_only=False).astype(float) for name in table.column_names}
    distance = np.hypot(columns["x"][:, None] - x, columns["y"][:, None] - y)
    assert distance.min(axis=0).max() < 1.5
    return {name: values[distance.argmin(axis=0)] for name, values in columns.items()}


@pytest.mark.parametrize(("a", "b", "theta"), [(1.5, 1.5, 0.0), (4.0, 2.0, 0.6), (3.0, 2.0, -1.2)])
def test_measures_agree_with_what_was_drawn(rng, a, b, theta):
    x, y = grid(rng)
    flux = 20_000.0
    table = source_catalogue(*draw(rng, x, y, flux, a=a, b=b, theta=theta), zero_point=25.0)
    assert table.schema.equals(SOURCES)
    got = matched(table, x, y)
    error = SIGMA * np.sqrt(8 * np.pi * a * b) / flux * a  # of a centre, background-limited, along the longer axis
    assert np.hypot(got["x"] - x, got["y"] - y).mean() < 2 * error
    assert np.median(got["flux"]) == pytest.approx(flux, rel=0.05)
    assert np.std(got["flux"]) == pytest.approx(np.median(got["flux_err"]), rel=0.35)
    assert got["mag"] == pytest.approx(25 - 2.5 * np.log10(got["flux"]), abs=1e-4)
    assert np.median(got["semimajor"]) == pytest.approx(a, rel=0.1)
    assert np.median(got["semiminor"]) == pytest.approx(b, rel=0.1)
    if a != b:
        assert np.median(got["theta"]) == pytest.approx(np.rad2deg(theta), abs=3)
    else:
        assert np.median(got["half_light_radius"]) == pytest.approx(1.1774 * a, rel=0.06)
    assert (got["flags"] == 0).mean() > 0.9
    assert (np.diff(table["flux"].to_numpy()) <= 0).all()
    assert table["ra"].null_count == table.num_rows


def test_neighbours_do_not_count(rng):
    data, variance = draw(rng, [100.0, 112.0], [100.0, 100.0], [60_000.0, 20_000.0], shape=(200, 200))
    got = matched(source_catalogue(data, variance), np.array([100.0, 112.0]), np.array([100.0, 100.0]))
    assert got["flux"] == pytest.approx([60_000, 20_000], rel=0.05)
    assert all(int(bits) & SourceFlag.DEBLENDED for bits in got["flags"])


def test_flags_and_positions_on_the_sky(rng):
    x, y = np.array([60.0, 160.0, 260.0, 360.0, 60.0]), np.array([60.0, 60.0, 60.0, 0.0, 260.0])
    data, variance = draw(rng, x, y, 30_000.0)
    mask = np.zeros(data.shape, "u2")
    mask[58:63, 158:163] = Mask.SATURATED
    mask[50:90, 263] = Mask.DEFECT
    data[50:90, 263] = np.nan
    data[320, 420] = 4000.0
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
        ["RA---TAN", "DEC--TAN"], [0.0, 30], [200, 200], [-3e-4, 3e-4],
    )  # fmt: skip
    table = source_catalogue(data, variance, mask, wcs=wcs)
    got = matched(table, np.append(x, 420), np.append(y, 320))
    bits = got["flags"].astype(int)
    for row, flag in ((1, SourceFlag.SATURATED), (2, SourceFlag.MASKED), (3, SourceFlag.EDGE), (5, SourceFlag.CIRCLE)):
        assert bits[row] & flag
        assert not bits[0] & flag
    assert got["flux"][1] == pytest.approx(30_000, rel=0.05)  # what is saturated is light
    assert got["flux"][2] == pytest.approx(30_000, rel=0.12)  # what is missing is filled in
    assert np.all((got["ra"] >= 0) & (got["ra"] < 360))
    back = wcs.all_world2pix(got["ra"], got["dec"], 0)
    assert np.allclose(back, (got["x"], got["y"]), atol=1e-6)
    assert table["mag"].null_count == table.num_rows


def test_an_image_without_sources_gives_a_typed_table(rng):
    table = source_catalogue(*draw(rng, [], [], []), threshold=9.0)
    assert table.num_rows == 0
    assert table.schema.equals(SOURCES)


def test_errors_name_the_image(rng):
    data, variance = draw(rng, [], [], [], shape=(60, 70))
    with pytest.raises(DetectionFailed, match=r"a\.fits .* 100% of its pixels lie above 3 sigma"):
        source_catalogue(data + 1000, variance, where="a.fits")
    with pytest.raises(BlankFrame, match=r"a\.fits"):
        source_catalogue(data, np.full_like(variance, np.nan), where="a.fits")
    with pytest.raises(BlankFrame):
        source_catalogue(data, variance, np.full(data.shape, Mask.NO_DATA, "u2"))


def test_an_area_too_large_is_flagged_and_the_rest_is_there(rng, monkeypatch):
    monkeypatch.setattr(catalogue, "LARGEST_AREA", 2000)
    data, variance = draw(rng, [300.0], [300.0], [20_000.0])
    data[20:120, 20:120] += 100
    table = source_catalogue(data, variance)
    flags = table["flags"].to_numpy()
    assert (flags & SourceFlag.UNDIVIDED != 0).sum() == 1
    matched(table, np.array([300.0, 70.0]), np.array([300.0, 70.0]))
