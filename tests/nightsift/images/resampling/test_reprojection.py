"""Images of other projections, scales and orientations keep the places and fluxes of their stars on a new grid."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS, Sip

from nightsift.images.resampling.reprojection import (
    cutout,
    north_up_wcs,
    overlap,
    pixel_area,
    reproject_planes,
    sky_scale,
)
from tests.nightsift.conftest import render_stars

SIDE = 240
STARS = np.array([[60.3, 70.8], [150.2, 60.1], [120.6, 180.4], [190.9, 170.2], [40.0, 160.5]])
FLUX = np.array([1e5, 3e4, 5e4, 2e4, 8e4])


def turned(scale, angle, shape, projection="TAN", ra=150.004, dec=30.003, sip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    if projection == "GAL":
        wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
        ra, dec = 198.8, 52.5
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    if sip:
        terms = np.zeros((3, 3))
        terms[2, 0], terms[1, 1] = 4e-5, -2e-5
        wcs.sip = Sip(terms, terms.T.copy(), None, None, wcs.wcs.crpix)
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.set()
    return wcs


def drawn_on(wcs, shape, sigma):
    """The stars of the field as an image of other coordinates shows them."""
    grid = north_up_wcs(150.0, 30.0, 1.0, shape=(SIDE, SIDE))
    x, y = wcs.world_to_pixel(grid.pixel_to_world(*STARS.T))
    return render_stars(x, y, FLUX, shape, sigma).astype(np.float32)


def moments(image, x, y, reach=14):
    i, j = round(x), round(y)
    part = image[j - reach : j + reach + 1, i - reach : i + reach + 1].astype(np.float64)
    steps = np.arange(-reach, reach + 1)
    flux = part.sum()
    return flux, i + (part * steps).sum() / flux, j + (part * steps[:, None]).sum() / flux


@pytest.mark.parametrize(
    ("scale", "projection", "sip"),
    [(0.3, "TAN", False), (0.6, "STG", False), (0.8, "TAN", True), (1.0, "ZEA", False), (1.7, "TAN", False)],
)
def test_flux_and_place_are_kept(scale, projection, sip):
    side = round(1.6 * SIDE / scale)
    wcs = turned(scale, 33.0, (side, side), projection, sip=sip)
    image = drawn_on(wcs, (side, side), 1.6 / min(scale, 1.0))
    grid = north_up_wcs(150.0, 30.0, 1.0, shape=(SIDE, SIDE))
    found = overlap(wcs, image.shape, grid, target_shape=(SIDE, SIDE))
    assert found is not None
    assert found.share > 0.99
    out = reproject_planes(np.stack([image, np.ones_like(image)]), wcs, grid, shape=(SIDE, SIDE))
    flux = out[0] * pixel_area(wcs, grid, shape=(SIDE, SIDE))
    np.testing.assert_allclose(out[1][np.isfinite(out[1])], 1.0, atol=1e-5)
    for (x, y), true in zip(STARS, FLUX, strict=True):
        total, a, b = moments(flux, x, y)
        assert total == pytest.approx(true, rel=2e-3)
        assert np.hypot(a - x, b - y) < 0.02


def test_galactic_coordinates_are_brought_to_equatorial_ones():
    wcs = turned(0.7, 12.0, (900, 900), "GAL")
    centre = wcs.pixel_to_world(449.5, 449.5).icrs
    image = np.zeros((900, 900), np.float32)
    image[448:452, 448:452] = 100.0
    part, grid = cutout(image, wcs, (centre.ra.deg, centre.dec.deg), size=60.0)
    y, x = np.unravel_index(np.nanargmax(part), part.shape)
    sky = grid.pixel_to_world(x, y).icrs
    assert sky.separation(centre).arcsec < 1.5


@pytest.mark.parametrize(("ra", "dec"), [(150.5, 30.0), (330.0, -30.0), (150.0, -89.9)])
def test_images_of_elsewhere_have_nothing_in_common(ra, dec):
    wcs = turned(0.5, 0.0, (400, 400), ra=ra, dec=dec)
    grid = north_up_wcs(150.0, 30.0, 1.0, shape=(SIDE, SIDE))
    assert overlap(wcs, (400, 400), grid, target_shape=(SIDE, SIDE)) is None


def test_only_the_part_in_common_is_needed():
    wcs = turned(0.5, 0.0, (2000, 2000), ra=150.0, dec=30.0)
    grid = north_up_wcs(150.0, 30.0, 1.0, shape=(100, 200))
    found = overlap(wcs, (2000, 2000), grid, target_shape=(100, 200))
    assert found is not None
    rows, columns = (one.stop - one.start for one in found.source)
    assert 200 <= rows < 240
    assert 400 <= columns < 440
    assert sky_scale(grid, (100, 200)) == pytest.approx(1.0, rel=1e-6)


def test_a_cutout_has_north_up_and_east_to_the_left():
    side = 500
    wcs = turned(0.7, 140.0, (side, side))
    sky = north_up_wcs(150.0, 30.0, 1.0, shape=(1, 1)).pixel_to_world(0.0, 0.0)
    north = sky.spherical_offsets_by(0 * sky.ra, 20 / 3600 * sky.ra / sky.ra.deg)
    east = sky.spherical_offsets_by(20 / 3600 * sky.ra / sky.ra.deg, 0 * sky.ra)
    x, y = wcs.world_to_pixel(north)
    image = render_stars(np.array([x]), np.array([y]), np.array([1e4]), (side, side), 2.0).astype(np.float32)
    x, y = wcs.world_to_pixel(east)
    image -= render_stars(np.array([x]), np.array([y]), np.array([1e4]), (side, side), 2.0).astype(np.float32)
    part, _ = cutout(image, wcs, (150.0, 30.0), size=61.0, pixel_scale=1.0)
    assert part.shape == (61, 61)
    assert np.unravel_index(part.argmax(), part.shape) == (50, 30), "north is up"
    assert np.unravel_index(part.argmin(), part.shape) == (30, 10), "east is to the left"
    as_it_lies, grid = cutout(image, wcs, (150.0, 30.0), size=61.0, pixel_scale=1.0, north_up=False)
    ny, nx = np.unravel_index(as_it_lies.argmax(), part.shape)
    assert np.degrees(np.arctan2(nx - 30, ny - 30)) == pytest.approx(140.0, abs=4.0)
    assert grid.pixel_to_world(nx, ny).separation(north).arcsec < 1.0


@pytest.mark.parametrize(("size", "side"), [(5.0, 7), (400.0, 571)])
def test_cutouts_of_any_size(size, side):
    wcs = turned(0.7, 10.0, (300, 300))
    image = np.ones((300, 300), np.float32)
    image[140:150, 140:150] = np.nan
    part, _ = cutout(image, wcs, (150.004, 30.003), size=size)
    assert part.shape == (side, side)
    assert np.isnan(part).any()
    if side > 300:
        assert np.isnan(part[0, 0]), "beyond the image there is nothing"
        np.testing.assert_allclose(part[np.isfinite(part)], 1.0, atol=2e-3)


def test_impossible_cutouts_are_refused():
    wcs = turned(0.7, 10.0, (30, 30))
    for size in (0.0, float("nan"), 1e6):
        with pytest.raises(ValueError, match=r"positive|10000"):
            cutout(np.ones((30, 30), np.float32), wcs, (150.0, 30.0), size=size)
