"""Resampling keeps flux, position, noise and masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nightsift.core.flags import Mask
from nightsift.core.frames import Template
from nightsift.images.registration.align import Alignment
from nightsift.images.resampling.warp import make_pair, resample
from nightsift.images.stars.stars import find_stars


def nodes(matrix, shift, shape, step=32):
    gy, gx = (-(-(size - 1) // step) + 1 for size in shape)
    y, x = np.mgrid[:gy, :gx] * float(step)
    return np.stack([matrix[k][0] * x + matrix[k][1] * y + shift[k] for k in range(2)])


IDENTITY = np.eye(2)


def planes(data):
    data = np.asarray(data, dtype=np.float32)
    return data, np.ones_like(data), np.zeros(data.shape, dtype=np.uint16)


def gaussian(shape, x, y, sigma=1.7, flux=1000.0):
    j, i = np.mgrid[: shape[0], : shape[1]]
    return flux * np.exp(-((i - x) ** 2 + (j - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def centroid(image):
    j, i = np.mgrid[: image.shape[0], : image.shape[1]]
    return (image * i).sum() / image.sum(), (image * j).sum() / image.sum()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (0.31, -0.77), (-3.2, 5.9)])
def test_flux_and_centroid_of_a_star(shift):
    shape = (101, 96)
    data, variance, mask = planes(gaussian(shape, 47.3, 52.6))
    out, _, bad = resample(data, variance, mask, nodes(IDENTITY, shift, shape), 32, shape)
    inner = np.where(bad == 0, out, 0)
    assert inner.sum() == pytest.approx(1000.0, rel=1e-3)
    x, y = centroid(inner)
    assert x == pytest.approx(47.3 - shift[0], abs=0.005)
    assert y == pytest.approx(52.6 - shift[1], abs=0.005)


@pytest.mark.parametrize("sigma", [0.9, 1.3, 2.5])
def test_shape_of_a_star(sigma):
    """The image itself, not only its sums: band-limited stars come out as if they had been observed there."""
    shape = (80, 80)
    out, _, bad = resample(*planes(gaussian(shape, 40.2, 39.7, sigma)), nodes(IDENTITY, (0.4, 0.3), shape), 32, shape)
    expected = gaussian(shape, 39.8, 39.4, sigma)
    assert np.abs(out - expected)[bad == 0].max() < {0.9: 0.03, 1.3: 0.01, 2.5: 0.003}[sigma] * expected.max()


@pytest.mark.parametrize(
    "matrix",
    [
        [[1.05, 0.0], [0.0, 0.97]],
        [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]],
        [[-1.0, 0.0], [0.0, -1.0]],
        [[-1.0, 0.0], [0.0, 1.0]],
    ],
)
def test_flux_is_kept_under_scale_rotation_and_parity(matrix):
    shape = (120, 120)
    matrix = np.array(matrix)
    shift = np.array([60.0, 60.0]) - matrix @ [60.0, 60.0]
    out, _, bad = resample(*planes(gaussian(shape, 64.2, 55.9)), nodes(matrix, shift, shape), 32, shape)
    inner = np.where(bad == 0, out, 0)
    assert inner.sum() == pytest.approx(1000.0, rel=1e-3)
    expected = np.linalg.solve(matrix, np.array([64.2, 55.9]) - shift)
    np.testing.assert_allclose(centroid(inner), expected, atol=0.02)


def test_constant_stays_constant(rng):
    shape = (150, 170)
    out, _, bad = resample(*planes(np.full(shape, 7.25)), nodes(IDENTITY, (0.37, 0.81), shape), 32, shape)
    np.testing.assert_allclose(out[bad == 0], 7.25, rtol=1e-6)
    assert (bad[:-1, :-1] == 0).all()
    assert (bad[-1] & Mask.NO_DATA.value).all()


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("shift", [(0.5, 0.5), (0.25, 0.1), (3.0, 2.0)])
def test_variance_is_that_of_a_star(rng, shift, scale):
    """Neighbours are correlated, so the errors that count are those of weighted sums as wide as a PSF."""
    shape = (40, 44)
    sigma = (1 + np.arange(shape[1]) / 10).astype(np.float32)[None, :] * np.ones((shape[0], 1), dtype=np.float32)
    grid = nodes(scale * np.array([[1.02, 0.01], [-0.01, 0.99]]), shift, shape)
    mask = np.zeros(shape, dtype=np.uint16)
    drawn = np.stack(
        [
            resample((sigma * rng.normal(size=shape)).astype(np.float32), sigma**2, mask, grid, 32, shape)[0]
            for _ in range(1500)
        ]
    )
    drawn = ndimage.gaussian_filter(drawn, (0, 1.3, 1.3), truncate=4)
    _, variance, bad = resample(np.zeros(shape, np.float32), sigma**2, mask, grid, 32, shape)
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.3) ** 2) / np.sqrt(2 * np.pi) / 1.3
    for axis in (0, 1):
        variance = ndimage.convolve1d(variance, weights**2, axis)
    bad = ndimage.maximum_filter(bad, 11)
    bad[:6], bad[-6:], bad[:, :6], bad[:, -6:] = 1, 1, 1, 1
    ratio = drawn.var(axis=0)[bad == 0] / variance[bad == 0]
    # Where the output is coarser than the input, noise beyond its finest detail comes back as noise of stars.
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02 if scale <= 1 else 0.05)
    assert 0.8 < ratio.min() < ratio.max() < 1.25


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_bad_pixel_spoils_only_its_neighbours(value):
    shape = (60, 60)
    data, variance, mask = planes(np.full(shape, 5.0))
    data[30, 25], mask[30, 25] = value, Mask.NONFINITE.value
    out, spread, bad = resample(data, variance, mask, nodes(IDENTITY, (0.4, 0.6), shape), 32, shape)
    touched = np.argwhere(bad[:-1, :-1] != 0)
    assert len(touched) == 4
    assert np.abs(touched - (29.4, 24.6)).max() < 1.0
    good = bad == 0
    np.testing.assert_allclose(out[good], 5.0, rtol=1e-5)
    assert np.isfinite(spread[good]).all()
    assert (spread[good] > 0).all()
    assert np.isfinite(out).all()


def test_each_bit_travels(rng):
    shape = (64, 64)
    data, variance, mask = planes(rng.normal(size=shape))
    for k, bit in enumerate(Mask):
        mask[8 + 6 * k, 10 + 5 * k] = bit.value
    _, _, bad = resample(data, variance, mask, nodes(IDENTITY, (0.0, 0.0), shape), 32, shape)
    for k, bit in enumerate(Mask):
        assert bad[8 + 6 * k, 10 + 5 * k] & bit.value


def test_halos_of_bright_stars_keep_their_data(rng):
    shape = (64, 64)
    data, variance, mask = planes(rng.normal(size=shape) + 10)
    grid = nodes(IDENTITY, (0.3, 0.2), shape)
    plain = resample(data, variance, mask, grid, 32, shape)[0]
    mask[20:40, 20:40] = Mask.BRIGHT_STAR.value
    out, _, bad = resample(data, variance, mask, grid, 32, shape)
    np.testing.assert_allclose(out, plain, rtol=1e-5, atol=1e-5)
    assert (bad[25:35, 25:35] == Mask.BRIGHT_STAR.value).all()


def test_outside_is_no_data():
    shape = (70, 90)
    out, variance, bad = resample(*planes(np.ones(shape)), nodes(IDENTITY, (30.0, -20.0), shape), 32, shape)
    assert (bad[:20] == Mask.NO_DATA.value).all()
    assert (bad[:, 60:] == Mask.NO_DATA.value).all()
    assert (bad[20:, :60] == 0).all()
    assert (out[bad != 0] == 0).all()
    assert (variance[bad != 0] == 0).all()


def test_shapes_may_differ_and_mapping_may_miss_altogether():
    out, _, bad = resample(*planes(np.ones((50, 40))), nodes(IDENTITY, (0.0, 0.0), (33, 65)), 32, (33, 65))
    assert out.shape == (33, 65)
    assert (bad[:, :40] == 0).all()
    missed = nodes(IDENTITY, (1e7, np.nan), (33, 65))
    assert (resample(*planes(np.ones((50, 40))), missed, 32, (33, 65))[2] == Mask.NO_DATA.value).all()


def test_a_bent_mapping_through_the_coarse_grid():
    """A distortion of 4 px at the corners."""
    shape = (400, 400)
    y, x = np.mgrid[:51, :51] * 8.0
    u, v = (x - 200) / 200, (y - 200) / 200
    grid = np.stack([x + 2 * u * (u**2 + v**2), y + 2 * v * (u**2 + v**2)])
    out, _, bad = resample(*planes(gaussian(shape, 372.4, 368.1)), grid, 8, shape)
    inner = np.where(bad == 0, out, 0)
    x0, y0 = centroid(inner)
    u, v = (x0 - 200) / 200, (y0 - 200) / 200
    assert x0 + 2 * u * (u**2 + v**2) == pytest.approx(372.4, abs=0.02)
    assert y0 + 2 * v * (u**2 + v**2) == pytest.approx(368.1, abs=0.02)
    assert inner.sum() == pytest.approx(1000.0, rel=2e-3)


def test_agrees_with_reproject(rng):
    """reproject knows neither Lanczos nor variance; on a well-sampled image bicubic interpolation is close."""
    from astropy.wcs import WCS
    from reproject import reproject_interp

    shape = (120, 130)
    x, y, flux = rng.uniform(10, 115, 40), rng.uniform(10, 105, 40), rng.uniform(100, 3000, 40)
    data = sum(gaussian(shape, *star[:2], 2.6, star[2]) for star in zip(x, y, flux, strict=True)).astype(np.float32)

    def wcs(angle, crpix):
        one = WCS(naxis=2)
        one.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        one.wcs.crval, one.wcs.crpix = (40.0, -20.0), crpix
        c, s = np.cos(angle) / 3600, np.sin(angle) / 3600
        one.wcs.cd = [[-c, s], [s, c]]
        return one

    there, here = wcs(0.0, (60.0, 60.0)), wcs(0.1, (62.3, 57.1))
    gy, gx = np.mgrid[:5, :6] * 32.0
    nodes_xy = np.stack([gx.ravel(), gy.ravel()], axis=1)
    grid = there.all_world2pix(here.all_pix2world(nodes_xy, 0), 0).T.reshape(2, 5, 6)
    expected, covered = reproject_interp((data, there), here, shape_out=shape, order="bicubic")
    out, _, bad = resample(*planes(data), np.ascontiguousarray(grid), 32, shape)
    both = (bad == 0) & (covered > 0)
    assert both.mean() > 0.7
    assert np.abs(out - expected)[both].max() < 0.005 * data.max()


def test_make_pair(make_frame, star_list):
    shape = (200, 220)
    x, y, flux = star_list(40, shape, faint=4.0)
    science = make_frame(x, y, flux, shape)
    reference = make_frame(x + 30.25, y + 10.5, flux, (230, 240))
    template = Template(reference, find_stars(reference), np.ones((230, 240), dtype=np.float32), "t", 25.0)
    alignment = Alignment(nodes(IDENTITY, (30.25, 10.5), shape), 32, shape, 0.0, 0.0, 40, "pattern")
    pair = make_pair(science, template, alignment)
    assert pair.coverage == pytest.approx((240 - 30.25) / 220, abs=0.01)
    good = (pair.template.mask == 0) & (pair.science.mask == 0)
    pull = (pair.science.data - pair.template.data) / np.sqrt(pair.science.variance + pair.template.variance)
    # Single pixels of the template have lost noise, sums as wide as a star have not.
    score = ndimage.gaussian_filter(np.where(good, pull, 0), 1.3) * (2 * np.sqrt(np.pi) * 1.3)
    inner = ndimage.minimum_filter(good, 9)
    assert 1.4826 * np.median(np.abs(score[inner])) == pytest.approx(1.0, abs=0.05)
    assert pair.template.psf is None
    assert pair.template.meta == reference.meta


@pytest.mark.parametrize("angle", [0.0, 0.004, 0.09, 0.2, np.pi / 2, np.pi + 0.01, -np.pi / 2 - 0.02])
@pytest.mark.parametrize("parity", [1.0, -1.0])
def test_all_ways_to_resample_agree(rng, angle, parity):
    """Two passes, turned images and the direct sum are the same interpolation."""
    from nightsift.images.resampling import warp

    shape = (90, 130)
    data, variance, mask = planes(sum(gaussian(shape, *rng.uniform(20, 80, 2), 1.8, 900) for _ in range(12)))
    variance += data / 3
    data[40:43, 60], mask[40:43, 60] = np.nan, Mask.COSMIC_RAY.value
    mask[20:40, 20:40] |= np.uint16(Mask.BRIGHT_STAR.value)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([parity, 1.0])
    middle = np.array([64.7, 44.6])
    grid = nodes(matrix, middle - matrix @ middle, shape)
    out, spread, bad = resample(data, variance, mask, grid, 32, shape)
    plain = [np.zeros_like(data), np.zeros_like(variance), np.zeros_like(mask)]
    warp._direct(data, variance, mask, grid, 32, warp.kernel_table(), 0, shape[0], *plain)
    assert np.mean(bad != plain[2]) < 0.002  # a pixel on the very edge of a phase
    both = (bad == 0) & (plain[2] == 0)
    assert both.mean() > 0.3
    assert np.abs(out - plain[0])[both].max() < 0.01 * np.nanmax(data)
    np.testing.assert_allclose(spread[both], plain[1][both], rtol=0.06)
    assert np.isfinite(out).all()


def test_threads_give_the_same(rng):
    shape = (150, 140)
    given = (*planes(rng.normal(size=shape)), nodes(IDENTITY, (0.37, 0.2), shape), 32, shape)
    for one, other in zip(resample(*given, threads=1), resample(*given, threads=3), strict=True):
        assert np.array_equal(one, other)
