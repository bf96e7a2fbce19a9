"""Peaks of objects: one a star, none of the noise on a bright one, two of a pair."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nightsift.core.flags import Mask
from nightsift.images.stars.star_peaks import find_star_peaks

DARK = np.uint16(Mask.NONFINITE.value)


def noisy(rng, stars, shape=(160, 200), sigma=1.6):
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = sum(f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for a, b, f in stars)
    variance = (1 + np.maximum(image, 0) / 2).astype(np.float32)
    return (image + rng.normal(size=shape) * np.sqrt(variance)).astype(np.float32), variance


def peaks(data, variance, mask=None, threshold=5.0):
    mask = np.zeros(data.shape, dtype=np.uint16) if mask is None else mask
    return find_star_peaks(data, variance, mask, dark=DARK, sigma=1.2, threshold=threshold)


def test_the_score_is_that_of_a_gaussian_filter(rng):
    data, variance = noisy(rng, [(50, 40, 30), (120, 100, 80)])
    x, y, snr = peaks(data, variance)
    taps = ndimage.gaussian_filter1d(np.eye(1, 31, 15)[0], 1.2)
    score = ndimage.gaussian_filter(data / np.sqrt(variance), 1.2, mode="constant") / (taps**2).sum()
    np.testing.assert_allclose(snr, score[y, x], rtol=1e-3)


def test_a_very_bright_star_is_one_peak(rng):
    data, variance = noisy(rng, [(90.3, 80.1, 1e6)], sigma=5.0)
    x, y, _ = peaks(data, variance)
    assert len(x) == 1
    assert np.hypot(x[0] - 90.3, y[0] - 80.1) < 2


def test_a_saturated_plateau_is_one_peak(rng):
    data, variance = noisy(rng, [(90.3, 80.1, 1e6)], sigma=5.0)
    data = np.minimum(data, 5e4 + rng.normal(size=data.shape)).astype(np.float32)
    assert len(peaks(data, variance)[0]) == 1


@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_a_pair_is_two(rng, ratio):
    data, variance = noisy(rng, [(80, 80, 300), (88, 80, 300 * ratio)])
    x, _, _ = peaks(data, variance)
    assert sorted(x) == [80, 88]


@pytest.mark.parametrize("place", [(0, 30), (199, 30), (60, 0), (60, 159), (0, 0), (199, 159)])
def test_edges_do_not_wrap_around(rng, place):
    data, variance = noisy(rng, [(*place, 400)])
    x, y, _ = peaks(data, variance)
    assert len(x) == 1
    assert max(abs(x[0] - place[0]), abs(y[0] - place[1])) <= 1


def test_dark_pixels_are_no_peaks_and_spoil_none(rng):
    data, variance = noisy(rng, [(50, 50, 100), (120, 100, 100)])
    mask = np.zeros(data.shape, dtype=np.uint16)
    data[45:56, 45:56], mask[45:56, 45:56] = np.nan, DARK
    x, y, _ = peaks(data, variance, mask)
    assert (120, 100) in set(zip(x, y, strict=True))
    assert (mask[y, x] == 0).all()


def test_noise_gives_what_chance_gives(rng):
    data = rng.normal(size=(1000, 1000)).astype(np.float32)
    assert len(peaks(data, np.ones_like(data))[0]) <= 3


def test_crowding_raises_the_threshold(rng):
    stars = rng.uniform(0, 150, (1500, 3)) * (1, 1, 3)
    data, variance = noisy(rng, stars, (150, 150))
    _, _, snr = peaks(data, variance)
    assert 20 < len(snr) < 1500
    assert snr.min() > 5
