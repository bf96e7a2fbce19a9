"""Proper image subtraction: the statistic of the paper, white noise, jitter, flux ratio, saturated stars."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Frame, Pair
from nightsift.core.psf import Psf
from subtraction import subtract_pair
from subtraction.convolution.convolve import convolve
from subtraction.fields import ImageField
from subtraction.kernel.basis import gauss_hermite
from subtraction.methods.zogy import flux_ratio
from subtraction.zogy.correction import fit_correction
from subtraction.zogy.filters import (
    column_noise,
    correct,
    correction_basis,
    cross_transforms,
    cut_cross_stamps,
    image,
    make_cross_filters,
    transform,
)
from subtraction.zogy.sweep import cross_difference

SHAPE = (480, 480)


def true_psf(seeing, shape=SHAPE, half=20):
    """The PSF of a `Seeing` as a constant field."""
    _, _, values = dataclasses.replace(seeing, dx=0.0, dy=0.0).draw(240.0, 240.0, SHAPE, half)
    return Psf((values / values.sum())[None].astype(np.float32), 0, shape, seeing.fwhm)


def pixel_noise(frame):
    return float(np.median(frame.variance))


def papers_statistic(pair, psfs, ratio):
    """S over its standard deviation by plain transforms of the frames (Zackay et al. 2016, eq. 12-17)."""
    ny, nx = pair.science.shape
    spectra = []
    for psf in psfs:
        plane = np.zeros((ny, nx))
        small = psf.at(0.0, 0.0).astype(float)
        half = psf.size // 2
        plane[: psf.size, : psf.size] = small
        spectra.append(np.fft.fft2(np.roll(plane, (-half, -half), axis=(0, 1))))
    p_n, p_r = spectra
    f_n, f_r = ratio, 1.0
    s_n2, s_r2 = pixel_noise(pair.science), pixel_noise(pair.template)
    below = s_n2 * f_r**2 * np.abs(p_r) ** 2 + s_r2 * f_n**2 * np.abs(p_n) ** 2 + 1e-12
    d = (f_r * p_r * np.fft.fft2(pair.science.data) - f_n * p_n * np.fft.fft2(pair.template.data)) / np.sqrt(below)
    f_d = f_r * f_n / np.sqrt(s_n2 * f_r**2 + s_r2 * f_n**2)
    p_d = f_r * f_n * p_r * p_n / (f_d * np.sqrt(below))
    s = np.real(np.fft.ifft2(f_d * d * np.conj(p_d)))
    return s / np.std(s[50:-50, 50:-50])


@pytest.mark.parametrize("widths", [(4.2, 3.2), (3.2, 4.2), (3.0, 4.8)])
def test_statistic_is_the_papers(widths, rng, seeing, make_pair):
    """On an empty sky with known PSFs the score is the paper's S, whichever frame is the sharper one."""
    psfs = tuple(true_psf(seeing(width)) for width in widths)
    empty, _ = make_pair(shape=SHAPE, n_stars=0, template_depth=2.0)
    filters = make_cross_filters(
        *psfs, 1.3, levels=lambda x, y: (pixel_noise(empty.science), pixel_noise(empty.template)), order=0
    )
    planes = []
    for frame, field in ((empty.science, filters.science), (empty.template, filters.template)):
        way = transform_on(field.at(0.0, 0.0), SHAPE)
        planes.append(np.real(np.fft.ifft2(np.fft.fft2(frame.data) * way)))
    difference = planes[0] - planes[1]
    score = np.real(np.fft.ifft2(np.fft.fft2(difference) * np.conj(transform_on(filters.psf.at(0.0, 0.0), SHAPE))))
    score /= np.std(score[50:-50, 50:-50])
    paper = papers_statistic(empty, psfs, 1.3)
    part = slice(50, -50)
    assert np.corrcoef(score[part, part].ravel(), paper[part, part].ravel())[0, 1] > 0.998
    # White: neighbours of the difference are uncorrelated, at any distance.
    inner = difference[part, part] - difference[part, part].mean()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (3, 0)):
        product = inner[dy:, dx:] * inner[: inner.shape[0] - dy, : inner.shape[1] - dx]
        assert abs(product.mean() / inner.var()) < 0.02


