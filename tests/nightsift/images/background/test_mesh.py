"""A surface through the levels of cells: unbiased by stars, masks, slopes and whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.images.background.mesh import evaluate, fit_surface

ALL = np.uint16(0xFFFF)


def rows_of(surface, shape):
    pieces = surface.pieces(np.arange(shape[0]))
    out = np.empty(shape, dtype=np.float32)
    for y in range(shape[0]):
        evaluate(pieces[y], out[y])
    return out


@pytest.mark.parametrize("shape", [(300, 421), (64, 900), (70, 70), (48, 50)])
def test_a_plane_comes_back(rng, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    plane = 500.0 + 0.02 * x - 0.014 * y
    data = (plane + rng.normal(size=shape)).astype(np.float32)
    surface = fit_surface(data, np.zeros(shape, dtype=np.uint16), ALL, cell=32, stride=1)
    out = rows_of(surface, shape)
    assert np.abs(out - plane).max() < 0.5
    assert surface.sigma == pytest.approx(1.0, abs=0.06)
    lattice = surface.at(np.arange(0, shape[0], 7), np.arange(0, shape[1], 5))
    np.testing.assert_allclose(lattice, out[::7, ::5], atol=2e-3)


def test_stars_and_masked_pixels_do_not_count(rng):
    shape = (256, 256)
    data = (100 + 3 * rng.normal(size=shape)).astype(np.float32)
    data[rng.integers(0, 256, 600), rng.integers(0, 256, 600)] += 500
    mask = np.zeros(shape, dtype=np.uint16)
    mask[40:90, 100:140] = 1
    data[40:90, 100:140] = np.nan
    out = rows_of(fit_surface(data, mask, ALL, cell=64, stride=2), shape)
    assert np.isfinite(out).all()
    assert np.abs(out - 100).max() < 0.5


@pytest.mark.parametrize("level", [100.0, 100.3, 100.5, 100.8])
def test_whole_numbers_tell_fractions(rng, level):
    """Counts of a detector whose noise is no larger than their step."""
    data = np.rint(level + 0.8 * rng.normal(size=(512, 512))).astype(np.float32)
    surface = fit_surface(data, np.zeros(data.shape, dtype=np.uint16), ALL, cell=64, stride=1)
    assert surface.levels.mean() == pytest.approx(level, abs=0.08)


def test_nothing_usable_is_told():
    surface = fit_surface(np.zeros((64, 64), np.float32), np.ones((64, 64), np.uint16), ALL, cell=16)
    assert np.isnan(surface.sigma)
    assert (rows_of(surface, (64, 64)) == 0).all()


def test_threads_and_strides_agree(rng):
    data = (50 + rng.normal(size=(640, 640))).astype(np.float32)
    mask = np.zeros(data.shape, dtype=np.uint16)
    whole, every_second = (fit_surface(data, mask, ALL, cell=64, stride=stride).levels for stride in (1, 2))
    assert np.std(whole - every_second) < 0.05
