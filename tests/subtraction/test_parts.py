"""The parts of a subtraction, each against an independent calculation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, signal

from nightsift.core.flags import HARD
from nightsift.core.psf import Psf
from nightsift.images.stars.stars import find_stars
from subtraction.convolution.convolve import convolve, correlate, matched_filter
from subtraction.fields import ImageField, affordable_order, effective_radius, fit_field, nodes, sample_field
from subtraction.kernel.basis import gauss_hermite
from subtraction.masks.growth import grow, grow_saturated
from subtraction.noise.background import fit_background, subtract_polynomial
from subtraction.psf.fit import fit_psf
from subtraction.psf.moffat import half_width
from subtraction.quality.residuals import excess_scatter, fit_model_error
from subtraction.quality.star_faults import StarFaults
from subtraction.quality.verdict import LIMITS, judge


def field_of(kernel, shape):
    return ImageField(kernel[None].astype(np.float32), 0, shape)


def test_convolution_is_scipys(rng):
    data = rng.normal(size=(150, 131)).astype(np.float32)
    kernel = rng.normal(size=(7, 7))
    mask = np.zeros(data.shape, np.uint16)
    seen = convolve(data, mask, field_of(kernel, data.shape))
    np.testing.assert_allclose(seen, signal.convolve2d(data, kernel, mode="same"), atol=1e-4)
    seen = correlate(data, mask, field_of(kernel, data.shape))
    np.testing.assert_allclose(seen, signal.correlate2d(data, kernel, mode="same"), atol=1e-4)


def test_masked_pixels_count_as_zero_even_if_nan(rng):
    data = rng.normal(size=(90, 90)).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    mask[40:45, 30:50] = 1
    holed, zeroed = data.copy(), data.copy()
    holed[mask != 0], zeroed[mask != 0] = np.nan, 0
    kernel = field_of(rng.normal(size=(5, 5)), data.shape)
    np.testing.assert_array_equal(convolve(holed, mask, kernel), convolve(zeroed, mask * 0, kernel))


def test_varying_kernel_follows_its_polynomial():
    shape = (320, 256)
    terms = np.zeros((3, 3, 3), np.float32)
    terms[:, 1, 1] = (2.0, 0.5, -0.25)
    kernel = ImageField(terms, 1, shape)
    seen = convolve(np.ones(shape, np.float32), np.zeros(shape, np.uint16), kernel)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    truth = 2.0 + 0.5 * (2 * xx / (shape[1] - 1) - 1) - 0.25 * (2 * yy / (shape[0] - 1) - 1)
    assert np.abs(seen - truth).max() < 0.13
    assert np.abs(seen - truth).mean() < 0.05


def test_matched_filter_is_a_unit_gaussian(rng):
    shape = (400, 400)
    sigma = np.linspace(1, 3, 400)[None, :] * np.ones((400, 1))
    data = (sigma * rng.normal(size=shape)).astype(np.float32)
    y, x = np.mgrid[-7:8, -7:8]
    psf = np.exp(-(x**2 + y**2) / 8.0)
    psf /= psf.sum()
    mask = np.zeros(shape, np.uint16)
    mask[100:200, 50:60] = 1
    score = matched_filter(data, (sigma**2).astype(np.float32), mask, psf=field_of(psf, shape))
    assert score[mask == 0].std() == pytest.approx(1.0, abs=0.03)
    assert not score[mask != 0].any()


def test_basis_carries_flux_in_its_first_function_only():
    for fwhms in ((3.2, 4.2), (3.5, 3.5), (2.0, 6.0)):
        basis = gauss_hermite(*fwhms)
        assert basis.images[0].sum() == pytest.approx(1.0, abs=1e-5)
        assert np.abs(basis.images[1:].sum(axis=(1, 2))).max() < 1e-4
        flat = basis.images[1:].reshape(len(basis.images) - 1, -1).astype(float)
        np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-3)


def test_basis_spans_the_kernel_between_two_gaussians():
    basis = gauss_hermite(3.2, 4.2)
    sigma = np.sqrt(4.2**2 - 3.2**2) / 2.3548
    y, x = np.mgrid[-basis.half : basis.half + 1, -basis.half : basis.half + 1]
    for dx, dy in ((0, 0), (0.4, -0.3)):
        kernel = np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * sigma**2))
        kernel /= kernel.sum()
        flat = basis.images.reshape(len(basis.images), -1).T.astype(float)
        left = kernel.ravel() - flat @ np.linalg.lstsq(flat, kernel.ravel(), rcond=None)[0]
        assert np.abs(left).sum() < 0.01


def test_growth_of_masks_is_a_dilation(rng):
    mask = np.zeros((200, 190), np.uint16)
    mask[rng.integers(0, 200, 60), rng.integers(0, 190, 60)] = 2
    mask[50:90, 60:70] |= 4
    mask[60:65, 100] |= 128
    y, x = np.mgrid[-5:6, -5:6]
    disc = np.hypot(x, y) <= 5.5
    grown = grow(mask, 5, edge=False)
    for bit in (2, 4):
        np.testing.assert_array_equal((grown & bit) != 0, ndimage.binary_dilation((mask & bit) != 0, disc))
    # Halos are not grown.
    np.testing.assert_array_equal((grown & 128) != 0, (mask & 128) != 0)
    assert (grow(mask, 5)[:5] & HARD).all()


def test_effective_radius():
    kernel = np.zeros((21, 21))
    kernel[10, 10] = 1.0
    assert effective_radius(kernel) == 0
    kernel[10, 16] = 0.5
    assert effective_radius(kernel) == 6


def test_brighter_saturated_stars_are_masked_wider(make_pair):
    grown = []
    for brightest in (120_000.0, 1_000_000.0):
        pair, _ = make_pair(n_stars=1, seed=3, brightest=brightest, faintest=brightest * 0.99, saturation=2_000.0)
        before = (pair.science.mask != 0).sum()
        assert before > 5
        after = (grow_saturated(pair.science, 4.2) != 0).sum()
        assert after > before
        grown.append(np.sqrt(after / np.pi))
    assert grown[1] > grown[0] + 1


def test_orders_follow_the_number_of_stars():
    assert [affordable_order(n, 4) for n in (3, 5, 13, 23, 35)] == [0, 1, 2, 3, 4]
    assert affordable_order(1000, 2) == 2


def test_fields_through_nodes_keep_sums(rng):
    shape = (300, 400)

    def image_at(x, y):
        image = np.full((3, 3), x / 4000)
        image[1, 1] += 1 - image.sum()
        return image

    field = sample_field(image_at, shape, 1)
    assert field.at(120, 77).sum() == pytest.approx(1.0, abs=1e-5)
    x, y = nodes(shape, 1)
    again = fit_field(np.stack([field.at(a, b) for a, b in zip(x, y, strict=True)]), x, y, shape=shape, order=1)
    np.testing.assert_allclose(again.terms, field.terms, atol=1e-6)


def test_background_polynomial_is_recovered(rng):
    ny, nx = 200, 260
    y, x = np.mgrid[:ny, :nx]
    u, v = 2 * x / (nx - 1) - 1, 2 * y / (ny - 1) - 1
    surface = 3 + 2 * u - v + 0.5 * u * u + u * v
    bx, by = rng.uniform(0, nx - 1, 80), rng.uniform(0, ny - 1, 80)
    bu, bv = 2 * bx / (nx - 1) - 1, 2 * by / (ny - 1) - 1
    median = 3 + 2 * bu - bv + 0.5 * bu * bu + bu * bv + rng.normal(0, 0.01, 80)
    median[:4] += 50  # blocks on a galaxy
    coefficients, order = fit_background((bx, by, median, np.full(80, 0.01)), (ny, nx), 2)
    data = surface.astype(np.float32)
    subtract_polynomial(data, coefficients, order)
    assert order == 2
    assert np.abs(data).max() < 0.05


@pytest.mark.parametrize(("n_stars", "tolerance"), [(12, 0.025), (130, 0.012)])
def test_psf_of_few_and_many_stars(make_pair, n_stars, tolerance):
    pair, truth = make_pair(shape=(480, 480), n_stars=n_stars, faintest=3_000.0, seed=5)
    psf = fit_psf(pair.science, find_stars(pair.science))
    image = psf.at(240, 240).astype(float)
    half = image.shape[0] // 2
    _, _, true = truth["scene"].science.draw(240.0, 240.0, (480, 480), half)
    assert image.sum() == pytest.approx(1.0 - psf.wings, abs=1e-5)
    # The flux that a star would get from this PSF.
    assert (image * true).sum() / (image * image).sum() == pytest.approx(1.0, abs=tolerance)
    assert psf.fwhm == pytest.approx(4.2, rel=0.04)


def test_psf_leaves_galaxies_and_blends_out(make_pair):
    galaxies = tuple((60.0 + 90 * k, 80.0 + 70 * (k % 5), 20_000.0, 5.0) for k in range(5))
    pair, _ = make_pair(shape=(480, 480), n_stars=120, galaxies=galaxies)
    psf = fit_psf(pair.science, find_stars(pair.science))
    assert psf.fwhm == pytest.approx(4.2, rel=0.05)


def test_half_width_of_a_gaussian():
    y, x = np.mgrid[-12:13, -12:13]
    assert half_width(np.exp(-(x**2 + y**2) / (2 * 1.7**2))) == pytest.approx(1.7 * 2.3548, rel=0.02)


def faults_of(left, flux, error):
    n = len(left)
    shift = np.zeros(n)
    return StarFaults(flux, left, np.full(n, error), shift, shift, np.full(n, 0.05))


def test_scatter_beyond_the_errors_is_measured_on_the_bulk(rng):
    errors = rng.uniform(0.001, 0.02, 400)
    values = rng.normal(0, np.hypot(errors, 0.015))
    values[:40] = 0.5  # a tenth of them changed
    assert excess_scatter(values, errors) == pytest.approx(0.015, rel=0.25)
    assert excess_scatter(rng.normal(0, errors), errors) < 0.003
    assert excess_scatter(values[:3], errors[:3]) == 0.0


def test_model_error_leaves_a_changed_star_significant(rng):
    """Stars scatter by 1.5 % of their flux: one that changed by 17 % stands out by 8 sigma and more."""
    y, x = np.mgrid[-10:11, -10:11]
    image = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    image /= image.sum()
    psf = Psf(image[None].astype(np.float32), 0, (500, 500), 1.5 * 2.3548)
    flux = 10 ** rng.uniform(4.5, 5.5, 200)
    left = rng.normal(0, 0.015, 200)
    left[:10] = 0.17
    power, fourth = (image**2).sum(), (image**4).sum()
    seen = (left * flux * power) ** 2 * 0.5 + 1.0
    sums = np.column_stack((seen, np.ones(200), flux**2 * fourth, 1e-9 * flux**2))
    error = fit_model_error(sums, faults_of(left, flux, 1e-4), psf)
    sigma = np.sqrt(error.flux * fourth) / power
    assert sigma == pytest.approx(0.015, rel=0.25)
    assert 0.17 / sigma > 8
    assert error.gradient < 1e-4


def test_verdicts():
    assert judge({"anchors_used": 100, "noise_scale": 1.0}) == ("good", ())
    verdict, reasons = judge({"anchors_used": 5, "noise_scale": float("nan")})
    assert verdict == "suspect"
    assert "5 anchor stars" in reasons[0]
    assert judge({"star_residual": 9.0})[0] == "bad"
    for limit in LIMITS:
        assert (limit.bad > limit.suspect) == limit.above


def test_psf_type_is_that_of_the_domain(make_pair):
    pair, _ = make_pair(n_stars=60)
    psf = fit_psf(pair.science, find_stars(pair.science), size=21, order=0)
    assert isinstance(psf, Psf)
    assert psf.size == 21
    assert psf.order == 0
