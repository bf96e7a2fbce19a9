"""The verdict: planted faults are told, each by its sentence, and good pairs stay good."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import ndimage

import subtraction
from nightsift.core.errors import FrameError
from nightsift.core.psf import Psf
from subtraction.quality.residuals import ModelError
from subtraction.quality.star_faults import StarFaults, fit_star_faults
from subtraction.quality.verdict import (
    LIMITS,
    clear_fraction,
    count_peaks,
    depth_metrics,
    expected_peaks,
    judge,
    matched_sigma,
    peak_metrics,
    star_metrics,
)

TRAIL = tuple((t * np.cos(0.5), t * np.sin(0.5), 1.0) for t in np.linspace(-6, 6, 13))
DOUBLE = ((0.0, 0.0, 1.0), (7.0, 3.0, 0.8))

GOOD = {
    "wide science": {"science": (5.0, {}), "template": (3.4, {})},
    "sparse": {"n_stars": 22, "faintest": 3000.0},
    "galaxies": {"galaxies": ((300.0, 300.0, 3e6, 25.0), (100.0, 400.0, 1e6, 12.0))},
    "thin cloud": {"veil": 0.15},
    "half the light lost towards one side": {"veil": 0.45},
    "steady air": {"science": (4.2, {"jitter": 0.04})},
}

FAULTS = {
    "trailed template of one exposure": (
        {"science": (3.2, {}), "template": (3.2, {"images": TRAIL}), "template_depth": 1.0},
        "suspect",
        "faint stars lose",
    ),
    "another field": ({"template_seed": 5}, "bad", ""),
    "doubled template": (
        {"template": (3.2, {"images": DOUBLE})},
        "bad",
        "residuals at stars|flux is left over|false peaks",
    ),
    "misregistered by 0.3 px": ({"science": (4.2, {"wobble": 0.42})}, "suspect", "stars are shifted by 0.[23]"),
    "misregistered by 1 px": ({"science": (4.2, {"wobble": 1.4})}, "bad", "stars are shifted by [01]"),
    "scintillation of 0.3 px": ({"science": (4.2, {"jitter": 0.3})}, "suspect", "leave a dipole"),
    "variances too small": ({"wrong_gain": 0.5}, "suspect", "noise on the sky is 1.[34]"),
    "variances far too small": ({"wrong_gain": 0.2}, "bad", "noise on the sky is 2"),
    "variances too large": ({"wrong_gain": 4.0}, "suspect", "noise on the sky is only 0.5"),
    "another band": ({"colour": 0.2, "science_flux": 0.4}, "suspect", "fluxes of stars scatter"),
}


def drawn(changes, seeing):
    return {key: seeing(value[0], **value[1]) if isinstance(value, tuple) and key in ("science", "template") else value
            for key, value in changes.items()}  # fmt: skip


@pytest.mark.parametrize("kind", list(GOOD))
def test_good_pairs_are_good(own_method, kind, make_pair, seeing):
    pair, _ = make_pair(**{"shape": (480, 480), "n_stars": 150, **drawn(GOOD[kind], seeing)})
    difference = subtraction.subtract_pair(pair, own_method)
    assert difference.verdict == "good", difference.reasons
    assert difference.metrics["peaks"] <= 3


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_told(own_method, fault, make_pair, seeing):
    changes, worst, sentence = FAULTS[fault]
    pair, _ = make_pair(**{"shape": (480, 480), "n_stars": 200, **drawn(changes, seeing)})
    try:
        difference = subtraction.subtract_pair(pair, own_method)
    except FrameError:
        # Where hardly a star is on both frames there may be no difference at all.
        assert fault == "another field"
        return
    assert difference.verdict in (worst, "bad"), difference.metrics
    assert any(re.search(sentence, reason) for reason in difference.reasons), difference.reasons


@pytest.mark.parametrize(("clouds", "veil"), [(0.4, 0.0), (0.0, 0.6)])
def test_clouds_are_followed_or_told(own_method, clouds, veil, make_pair, flux_at):
    """Where the flux scale follows the clouds all is well; where it does not, the verdict says so."""
    pair, _ = make_pair(shape=(480, 480), n_stars=250, clouds=clouds, veil=veil)
    difference = subtraction.subtract_pair(pair, own_method)
    followed = difference.metrics["flux_scatter"] < 0.04 and difference.metrics["flux_scale_error"] < 0.04
    words = ("scatter", "in a part of the frame", "where no star tells it")
    told = any(word in reason for word in words for reason in difference.reasons)
    assert told or (followed and difference.verdict == "good"), difference.reasons


def test_a_half_covered_frame_is_told(own_method, make_pair):
    pair, _ = make_pair(shape=(480, 480), n_stars=200)
    mask = pair.template.mask.copy()
    mask[:, :270] |= np.uint16(64)
    difference = subtraction.subtract_pair(type(pair)(pair.science, pair.template.replace(mask=mask), 0.44), own_method)
    assert difference.verdict == "suspect"
    assert any("of the pixels are usable" in reason for reason in difference.reasons)


def test_stars_misplaced_by_a_third_of_a_pixel_give_few_candidates(own_method, make_pair, seeing):
    """The variance grows where stars leave dipoles, so that they do not become candidates."""
    pair, truth = make_pair(shape=(480, 480), n_stars=250, science=seeing(4.2, jitter=0.21))
    difference = subtraction.subtract_pair(pair, own_method)
    assert (truth["flux"] > 3000).sum() > 60
    assert difference.metrics["peaks"] <= 6
    assert difference.metrics["registration"] == pytest.approx(0.26, abs=0.1)


# Parts.


def gaussian_psf(sigma, half=12, shape=(500, 500)):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    image = np.exp(-(x * x + y * y) / (2 * sigma**2))
    return Psf((image / image.sum())[None].astype(np.float32), 0, shape, 2.355 * sigma)


@pytest.mark.parametrize("sigma", [1.3, 1.8, 2.6])
def test_noise_has_as_many_peaks_as_expected(rng, sigma):
    psf = gaussian_psf(sigma)
    assert matched_sigma(psf) == pytest.approx(sigma, rel=0.01)
    score = ndimage.gaussian_filter(rng.normal(size=(1500, 1500)), sigma, mode="wrap")
    score = (score / score.std()).astype(np.float32)
    mask = np.zeros(score.shape, np.uint16)
    counts = count_peaks(score, mask, 3.5, apart=1, margin=0)
    assert counts[1].sum() == counts[0, 1].sum() == 0
    positive, negative = counts[0, 0]
    expected = expected_peaks(3.5, sigma) * score.size
    assert expected > 60
    assert 0.6 < (positive + negative) / (2 * expected) < 1.2
    np.testing.assert_array_equal(count_peaks(score, mask, 3.5, apart=1, margin=0, threads=1), counts)


def test_peaks_near_masked_pixels_count_apart():
    score, mask = np.zeros((200, 200), np.float32), np.zeros((200, 200), np.uint16)
    score[50, 50], score[52, 51], score[100, 100], score[150, 150] = 9.0, 8.0, -7.0, 6.0
    mask[100, 106] = 2
    assert count_peaks(score, mask, 5.0, apart=3, margin=8).tolist() == [[[2, 0], [0, 1]], [[0, 0], [0, 0]]]
    assert count_peaks(score, mask, 5.0, apart=1, margin=8)[0].tolist() == [[3, 0], [0, 1]]
    # A star of the template two pixels beside the last one.
    model, variance = np.zeros_like(score), np.ones_like(score)
    model[150, 152] = 3.0
    on = count_peaks(score, mask, 5.0, apart=3, margin=8, threads=0, model=model, variance=variance)
    assert on.tolist() == [[[1, 0], [0, 1]], [[1, 0], [0, 0]]]
    mask[:, :100] = 2
    assert clear_fraction(mask, 10, 1) == pytest.approx(0.4 * 0.9, abs=0.03)


@pytest.fixture
def quiet_sky(rng):
    """A score of noise alone, a template without sources, and the PSF that goes with them."""
    score = ndimage.gaussian_filter(rng.normal(size=(500, 500)), 1.8)
    nothing = np.zeros(score.shape, np.float32)
    return (score / score.std()).astype(np.float32), np.zeros(score.shape, np.uint16), nothing, nothing + 1


@pytest.mark.parametrize(
    ("kind", "number", "verdict"),
    [
        # A quarter of a megapixel: new stars are no fault, a flood of them is told.
        ("new", 20, "good"),
        ("new", 110, "suspect"),
        # Subtraction at fault leaves its peaks on the stars of the template, or of both signs.
        ("on stars", 10, "good"),
        ("on stars", 70, "suspect"),
        ("on stars", 180, "bad"),
        ("both signs", 10, "good"),
        ("both signs", 70, "suspect"),
        ("both signs", 180, "bad"),
    ],
)
def test_peaks_are_judged_by_where_they_are(rng, quiet_sky, kind, number, verdict):
    score, mask, model, variance = quiet_sky
    psf = gaussian_psf(1.8)
    quiet = peak_metrics(score, mask, model, variance=variance, psf=psf)
    assert quiet["peak_excess"] == quiet["new_excess"] == 0
    assert quiet["peaks_expected"] == pytest.approx(2 * 0.25e6 * 0.85 * expected_peaks(5, 1.8), rel=0.15)
    cells = rng.permutation(23 * 23)[:number]
    x, y = 20 + 20 * (cells % 23), 20 + 20 * (cells // 23)
    score[y, x] = np.where(np.arange(number) % 2, -8.0, 8.0) if kind == "both signs" else 8.0
    model[y, x] = 100.0 if kind == "on stars" else 0.0
    metrics = peak_metrics(score, mask, model, variance=variance, psf=psf)
    assert metrics["peaks"] == pytest.approx(number, abs=2)
    got, reasons = judge(metrics)
    assert got == verdict, metrics
    assert ("are new" in "".join(reasons)) == (kind == "new" and verdict != "good")


def test_loss_of_depth_is_that_of_the_formula():
    """A template of the same depth and seeing costs a factor of root two; blurring by two as much again."""
    narrow, wide = gaussian_psf(1.5, 15), gaussian_psf(3.0, 15)
    mask = np.zeros((500, 500), np.uint16)
    mask[:, :50] = 2
    science = np.full(mask.shape, 10.0, np.float32)
    science[:, :50] = np.nan
    for psf, factor, scale, expected in (
        (narrow, 1.0, 1.0, 0.0),
        (narrow, 2.0, 1.0, 2.5 * np.log10(2**0.5)),
        (wide, 1.0, 1.0, 2.5 * np.log10(2.0)),
        (wide, 4.0, 2.0, 2.5 * np.log10(2.0)),
    ):
        metrics = depth_metrics(psf, factor * science, narrow, science_variance=science, mask=mask, scale=scale)
        assert metrics["depth_loss_mag"] == pytest.approx(expected, abs=0.01)
    assert depth_metrics(wide, science, narrow, science_variance=science, mask=mask | 2, scale=1.0) == {}


def planted(rng, n, sigma_shift=0.0, sigma_flux=0.0, noise=0.02):
    numbers = [rng.normal(0, np.hypot(scale, noise), n) for scale in (sigma_flux, sigma_shift, sigma_shift)]
    constant = np.full(n, noise)
    return StarFaults(np.full(n, 1e4), numbers[0], constant, numbers[1], numbers[2], constant)


def test_shift_and_scatter_of_stars_are_told_apart(rng):
    psf, sums = gaussian_psf(1.8), np.ones((400, 6))
    quiet = star_metrics(sums, planted(rng, 400), ModelError(0.0, 0.0), psf=psf)
    assert quiet["registration"] < 0.01
    assert quiet["flux_scatter"] < 0.01
    moved = star_metrics(sums, planted(rng, 400, sigma_shift=0.2), ModelError(0.0, 0.0), psf=psf)
    assert moved["registration"] == pytest.approx(0.25, rel=0.15)
    assert moved["dipole_rate"] > 0.7
    assert moved["flux_scatter"] < 0.01
    coloured = star_metrics(sums, planted(rng, 400, sigma_flux=0.1), ModelError(0.0, 0.0), psf=psf)
    assert coloured["flux_scatter"] == pytest.approx(0.1, rel=0.2)
    assert coloured["registration"] < 0.01


def test_few_stars_prove_little(rng):
    """With 8 stars a misregistration must be large to be told, and is told when it is."""
    psf, sums = gaussian_psf(1.8), np.ones((8, 6))
    small = [star_metrics(sums, planted(rng, 8, 0.08, 0.0, 0.05), ModelError(0, 0), psf=psf) for _ in range(40)]
    large = [star_metrics(sums, planted(rng, 8, 0.6, 0.0, 0.05), ModelError(0, 0), psf=psf) for _ in range(40)]
    assert np.mean([judge({"registration": one["registration"]})[0] == "good" for one in small]) > 0.95
    assert np.mean([judge({"registration": one["registration"]})[0] == "good" for one in large]) < 0.05
    assert "registration" not in star_metrics(sums[:4], planted(rng, 4), ModelError(0, 0), psf=psf)


def test_what_a_star_leaves_is_measured(rng):
    sigma = 1.7
    psf = gaussian_psf(sigma, shape=(400, 400))
    yy, xx = np.mgrid[:400, :400]

    def star(x, y):
        return np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)

    x = (np.arange(9) % 3) * 120 + rng.uniform(50, 100, 9)
    y = (np.arange(9) // 3) * 120 + rng.uniform(50, 100, 9)
    data = sum(1e5 * (1.03 * star(a + 0.12, b - 0.07) - star(a, b)) for a, b in zip(x, y, strict=True))
    model = sum(1e5 * star(a, b) for a, b in zip(x, y, strict=True))
    faults = fit_star_faults(
        data.astype(np.float32), np.full((400, 400), 4, np.float32), model.astype(np.float32),
        mask=np.zeros((400, 400), np.uint16), psf=psf, x=x, y=y,
    )  # fmt: skip
    np.testing.assert_allclose(faults.flux, 1e5, rtol=0.02)
    np.testing.assert_allclose(faults.left, 0.03, atol=0.006)
    np.testing.assert_allclose(faults.dx, 0.12, atol=0.01)
    np.testing.assert_allclose(faults.dy, -0.07, atol=0.01)


def test_limits_are_sentences_and_ordered():
    for limit in LIMITS:
        assert "{value" in limit.text
        assert (limit.bad > limit.suspect) == limit.above
        verdict, reasons = judge({limit.metric: limit.bad * (1.01 if limit.above else 0.99) - 1e-6 * (not limit.above)})
        assert verdict == "bad" or limit.bad == 0.0
        assert reasons[0] == reasons[0].strip()
    assert judge({limit.metric: float("nan") for limit in LIMITS}) == ("good", ())
