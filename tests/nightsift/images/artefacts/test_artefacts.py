"""Planted faults are marked with their own bit, and clean fields stay clean."""

from __future__ import annotations

import types

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, Meta
from nightsift.core.psf import Psf
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.injection import inject_stars

SKY = 400.0
SATURATION = 20000.0


def make_unit(**changes):
    options = {"cosmic_rays": True, "streaks": True, "bleed": True, "saturation_grow": 2, "bright_star_radius": 6.0}
    return types.SimpleNamespace(
        artefacts=types.SimpleNamespace(**{**options, **changes}), background=types.SimpleNamespace(mesh=64)
    )


def moffat_psf(fwhm, shape, size=41, beta=3.0):
    y, x = np.mgrid[:size, :size] - size // 2
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    fine = (np.arange(5) - 2) / 5
    image = sum((1 + ((x - a) ** 2 + (y - b) ** 2) / alpha**2) ** -beta for a in fine for b in fine)
    return Psf((image / image.sum())[None].astype(np.float32), 0, shape, fwhm)


def field(rng, fwhm=3.0, shape=(512, 640), n=150, brightest=3e5):
    data = rng.poisson(SKY, shape).astype(np.float32) + rng.normal(0, 5, shape).astype(np.float32)
    meta = Meta("u", "f", "r", "2026-11-20", "u-1", 61000.0, 60.0, 1.0, 5.0, SATURATION, 1.0)
    frame = Frame(data, np.full(shape, SKY + 25, np.float32), np.zeros(shape, np.uint16), meta)
    x, y = rng.uniform(0, shape[1], n), rng.uniform(0, shape[0], n)
    flux = np.minimum(300 * (1 + rng.pareto(0.8, n)), brightest)
    return inject_stars(frame, x, y, flux, moffat_psf(fwhm, shape), rng), x, y


def count(frame, bit):
    return int(np.count_nonzero(frame.mask & bit))


def test_clean_field_stays_clean_and_data_are_untouched(rng):
    frame, _, _ = field(rng, brightest=4e4)
    marked = mask_artefacts(frame, make_unit())
    assert count(marked, Mask.COSMIC_RAY) <= 2
    for bit in (Mask.STREAK, Mask.BLEED, Mask.DEFECT, Mask.BRIGHT_STAR):
        assert count(marked, bit) == 0
    assert marked.data is frame.data
    assert marked.variance is frame.variance


@pytest.mark.parametrize("axis", [0, 1])
def test_saturated_star_with_bleed_gets_core_trail_and_halo(rng, axis):
    frame, _, _ = field(rng, n=200, brightest=2e4)
    frame = inject_stars(frame, [300.0], [250.0], [1.5e6], moffat_psf(3.0, frame.shape, 81), rng)
    data, mask = frame.data.copy(), frame.mask.copy()
    trail = (slice(180, 330), slice(299, 302)) if axis == 0 else (slice(249, 252), slice(220, 390))
    data[trail], mask[trail] = SATURATION, mask[trail] | np.uint16(Mask.SATURATED)
    faint = (slice(330, 370), slice(299, 302)) if axis == 0 else (slice(249, 252), slice(390, 430))
    data[faint] += 400
    before = count(frame, Mask.SATURATED)
    marked = mask_artefacts(frame.replace(data=data, mask=mask), make_unit())
    assert count(marked, Mask.SATURATED) > before
    assert (marked.mask[trail] & Mask.BLEED != 0).mean() > 0.8
    assert (marked.mask[faint] & Mask.BLEED != 0).mean() > 0.8
    assert count(marked, Mask.BLEED) < 3000
    halo = marked.mask & Mask.BRIGHT_STAR != 0
    assert halo[250, 318]
    assert halo[268, 300]
    assert not halo[100, 100]
    assert count(marked, Mask.STREAK) == 0
    off = mask_artefacts(frame.replace(data=data, mask=mask), make_unit(bleed=False, bright_star_radius=0))
    assert count(off, Mask.BLEED) == count(off, Mask.BRIGHT_STAR) == 0


def test_halo_grows_with_brightness(rng):
    sizes = []
    for flux in (3e5, 3e6, 3e7):
        frame, _, _ = field(rng, n=20, brightest=1e4)
        bright = inject_stars(frame, [300.0], [250.0], [flux], moffat_psf(3.0, frame.shape, 161), rng)
        sizes.append(count(mask_artefacts(bright, make_unit(bright_star_radius=2.0)), Mask.BRIGHT_STAR))
    assert 0 < sizes[0] < sizes[1] < sizes[2]


def test_saturated_cosmic_ray_is_no_star(rng):
    frame, _, _ = field(rng, brightest=2e4)
    data, mask = frame.data.copy(), frame.mask.copy()
    data[200, 300:302], mask[200, 300:302] = SATURATION, Mask.SATURATED
    marked = mask_artefacts(frame.replace(data=data, mask=mask), make_unit())
    assert (marked.mask[200, 300:302] & Mask.COSMIC_RAY != 0).all()
    assert count(marked, Mask.BRIGHT_STAR) == 0


@pytest.mark.parametrize("fwhm", [1.7, 3.0])
def test_barely_saturated_star_is_no_cosmic_ray(rng, fwhm):
    frame, _, _ = field(rng, fwhm, n=100, brightest=1e4)
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(40, 620, 60.0), np.arange(40, 490, 60.0)))
    x, y = gx + rng.uniform(-0.5, 0.5, gx.size), gy + rng.uniform(-0.5, 0.5, gx.size)
    peak = float(moffat_psf(fwhm, frame.shape).terms[0].max())
    frame = inject_stars(frame, x, y, np.full(gx.size, 1.3 * SATURATION / peak), moffat_psf(fwhm, frame.shape), rng)
    saturated = frame.mask & Mask.SATURATED != 0
    assert saturated.sum() > 10
    marked = mask_artefacts(frame, make_unit())
    assert not (marked.mask[saturated] & Mask.COSMIC_RAY).any()


def test_bad_lines_and_dead_pixels(rng):
    frame, _, _ = field(rng, brightest=4e4)
    data = frame.data.copy()
    data[:, 100] += 60
    data[256:, 400] += 60
    data[333, :] -= 60
    data[50, 60] = 0
    marked = mask_artefacts(frame.replace(data=data), make_unit())
    defect = marked.mask & Mask.DEFECT != 0
    assert defect[:, 100].all()
    assert defect[256:, 400].all()
    assert not defect[:128, 400].any()
    assert defect[333].mean() > 0.95
    assert defect[50, 60]
    assert defect.sum() < 512 + 256 + 640 + 200


def test_blank_saturated_and_nan_frames_come_back(rng):
    frame, _, _ = field(rng, n=5)
    everything = np.full(frame.shape, Mask.SATURATED, np.uint16)
    assert (mask_artefacts(frame.replace(mask=everything), make_unit()).mask == everything).all()
    nothing = frame.replace(
        data=np.full(frame.shape, np.nan, np.float32), mask=np.full(frame.shape, Mask.NONFINITE, np.uint16)
    )
    assert (mask_artefacts(nothing, make_unit()).mask == Mask.NONFINITE).all()
    data, mask = frame.data.copy(), frame.mask.copy()
    data[100:200, 100:300], mask[100:200, 100:300] = np.nan, Mask.NONFINITE
    holed = mask_artefacts(frame.replace(data=data, mask=mask), make_unit())
    assert count(holed, Mask.STREAK) == count(holed, Mask.DEFECT) == 0
