from __future__ import annotations

import numpy as np

from models.augment import AugmentOptions, augment

NOTHING = AugmentOptions(turn=False, shift=0, edge=0.0, scale=0.0)


def stamps(rng: np.random.Generator, n: int = 400, size: int = 15) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(0, 1, (n, size, size, 3)).astype(np.float32), rng.random((n, size, size)) < 0.1


def test_input_is_left_alone_and_nothing_means_nothing(rng: np.random.Generator) -> None:
    data, mask = stamps(rng)
    before = data.copy(), mask.copy()
    augment(data, mask, AugmentOptions(edge=0.5, scale=0.5), rng)
    np.testing.assert_array_equal(data, before[0])
    np.testing.assert_array_equal(mask, before[1])
    same, hidden = augment(data, mask, NOTHING, rng)
    np.testing.assert_array_equal(same, data)
    np.testing.assert_array_equal(hidden, mask)


def test_all_eight_ways_occur_equally_and_the_mask_turns_along(rng: np.random.Generator) -> None:
    one = rng.normal(0, 1, (9, 9, 3)).astype(np.float32)
    data = np.tile(one, (4000, 1, 1, 1))
    turned, mask = augment(data, data[..., 0] > 0, AugmentOptions(shift=0, edge=0, scale=0), rng)
    np.testing.assert_array_equal(mask, turned[..., 0] > 0)
    ways = [np.rot90(flipped, k) for flipped in (one, one[::-1]) for k in range(4)]
    counts = [int((turned == way).all(axis=(1, 2, 3)).sum()) for way in ways]
    assert sum(counts) == 4000
    assert min(counts) > 400


def test_shift_masks_what_comes_in(rng: np.random.Generator) -> None:
    data = np.ones((500, 9, 9, 3), np.float32)
    shifted, mask = augment(data, np.zeros((500, 9, 9), bool), AugmentOptions(turn=False, edge=0, scale=0), rng)
    np.testing.assert_array_equal(shifted[..., 0] == 0, mask)
    assert set(mask.sum(axis=(1, 2))) == {0, 9, 17}


def test_edges_are_masked_on_all_sides_but_never_the_centre(rng: np.random.Generator) -> None:
    data, mask = np.ones((600, 15, 15, 3), np.float32), np.zeros((600, 15, 15), bool)
    _, hidden = augment(data, mask, AugmentOptions(turn=False, shift=0, edge=1.0, scale=0), rng)
    assert hidden.any(axis=(1, 2)).all()
    assert not hidden[:, 7, 7].any()
    for side in (hidden[:, 0, 7], hidden[:, -1, 7], hidden[:, 7, 0], hidden[:, 7, -1]):
        assert 90 < side.sum() < 210


def test_only_the_template_is_scaled(rng: np.random.Generator) -> None:
    data, mask = stamps(rng)
    scaled, _ = augment(data, mask, AugmentOptions(turn=False, shift=0, edge=0, scale=1.0), rng)
    np.testing.assert_array_equal(scaled[..., [0, 2]], data[..., [0, 2]])
    factor = scaled[:, 3, 3, 1] / data[:, 3, 3, 1]
    assert factor.min() >= 0.49
    assert factor.max() <= 2.01
    assert factor.std() > 0.2
