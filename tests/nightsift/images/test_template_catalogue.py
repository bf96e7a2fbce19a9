"""Catalogues of sources with their extended light, and the galaxies of a template that come of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from nightsift.context.galaxies import galaxies_of_template
from nightsift.context.template_sources import sources_on_frame
from nightsift.core.flags import Mask
from nightsift.core.frames import Template
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.registration.align import Alignment
from nightsift.images.stars.stars import find_stars
from nightsift.images.template_catalogue import _flood, template_catalogue

SHAPE = (400, 420)
SIGMA = 1.3  # pixel: the width of the stars, 3.06 pixels FWHM
HALF_LIGHT = 1.678  # of an exponential disc, over its scale length


def discs(places, fluxes, radii, ratios, angles):
    """Exponential discs behind the seeing, drawn on a grid three times as fine."""
    light = np.zeros(SHAPE)
    fine = (np.arange(-45 * 3, 45 * 3 + 3) - 1) / 3.0
    dx, dy = np.meshgrid(fine, fine)
    for (x, y), flux, radius, ratio, angle in zip(places, fluxes, radii, ratios, angles, strict=True):
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        disc = gaussian_filter(np.exp(-HALF_LIGHT * np.hypot(along, across / ratio) / radius), 3 * SIGMA)
        side = len(fine) // 3
        disc = disc.reshape(side, 3, side, 3).sum(axis=(1, 3))
        light[y - 45 : y - 45 + side, x - 45 : x - 45 + side] += flux * disc / disc.sum()
    return light


@pytest.fixture
def scene(make_frame, star_list, rng):
    """Sixteen galaxies and forty stars around them; returns frame and truth of the galaxies."""
    y, x = np.mgrid[60:360:90, 60:360:95].reshape(2, -1)
    n = len(x)
    truth = {
        "places": list(zip(x.tolist(), y.tolist(), strict=True)), "fluxes": np.full(n, 9e4),
        "radii": np.linspace(3.0, 9.0, n), "ratios": rng.uniform(0.4, 0.9, n), "angles": rng.uniform(0, np.pi, n),
    }  # fmt: skip
    sx, sy, flux = star_list(120, SHAPE, faint=4.0, bright=5.2, apart=16.0)
    apart = np.hypot(sx[:, None] - x, sy[:, None] - y).min(axis=1) > 28.0
    frame = make_frame(sx[apart], sy[apart], flux[apart], SHAPE, sigma=SIGMA, extra=discs(**truth))
    return frame, truth


def same_grid():
    nodes = np.arange(0, 513, 64.0)
    return Alignment(np.array(np.meshgrid(nodes, nodes)), 64, SHAPE, 0.1, 40, "wcs", None)


def galaxies(frame, stars, catalogue, zero=25.0):
    growth = aperture_correction(frame, stars)
    template = Template(frame, stars, np.ones(SHAPE, np.float32), "t", zero, growth=growth, catalogue=catalogue)
    return galaxies_of_template(sources_on_frame(template, same_grid()))


def nearest(found, place):
    distance = np.hypot(found.x - place[0], found.y - place[1])
    assert distance.min() < 1.0
    return int(np.argmin(distance))


def test_galaxies_have_the_size_light_and_direction_that_they_have(scene):
    frame, truth = scene
    stars = find_stars(frame)
    catalogue = template_catalogue(frame, stars)
    new, old = galaxies(frame, stars, catalogue), galaxies(frame, stars, None)
    row = [nearest(new, place) for place in truth["places"]]
    size = new.radius[row] / truth["radii"]
    assert np.abs(np.log(size)).max() < 0.3
    assert abs(np.median(np.log(size))) < 0.12
    wide = truth["radii"] > 6.0
    before = old.radius[[nearest(old, place) for place in truth["places"]]] / truth["radii"]
    assert np.median(before[wide]) < 0.75
    flat = truth["ratios"] < 0.7
    turned = (new.angle[row] - truth["angles"] + np.pi / 2) % np.pi - np.pi / 2
    assert np.abs(turned[flat]).max() < 0.25
    assert np.abs(new.axis_ratio[row] - truth["ratios"]).max() < 0.2
    mag = 25.0 - 2.5 * np.log10(truth["fluxes"])
    np.testing.assert_allclose(new.mag[row], mag, atol=0.15)


def test_stars_have_no_size_and_total_fluxes(make_frame, star_list):
    x, y, flux = star_list(60, SHAPE, faint=4.0, apart=25.0)
    frame = make_frame(x, y, flux, SHAPE, sigma=SIGMA)
    stars = find_stars(frame)
    template = Template(
        frame, stars, np.ones(SHAPE, np.float32), "t", 25.0, growth=aperture_correction(frame, stars),
        catalogue=template_catalogue(frame, stars),
    )  # fmt: skip
    sources = sources_on_frame(template, same_grid())
    assert np.median(sources.half_light) < 0.4
    assert len(galaxies_of_template(sources)) <= 1
    nearest_star = np.argmin(np.hypot(sources.x[:, None] - x, sources.y[:, None] - y), axis=1)
    np.testing.assert_allclose(sources.mag, 25.0 - 2.5 * np.log10(flux[nearest_star]), atol=0.03)


def test_what_is_masked_or_at_the_edge_is_flagged_and_measured_where_it_can_be(make_frame, star_list):
    x, y, flux = star_list(50, SHAPE, faint=4.0, apart=20.0)
    x, y, flux = np.append(x, (1.0, 210.0)), np.append(y, (200.0, 398.0)), np.append(flux, (5e4, 5e4))
    frame = make_frame(x, y, flux, SHAPE, sigma=SIGMA)
    data, mask = frame.data.copy(), frame.mask.copy()
    data[:, :150], mask[:, :150] = np.nan, Mask.NO_DATA.value
    core = np.argmin(np.where(x > 170, flux, np.inf)[:-2])
    full = (slice(round(y[core]) - 1, round(y[core]) + 2), slice(round(x[core]) - 1, round(x[core]) + 2))
    mask[full] = Mask.SATURATED.value
    frame = frame.replace(data=data, mask=mask)
    stars = find_stars(frame)
    catalogue = template_catalogue(frame, stars)
    assert len(catalogue) == len(stars)
    assert (catalogue["x"] > 147).all()
    assert np.isfinite(catalogue["radius"]).mean() > 0.95
    row = int(np.argmin(np.hypot(catalogue["x"] - x[core], catalogue["y"] - y[core])))
    assert catalogue["flag"][row] & Mask.SATURATED.value
    alone = np.hypot(catalogue["x"] - x[core], catalogue["y"] - y[core]) > 12
    assert not (catalogue["flag"][alone] & Mask.SATURATED.value).any()
    edge = int(np.argmin(np.hypot(catalogue["x"] - 210, catalogue["y"] - 398)))
    assert catalogue["flux"][edge] > 0


def test_positions_on_the_sky_and_nothing_at_all(make_frame, star_list):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 20.0], [200.0, 200.0]
    wcs.wcs.cdelt = [-1 / 3600, 1 / 3600]
    frame = make_frame(*star_list(20, SHAPE, faint=4.0), SHAPE, sigma=SIGMA, wcs=wcs)
    stars = find_stars(frame)
    catalogue = template_catalogue(frame, stars)
    x, y = wcs.all_world2pix(catalogue["ra"], catalogue["dec"], 0)
    np.testing.assert_allclose((x, y), (stars["x"], stars["y"]), atol=1e-6)
    assert np.isnan(template_catalogue(frame.replace(wcs=None), stars)["ra"]).all()
    assert len(template_catalogue(frame, stars[:0])) == 0
    dark = frame.replace(data=np.zeros(SHAPE, np.float32))
    assert np.isnan(template_catalogue(dark, stars)["radius"]).all()
    template = Template(frame, stars, np.ones(SHAPE, np.float32), "t", 25.0)
    with pytest.raises(ValueError, match="one row of the catalogue a star"):
        dataclasses.replace(template, catalogue=catalogue[:3])


def test_hills_go_to_their_stars_and_hills_without_one_to_the_next():
    light = np.array([[9, 5, 3, 6, 2, 1, 0, 4], [8, 4, 2, 5, 3, 7, 0, 3]], dtype=np.float32)
    labels = np.zeros(light.shape, np.int32)
    labels[0, 0], labels[1, 5] = 1, 2  # none on the hill of column 3, none on that beyond the gap
    order = np.argsort(-light.ravel(), kind="stable")
    order = order[light.ravel()[order] > 0]
    _flood(order, light, labels, 2)
    assert (labels[:, :2] == 1).all()
    assert (labels[:, 5] == 2).all()
    # the saddle to the right of the hill (3) is as high as that to the left, and comes by its brighter neighbour
    assert set(labels[:, 3]) <= {1, 2}
    assert (labels[:, 6:] == 0).all()
