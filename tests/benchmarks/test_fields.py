"""The fields of the benchmarks are what they say: fluxes, noise, and the signal-to-noise ratio of perfect knowledge."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.subtraction import fields, optics, quality, transients


@pytest.fixture(scope="module")
def drawn():
    return fields.draw("galaxies", (512, 512), seed=4)


def test_point_sources_keep_their_flux_and_their_place():
    psf = optics.Optics((101, 101), 2.2, 3.3, e1=0.2, e2=-0.1)
    for dx, dy in ((0.0, 0.0), (0.5, 0.25), (-0.37, 0.49)):
        image = np.zeros((401, 401))
        psf = dataclasses.replace(psf, shape=image.shape)
        psf.add(image, np.array([200 + dx]), np.array([200 + dy]), np.array([1000.0]), 0.0)
        assert image.sum() == pytest.approx(1000.0, rel=2e-3)
        y, x = np.indices(image.shape)
        near = np.hypot(x - 200, y - 200) < 60
        for axis, where in ((x, 200 + dx), (y, 200 + dy)):
            assert (image * axis)[near].sum() / image[near].sum() == pytest.approx(where, abs=2e-3)


def test_a_pixel_holds_the_integral_of_the_profile():
    psf = optics.Optics((41, 41), 2.2, 3.3, e1=0.1, e2=0.05)
    coarse = psf.stamp(20, 20, 10, 0.3, -0.2)
    n = 15
    steps = (np.arange(21 * n) + 0.5) / n - 10.5
    dy, dx = steps[:, None] + 0.2, steps[None, :] - 0.3
    e1, e2 = 0.1, 0.05
    e = e1**2 + e2**2
    alpha2 = 2.2**2 / (4 * (2 ** (1 / 3.3) - 1))
    r2 = (dx**2 * (1 + e - 2 * e1) + dy**2 * (1 + e + 2 * e1) - 4 * e2 * dx * dy) / (1 - e) / alpha2
    fine = 2.3 / (np.pi * alpha2) * ((1 + r2) ** -3.3).reshape(21, n, 21, n).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-3 * fine.max())


def test_variance_is_that_of_the_noise(drawn):
    pair, truth = drawn
    for frame, level in ((pair.science, truth.sky_variance[0]), (pair.template, truth.sky_variance[1])):
        sky = (frame.variance < 1.01 * level) & (frame.mask == 0)
        assert sky.mean() > 0.3
        assert frame.data[sky].var() == pytest.approx(level, rel=0.03)


def test_snr_of_perfect_knowledge_agrees_with_noise_drawn_afresh():
    science = optics.Optics((99, 99), 3.0, 3.3)
    template = optics.Optics((99, 99), 2.4, 3.1)
    truth = fields.Truth("", 0, *(np.zeros(0),) * 3, science, template, 0.83, (300.0, 40.0))
    flux = 10.0 / transients.snr_per_flux(science, template, 49, 49, 300.0, 40.0)
    rng = np.random.default_rng(1)
    shown = flux * science.stamp(49, 49, 49)
    found = []
    for _ in range(300):
        noise = [rng.normal(0, np.sqrt(v), (99, 99)) for v in (300.0, 40.0)]
        found.append(transients.perfect_score(truth, [noise[0] + shown, noise[1]], 49, 49, 300.0, 40.0))
    # The largest of nine pixels lies a little above the one in the middle.
    assert np.mean(found) == pytest.approx(10.0, abs=0.25)
    assert np.std(found) == pytest.approx(1.0, abs=0.13)


def test_drawn_transients_have_the_statistic_that_is_told(drawn):
    one = drawn[1].transients
    weak = one[(one["snr"] < 30) & (one["where"] != "bright")]
    pull = np.sign(weak["flux"]) * weak["perfect"] - weak["snr"]
    assert len(weak) > 10
    assert abs(np.median(pull)) < 0.8
    assert 0.5 < pull.std() < 1.7


def test_same_seed_same_pair_and_files_keep_it(drawn, tmp_path):
    path = fields.cached(tmp_path, "galaxies", (512, 512), 4)
    pair, truth = fields.load(path)
    np.testing.assert_array_equal(pair.science.data, drawn[0].science.data)
    np.testing.assert_array_equal(truth.transients, drawn[1].transients)
    assert truth.science == drawn[1].science


def test_quality_of_a_perfect_and_of_a_spoilt_difference(drawn):
    pair, truth = drawn
    perfect = _ideal_difference(pair, truth)
    measured = quality.measure(perfect, pair, truth, white=False)
    assert measured["residual"] == pytest.approx(1.0, abs=0.08)
    # Eight bright transients only: their mean is known to half a percent, the pulls of all to a third.
    assert abs(measured["flux_bias"]) < 0.02
    assert 0.5 < measured["pull_std"] < 1.7
    perfect.data = perfect.data + 0.02 * (pair.science.data - perfect.data)
    spoilt = quality.measure(perfect, pair, truth, white=False)
    assert spoilt["residual"] > measured["residual"] + 0.1


def _ideal_difference(pair, truth):
    """The science frame less its true stars and galaxies, and less the transients that faded."""
    static = np.zeros(pair.science.shape)
    points = fields._galaxy_points(truth.galaxies)
    for x, y, flux in ((truth.stars["x"], truth.stars["y"], truth.stars["flux"]), points):
        truth.science.add(static, x, y, flux, 0.002)
    faded = truth.transients[truth.transients["flux"] < 0]
    truth.science.add(static, faded["x"], faded["y"], np.abs(faded["flux"]), 0.002)
    data = (pair.science.data - static).astype(np.float32)
    return SimpleNamespace(
        data=data, variance=pair.science.variance, mask=pair.science.mask.copy(), score=None, psf=None
    )
