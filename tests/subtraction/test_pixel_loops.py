"""The compiled loops over tiles against plain sums, and what they promise at borders, masks and edges."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage, signal

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Frame, Meta
from subtraction.convolution.convolve import convolve, matched_filter
from subtraction.convolution.sweep import difference
from subtraction.convolution.tiles import LARGEST_HALF, SIDE, pad_kernel
from subtraction.fields import ImageField
from subtraction.masks.growth import grow_by_kernel, grow_by_share, grow_saturated, unite
from subtraction.masks.saturated_stars import find_blobs
from subtraction.noise.pixels import give_variance, sample_score, settle

META = Meta("u", "f", "V", "2026-11-20", "x", 61000.0, 60.0, 1.0, 5.0, 60_000.0, 1.0)


def gaussian(half: int, sigma: float, shape: tuple[int, int]) -> ImageField:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    image = np.exp(-(x**2 + y**2 + 0.4 * x * y) / (2 * sigma**2))
    return ImageField((image / image.sum())[None].astype(np.float32), 0, shape)


def noise_frame(rng, shape, bad=0.0, bits=64):
    data = rng.normal(size=shape).astype(np.float32)
    mask = np.where(rng.random(shape) < bad, np.uint16(bits), np.uint16(0)).astype(np.uint16)
    data[mask != 0] = np.nan
    return Frame(data, rng.uniform(0.5, 2.0, shape).astype(np.float32), mask, META)


@pytest.mark.parametrize("shape", [(61, 200), (130, 67), (257, 255)])
@pytest.mark.parametrize("half", [0, 1, 6, 20])
def test_convolution_on_any_shape_and_size(rng, shape, half):
    data = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(2 * half + 1, 2 * half + 1)).astype(np.float32)
    seen = convolve(data, np.zeros(shape, np.uint16), ImageField(kernel[None], 0, shape))
    np.testing.assert_allclose(
        seen, signal.fftconvolve(data.astype(float), kernel, mode="same"), atol=1e-5 * (1 + 4 * half) ** 1.5
    )


def test_kernels_that_no_buffer_holds_are_refused():
    size = 2 * LARGEST_HALF + 3
    with pytest.raises(ValueError, match=str(size)):
        pad_kernel(np.zeros((1, size, size), np.float32))


def test_results_do_not_depend_on_the_number_of_threads(rng):
    shape = (700, 530)
    frames = noise_frame(rng, shape, 0.001), noise_frame(rng, shape, 0.001)
    kernel = gaussian(7, 1.5, shape)
    filters = SimpleNamespace(
        whitening=gaussian(4, 0.7, shape),
        target_variance=gaussian(3, 0.5, shape),
        reference_variance=gaussian(3, 1.0, shape),
    )
    mask = grow_by_kernel(frames[1].mask, kernel)
    hidden = unite(frames[0].mask, mask)
    one, three = (
        difference(*frames, kernel, filters=filters, spoilt=mask, final=mask, hidden=hidden, threads=n) for n in (1, 3)
    )
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(300, 210), (1100, 1061)])
@pytest.mark.parametrize("scale", [0.0, 0.4])
def test_the_sweep_is_the_sum_of_its_steps(rng, shape, scale):
    target, reference = noise_frame(rng, shape, 0.002, 16), noise_frame(rng, shape, 0.002, 1)
    kernel, white = gaussian(7, 1.6, shape), gaussian(9, 1.1, shape)
    wide = gaussian(3, 1.0, shape)
    filters = SimpleNamespace(whitening=white, target_variance=wide, reference_variance=wide)
    mask = grow_by_kernel(reference.mask, kernel)
    spoilt = mask.copy()
    hidden = unite(target.mask, mask, obscured=scale == 0)
    assert bool(hidden.any()) == (scale == 0)
    assert not (hidden & ((spoilt & HARD) != 0)).any()
    final = grow_by_kernel(mask, white, tail=0.1)
    data, variance, model = difference(
        target, reference, kernel, filters=filters, spoilt=mask, final=final, hidden=hidden, scale=scale
    )
    hard, gone = (mask & HARD) != 0, (final & HARD) != 0
    matched = convolve(reference.data, reference.mask, kernel)
    residual = np.where(hard, 0, target.data - matched).astype(np.float32)
    wanted = convolve(residual, np.zeros(shape, np.uint16), white)
    np.testing.assert_allclose(data[~hidden], wanted[~hidden], atol=1e-5)
    np.testing.assert_array_equal(data[hidden], (target.data - matched)[hidden])
    np.testing.assert_allclose(model, np.where(gone, 0, scale * target.data if scale else matched), atol=1e-6)
    wanted = convolve(target.variance, target.mask, wide) + convolve(reference.variance, reference.mask, wide)
    np.testing.assert_allclose(variance, wanted, rtol=2e-2)
    assert np.isfinite(data[~hidden]).all()
    assert np.isfinite(variance).all()
    assert np.isfinite(model).all()


def test_noise_of_the_filter_is_that_of_the_whole_psf(rng):
    shape = (200, 260)
    psf = gaussian(8, 1.8, shape)
    variance = ndimage.gaussian_filter(rng.uniform(1, 9, shape), 3).astype(np.float32)
    data = rng.normal(size=shape).astype(np.float32)
    mask = np.where(rng.random(shape) < 0.01, np.uint16(4), np.uint16(0)).astype(np.uint16)
    good = mask == 0
    p = psf.terms[0].astype(float)
    top = signal.correlate2d(np.where(good, data, 0), p, mode="same")
    bottom = signal.correlate2d(np.where(good, variance, 0), p**2, mode="same")
    wanted = np.where(good, top / np.sqrt(bottom), 0)
    np.testing.assert_allclose(matched_filter(data, variance, mask, psf=psf), wanted, rtol=2e-3, atol=1e-5)


def test_masks_grow_to_where_the_kernel_feels_them(rng):
    shape = (190, 203)
    mask = np.zeros(shape, np.uint16)
    mask[rng.integers(0, 190, 40), rng.integers(0, 203, 40)] = 8
    mask[60:130, 50:53] = 4
    mask[150:, 150:] = 64
    kernel, tail = gaussian(6, 1.7, shape), 0.02
    lit = (mask != 0).astype(float)
    share = signal.convolve2d(lit, kernel.terms[0].astype(float), mode="same")
    inner = np.zeros(shape, bool)
    inner[6:-6, 6:-6] = True
    grown = grow_by_kernel(mask, kernel, tail)
    clear = np.abs(share - tail) > 0.1 * tail
    np.testing.assert_array_equal(((grown != 0) & inner & clear), (((share > tail) | (mask != 0)) & inner & clear))
    assert (grown & mask == mask).all()
    assert (grown[0] & Mask.NO_DATA.value).all()
    assert (grown[:, -1] & Mask.NO_DATA.value).all()
    # Bits come from what is near: nothing of the corner reaches the trail, and halos do not grow.
    assert not (grown[60:130, 40:70] & Mask.NO_DATA.value).any()
    halo = np.full(shape, np.uint16(Mask.BRIGHT_STAR.value))
    assert (grow_by_kernel(halo, kernel, tail)[inner] == Mask.BRIGHT_STAR.value).all()


def test_tiles_without_masked_pixels_are_copied():
    mask = np.full((SIDE, SIDE), np.uint16(Mask.BRIGHT_STAR.value))
    out = np.zeros_like(mask)
    kernel = pad_kernel(np.full((1, 3, 3), 1 / 9, np.float32))[0]
    grow_by_share(mask, np.uint16(HARD), kernel, np.ones(3, np.int64), np.float32(0.01), 0, SIDE, out)
    np.testing.assert_array_equal(out, mask)


def test_blobs_are_scipys_labels(rng):
    mask = np.where(ndimage.gaussian_filter(rng.normal(size=(150, 170)), 1.0) > 0.2, 2, 0).astype(np.uint16)
    mask |= np.uint16(32) * (rng.random(mask.shape) < 0.1)
    runs, starts = find_blobs(mask, 2)
    labels, count = ndimage.label(mask & 2)
    assert len(starts) - 1 == count
    seen = np.zeros(mask.shape, int)
    for b in range(count):
        own = runs[starts[b] : starts[b + 1]]
        for y, first, last in own:
            seen[y, first:last] += 1
        assert len({labels[y, x] for y, first, last in own for x in range(first, last)}) == 1
    np.testing.assert_array_equal(seen, (mask & 2) // 2)
    assert len(find_blobs(np.zeros((20, 20), np.uint16), 2)[1]) == 1


def test_a_lone_saturated_pixel_grows_if_it_is_a_star(rng):
    shape = (120, 140)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 60_000.0 * np.exp(-((x - 40) ** 2 + (y - 50) ** 2) / (2 * 1.5**2))
    variance = (light + 400.0).astype(np.float32)
    data = (light + np.sqrt(variance) * rng.normal(size=shape)).astype(np.float32)
    mask = np.zeros(shape, np.uint16)
    mask[50, 40] = mask[90, 100] = Mask.SATURATED.value
    data[90, 100] = 60_000.0
    grown = grow_saturated(Frame(data, variance, mask, META), 3.5) != 0
    assert grown[50, 36:45].all()
    assert grown[85:96, 95:106].sum() == 1


def test_the_sky_sample_leaves_out_sources_masks_and_changes(rng):
    shape = (400, 380)
    score = rng.normal(size=shape).astype(np.float32)
    model, variance = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    mask = np.zeros(shape, np.uint16)
    score[100, 100] = -9.0
    score[96:105, 96:105] += 40.0
    model[200:220], score[200:220] = 5.0, 7.0
    mask[300:310], score[300:310] = 1, 4.0
    model[310] = np.nan
    values = sample_score(score, variance, model, mask=mask, reach=8.0)
    assert 0.8 * score.size < len(values) < 0.95 * score.size
    assert np.abs(values).max() < 6.0
    assert values.std() == pytest.approx(1.0, abs=0.02)
    # Nothing else than a sample is taken of a large frame.
    large = np.zeros((2500, 2000), np.float32)
    assert len(sample_score(large, large + 1, large, mask=np.zeros(large.shape, np.uint16), reach=8.0)) <= 2_000_000


def test_the_last_pass_scales_and_empties(rng):
    shape = (70, 90)
    data, score = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    variance, mask = np.ones(shape, np.float32), np.zeros(shape, np.uint16)
    mask[:10], mask[20:30] = 2, Mask.BRIGHT_STAR.value
    variance[40, 40], variance[50, 50] = 0.0, np.nan
    hidden = np.zeros(shape, bool)
    hidden[:5] = True
    give_variance(variance, mask)
    assert (variance == 1).all()
    assert mask[40, 40] == mask[50, 50] == Mask.NO_DATA.value
    before = data.copy(), score.copy()
    usable = settle(data, variance, score, mask=mask, hidden=hidden, scale=2.0)
    hard = (mask & HARD) != 0
    assert usable == pytest.approx((~hard).mean())
    np.testing.assert_array_equal(data, np.where(hard & ~hidden, 0, before[0]))
    np.testing.assert_allclose(score, before[1] / 2)
    assert (variance == 4).all()
