"""Every method keeps to the masks: no NaN comes out, saturated stars leave no rings, edges and gaps do no harm."""

from __future__ import annotations

import numpy as np
import pytest

import subtraction
from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Pair
from subtraction.masks.wings import subtract_halos


def spoil(frame, window, bit):
    """NaN and a mask bit over part of a frame."""
    data, mask = frame.data.copy(), frame.mask.copy()
    data[window] = np.nan
    mask[window] |= np.uint16(bit.value)
    return frame.replace(data=data, mask=mask)


def test_nan_stay_inside_the_mask(own_method, make_pair):
    pair, _ = make_pair(n_stars=200)
    science = spoil(pair.science, (slice(100, 140), slice(150, 180)), Mask.NONFINITE)
    template = spoil(pair.template, (slice(None), slice(0, 120)), Mask.NO_DATA)
    difference = subtraction.subtract_pair(Pair(science, template, 0.7), own_method)
    assert np.isfinite(difference.data).all()
    assert np.isfinite(difference.variance).all()
    assert np.isfinite(difference.score).all()
    inputs = ((science.mask | template.mask) & HARD) != 0
    out = (difference.mask & HARD) != 0
    assert out[inputs].all()
    # Grown by the kernel, but by no more than a kernel.
    assert out[120, 121]
    assert out.mean() < inputs.mean() + 0.2
    # The NaN patch is no source.
    assert np.abs(difference.score[90:150, 140:190]).max() < 6


def test_lone_bad_pixels_cost_little(own_method, make_pair, worst):
    pair, _ = make_pair(n_stars=150)
    rng = np.random.default_rng(2)
    rows, columns = rng.integers(0, 400, (2, 300))
    science = spoil(pair.science, (rows, columns), Mask.DEFECT)
    rows, columns = rng.integers(0, 400, (2, 100))
    template = spoil(pair.template, (rows, columns), Mask.COSMIC_RAY)
    difference = subtraction.subtract_pair(Pair(science, template), own_method)
    assert np.isfinite(difference.data[(difference.mask & HARD) == 0]).all()
    assert worst(difference) < 6.0
    # 400 pixels of 160,000; each may take its surroundings along, not the frame.
    assert ((difference.mask & HARD) == 0).mean() > 0.75


def test_a_template_that_lacks_a_third(own_method, make_pair, flux_at, worst):
    shape = (400, 480)
    transients = tuple((x, y, 20_000.0) for x in (200.4, 280.0, 400.7) for y in (60.2, 200.0, 330.6))
    pair, _ = make_pair(shape=shape, n_stars=160, transients=transients)
    template = spoil(pair.template, (slice(None), slice(0, 144)), Mask.NO_DATA)
    difference = subtraction.subtract_pair(Pair(pair.science, template, 0.7), own_method)
    fluxes = np.array([flux_at(difference, x, y)[0] for x, y, _ in transients])
    assert np.mean(fluxes) / 20_000 == pytest.approx(1.0, abs=0.01)
    assert worst(difference, transients) < 6.0
    assert difference.metrics["usable_fraction"] > 0.6
    assert difference.verdict == "good", difference.reasons


