"""Streaks at any angle are masked; galaxies, trails, spikes and clean fields are not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.images.artefacts.artefacts import mask_artefacts

_spec = importlib.util.spec_from_file_location("artefact_fields", Path(__file__).with_name("test_artefacts.py"))
fields = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fields)


def add_line(frame, x0, y0, angle, length, peak, sigma=1.3):
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    across = -(x - x0) * sin + (y - y0) * cos
    along = (x - x0) * cos + (y - y0) * sin
    light = peak * np.exp(-0.5 * (across / sigma) ** 2) * (np.abs(along) < length / 2)
    return frame.replace(data=frame.data + light.astype(np.float32)), light > 0.2 * peak


def streak_pixels(frame):
    return mask_artefacts(frame, fields.make_unit()).mask & Mask.STREAK != 0


@pytest.mark.parametrize("angle", [0, 7.3, 31, 45, 90, 118, 163.2, 179])
def test_streak_at_any_angle(rng, angle):
    frame, _, _ = fields.field(rng)
    frame, truth = add_line(frame, 330.2, 260.7, angle, 2000, 80)
    found = streak_pixels(frame)
    assert found[truth].mean() > 0.9
    assert found.mean() < 12 * truth.mean()


@pytest.mark.parametrize(("length", "peak"), [(220, 80), (300, 1000), (400, 40)])
def test_streak_that_ends_within_the_frame(rng, length, peak):
    frame, _, _ = fields.field(rng)
    frame, truth = add_line(frame, 330.2, 260.7, 24, length, peak)
    found = streak_pixels(frame)
    assert found[truth].mean() > 0.9
    assert found.mean() < 12 * truth.mean()


def test_two_crossing_streaks(rng):
    frame, _, _ = fields.field(rng)
    frame, first = add_line(frame, 330, 260, 20, 2000, 100)
    frame, second = add_line(frame, 250, 200, 110, 2000, 100)
    assert streak_pixels(frame)[first | second].mean() > 0.9


@pytest.mark.parametrize("seed", range(20))
def test_clean_fields_have_none(seed):
    rng = np.random.default_rng(seed)
    frame, _, _ = fields.field(rng, rng.uniform(1.8, 5), n=int(rng.uniform(50, 1500)))
    assert not streak_pixels(frame).any()


@pytest.mark.parametrize(("length", "axis_ratio"), [(25, 0.15), (60, 0.12), (120, 0.15)])
def test_edge_on_galaxy_is_no_streak(rng, length, axis_ratio):
    frame, _, _ = fields.field(rng)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    cos, sin = np.cos(0.6), np.sin(0.6)
    along, across = (x - 320) * cos + (y - 256) * sin, -(x - 320) * sin + (y - 256) * cos
    light = 800 * np.exp(-np.hypot(along, across / axis_ratio) / length)
    assert not streak_pixels(frame.replace(data=frame.data + light.astype(np.float32))).any()


def test_diffraction_spikes_are_no_streak(rng):
    frame, _, _ = fields.field(rng)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    u, v = (x - 320 + y - 256) / np.sqrt(2), (x - 320 - y + 256) / np.sqrt(2)
    r = np.hypot(u, v)
    light = sum(3e4 * np.exp(-0.5 * (a / 1.2) ** 2) / (1 + r / 5) ** 2 for a in (u, v)) + 1e5 * np.exp(
        -0.5 * (r / 3) ** 2
    )
    data = np.minimum(frame.data + light, fields.SATURATION).astype(np.float32)
    mask = np.where(data >= fields.SATURATION, Mask.SATURATED, 0).astype(np.uint16)
    assert not streak_pixels(frame.replace(data=data, mask=mask)).any()
