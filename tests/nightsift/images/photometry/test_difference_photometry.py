"""Photometry: honest errors, also in correlated noise; zero point, depth and area."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, Frame, Meta, Template
from nightsift.core.psf import Psf
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.difference_photometry import (
    ZeroPoint,
    aperture_fluxes,
    fluxes_at,
    limiting_magnitude,
    noise_factor,
    searched_area,
    zero_point,
)
from nightsift.images.registration.align import Alignment
from nightsift.images.stars.stars import STAR_DTYPE

SHAPE = (500, 520)
SIGMA = 4.0
META = Meta("u", "f", "r", "2026-11-20", "u-1", 61000.0, 60.0, 1e6, 5.0, 1e9, 1.5)


def gaussian_psf(fwhm, shape=SHAPE, size=25):
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * (x**2 + y**2) / (fwhm / 2.3548) ** 2)
    return Psf((image / image.sum())[None].astype(np.float32), 0, shape, fwhm)


def frame_of(data, variance):
    return Frame(
        data.astype(np.float32), np.full(data.shape, variance, np.float32), np.zeros(data.shape, np.uint16), META
    )


def difference_of(frame, psf):
    """Score calibrated on the image itself, as a subtraction does."""
    p = psf.terms[0]
    score = fftconvolve(frame.data, p[::-1, ::-1], mode="same")
    score /= 1.4826 * np.median(np.abs(score))
    return Difference(frame.data, frame.variance, frame.mask, score.astype(np.float32), psf, "t", "template", 1.0)


@pytest.mark.parametrize("blur", [0.0, 0.9])
def test_flux_pulls_are_unit_gaussian_in_white_and_correlated_noise(rng, blur):
    noise = rng.normal(0, SIGMA, SHAPE)
    noise = gaussian_filter(noise, blur) if blur else noise
    psf = gaussian_psf(3.2)
    n = 300
    x, y = rng.uniform(20, 500, n), rng.uniform(20, 480, n)
    frame = inject_stars(frame_of(0 * noise, noise.var()), x, y, np.zeros(n), psf)
    difference = difference_of(frame.replace(data=noise.astype(np.float32)), psf)
    factor = noise_factor(difference)
    assert (factor > 1.3) if blur else (0.9 < factor < 1.1)
    gx, gy = (a.ravel() + 0.3 for a in np.meshgrid(np.arange(20, 500, 16.0), np.arange(20, 480, 16.0)))
    stars = inject_stars(frame_of(0 * noise, 1), gx, gy, np.full(gx.size, 500.0), psf).data
    # the score stands for empty sky: added light does not change its calibration
    crowded = Difference(
        difference.data + stars, difference.variance, difference.mask, difference.score, psf, "t", "template", 1.0
    )
    fits = fluxes_at(crowded, gx, gy, factor=factor)
    pull = (fits.flux - 500.0) / fits.flux_err
    assert 0.9 < pull.std() < 1.1
    assert abs(pull.mean()) < 0.2
    if not blur:
        assert np.median(fits.chi2) == pytest.approx(1.0, abs=0.1)


def test_psf_flux_ignores_masked_pixels_and_falls_back_to_them(rng):
    psf = gaussian_psf(3.2)
    frame = inject_stars(
        frame_of(rng.normal(0, SIGMA, SHAPE), SIGMA**2), [100.0, 200.0], [100.0, 100.0], [5000.0, 5000.0], psf
    )
    data, mask = frame.data.copy(), frame.mask.copy()
    data[101, 101], mask[101, 101] = 1e5, Mask.COSMIC_RAY
    mask[85:116, 185:216] = Mask.STREAK
    difference = Difference(data, frame.variance, mask, np.zeros(SHAPE, np.float32), psf, "t", "template", 1.0)
    fits = fluxes_at(difference, np.array([100.0, 200.0, -50.0]), np.array([100.0, 100.0, 3.0]), factor=1.0)
    assert fits.flux[:2] == pytest.approx([5000, 5000], rel=0.03)
    assert fits.bits[0] == Mask.COSMIC_RAY
    assert fits.bits[1] == Mask.STREAK
    assert 0 < fits.masked_fraction[0] < 0.1
    assert fits.masked_fraction[1] == 1
    assert np.isnan(fits.flux[2])
    assert fits.masked_fraction[2] == 1


def test_aperture_flux_and_error(rng):
    psf = gaussian_psf(3.0)
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(20, 500, 16.0), np.arange(20, 480, 16.0)))
    frame = frame_of(rng.normal(0, SIGMA, SHAPE), SIGMA**2)
    stars = inject_stars(frame_of(np.zeros(SHAPE), 1), gx, gy, np.full(gx.size, 3000.0), psf).data
    flux, error = aperture_fluxes(difference_of(frame.replace(data=frame.data + stars), psf), gx, gy, radius=6.0)
    assert ((flux - 3000.0) / error).std() == pytest.approx(1.0, abs=0.1)
    assert flux.mean() == pytest.approx(3000, rel=0.01)


def test_masked_pixels_of_an_aperture_count_as_the_mean_of_the_others():
    data, variance, mask = np.full(SHAPE, 2.0), np.full(SHAPE, 9.0), np.zeros(SHAPE, np.uint16)
    x, y = np.array([50.0, 100.3, 150.0, 200.0, 0.0, 250.0]), np.array([50.0, 100.7, 150.0, 200.0, 0.0, 250.0])
    mask[50:60, 50:60] = Mask.COSMIC_RAY
    data[50:60, 50:60] = np.nan
    mask[90:111, 90:111] = Mask.BRIGHT_STAR  # usable
    mask[140:161, 140:161] = Mask.SATURATED
    data[199, 200], mask[199, 200] = np.inf, Mask.NONFINITE
    frame = frame_of(np.zeros(SHAPE), 1.0).replace(
        data=data.astype(np.float32), variance=variance.astype(np.float32), mask=mask
    )
    flux, error = aperture_fluxes(difference_of(frame, gaussian_psf(3.0)), x, y, radius=5.0, factor=2.0)
    area = np.pi * 25.0
    assert flux[[0, 1, 3, 5]] == pytest.approx(2 * area, rel=1e-4)
    assert error[[0, 1, 3, 5]] == pytest.approx(2 * 3 * np.sqrt(area), rel=1e-4)
    assert (flux[2], error[2]) == (0, 0)
    inside = 2 * np.pi * 25 / 4  # a quarter, and the halves of the pixels on the axes
    assert inside < flux[4] < inside + 2 * 2 * 5.5


def stars_at(x, y, flux, flag=0):
    stars = np.zeros(len(x), STAR_DTYPE)
    stars["x"], stars["y"], stars["flux"], stars["snr"], stars["flag"] = x, y, flux, 100, flag
    return stars


def make_case(rng, n, scale=0.5, outliers=0):
    x, y = rng.uniform(10, 490, n), rng.uniform(10, 490, n)
    flux = 10 ** rng.uniform(3, 5, n)
    science = flux * scale * 10 ** (0.4 * rng.normal(0, 0.02, n))
    science[:outliers] *= 3
    nodes = np.arange(0, 577, 64.0)
    gx, gy = np.meshgrid(nodes, nodes)
    alignment = Alignment(np.array([gx + 7.3, gy - 4.1]), 64, SHAPE, 0.1, n, "wcs", None)
    frame = frame_of(np.zeros(SHAPE), 1)
    template = Template(frame, stars_at(x + 7.3, y - 4.1, flux), np.ones(SHAPE, np.float32), "t-1", 25.0)
    return stars_at(x, y, science), template, alignment


def test_zero_point_follows_transparency_and_survives_variables(rng):
    for scale in (0.2, 1.0, 1.7):
        zero = zero_point(*make_case(rng, 200, scale, outliers=30))
        assert zero.value == pytest.approx(25 + 2.5 * np.log10(scale), abs=4 * zero.error)
        assert 0.014 < zero.scatter < 0.026
        assert 0.001 < zero.error < 0.004
        assert 150 <= zero.n_stars <= 172


def test_zero_point_wants_unmasked_stars(rng):
    stars, template, alignment = make_case(rng, 40)
    stars["flag"][2:] = Mask.SATURATED.value
    with pytest.raises(TooFewStars) as caught:
        zero_point(stars, template, alignment)
    assert caught.value.facts["found"] == 2
    with pytest.raises(TooFewStars):
        zero_point(stars[:0], template, alignment)


def test_magnitudes():
    zero = ZeroPoint(25.0, 0.01, 30, 0.05)
    mag, err = zero.magnitudes(np.array([100.0, -100.0, 0.0, np.nan]), np.array([10.0, 10.0, 1.0, 1.0]))
    assert mag[:2] == pytest.approx([20.0, 20.0])
    assert err[:2] == pytest.approx([0.10857] * 2, rel=1e-3)
    assert np.isnan(mag[2:]).all()
    assert np.isnan(ZeroPoint(np.nan, np.nan, 0, np.nan).magnitudes(np.array([1.0]), np.array([1.0]))).all()


def test_limiting_magnitude_is_that_of_a_five_sigma_source(rng):
    psf = gaussian_psf(3.0)
    difference = difference_of(frame_of(rng.normal(0, SIGMA, SHAPE), SIGMA**2), psf)
    error = SIGMA / np.sqrt(float((psf.terms[0] ** 2).sum()))
    zero = ZeroPoint(25.0, 0.01, 30, 0.05)
    assert limiting_magnitude(difference, zero) == pytest.approx(25 - 2.5 * np.log10(5 * error), abs=0.08)
    deeper = limiting_magnitude(difference, zero, 3.0) - limiting_magnitude(difference, zero, 5.0)
    assert deeper == pytest.approx(2.5 * np.log10(5 / 3), abs=1e-6)
    assert np.isnan(limiting_magnitude(difference, ZeroPoint(np.nan, np.nan, 0, np.nan)))


def test_area_counts_unmasked_sky(rng):
    psf = gaussian_psf(3.0)
    frame = frame_of(rng.normal(0, SIGMA, SHAPE), SIGMA**2)
    frame.mask[:250] = Mask.NO_DATA
    frame.mask[250:300] = Mask.BRIGHT_STAR
    difference = difference_of(frame, psf)
    half = 250 * SHAPE[1]
    assert searched_area(difference, frame) == pytest.approx(half * (1.5 / 3600) ** 2)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [10, 60], [-2e-3, 2e-3]
    assert searched_area(difference, frame.replace(wcs=wcs)) == pytest.approx(half * 4e-6)
