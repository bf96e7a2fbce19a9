from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.network.inputs import Recipe
from models.network.normalise import normalise
from models.training.augment import AugmentOptions, augment, filtered, shift_taps, smoothing_taps

NOTHING = AugmentOptions(
    turn=False, shift=0, subpixel=0, seeing=0, edge=0, scale=0, no_difference=0, no_template=0, no_science=0
)


def stamps(rng: np.random.Generator, n: int = 400, size: int = 15) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(0, 1, (n, size, size, 3)).astype(np.float32), rng.random((n, size, size)) < 0.1


def test_input_is_left_alone_and_nothing_means_nothing(rng: np.random.Generator) -> None:
    data, mask = stamps(rng)
    before = data.copy(), mask.copy()
    augment(data, mask, AugmentOptions(edge=0.5, scale=0.5, subpixel=0.5, seeing=0.5), rng=rng)
    np.testing.assert_array_equal(data, before[0])
    np.testing.assert_array_equal(mask, before[1])
    same, hidden = augment(data, mask, NOTHING, rng=rng)
    np.testing.assert_array_equal(same, data)
    np.testing.assert_array_equal(hidden, mask)


def test_all_eight_ways_occur_equally_and_the_mask_turns_along(rng: np.random.Generator) -> None:
    one = rng.normal(0, 1, (9, 9, 3)).astype(np.float32)
    data = np.tile(one, (4000, 1, 1, 1))
    turned, mask = augment(data, data[..., 0] > 0, replace(NOTHING, turn=True), rng=rng)
    np.testing.assert_array_equal(mask, turned[..., 0] > 0)
    ways = [np.rot90(flipped, k) for flipped in (one, one[::-1]) for k in range(4)]
    counts = [int((turned == way).all(axis=(1, 2, 3)).sum()) for way in ways]
    assert sum(counts) == 4000
    assert min(counts) > 400


def test_shift_masks_what_comes_in(rng: np.random.Generator) -> None:
    data = np.ones((500, 9, 9, 3), np.float32)
    shifted, mask = augment(data, np.zeros((500, 9, 9), bool), replace(NOTHING, shift=1), rng=rng)
    np.testing.assert_array_equal(shifted[..., 0] == 0, mask)
    assert set(mask.sum(axis=(1, 2))) == {0, 9, 17}


def test_edges_are_masked_on_all_sides_but_never_the_centre(rng: np.random.Generator) -> None:
    data, mask = np.ones((600, 15, 15, 3), np.float32), np.zeros((600, 15, 15), bool)
    _, hidden = augment(data, mask, replace(NOTHING, edge=1.0), rng=rng)
    assert hidden.any(axis=(1, 2)).all()
    assert not hidden[:, 7, 7].any()
    for side in (hidden[:, 0, 7], hidden[:, -1, 7], hidden[:, 7, 0], hidden[:, 7, -1]):
        assert 90 < side.sum() < 210


def test_only_the_template_is_scaled(rng: np.random.Generator) -> None:
    data, mask = stamps(rng)
    scaled, _ = augment(data, mask, replace(NOTHING, scale=1.0), rng=rng)
    np.testing.assert_array_equal(scaled[..., [0, 2]], data[..., [0, 2]])
    factor = scaled[:, 3, 3, 1] / data[:, 3, 3, 1]
    assert factor.min() >= 0.49
    assert factor.max() <= 2.01
    assert factor.std() > 0.2


def stars(n: int, sigma: float = 1.2, size: int = 31) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size] - size // 2
    one = 1000 * np.exp(-0.5 * (xx**2 + yy**2) / sigma**2)
    return np.repeat(np.repeat(one[None, ..., None], n, axis=0), 3, axis=3).astype(np.float32)


def test_a_subpixel_shift_moves_the_light_and_keeps_it(rng: np.random.Generator) -> None:
    data, shift = stars(5), np.array([-0.5, -0.2, 0.0, 0.3, 0.5])
    moved, _ = filtered(
        data, np.zeros(data.shape[:3], bool), shift_taps(shift), taps_x=shift_taps(-shift), planes=(0, 1)
    )
    yy, xx = np.mgrid[:31, :31] - 15
    for plane in (0, 1):
        total = moved[..., plane].sum(axis=(1, 2))
        np.testing.assert_allclose(total, data[..., plane].sum(axis=(1, 2)), rtol=2e-3)
        np.testing.assert_allclose((moved[..., plane] * yy).sum(axis=(1, 2)) / total, shift, atol=0.02)
        np.testing.assert_allclose((moved[..., plane] * xx).sum(axis=(1, 2)) / total, -shift, atol=0.02)
    np.testing.assert_array_equal(moved[..., 2], data[..., 2])
    np.testing.assert_allclose(moved[2], data[2], atol=1e-3)


def test_bad_pixels_do_not_spill_and_absent_planes_stay_absent(rng: np.random.Generator) -> None:
    data, mask = np.full((2, 31, 31, 3), 7, np.float32), np.zeros((2, 31, 31), bool)
    data[:, 10, 10], mask[0, 10, 10], data[1, 10, 10] = 1e6, True, np.nan
    data[0, ..., 1] = np.nan
    taps = smoothing_taps(np.array([0.5, 0.5]))
    found, hidden = filtered(data, mask, taps, taps_x=taps, planes=(0, 1, 2))
    np.testing.assert_allclose(found[..., 0], 7, rtol=1e-5)
    assert np.isnan(found[0, ..., 1]).all()
    assert hidden[0].sum() == 5


def test_worse_seeing_widens_science_and_difference_but_leaves_the_noise(rng: np.random.Generator) -> None:
    options = replace(NOTHING, seeing=1.0)
    noise = rng.normal(0, 3, (60, 31, 31, 3)).astype(np.float32)
    mask = np.zeros((60, 31, 31), bool)
    found, _ = augment(noise, mask, options, rng=rng)
    np.testing.assert_allclose(found.std(axis=(0, 1, 2)), noise.std(axis=(0, 1, 2)), rtol=0.05)
    star, _ = augment(stars(60), mask, options, rng=rng)
    width = star[:, 15, 15, 0] / 1000
    assert width.min() == pytest.approx(1.44 / (1.44 + 0.25), abs=0.03)
    assert width.max() == pytest.approx(1.44 / (1.44 + 0.0625), abs=0.03)
    np.testing.assert_allclose(star.sum(axis=(1, 2)), stars(60).sum(axis=(1, 2)), rtol=0.02)
    np.testing.assert_array_equal(star[..., 1], stars(60)[..., 1])


def test_planes_are_removed_at_the_stated_rate_and_never_the_last(rng: np.random.Generator) -> None:
    options = replace(NOTHING, no_difference=0.2, no_template=0.3, no_science=0.1)
    data, mask = stamps(rng, 3000)
    data[:500, ..., :2] = np.nan
    found, _ = augment(data, mask, options, rng=rng)
    gone = np.isnan(found).all(axis=(1, 2))
    assert not gone.all(axis=1).any()
    assert not gone[:500, 2].any()
    assert gone[500:].mean(axis=0) == pytest.approx([0.1, 0.3, 0.2], abs=0.03)
    assert gone[500:].sum(axis=1).max() == 1


def test_fill_values_near_the_end_of_the_range_do_no_harm(rng: np.random.Generator) -> None:
    data, mask = stamps(rng, 64, 31)
    data[:, 3, 3] = 3e38
    found = normalise(*augment(data, mask, AugmentOptions(scale=1.0, subpixel=0.5, seeing=0.5), rng=rng), Recipe())
    assert np.isfinite(found).all()
