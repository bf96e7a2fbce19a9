"""From raw pixels to frames: calibration, masks and variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nightsift.core.errors import BlankFrame
from nightsift.core.flags import Mask
from nightsift.core.frames import Meta
from nightsift.images.calibrate import Masters, make_frame, superpixels

SHAPE = (200, 180)


def meta(**changes: Any) -> Meta:
    names = {"unit": "u", "field": "f", "band": "r", "night": "2026-11-20", "exposure_id": "u-1"}
    numbers = {
        "mjd": 61000.0,
        "exposure_s": 50.0,
        "gain": 2.0,
        "read_noise": 6.0,
        "saturation": 5e4,
        "pixel_scale": 1.0,
    }
    facts: dict[str, Any] = {**names, **numbers}
    return Meta(**(facts | changes))


def test_calibration_recovers_the_sky_and_its_noise(rng: np.random.Generator) -> None:
    """Simulated as a detector makes it: the scores of a flat sky are unit Gaussian."""
    flat = np.clip(rng.normal(1.0, 0.1, SHAPE), 0.5, 1.5).astype(np.float32)
    bias = rng.normal(300.0, 3.0, SHAPE).astype(np.float32)
    dark = rng.uniform(0.1, 2.0, SHAPE).astype(np.float32)
    electrons = rng.poisson((400.0 * flat + dark * 50.0) * 2.0) + rng.normal(0.0, 6.0, SHAPE)
    raw = (bias + electrons / 2.0).astype(np.float32)
    frame = make_frame(raw, meta(), Masters(bias=bias, dark=dark, flat=flat))
    scores = (frame.data - 400.0) / np.sqrt(frame.variance)
    assert abs(scores.mean()) < 0.02
    assert abs(scores.std() - 1.0) < 0.02
    assert not frame.mask.any()


def test_sky_that_was_removed_still_makes_noise(rng: np.random.Generator) -> None:
    raw = (rng.poisson(3000.0 * 2.0, SHAPE) / 2.0 + rng.normal(0, 3.0, SHAPE) - 3000.0).astype(np.float32)
    with_fact = make_frame(raw, meta(), sky=3000.0)
    assert abs((raw / np.sqrt(with_fact.variance)).std() - 1.0) < 0.02
    without = make_frame(raw, meta())
    assert (raw / np.sqrt(without.variance)).std() > 3.0


def test_pedestal_is_no_light() -> None:
    raw = np.full(SHAPE, 1100.0, dtype=np.float32)
    raw[0, 0] = 1200.0
    frame = make_frame(raw, meta(), pedestal=1000.0)
    assert frame.data[5, 5] == 100.0
    assert frame.variance[5, 5] == pytest.approx(100.0 / 2.0 + 9.0)


def test_masks_are_made_on_raw_pixels(rng: np.random.Generator) -> None:
    raw = rng.normal(1000.0, 5.0, SHAPE).astype(np.float32)
    raw[10, 10], raw[20, 20], raw[30, 30], raw[31, 30] = 50000.0, np.nan, np.inf, 49999.0
    flat = np.ones(SHAPE, dtype=np.float32)
    flat[40, 40], flat[41, 41] = 0.05, np.nan
    bias = np.full(SHAPE, 500.0, dtype=np.float32)
    bias[50, 50] = np.nan
    bad = np.zeros(SHAPE, dtype=bool)
    bad[60, 60] = True
    frame = make_frame(raw, meta(), Masters(bias=bias, flat=flat, bad_pixels=bad))
    assert frame.mask[10, 10] == Mask.SATURATED
    assert frame.mask[20, 20] == Mask.NONFINITE
    assert frame.mask[30, 30] == Mask.NONFINITE | Mask.SATURATED
    assert frame.mask[31, 30] == 0
    assert [int(frame.mask[i, i]) for i in (40, 41, 50, 60)] == [Mask.DEFECT] * 4
    assert np.count_nonzero(frame.mask) == 7
    assert np.isfinite(frame.data).all()
    assert np.isfinite(frame.variance).all()
    assert frame.data[20, 20] == pytest.approx(500.0, abs=3)


def test_raw_pixels_and_masters_are_left_as_they_were(rng: np.random.Generator) -> None:
    raw = rng.normal(1000.0, 5.0, SHAPE).astype(np.float32)
    raw.setflags(write=False)
    before = raw.copy()
    flat = np.full(SHAPE, 0.5, dtype=np.float32)
    make_frame(raw, meta(), Masters(flat=flat))
    np.testing.assert_array_equal(raw, before)
    assert (flat == 0.5).all()


@pytest.mark.parametrize(
    ("value", "told"),
    [(np.nan, "100.0% NONFINITE"), (60000.0, "100.0% SATURATED"), (1000.0, "the value 1000"), (np.inf, "NONFINITE")],
)
def test_blank_frames_are_refused(value: float, told: str) -> None:
    with pytest.raises(BlankFrame, match=told):
        make_frame(np.full(SHAPE, value, dtype=np.float32), meta())


def test_a_frame_with_a_few_good_pixels_is_blank(rng: np.random.Generator) -> None:
    raw = np.full(SHAPE, 60000.0, dtype=np.float32)
    raw[0, :100] = rng.normal(1000, 10, 100)
    with pytest.raises(BlankFrame, match="only 100 of 36000"):
        make_frame(raw, meta())


def test_masters_of_another_shape_are_named() -> None:
    raw = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    with pytest.raises(ValueError, match="master dark has 180 x 201 pixels, the frame 180 x 200"):
        make_frame(raw, meta(saturation=1e6), Masters(dark=np.zeros((201, 180), dtype=np.float32)))


def test_superpixels_average_and_join_masks() -> None:
    data = np.arange(30, dtype=np.float32).reshape(5, 6)
    mask = np.zeros((5, 6), dtype=np.uint16)
    mask[0, 1], mask[1, 0] = Mask.SATURATED, Mask.DEFECT
    mean, variance, union = superpixels(data, np.full_like(data, 8.0), mask)
    assert mean.shape == (2, 3)
    assert mean[0, 0] == np.mean([0, 1, 6, 7])
    assert (variance == 2.0).all()
    assert union[0, 0] == Mask.SATURATED | Mask.DEFECT
    assert np.count_nonzero(union) == 1


def test_noise_of_a_colour_camera(rng: np.random.Generator) -> None:
    """Gain and read noise in the metadata are those of the joined pixels, whatever the colours."""
    levels = np.tile([[200.0, 400.0], [400.0, 300.0]], (100, 90))
    raw = ((rng.poisson(levels * 2.0) + rng.normal(0, 6.0, SHAPE)) / 2.0).astype(np.float32)
    frame = make_frame(raw, meta(), bayer="RGGB")
    assert frame.shape == (100, 90)
    assert frame.meta.pixel_scale == 2.0
    scores = (frame.data - levels.mean()) / np.sqrt(frame.variance)
    assert abs(scores.std() - 1.0) < 0.03
    expected = frame.data / frame.meta.gain + (frame.meta.read_noise / frame.meta.gain) ** 2
    np.testing.assert_allclose(frame.variance, expected, rtol=1e-4)
