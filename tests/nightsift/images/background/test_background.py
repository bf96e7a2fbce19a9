"""The sky goes, sources stay, and the variance is that of the noise."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core.errors import BlankFrame
from nightsift.core.flags import Mask
from nightsift.images.background.background import find_sources, subtract_background


def robust(values):
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def test_a_gradient_is_removed_to_a_tenth_of_the_noise(make_frame, star_list):
    shape = (512, 512)
    y, x = np.mgrid[: shape[0], : shape[1]] / 512.0
    frame = make_frame(*star_list(60, shape), shape, extra=80 * x + 60 * y**2, subtracted=False)
    flat = subtract_background(frame, 64)
    noise = robust(flat.data)
    blocks = np.median(flat.data.reshape(8, 64, 8, 64), axis=(1, 3))
    assert np.abs(blocks).max() < 0.2 * noise
    assert np.std(blocks) < 0.08 * noise
    assert flat.sky == pytest.approx(300 + 40 + 15, rel=0.03)


def test_a_galaxy_wider_than_the_mesh_keeps_its_flux(make_frame, star_list):
    shape = (768, 768)
    y, x = np.mgrid[: shape[0], : shape[1]]
    galaxy = 600.0 * np.exp(-np.hypot(x - 380, (y - 390) / 0.7) / 25.0)
    frame = make_frame(*star_list(30, shape), shape, extra=galaxy, subtracted=False)
    bare = frame.replace(data=(frame.data - galaxy).astype(np.float32))
    core = np.hypot(x - 380, y - 390) < 80
    kept = subtract_background(frame, 64).data[core].sum() - subtract_background(bare, 64).data[core].sum()
    assert kept == pytest.approx(galaxy[core].sum(), rel=0.03)


def test_bright_stars_do_not_dig_holes(make_frame):
    frame = make_frame(np.array([200.0]), np.array([210.0]), np.array([3e6]), (400, 400), sigma=4.0, subtracted=False)
    flat = subtract_background(frame, 32)
    y, x = np.mgrid[:400, :400]
    ring = np.abs(np.hypot(x - 200, y - 210) - 45) < 10
    assert abs(np.median(flat.data[ring])) < 0.15 * robust(flat.data)


def test_masked_pixels_do_not_count(make_frame):
    frame = make_frame(np.array([50.0]), np.array([50.0]), np.array([1e4]), (256, 256), subtracted=False)
    data, mask = frame.data.copy(), frame.mask.copy()
    data[:, 100:130] = np.nan
    mask[:, 100:130] = Mask.NONFINITE.value
    data[30:60, 180:200] = 1e6
    mask[30:60, 180:200] = Mask.SATURATED.value
    flat = subtract_background(frame.replace(data=data, mask=mask), 32)
    good = mask == 0
    assert abs(np.median(flat.data[good])) < 1.0
    assert np.array_equal(flat.mask, mask)
    assert np.isfinite(flat.data[good]).all()


def test_true_variance_is_left_alone(make_frame, star_list):
    frame = make_frame(*star_list(40), subtracted=False)
    flat = subtract_background(frame, 64)
    assert (flat.variance >= frame.variance).all()
    assert np.median(flat.variance / frame.variance) < 1.03


def test_wrong_gain_scales_the_variance(make_frame, star_list):
    frame = make_frame(*star_list(40), subtracted=False)
    low = frame.replace(variance=frame.variance / 4)
    flat = subtract_background(low, 64)
    assert np.median(flat.variance / frame.variance) == pytest.approx(1.0, abs=0.05)


def test_missing_sky_is_added_not_multiplied(make_frame):
    """A frame that comes with its sky subtracted knows only the noise of the readout and of the stars."""
    frame = make_frame(np.array([128.0]), np.array([128.0]), np.array([2e5]), sky=2000.0, subtracted=True)
    unknowing = np.maximum(frame.variance - 2000.0 / frame.meta.gain, 1.0).astype(np.float32)
    flat = subtract_background(frame.replace(variance=unknowing), 64)
    ratio = flat.variance / frame.variance
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    assert ratio[128, 128] == pytest.approx(1.0, abs=0.05)


def test_blank_frames_are_refused(make_frame):
    frame = make_frame(np.array([10.0]), np.array([10.0]), np.array([1e3]), (64, 64), subtracted=False)
    with pytest.raises(BlankFrame, match="0 of 4096 pixels are usable"):
        subtract_background(frame.replace(mask=np.full((64, 64), Mask.SATURATED.value, dtype=np.uint16)), 32)
    with pytest.raises(BlankFrame, match="hold the value 7"):
        subtract_background(frame.replace(data=np.full((64, 64), 7, dtype=np.float32)), 32)


def test_a_crowded_frame_keeps_free_pixels(rng):
    image = rng.normal(size=(256, 256)).astype(np.float32)
    image[::6, ::6] += 300.0
    free = ~find_sources(image, np.zeros(image.shape, dtype=bool))
    assert free.mean() >= 0.5


@pytest.mark.parametrize("shape", [(65, 43), (130, 257), (33, 500)])
def test_odd_shapes(make_frame, shape):
    frame = make_frame(np.array([20.0]), np.array([15.0]), np.array([1e4]), shape, subtracted=False)
    flat = subtract_background(frame, 64)
    assert flat.shape == shape
    assert abs(np.median(flat.data)) < 2.0
