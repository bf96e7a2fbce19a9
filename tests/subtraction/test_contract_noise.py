"""Every method leaves white noise of the variance it tells, a score of unit variance, and no background."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import subtraction

QUIET = ("template sharper", "science sharper", "varying", "another scale", "noisy template", "deep template",
         "gradient", "bright sky")  # fmt: skip


@pytest.fixture
def clear(shared, clear_sky):
    """``clear(method, scene)`` gives a difference and its sky, away from the light of stars and transients."""

    def make(method, scene):
        made = shared(method, scene)
        return made.difference, clear_sky(made.difference, made.truth, radius=15)

    return make


@pytest.mark.parametrize("scene", QUIET)
def test_the_score_is_a_unit_gaussian(own_method, scene, clear):
    difference, sky = clear(own_method, scene)
    values = difference.score[sky]
    # Some 2,500 of these pixels are independent.
    assert len(values) > 70_000
    assert abs(values.mean()) < 0.07
    assert values.std() == pytest.approx(1.0, abs=0.045)
    # Pixels farther apart than the PSF reaches are independent.
    sparse = difference.score[4::10, 4::10][sky[4::10, 4::10]]
    assert len(sparse) > 600
    assert stats.kstest(sparse, "norm").pvalue > 0.002
    assert np.abs(values).max() < 5.5


def test_the_score_of_all_scenes_is_a_unit_gaussian(own_method, clear):
    """All scenes together: 20,000 independent pixels, which tell a hundredth of a sigma."""
    scores = [difference.score[sky] for difference, sky in (clear(own_method, scene) for scene in QUIET)]
    values = np.concatenate(scores)
    assert abs(values.mean()) < 0.03
    assert values.std() == pytest.approx(1.0, abs=0.02)
    for level in (2.0, 3.0):
        beyond = (np.abs(values) > level).mean() / (2 * stats.norm.sf(level))
        assert beyond == pytest.approx(1.0, abs=0.1 if level < 3 else 0.3)


@pytest.mark.parametrize("scene", QUIET)
def test_pixels_scatter_by_their_variance_and_are_white(own_method, scene, clear):
    difference, sky = clear(own_method, scene)
    pull = np.where(sky, difference.data / np.sqrt(difference.variance), np.nan)
    assert pull[sky].std() == pytest.approx(1.0, abs=0.04)
    products = (
        [np.nanmean(pull[:, step:] * pull[:, :-step]) for step in (1, 2, 3)]
        + [np.nanmean(pull[step:] * pull[:-step]) for step in (1, 2, 3)]
        + [np.nanmean(pull[1:, 1:] * pull[:-1, :-1])]
    )
    assert np.abs(products).max() < 0.04


@pytest.mark.parametrize("scene", ["template sharper", "gradient", "bright sky"])
def test_there_is_no_background_anywhere(own_method, scene, clear):
    difference, sky = clear(own_method, scene)
    sigma = np.sqrt(np.median(difference.variance[sky]))
    for rows in np.array_split(np.arange(480), 4):
        for columns in np.array_split(np.arange(480), 4):
            part = np.ix_(rows, columns)
            values = difference.data[part][sky[part]]
            if len(values) > 500:
                error = sigma / np.sqrt(len(values))
                assert abs(values.mean()) < 4.0 * error + 0.04 * sigma


def test_the_noise_is_told_right_where_it_changes(own_method, make_pair, clear_sky):
    """A template of which one half is four times deeper than the other."""
    pair, truth = make_pair(shape=(400, 400), n_stars=100, template_depth=2.0)
    rng = np.random.default_rng(3)
    extra = 1.5 * np.median(pair.template.variance)
    data, variance = pair.template.data.copy(), pair.template.variance.copy()
    data[:, :200] += rng.normal(0, np.sqrt(extra), (400, 200)).astype(np.float32)
    variance[:, :200] += np.float32(extra)
    difference = subtraction.subtract_pair(
        type(pair)(pair.science, pair.template.replace(data=data, variance=variance)), own_method
    )
    sky = clear_sky(difference, truth)
    for columns in (slice(0, 185), slice(215, 400)):
        values = difference.score[:, columns][sky[:, columns]]
        assert values.std() == pytest.approx(1.0, abs=0.06)