def transform_on(small, shape):
    plane = np.zeros(shape)
    half = small.shape[0] // 2
    plane[: small.shape[0], : small.shape[0]] = small
    return np.fft.fft2(np.roll(plane, (-half, -half), axis=(0, 1)))


def test_cross_filters_cancel_stars_and_keep_flux(seeing):
    psfs = [true_psf(seeing(width)).at(0.0, 0.0).astype(float) for width in (3.2, 4.2)]
    a, b = cross_transforms(psfs[0], psfs[1], 0.7, 150.0, 30.0)
    left = image(a * transform(psfs[0]) * 0.7 - b * transform(psfs[1]), 20)
    # The spike that stands in for power that is not there costs a little.
    assert np.abs(left).max() < 6e-3 * psfs[0].max()
    assert a[0, 0] == pytest.approx(1.0)
    assert b[0, 0] == pytest.approx(0.7)
    power = 150.0 * np.abs(a) ** 2 + 30.0 * np.abs(b) ** 2
    np.testing.assert_allclose(power, power[0, 0], rtol=0.02)


def test_template_without_noise_does_not_divide_by_zero(seeing):
    psfs = [true_psf(seeing(width)).at(0.0, 0.0).astype(float) for width in (3.2, 4.2)]
    a, b = cross_transforms(psfs[0], psfs[1], 1.0, 150.0, 0.0)
    assert np.isfinite(a).all()
    assert np.abs(b).max() < 40.0


def test_flux_ratio_is_recovered(make_pair, seeing):
    pair, truth = make_pair(shape=SHAPE, n_stars=130, science_flux=0.37)
    bright = truth["flux"] > 5_000
    psfs = tuple(true_psf(getattr(truth["scene"], name)) for name in ("science", "template"))
    x, y = truth["x"][bright], truth["y"][bright]
    assert flux_ratio(pair.science, pair.template, psfs, x=x, y=y) == pytest.approx(0.37, rel=0.03)
    difference = subtract_pair(pair, "zogy")
    assert difference.kernel_sum == pytest.approx(0.37, rel=0.03)
    assert difference.convolved == "both"


@pytest.mark.parametrize("widths", [(4.2, 3.2), (3.6, 3.5), (3.2, 4.2), (3.0, 4.8), (4.8, 3.0)])
def test_no_direction_to_choose(widths, make_pair, seeing, transients, flux_at):
    placed = transients(SHAPE, 15_000.0)
    pair, _ = make_pair(
        shape=SHAPE, n_stars=130, transients=placed, science=seeing(widths[0]), template=seeing(widths[1])
    )
    difference = subtract_pair(pair, "zogy")
    fluxes = np.array([flux_at(difference, x, y)[0] for x, y, _ in placed])
    assert np.mean(fluxes) / 15_000 == pytest.approx(1.0, abs=0.01)
    assert difference.metrics["star_residual"] < 1.15
    assert difference.metrics["noise_scale"] == pytest.approx(1.0, abs=0.03)
    assert difference.verdict == "good", difference.reasons


def test_noise_of_the_template_does_not_bend_the_correction(make_pair, seeing):
    """With true PSFs nothing is to be corrected; plain least squares would smooth a noisy template instead."""
    pair, truth = make_pair(
        shape=SHAPE, n_stars=200, template_depth=2.0, science=seeing(3.2), template=seeing(4.4), brightest=20_000.0
    )
    psfs = true_psf(seeing(3.2)), true_psf(seeing(4.4))
    levels = pixel_noise(pair.science), pixel_noise(pair.template)
    filters = make_cross_filters(*psfs, 1.0, levels=lambda x, y: levels, order=0)
    inside = (truth["flux"] > 2_000) & (np.abs(truth["x"] - 240) < 210) & (np.abs(truth["y"] - 240) < 210)
    x, y = truth["x"][inside], truth["y"][inside]
    basis = correction_basis(filters.psf.fwhm)
    stamps = cut_cross_stamps(pair.science, pair.template, filters, x=x, y=y, basis=basis, half=9)
    noise = column_noise(filters.template, basis, 0.0)
    strays = []
    for known in (noise, np.zeros_like(noise)):
        kernel = fit_correction(
            stamps, basis, known, shape=SHAPE, order=0, flux_order=0, clip=4.0, minimum=3, where="test"
        ).kernel.at(240, 240)
        star = image(transform(filters.psf.at(240, 240).astype(float)) * (transform(kernel) - kernel.sum()), 8)
        strays.append(float(np.abs(star).sum()))
    assert strays[0] < 0.5 * strays[1]
    assert strays[0] < 0.03


