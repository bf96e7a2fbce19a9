"""No method leaves seams where its tiles meet, however much the PSF varies."""

from __future__ import annotations

import numpy as np
import pytest

import subtraction
from nightsift.core.flags import HARD

TILES = (16, 32, 48, 64, 96, 128, 192, 256)


@pytest.fixture(scope="module")
def varying():
    """Differences of one pair by method."""
    return {}


@pytest.fixture
def difference(varying, own_method, make_pair, seeing):
    if own_method not in varying:
        # Much light and little noise, so that a step of the kernel would be seen.
        pair, _ = make_pair(
            shape=(560, 600), n_stars=1000, gain=60.0, read_noise=10.0, sky=100.0, template_depth=1.0,
            science=seeing(4.0, growth=0.25, ellipticity=0.12), template=seeing(3.2, growth=-0.12),
        )  # fmt: skip
        varying[own_method] = subtraction.subtract_pair(pair, own_method)
    return varying[own_method]


def steps(difference, axis):
    """Mean squared step from each row (column) to the next, in units of the noise."""
    pull = np.where((difference.mask & HARD) == 0, difference.data / np.sqrt(difference.variance), np.nan)
    inner = pull[24:-24, 24:-24]
    squares = np.diff(inner, axis=axis) ** 2
    # Clipped, so that one star does not decide.
    return np.nanmean(np.minimum(squares, 30.0), axis=1 - axis), np.arange(25, 25 + squares.shape[axis])


@pytest.mark.parametrize("axis", [0, 1])
def test_steps_are_no_larger_where_tiles_may_meet(difference, axis):
    size, index = steps(difference, axis)
    usual, spread = np.median(size), 1.4826 * np.median(np.abs(size - np.median(size)))
    for tile in TILES:
        for phase in (0, tile // 2):
            on = (index % tile) == phase
            if on.sum() < 2:
                continue
            excess = (size[on].mean() - usual) / (spread / np.sqrt(on.sum()))
            assert excess < 5.5, f"steps every {tile} px, beginning at {phase}"
    assert size.max() < usual + 8.0 * spread


def test_means_do_not_jump(difference):
    """Along every line between rows or columns the difference goes on as it was."""
    pull = np.where((difference.mask & HARD) == 0, difference.data / np.sqrt(difference.variance), np.nan)
    for one in (pull, pull.T):
        levels = np.nanmean(np.clip(one, -4, 4)[30:-30], axis=1)
        jumps = np.diff(levels)
        spread = 1.4826 * np.median(np.abs(jumps))
        assert np.abs(jumps).max() < 6.0 * spread
