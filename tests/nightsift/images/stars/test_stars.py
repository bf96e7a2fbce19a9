"""Stars are found where they are; hot pixels, cosmic rays and galaxies are told from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from nightsift.core.errors import BlankFrame, TooFewStars
from nightsift.core.flags import Mask
from nightsift.images.stars.stars import STAR_DTYPE, clean_stars, find_stars, typical_fwhm


def partners(stars, x, y, radius=2.0):
    distance, index = cKDTree(np.column_stack((x, y))).query(np.column_stack((stars["x"], stars["y"])))
    return distance, index, distance < radius


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_positions_fluxes_and_sizes(make_frame, star_list, sigma):
    shape = (600, 600)
    x, y, flux = star_list(120, shape, faint=4.0, apart=12 * sigma)
    stars = find_stars(make_frame(x, y, flux, shape, sigma=sigma))
    distance, index, found = partners(stars, x, y)
    assert stars.dtype == STAR_DTYPE
    assert (np.diff(stars["flux"]) <= 0).all()
    assert len(np.unique(index[found])) >= 0.98 * len(x)
    assert (~found).sum() <= 1
    bright = found & (stars["snr"] > 100)
    assert np.median(distance[bright]) < 0.03
    assert np.percentile(distance[bright], 95) < 0.1
    assert np.median(stars["flux"][bright] / flux[index[bright]]) == pytest.approx(1.0, abs=0.02)
    # A pixel widens a star by 1/12 px2 of variance.
    assert typical_fwhm(stars) == pytest.approx(2.355 * np.hypot(sigma, 12**-0.5), rel=0.04)


def test_flux_errors_are_true(make_frame):
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(30.0, 600, 40), np.arange(30.0, 600, 40)))
    stars = find_stars(make_frame(x + 0.3, y - 0.2, np.full(len(x), 5000.0), (620, 620)))
    _, _, found = partners(stars, x + 0.3, y - 0.2)
    pull = (stars["flux"][found] - np.median(stars["flux"][found])) / stars["flux_err"][found]
    assert np.std(pull) == pytest.approx(1.0, abs=0.15)


def test_elongation_and_angle(make_frame):
    step = np.linspace(-2, 2, 21)
    angle = 0.6
    x = 100 + step * np.cos(angle)
    y = 120 + step * np.sin(angle)
    stars = find_stars(make_frame(x, y, np.full(21, 2e4)), minimum=1)
    assert len(stars) == 1
    assert stars["theta"][0] == pytest.approx(angle, abs=0.05)
    assert stars["a"][0] / stars["b"][0] > 1.15
    assert stars["x"][0] == pytest.approx(100, abs=0.02)


def test_cosmic_rays_and_hot_pixels_are_no_stars(make_frame, star_list, rng):
    shape = (400, 400)
    x, y, flux = star_list(60, shape, faint=4.0)
    frame = make_frame(x, y, flux, shape)
    data = frame.data.copy()
    columns, rows = rng.integers(5, 395, 80), rng.integers(5, 395, 80)
    data[rows[:40], columns[:40]] += 8000.0
    for row, column in zip(rows[40:], columns[40:], strict=True):
        data[row, column : column + 4] += 4000.0
    stars = find_stars(frame.replace(data=data))
    distance, _, _ = partners(stars, x, y)
    ghosts = stars[distance > 3.0]
    assert len(ghosts) <= 4
    clean = clean_stars(stars, shape)
    assert (distance[clean] < 1.0).all()


def test_a_frame_of_hot_pixels_only_has_no_stars(make_frame, rng):
    frame = make_frame(np.array([50.0]), np.array([50.0]), np.array([0.0]))
    data = frame.data.copy()
    data[rng.integers(2, 254, 300), rng.integers(2, 254, 300)] += 5000.0
    with pytest.raises(TooFewStars):
        find_stars(frame.replace(data=data), minimum=5)


def test_masks_become_flags(make_frame):
    x, y = np.array([60.0, 120.0, 180.0]), np.array([60.0, 120.0, 180.0])
    frame = make_frame(x, y, np.full(3, 5e4))
    mask = frame.mask.copy()
    mask[59:62, 59:62] = Mask.SATURATED.value
    mask[120, 122] = Mask.DEFECT.value
    stars = find_stars(frame.replace(mask=mask), minimum=3)
    by_x = stars[np.argsort(stars["x"])]
    assert by_x["flag"].tolist() == [Mask.SATURATED.value, 0, 0] or by_x["flag"][0] == Mask.SATURATED.value
    assert by_x["flag"][2] == 0
    assert not clean_stars(by_x, (256, 256))[0]


def test_nan_pixels_spoil_only_their_own_star(make_frame, star_list):
    x, y, flux = star_list(30, faint=4.5, apart=20)
    frame = make_frame(x, y, flux)
    data, mask = frame.data.copy(), frame.mask.copy()
    data[round(y[0]), round(x[0])] = np.nan
    mask[round(y[0]), round(x[0])] = Mask.NONFINITE.value
    stars = find_stars(frame.replace(data=data, mask=mask))
    distance, index, found = partners(stars, x, y)
    others = found & (index != 0)
    assert others.sum() == 29
    assert (distance[others] < 0.15).all()
    assert (stars["flag"][others] == 0).all()


def test_galaxies_and_close_pairs_are_not_clean(make_frame, star_list):
    shape = (500, 500)
    x, y, flux = star_list(50, shape, faint=4.3, apart=30)
    yy, xx = np.mgrid[:500, :500]
    galaxies = [(100.3, 400.2), (250.1, 30.4), (470.7, 470.2)]
    extra = sum(400.0 * np.exp(-np.hypot(xx - a, yy - b) / 4.0) for a, b in galaxies)
    far = np.array([min(np.hypot(a - p, b - q) for p, q in galaxies) > 40 for a, b in zip(x, y, strict=True)])
    x, y, flux = x[far], y[far], flux[far]
    x2, y2, f2 = np.append(x, x[0] + 6.0), np.append(y, y[0] + 3.0), np.append(flux, flux[0])
    stars = find_stars(make_frame(x2, y2, f2, shape, extra=extra))
    clean = stars[clean_stars(stars, shape)]
    positions = np.column_stack((clean["x"], clean["y"]))
    for bad in (*galaxies, (x[0], y[0])):
        assert np.hypot(*(positions - bad).T).min() > 5.0
    assert len(clean) >= 0.8 * (len(x) - 1)


def test_a_crowded_frame(make_frame, star_list):
    x, y, flux = star_list(1600, (400, 400), faint=3.0, bright=5.0)
    frame = make_frame(x, y, flux, (400, 400), sigma=1.2)
    stars = find_stars(frame)
    distance, _, _ = partners(stars, x, y)
    assert len(stars) > 500
    bright = stars["snr"] > 100
    assert np.median(distance[bright]) < 0.15
    assert len(find_stars(frame, limit=50)) == 50


def test_noise_on_extended_light_is_no_star(make_frame, star_list):
    """Ghosts, spikes and plateaus, each of them about as bright as the threshold all over: stars on them count."""
    shape = (400, 400)
    y, x = np.mgrid[:400, :400]
    extra = np.zeros(shape)
    for a, b in ((100, 100), (300, 120), (120, 300), (300, 300)):
        ring, inside = np.abs(np.hypot(x - a, y - b) - 45) < 4, np.hypot(x - a, y - b) < 45
        extra += 15.0 * ring + 14.0 * inside + 18.0 * np.exp(-((0.3 * (x - a) - 0.954 * (y - b)) ** 2) / 4)
    x, y, flux = star_list(60, shape, faint=3.5, bright=4.5, apart=15)
    found = find_stars(make_frame(x, y, flux, shape, sky=300.0, extra=extra))
    _, index, ok = partners(found, x, y)
    assert len(np.unique(index[ok])) >= 58
    assert (~ok).sum() <= 20


def test_nothing_to_find(make_frame):
    frame = make_frame(np.array([100.0]), np.array([100.0]), np.array([2e4]))
    with pytest.raises(TooFewStars, match="1 usable stars found"):
        find_stars(frame, minimum=5)
    with pytest.raises(BlankFrame):
        find_stars(frame.replace(mask=np.full(frame.shape, Mask.NO_DATA.value, dtype=np.uint16)))