def test_correction_keeps_the_noise_white(seeing):
    """Whatever the correction is, the filters are made white again, and it still cancels the stars."""
    science = true_psf(seeing(3.4))
    levels = (150.0, 60.0)
    filters = make_cross_filters(science, true_psf(seeing(3.9)), 1.0, levels=lambda x, y: levels, order=0)
    shapes = gauss_hermite(3.5, 3.5)
    bent = 0.08 * shapes.images[3].astype(float)
    bent[shapes.half, shapes.half] += 0.95
    again = correct(filters, ImageField(bent[None].astype(np.float32), 0, SHAPE), science, levels=lambda x, y: levels)
    a, b = (transform(field.at(0.0, 0.0)) for field in (again.science, again.template))
    power = levels[0] * np.abs(a) ** 2 + levels[1] * np.abs(b) ** 2
    np.testing.assert_allclose(power, power[0, 0], rtol=0.03)
    assert again.template.at(0.0, 0.0).sum() / again.science.at(0.0, 0.0).sum() == pytest.approx(0.95, rel=1e-3)


def test_jitter_of_stars_is_no_flood(make_pair, transients):
    """Stars that each moved by some 0.3 px leave dipoles; their variance keeps the score from calling them sources."""
    pair, truth = make_pair(shape=SHAPE, n_stars=130)
    scene = truth["scene"]
    rng = np.random.default_rng(8)
    light = np.zeros(SHAPE)
    for x, y, flux in zip(truth["x"], truth["y"], truth["flux"], strict=True):
        for shift, sign in ((rng.normal(0, 0.3, 2), 1.0), (np.zeros(2), -1.0)):
            rows, columns, values = scene.science.draw(x + shift[0], y + shift[1], SHAPE, 25)
            light[rows, columns] += sign * flux * values
    placed = transients(SHAPE, 6_000.0, step=120)
    for x, y, flux in placed:
        rows, columns, values = scene.science.draw(x, y, SHAPE, 25)
        light[rows, columns] += flux * values
    moved = pair.science.replace(data=(pair.science.data + light).astype(np.float32))
    difference = subtract_pair(Pair(moved, pair.template), "zogy")
    wrong = np.abs(difference.score) > 6.0
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for x, y, _ in placed:
        wrong &= np.hypot(xx - x, yy - y) > 20
    assert int(wrong.sum()) < 10
    apart = [np.hypot(truth["x"] - x, truth["y"] - y)[truth["flux"] > 1_000].min() > 12 for x, y, _ in placed]
    seen = [difference.score[round(y), round(x)] > 15 for x, y, _ in placed]
    assert all(s for s, a in zip(seen, apart, strict=True) if a)


def test_saturated_stars_do_not_ring(make_pair, seeing):
    """Beyond the mask around a saturated star the score is that of the sky, also where the template is deconvolved."""
    pair, _ = make_pair(
        shape=SHAPE, n_stars=140, saturation=1_800.0, brightest=200_000.0, science=seeing(3.2), template=seeing(4.2)
    )
    difference = subtract_pair(pair, "zogy")
    saturated = ((pair.science.mask | pair.template.mask) & Mask.SATURATED.value) != 0
    assert saturated.sum() > 30
    usable = (difference.mask & HARD) == 0
    assert usable.mean() > 0.6
    assert np.abs(difference.score[usable]).max() < 6.0


def test_gaps_are_filled_from_their_surroundings():
    y, x = np.mgrid[:60, :70]
    smooth = (1000.0 * np.exp(-((x - 30.3) ** 2 + (y - 29.6) ** 2) / (2 * 1.8**2))).astype(np.float32)
    data, mask = smooth.copy(), np.zeros(smooth.shape, np.uint16)
    lone = [(29, 30), (31, 28), (10, 10)]
    for row, column in lone:
        data[row, column] = np.nan
        mask[row, column] = Mask.COSMIC_RAY.value
    data[40:50, 50:60] = np.nan
    mask[40:50, 50:60] = Mask.NO_DATA.value
    mask[20, 20] = Mask.SATURATED.value
    frame = Frame(data, np.ones_like(data), mask, meta=None)
    nothing = Frame(np.zeros_like(data), np.ones_like(data), np.zeros_like(mask), meta=None)
    spike = ImageField(np.ones((1, 1, 1), np.float32), 0, data.shape)
    grown = (np.zeros_like(mask), mask.copy())
    _, _, filled, _ = cross_difference(
        (nothing, frame), (spike, spike), (spike, spike), grown=(grown[0], grown[0].copy())
    )
    for row, column in lone:
        assert filled[row, column] == pytest.approx(float(smooth[row, column]), abs=0.05 * float(smooth.max()))
    assert not filled[42:48, 52:58].any()
    assert filled[20, 20] == data[20, 20]
    assert np.isfinite(filled).all()


