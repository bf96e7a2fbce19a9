"""Injected stars have the flux, position, noise and saturation asked for."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, Meta
from nightsift.core.psf import Psf
from nightsift.images.injection import inject_stars


def make_frame(level=0.0, gain=2.0, saturation=60000.0, sky=np.nan, shape=(200, 220)):
    meta = Meta("u", "f", "r", "2026-11-20", "u-1", 61000.0, 60.0, gain, 5.0, saturation, 1.0)
    return Frame(
        np.full(shape, level, np.float32), np.full(shape, 9, np.float32), np.zeros(shape, np.uint16), meta, sky=sky
    )


def sampled_gaussian(fwhm, dx=0.0, dy=0.0, size=31):
    """A Gaussian integrated over pixels, as a detector sees it."""
    from scipy.special import erf

    s = fwhm / 2.3548 * np.sqrt(2)
    edges = np.arange(size + 1) - size // 2 - 0.5
    px, py = np.diff(erf((edges - dx) / s)), np.diff(erf((edges - dy) / s))
    return np.outer(py, px) / 4


def gaussian_psf(fwhm, shape):
    return Psf(sampled_gaussian(fwhm)[None].astype(np.float32), 0, shape, fwhm)


@pytest.mark.parametrize(("fwhm", "tolerance"), [(1.8, 0.03), (2.5, 5e-3), (5.0, 3e-3)])
def test_flux_is_exact_and_subpixel_shape_true(rng, fwhm, tolerance):
    frame = make_frame()
    psf = gaussian_psf(fwhm, frame.shape)
    for dx, dy in [(0, 0), (0.5, 0.5), (-0.37, 0.21), (0.49, -0.02)]:
        data = inject_stars(frame, [100 + dx], [90 + dy], [1e4], psf).data
        assert data.sum(dtype=np.float64) == pytest.approx(1e4, rel=1e-5)
        truth = 1e4 * sampled_gaussian(fwhm, dx, dy)
        assert np.abs(data[75:106, 85:116] - truth).max() < tolerance * truth.max()


def test_noise_is_that_of_the_gain_and_the_variance_tells_it(rng):
    frame = make_frame(gain=2.0)
    psf = gaussian_psf(3.0, frame.shape)
    stack = np.array([inject_stars(frame, [100.0], [90.0], [4000.0], psf, rng).data for _ in range(400)])
    expected = inject_stars(frame, [100.0], [90.0], [4000.0], psf)
    scatter = stack[:, 90, 100].var() / (expected.variance[90, 100] - 9)
    assert 0.75 < scatter < 1.3
    assert stack[:, 90, 100].mean() == pytest.approx(expected.data[90, 100], rel=0.01)
    assert (expected.variance - frame.variance).sum() == pytest.approx(2000, rel=1e-3)


def test_saturation_is_respected_with_and_without_sky(rng):
    for frame, level in (
        (make_frame(1000.0, saturation=5000.0), 5000),
        (make_frame(0.0, saturation=5000.0, sky=1000.0), 4000),
    ):
        star = inject_stars(frame, [100.0], [90.0], [2e5], gaussian_psf(3.0, frame.shape))
        full = star.mask & Mask.SATURATED != 0
        assert full.sum() > 4
        assert (star.data[full] == level).all()
        assert star.data.max() == level


def test_edges_varying_psf_and_many_stars_add_up(rng):
    frame = make_frame()
    flat, wide = sampled_gaussian(3.0), sampled_gaussian(4.5)
    psf = Psf(np.array([0.5 * (flat + wide), 0.5 * (wide - flat), 0 * flat], np.float32), 1, frame.shape, 3.6)
    x, y = rng.uniform(-3, 223, 300), rng.uniform(-3, 203, 300)
    data = inject_stars(frame, x, y, np.full(300, 100.0), psf).data
    apart = sum(inject_stars(frame, x[k : k + 1], y[k : k + 1], [100.0], psf).data for k in range(300))
    assert np.allclose(data, apart, atol=1e-3)
    assert (inject_stars(frame, [-50.0], [500.0], [100.0], psf).data == 0).all()


def test_nonsense_is_refused():
    frame = make_frame()
    psf = gaussian_psf(3.0, frame.shape)
    with pytest.raises(ValueError, match="negative"):
        inject_stars(frame, [1.0], [1.0], [-5.0], psf)
    with pytest.raises(ValueError, match="equal length"):
        inject_stars(frame, [1.0, 2.0], [1.0], [5.0], psf)
