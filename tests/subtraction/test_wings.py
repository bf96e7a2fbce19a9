"""What a kernel leaves of the wings of bright stars is taken off; transients there keep their light."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core.flags import Mask
from subtraction.masks.wings import subtract_wings

SHAPE, FWHM, BETA = (500, 500), 3.0, 3.0


@pytest.fixture
def sky(rng):
    """A template of bright stars, some of them saturated, its mask, and what a kernel left of their wings."""
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    model, left, saturated = np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE, np.uint16)
    x, y = 40.0 + 60 * (np.arange(49) % 7) + rng.uniform(0, 20, 49), 40.0 + 60 * (np.arange(49) // 7)
    flux = np.where(np.arange(49) % 10 == 3, 3e6, 10 ** rng.uniform(3.5, 4.7, 49))
    for a, b, f in zip(x, y, flux, strict=True):
        dx, dy = xx - np.round(a), yy - np.round(b)
        r2 = dx**2 + dy**2
        star = f * (BETA - 1) / (np.pi * 8.7) * (1 + r2 / 8.7) ** -BETA
        bent = (dx**2 - dy**2) / np.maximum(r2, 1)
        model += star
        left += star * np.where(r2 > (2 * FWHM) ** 2, 0.1 + (0.2 + 0.1 * (a / SHAPE[1] - 0.5)) * bent, 0)
        if f > 1e6:
            saturated[r2 < 14**2] = Mask.SATURATED.value
    free = flux < 1e6
    noise = rng.normal(0, 1, SHAPE)
    planes = [np.ascontiguousarray(one, dtype=np.float32) for one in (left + noise, np.ones(SHAPE), model)]
    return planes, saturated, np.round(x), np.round(y), free, left, noise


def test_wings_are_taken_off(sky):
    (data, variance, model), saturated, x, y, free, left, noise = sky
    coefficients = subtract_wings(
        data, variance, model, mask=saturated, saturated=saturated, x=x[free], y=y[free], fwhm=FWHM
    )
    near = (saturated == 0) & (np.abs(left) > 0.3)
    before, after = np.square(left[near]).mean(), np.square((data - noise)[near]).mean()
    assert after < 0.1 * before
    np.testing.assert_allclose(coefficients[1:5], [[0.1, 0.2, 0.0, 0.0, 0.0]] * 4, atol=0.05)


def test_a_transient_in_the_wings_keeps_its_light(sky):
    (data, variance, model), saturated, x, y, free, *_ = sky
    bright = np.argmax(np.where(free, model[y.astype(int), x.astype(int)], 0))
    clean = data.copy()
    subtract_wings(clean, variance, model, mask=saturated, saturated=saturated, x=x[free], y=y[free], fwhm=FWHM)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    source = 40.0 * np.exp(-((xx - x[bright] - 9) ** 2 + (yy - y[bright]) ** 2) / (2 * 1.3**2)) / (2 * np.pi * 1.3**2)
    data += source.astype(np.float32)
    subtract_wings(data, variance, model, mask=saturated, saturated=saturated, x=x[free], y=y[free], fwhm=FWHM)
    # The brightest of 44 stars: a frame has hundreds.
    assert ((data - clean) * source).sum() / np.square(source).sum() == pytest.approx(1.0, abs=0.08)


def test_noise_proves_nothing(rng, sky):
    (_, variance, model), saturated, x, y, free, *_ = sky
    data = rng.normal(0, 1, SHAPE).astype(np.float32)
    before = data.copy()
    coefficients = subtract_wings(
        data, variance, model, mask=saturated, saturated=saturated, x=x[free], y=y[free], fwhm=FWHM
    )
    assert np.abs(coefficients[:3]).max() < 0.05
    assert np.sqrt(np.square(data - before).mean()) < 0.02


def test_without_bright_stars_nothing_changes(rng):
    data = rng.normal(0, 1, SHAPE).astype(np.float32)
    before, dark, clear = data.copy(), np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint16)
    assert not subtract_wings(
        data, dark + 1, dark, mask=clear, saturated=clear, x=np.array([50.0]), y=np.array([60.0]), fwhm=FWHM
    ).any()
    np.testing.assert_array_equal(data, before)
