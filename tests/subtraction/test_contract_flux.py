"""Every method keeps the flux of what is new, everywhere on the frame, whatever both frames are like."""

from __future__ import annotations

import numpy as np
import pytest

import subtraction

FLUX = 20_000.0  # S/N about 130
SHAPE = (480, 480)
GRID = [(x + 0.37 * k % 7 - 3, y + 0.53 * k % 7 - 3)
        for k, (x, y) in enumerate((x, y) for y in range(70, 420, 80) for x in range(70, 420, 80))]  # fmt: skip


def ratios(difference, flux_at, positions, flux):
    fitted = np.array([flux_at(difference, x, y) for x, y in positions])
    return fitted[:, 0] / flux, fitted[:, 1] / flux


@pytest.mark.parametrize(
    "scene",
    ["template sharper", "science sharper", "equal seeing", "varying", "elongated", "whole pixels off",
     "parts of a pixel off", "another scale", "noisy template", "deep template", "crowded"],
)  # fmt: skip
def test_fluxes_are_right_to_one_percent_all_over_the_frame(own_method, scene, shared, flux_at, worst):
    made = shared(own_method, scene)
    difference, flux = made.difference, FLUX * made.truth["scene"].science_flux
    middle, error = ratios(difference, flux_at, made.grid, flux)
    assert np.mean(middle) == pytest.approx(1.0, abs=0.01)
    assert np.abs(middle - 1.0).max() < 0.01 + 3.5 * error.max()
    # Close to edges and in corners, where polynomials run wild.
    rim, error = ratios(difference, flux_at, made.edge, flux)
    assert np.mean(rim) == pytest.approx(1.0, abs=0.015)
    assert np.abs(rim - 1.0).max() < 0.02 + 3.5 * error.max()
    assert all(difference.score[round(y), round(x)] > 25 for x, y in made.grid)
    assert worst(difference, made.edge + made.grid) < 6.5
    assert difference.verdict == "good", difference.reasons


def test_a_sparse_field_is_enough(own_method, make_pair, flux_at, worst):
    grid = GRID
    transients = tuple((x, y, FLUX) for x, y in grid)
    pair, _ = make_pair(shape=SHAPE, n_stars=15, faintest=3000.0, transients=transients)
    difference = subtraction.subtract_pair(pair, own_method)
    ratio, _ = ratios(difference, flux_at, grid, FLUX)
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.015)
    assert worst(difference, transients) < 6.5


def test_a_bright_galaxy_leaves_nothing_and_hides_nothing(own_method, make_pair, flux_at, worst):
    galaxy = (230.0, 250.0, 2.0e6, 20.0)
    spots = ((230.0, 250.0), (245.0, 240.0), (215.0, 265.0))
    transients = tuple((x, y, FLUX) for x, y in spots)
    pair, _ = make_pair(shape=SHAPE, n_stars=130, galaxies=(galaxy,), transients=transients)
    difference = subtraction.subtract_pair(pair, own_method)
    # Nothing else stands out of the galaxy.
    assert worst(difference, transients) < 6.0
    fitted = np.array([flux_at(difference, x, y) for x, y in spots])
    assert (np.abs(fitted[:, 0] - FLUX) < 4.0 * np.hypot(fitted[:, 1], 0.01 * FLUX)).all()
    # The light of the host adds noise, by no more than its photons do.
    assert (fitted[:, 0] / fitted[:, 1]).min() > 15


def test_what_faded_is_negative_by_as_much(own_method, make_pair):
    spots = GRID[::4]
    pair, _ = make_pair(shape=SHAPE, n_stars=140, transients=tuple((x, y, FLUX) for x, y in spots))
    clean, _ = make_pair(shape=SHAPE, n_stars=140)
    # What is new stands in the template, which is a second exposure with the PSF of the science frame.
    difference = subtraction.subtract_pair(type(pair)(clean.science, pair.science), own_method)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sums = [difference.data[np.hypot(xx - x, yy - y) < 11].sum() for x, y in spots]
    # 380 pixels with the noise of two frames: 1.7 per cent a star.
    assert np.mean(sums) / -FLUX == pytest.approx(1.0, abs=0.03)
    assert all(difference.score[round(y), round(x)] < -15 for x, y in spots)