def scattered(fluxes, shape=(480, 480)):
    """Stars of given fluxes, well apart."""
    rng = np.random.default_rng(11)
    cells = rng.permutation([(60 + 120 * (k % 4), 60 + 120 * (k // 4)) for k in range(16)])[: len(fluxes)]
    moved = cells + rng.uniform(-25, 25, cells.shape)
    return tuple((float(x), float(y), float(f)) for (x, y), f in zip(moved, fluxes, strict=True))


@pytest.mark.parametrize("sharper", ["template", "science"])
def test_saturated_stars_leave_no_rings_and_no_candidates(own_method, sharper, make_pair, seeing):
    widths = (4.2, 3.2) if sharper == "template" else (3.2, 4.2)
    # From one saturated pixel to a hundred.
    stars = scattered((9.5e5, 1.2e6, 1.6e6, 2.5e6, 4e6, 6e6, 1e7, 2e7))
    pair, _ = make_pair(
        shape=(480, 480), n_stars=150, bright=stars, science=seeing(widths[0]), template=seeing(widths[1])
    )
    saturated = (pair.science.mask & Mask.SATURATED.value) != 0
    assert saturated.sum() > 100
    difference = subtraction.subtract_pair(pair, own_method)
    assert (difference.mask[saturated] & Mask.SATURATED.value).all()
    # The mask hides the stars, not the frame.
    assert difference.metrics["usable_fraction"] > 0.75
    assert np.abs(difference.score[difference.mask == 0]).max() < 6.0
    assert difference.metrics["star_residual"] < 1.5


def test_a_transient_beside_a_saturated_star_keeps_its_flux(own_method, make_pair, flux_at):
    """The halo that is taken off there is that of the star."""
    star, flux = (240.0, 240.0, 1e7), 6000.0
    spots = tuple((240 + 24.0 * np.cos(a), 240 + 24.0 * np.sin(a), flux) for a in (0.3, 2.4, 4.5))
    pair, _ = make_pair(shape=(480, 480), n_stars=150, bright=(star,), transients=spots)
    difference = subtraction.subtract_pair(pair, own_method)
    fitted = np.array([flux_at(difference, x, y) for x, y, _ in spots])
    assert (np.abs(fitted[:, 0] - flux) < 4.0 * fitted[:, 1]).all()
    assert np.mean(fitted[:, 0]) == pytest.approx(flux, rel=0.05)


def test_halos_of_saturated_stars_are_taken_off(rng):
    """Halos go as far as they stand out, a transient in them stays, and nothing happens where there is none."""
    shape = (200, 300)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    near, far = np.hypot(xx - 90, yy - 100), np.hypot(xx - 220, yy - 100)
    noise = rng.normal(0, 1, shape)
    halo = 30.0 * np.maximum(near, 8) ** -1.0 * (near < 40)
    transient = 15 * np.exp(-((xx - 106) ** 2 + (yy - 100) ** 2) / 6)
    saturated = np.where((near < 4) | (far < 4), np.uint16(Mask.SATURATED.value), np.uint16(0))
    mask = np.where((near < 8) | (far < 8), np.uint16(Mask.SATURATED.value), np.uint16(0))
    data = (noise + halo + transient).astype(np.float32)
    given = data.copy()
    reached = subtract_halos(data, np.ones(shape, np.float32), mask, saturated=saturated, fwhm=4.0)
    assert sorted(reached)[0] == 0
    assert 30 < sorted(reached)[1] < 45
    # The other star has no halo, masked pixels stay as they are.
    np.testing.assert_array_equal(data[:, 200:], given[:, 200:])
    np.testing.assert_array_equal(data[mask != 0], given[mask != 0])
    ring = (near > 8) & (near < 40) & (np.hypot(xx - 106, yy - 100) > 8)
    left = data - noise
    assert np.sqrt(np.mean(left[ring] ** 2)) < 0.2
    assert left[100, 106] == pytest.approx(15, abs=0.6)


def test_bright_stars_below_saturation_leave_nothing(own_method, make_pair, worst):
    stars = scattered((1e5, 1.5e5, 2e5, 3e5, 4e5, 5e5, 5e5, 4e5))
    pair, _ = make_pair(shape=(480, 480), n_stars=150, bright=stars)
    assert not (pair.science.mask | pair.template.mask).any()
    difference = subtraction.subtract_pair(pair, own_method)
    assert worst(difference) < 6.5


def test_edges_and_stars_cut_by_them(own_method, make_pair):
    pair, _ = make_pair(shape=(300, 500), n_stars=220, brightest=3e5)
    difference = subtraction.subtract_pair(pair, own_method)
    rim = np.ones(difference.shape, bool)
    rim[40:-40, 40:-40] = False
    assert np.abs(difference.score[rim]).max() < 6.0
    # What cannot be computed at the edge is masked, and no more than a kernel.
    usable = (difference.mask & HARD) == 0
    assert usable[24:-24, 24:-24].mean() > 0.9


@pytest.mark.parametrize("shape", [(257, 431), (640, 200)])
def test_frames_of_odd_shapes(own_method, shape, make_pair, worst):
    pair, _ = make_pair(shape=shape, n_stars=150)
    difference = subtraction.subtract_pair(pair, own_method)
    assert difference.shape == shape
    assert worst(difference) < 6.0
