"""Stamps are square, centred, masked at edges, and turned as their unit says."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, Frame, Meta, Pair
from nightsift.core.psf import Psf
from nightsift.images.stamps import cut


@pytest.fixture
def subject(rng):
    shape = (60, 80)
    meta = Meta("u", "f", "r", "2026-11-20", "u-1", 61000.0, 60.0, 1.0, 5.0, 6e4, 1.0)
    frames = [
        Frame(rng.normal(0, 1, shape).astype(np.float32), np.ones(shape, np.float32), np.zeros(shape, np.uint16), meta)
        for _ in range(3)
    ]
    psf = Psf(np.ones((1, 3, 3), np.float32), 0, shape, 2.0)
    d = frames[2]
    difference = Difference(d.data, d.variance, d.mask.copy(), np.zeros(shape, np.float32), psf, "t", "template", 1.0)
    return Pair(frames[0], frames[1]), difference


def test_every_position_and_corner_is_centred_and_padded_with_mask(subject):
    pair, difference = subject
    size, half = 11, 5
    x = np.array([40.4, 0.0, 79.0, 0.0, 79.0, 39.5, -3.0])
    y = np.array([30.4, 0.0, 59.0, 59.0, 0.0, 29.5, 2.0])
    stamps = cut(pair, difference, x, y=y, size=size)
    planes = (pair.science.data, pair.template.data, difference.data)
    assert stamps.data.shape == (len(x), size, size, 3)
    for n, (column, row) in enumerate(zip(np.floor(x + 0.5).astype(int), np.floor(y + 0.5).astype(int), strict=True)):
        for k, plane in enumerate(planes):
            padded = np.pad(plane, 20)
            expected = padded[row + 20 - half : row + 21 + half, column + 20 - half : column + 21 + half]
            assert (stamps.data[n, :, :, k] == expected).all()
        inside = np.pad(np.ones(difference.shape, bool), 20)
        expected = inside[row + 20 - half : row + 21 + half, column + 20 - half : column + 21 + half]
        assert (stamps.mask[n] == ~expected).all()


def test_masked_pixels_keep_their_data_and_missing_ones_are_zero(subject):
    pair, difference = subject
    difference.mask[30, 40] = Mask.SATURATED
    difference.mask[30, 41] = Mask.BRIGHT_STAR
    difference.mask[31, 40] = Mask.NO_DATA
    difference.data[31, 40] = np.nan
    stamp = cut(pair, difference, np.array([40.0]), y=np.array([30.0]), size=5)
    assert stamp.mask[0].sum() == 2
    assert stamp.mask[0, 2, 2]
    assert stamp.mask[0, 3, 2]
    assert stamp.data[0, 2, 2, 2] == difference.data[30, 40]
    assert stamp.data[0, 3, 2, 2] == 0
    assert np.isfinite(stamp.data).all()


@pytest.mark.parametrize(
    ("orientation", "to"),  # where a source right of and above the centre, at (+2, +1), is shown
    [
        ("none", (2, 1)),
        ("flip_x", (-2, 1)),
        ("flip_y", (2, -1)),
        ("rot90", (-1, 2)),
        ("rot180", (-2, -1)),
        ("rot270", (1, -2)),
    ],
)
def test_orientations_turn_data_and_mask_alike(subject, orientation, to):
    pair, difference = subject
    difference.data[:] = 0
    difference.data[31, 42] = 9
    difference.mask[31, 42] = Mask.DEFECT
    stamp = cut(pair, difference, np.array([40.0]), y=np.array([30.0]), size=7, orientation=orientation)
    assert stamp.data[0, 3 + to[1], 3 + to[0], 2] == 9
    assert np.argwhere(stamp.mask[0]).tolist() == [[3 + to[1], 3 + to[0]]]


def test_none_and_nonsense(subject):
    pair, difference = subject
    assert len(cut(pair, difference, np.empty(0), y=np.empty(0), size=31)) == 0
    with pytest.raises(ValueError, match="odd"):
        cut(pair, difference, np.array([1.0]), y=np.array([1.0]), size=30)
    with pytest.raises(ValueError, match="finite"):
        cut(pair, difference, np.array([np.nan]), y=np.array([1.0]), size=31)
    with pytest.raises(ValueError, match="orientation"):
        cut(pair, difference, np.array([1.0]), y=np.array([1.0]), size=31, orientation="upside_down")
