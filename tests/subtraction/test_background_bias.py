"""The background of a difference where faint sources of a noisy template lie everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from subtraction.noise.background import noise_share, sky_blocks

SHAPE = (600, 640)


@pytest.fixture
def crowd(rng):
    """Template and difference of frames without any difference, sources of all brightnesses on each tenth pixel."""
    sources = ndimage.gaussian_filter(np.where(rng.random(SHAPE) < 0.1, 30 * rng.pareto(1.5, SHAPE), 0.0), 1.2)

    def made(deep):
        science, template = rng.normal(size=SHAPE), rng.normal(0, deep, SHAPE)
        planes = science - template, np.full(SHAPE, 1 + deep**2), sources + template
        return *(plane.astype(np.float32) for plane in planes), np.zeros(SHAPE, np.uint16)

    return made


@pytest.mark.parametrize("deep", [0.1, 1.0, 2.0])
def test_share_of_the_noise(crowd, deep):
    assert noise_share(*crowd(deep)) == pytest.approx(deep**2 / (1 + deep**2), abs=0.03)


def test_a_gradient_does_not_count(crowd):
    data, *rest = crowd(1.0)
    slope = np.linspace(0, 20, SHAPE[1], dtype=np.float32)
    assert noise_share(data + slope, *rest) == pytest.approx(0.5, abs=0.03)
    assert noise_share(data, rest[0], rest[1], np.ones(SHAPE, np.uint16)) == 0


@pytest.mark.parametrize("deep", [0.3, 1.0])
def test_sky_among_sources_is_not_chosen_by_its_noise(crowd, deep):
    planes = crowd(deep)
    _, _, level, error = sky_blocks(*planes, blocks=12)
    assert len(level) > 50
    assert np.average(level, weights=error**-2) == pytest.approx(0.0, abs=4.0 / np.sqrt((error**-2).sum()))
