"""Alard-Lupton subtraction under the conditions of real units."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import HARD
from nightsift.core.frames import Pair
from subtraction import subtract_pair

SHAPE = (480, 480)


def false_peaks(difference, transients, threshold=6.0):
    """Pixels beyond the threshold that belong to no transient, of either sign."""
    wrong = np.abs(difference.score) > threshold
    yy, xx = np.mgrid[: difference.shape[0], : difference.shape[1]]
    for x, y, _ in transients:
        wrong &= np.hypot(xx - x, yy - y) > 20
    return int(wrong.sum())


CASES = {
    "template sharper": {},
    "equal seeing": {"science": {"fwhm": 3.6}, "template": {"fwhm": 3.5}},
    "science sharper": {"science": {"fwhm": 3.2}, "template": {"fwhm": 4.2}},
    "sub-pixel shift": {"template": {"fwhm": 3.3, "dx": 0.45, "dy": -0.3}},
    "shift of a pixel": {"template": {"fwhm": 3.3, "dx": 1.0, "dy": 1.0}},
    "elongated": {
        "science": {"fwhm": 4.4, "ellipticity": 0.25, "angle": 0.5},
        "template": {"fwhm": 3.6, "ellipticity": 0.2, "angle": 2.0},
    },
    "shallow template": {"template_depth": 1.0},
    "other flux scale": {"science_flux": 0.6},
    "background gradient": {"gradient": 15.0},
}


@pytest.mark.parametrize("case", CASES)
def test_transients_keep_their_flux(case, make_pair, seeing, transients, flux_at):
    changes = {k: seeing(**v) if isinstance(v, dict) else v for k, v in CASES[case].items()}
    placed = transients(SHAPE, 15_000.0)
    pair, truth = make_pair(shape=SHAPE, n_stars=130, transients=placed, **changes)
    difference = subtract_pair(pair)
    scale = truth["scene"].science_flux
    dx, dy = truth["scene"].science.dx, truth["scene"].science.dy
    fluxes = np.array([flux_at(difference, x + dx, y + dy)[0] for x, y, _ in placed])
    assert np.mean(fluxes) / (15_000 * scale) == pytest.approx(1.0, abs=0.012)
    assert false_peaks(difference, placed, 6.5) == 0
    assert difference.convolved == ("science" if case == "science sharper" else "template")
    assert difference.kernel_sum == pytest.approx(scale, rel=0.03)
    assert difference.verdict == "good", difference.reasons


def test_psf_that_varies_over_the_frame(make_pair, seeing, transients, flux_at):
    shape = (700, 700)
    placed = transients(shape, 15_000.0)
    pair, _ = make_pair(
        shape=shape, n_stars=500, transients=placed, science=seeing(4.0, growth=0.15), template=seeing(3.2, growth=0.05)
    )
    difference = subtract_pair(pair)
    fluxes = np.array([flux_at(difference, x, y)[0] for x, y, _ in placed]) / 15_000
    assert np.mean(fluxes) == pytest.approx(1.0, abs=0.015)
    assert np.std(fluxes) < 0.04
    assert difference.psf.order >= 2
    assert false_peaks(difference, placed, 6.5) == 0
    constant = subtract_pair(pair, options={"kernel_order": 0})
    assert constant.metrics["star_residual"] > difference.metrics["star_residual"]


def test_sparse_field(make_pair, transients):
    placed = transients(SHAPE, 3_000.0, step=160)
    pair, _ = make_pair(shape=SHAPE, n_stars=15, faintest=3_000.0, transients=placed, seed=4)
    difference = subtract_pair(pair)
    assert all(difference.score[round(y), round(x)] > 15 for x, y, _ in placed)
    assert false_peaks(difference, placed) == 0
    assert difference.verdict != "bad", difference.reasons


def test_crowded_field(make_pair, transients):
    placed = transients(SHAPE, 8_000.0, step=120)
    pair, _ = make_pair(shape=SHAPE, n_stars=2500, transients=placed)
    difference = subtract_pair(pair)
    assert all(difference.score[round(y), round(x)] > 15 for x, y, _ in placed)
    assert false_peaks(difference, placed, 6.5) < 5


def test_no_stars_is_an_error_with_facts(make_pair):
    pair, _ = make_pair(n_stars=0)
    with pytest.raises(TooFewStars):
        subtract_pair(pair)


def test_saturated_stars_do_not_flood(make_pair):
    pair, _ = make_pair(shape=SHAPE, n_stars=140, saturation=1_800.0, brightest=200_000.0)
    assert (pair.science.mask != 0).sum() > 30
    difference = subtract_pair(pair)
    assert false_peaks(difference, ()) < 10
    # Masked stars cost area around them, not the frame.
    assert ((difference.mask & HARD) != 0).mean() < 0.35


def test_variable_stars_do_not_bend_the_kernel(make_pair):
    """A tenth of the stars doubles; they are clipped and appear in the difference."""
    _, truth = make_pair(shape=SHAPE, n_stars=130)
    bright = np.argsort(-truth["flux"])
    inside = [k for k in bright if 40 < truth["x"][k] < 440 and 40 < truth["y"][k] < 440][5:12]
    extra = tuple((truth["x"][k], truth["y"][k], truth["flux"][k]) for k in inside)
    pair, _ = make_pair(shape=SHAPE, n_stars=130, transients=extra)
    difference = subtract_pair(pair)
    assert difference.kernel_sum == pytest.approx(1.0, abs=0.03)
    assert all(difference.score[round(y), round(x)] > 10 for x, y, f in extra if f > 3_000)
    assert false_peaks(difference, extra, 6.5) == 0


def test_supernova_in_a_bright_galaxy(make_pair):
    galaxy = (240.0, 240.0, 60_000.0, 4.0)
    supernova = (246.3, 242.1, 4_000.0)
    pair, _ = make_pair(shape=SHAPE, n_stars=130, galaxies=(galaxy,), transients=(supernova,))
    difference = subtract_pair(pair)
    assert difference.score[242, 246] > 15
    assert false_peaks(difference, (supernova,), 6.5) == 0


def test_template_that_covers_two_thirds(make_pair):
    pair, _ = make_pair(shape=SHAPE, n_stars=150)
    mask = pair.template.mask.copy()
    mask[:, :150] |= np.uint16(64)
    part = Pair(pair.science, pair.template.replace(mask=mask), coverage=0.69)
    difference = subtract_pair(part)
    assert false_peaks(difference, ()) == 0
    assert difference.metrics["usable_fraction"] == pytest.approx(0.66, abs=0.05)


def test_no_seams_between_tiles(make_pair, seeing):
    """Columns at tile borders scatter no more than the others, with a strongly varying kernel."""
    pair, _ = make_pair(shape=(512, 512), n_stars=400, science=seeing(4.0, growth=0.2), template=seeing(3.2))
    difference = subtract_pair(pair)
    good = (difference.mask & HARD) == 0
    jump = np.abs(np.diff(np.where(good, difference.data / np.sqrt(difference.variance), np.nan), axis=1))
    by_column = np.nanmean(jump[20:-20, 20:-20], axis=0)
    border = (np.arange(20, 512 - 21) + 1) % 64 == 0
    assert by_column[border].mean() == pytest.approx(by_column[~border].mean(), rel=0.03)


def test_result_does_not_depend_on_threads(make_pair):
    pair, _ = make_pair()
    one, two = (subtract_pair(pair, options={"threads": n}) for n in (1, 3))
    # Products of matrices may round by their place in memory; nothing else may differ.
    np.testing.assert_allclose(one.data, two.data, atol=0.01)
    np.testing.assert_allclose(one.score, two.score, atol=0.01)
    np.testing.assert_array_equal(one.mask, two.mask)