def varying(rng, shape, size=9):
    """A filter that changes over the frame by a few per cent."""
    terms = rng.normal(0, 1, (3, size, size)) * np.array([0.02, 0.004, 0.004])[:, None, None]
    terms[0, size // 2, size // 2] += 1.0
    return ImageField(terms.astype(np.float32), 1, shape)


def test_sweep_is_the_difference_of_two_convolutions(rng):
    shape = (150, 333)
    first, second = varying(rng, shape), varying(rng, shape, 7)
    mask = (rng.uniform(size=shape) < 0.002).astype(np.uint16) * np.uint16(Mask.STREAK.value)
    frames = [
        Frame(rng.normal(0, 1, shape).astype(np.float32), rng.uniform(1, 2, shape).astype(np.float32), m, meta=None)
        for m in (mask, np.zeros_like(mask))
    ]
    grown = (mask.copy(), np.zeros_like(mask))
    data, variance, model, hidden = cross_difference(
        (frames[0], frames[1]), (first, second), (second, first), grown=grown, threads=2
    )
    np.testing.assert_allclose(model[mask == 0], convolve(frames[1].data, mask * 0, second)[mask == 0], atol=1e-2)
    wanted = convolve(frames[0].variance, mask, second) + convolve(frames[1].variance, mask * 0, first)
    np.testing.assert_allclose(variance, wanted, rtol=1e-5)
    np.testing.assert_array_equal(hidden, mask != 0)
    # Under the streak the frame's own light, less the template's.
    own = frames[0].data - convolve(frames[1].data, mask * 0, second)
    np.testing.assert_allclose(data[hidden], own[hidden], atol=1e-2)
    assert not model[hidden].any()


def test_filters_follow_the_frame_inside_tiles(rng):
    shape = (200, 260)
    field = varying(rng, shape)
    data = np.zeros(shape, np.float32)
    spots = [(97, 40), (13, 120), (110, 201), (150, 250)]
    for x, y in ((x, y) for y, x in spots):
        data[y, x] = 1e4
    bright = Frame(data, np.ones_like(data), np.zeros(shape, np.uint16), meta=None)
    nothing = bright.replace(data=np.zeros_like(data))
    grown = (np.zeros(shape, np.uint16), np.zeros(shape, np.uint16))
    seen = cross_difference((bright, nothing), (field, field), (field, field), grown=grown)[0]
    half = field.half
    for y, x in spots:
        window = (slice(y - half, y + half + 1), slice(x - half, x + half + 1))
        inner = seen[window]
        # Each pixel is a convolution with the filter of its own place.
        wanted = np.array(
            [
                [1e4 * field.at(x + i, y + j)[j + half, i + half] for i in range(-half, half + 1)]
                for j in range(-half, half + 1)
            ]
        )
        assert np.abs(inner - wanted[: inner.shape[0], : inner.shape[1]]).max() < 0.05


def test_sparse_field_with_a_constant_psf(make_pair, transients):
    placed = transients(SHAPE, 3_000.0, step=160)
    pair, _ = make_pair(shape=SHAPE, n_stars=15, faintest=3_000.0, transients=placed, seed=4)
    difference = subtract_pair(pair, "zogy", {"psf_order": 0})
    assert all(difference.score[round(y), round(x)] > 15 for x, y, _ in placed)
    assert difference.psf.order == 0
    assert difference.verdict != "bad", difference.reasons


def test_result_does_not_depend_on_threads(make_pair):
    pair, _ = make_pair()
    one, two = (subtract_pair(pair, "zogy", {"threads": n}) for n in (1, 3))
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.score, two.score)
    np.testing.assert_array_equal(one.mask, two.mask)
