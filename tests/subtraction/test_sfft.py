"""Delta-basis subtraction: its fast normal equations, its penalty, and difficult fields."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Pair
from subtraction import subtract_pair
from subtraction.delta_basis.basis import make_support, roughness
from subtraction.delta_basis.cell_equations import Planes, sum_cells
from subtraction.delta_basis.modes import SmearedNoise, cell_normal
from subtraction.delta_basis.smooth_kernel import Choice, fit_smooth, legendre_terms
from subtraction.delta_basis.source_pixels import Clip, SourcePixels, list_pixels

SHAPE = (480, 480)
NO_CHANGE = Choice(0, 0, 1e-3, 1.0)


def false_peaks(difference, transients, threshold=6.5):
    """Pixels beyond the threshold that belong to no transient, of either sign."""
    wrong = np.abs(difference.score) > threshold
    yy, xx = np.mgrid[: difference.shape[0], : difference.shape[1]]
    for x, y, _ in transients:
        wrong &= np.hypot(xx - x, yy - y) > 20
    return int(wrong.sum())


def all_pixels(shape, half, side):
    """Every pixel to which a kernel of a half width can be applied, in cells."""
    good = np.zeros(shape, bool)
    good[half:-half, half:-half] = True
    return list_pixels(np.full(shape, 255, np.uint8), good, good.size, side=side)


def random_planes(rng, shape, kernel, noise=0.0, n_stars=60):
    """A field of stars, and the same convolved with ``kernel(x, y)``, a small image, plus noise and a background."""
    light = np.zeros(shape)
    y, x = rng.integers(0, shape[0], n_stars), rng.integers(0, shape[1], n_stars)
    light[y, x] = 10 ** rng.uniform(2.5, 4.0, n_stars)
    reference = ndimage.gaussian_filter(light, 1.2)
    matched = ndimage.convolve(reference, kernel, mode="constant")
    target = matched + 7.0 + rng.normal(0, noise, shape)
    variance = np.full(shape, max(noise, 1.0) ** 2, np.float32)
    return Planes(target.astype(np.float32), variance, reference.astype(np.float32), np.full(shape, 1e-6, np.float32))


def true_kernel(half=12, sigma=1.1):
    """An elongated, shifted kernel with a sum of 1.3."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    image = np.exp(-0.5 * (((x - 0.6) / sigma) ** 2 + ((y + 0.3) / (1.4 * sigma)) ** 2))
    return 1.3 * image / image.sum()


def solved(planes, pixels, support, choice=None, most=(2, 1)):
    keep = np.ones(len(pixels.index), bool)
    start = np.zeros((len(pixels.first) - 1, len(support)))
    sums = sum_cells(planes, pixels, support, kernels=start, clip=None, keep=keep)
    return fit_smooth(sums, support, pixels.shape, scale=1.0, most=most, choice=choice)


def test_normal_equations_are_those_of_the_whole_design_matrix(rng):
    """Cells, wings, weights, backgrounds and the kernel started from, against plain least squares."""
    shape = (90, 100)
    planes = random_planes(rng, shape, true_kernel(), noise=3.0)
    support = make_support(5)
    pixels = all_pixels(shape, support.half, side=100)
    start = rng.normal(0, 0.01, (1, len(support)))
    sums = sum_cells(planes, pixels, support, kernels=start, clip=None, keep=np.ones(len(pixels.index), bool))
    images = support.image(np.eye(len(support)))
    rows, columns = np.divmod(pixels.index, shape[1])
    reference = planes.reference.astype(np.float64)
    design = np.stack([ndimage.convolve(reference, image, mode="constant")[rows, columns] for image in images])
    model = start[0] @ design
    weight = 1.0 / (planes.target_variance[rows, columns] + (0.005 * model) ** 2)
    total = weight.sum()
    target = planes.target[rows, columns].astype(np.float64)
    design -= ((design @ weight) / total)[:, None]
    target -= weight @ target / total
    normal, right, square = cell_normal(sums, 0)
    expected = (design * weight) @ design.T
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((normal - expected) / scale).max() < 2e-5
    wanted = (design * weight) @ target
    np.testing.assert_allclose(right / np.sqrt(np.diag(expected)), wanted / np.sqrt(np.diag(expected)), atol=0.1)
    assert square == pytest.approx(weight @ target**2, rel=1e-4)


def test_kernel_is_recovered(rng):
    shape = (260, 260)
    planes = random_planes(rng, shape, true_kernel(), noise=0.1, n_stars=400)
    support = make_support(6)
    fit = solved(planes, all_pixels(shape, support.half, 64), support)
    found = fit.field.at(130.0, 130.0)
    truth = true_kernel(support.half)
    assert found.sum() == pytest.approx(1.3, abs=0.002)
    # Frequencies that the stars do not show stay open; what they show of the kernel is right.
    seen, true = (ndimage.gaussian_filter(image, 1.2) for image in (found, truth))
    assert np.abs(seen - true).max() < 0.003 * true.max()


def test_offset_of_whole_pixels_moves_the_support():
    support = make_support(5, (3, -2))
    image = support.image(np.ones(len(support)))
    y, x = np.nonzero(image)
    middle = support.half
    assert (support.core_dx.mean(), support.core_dy.mean()) == (3, -2)
    assert support.half == 13
    assert image.shape == (27, 27)
    assert abs(x.mean() - middle - 3) < 0.5
    assert abs(y.mean() - middle + 2) < 0.5


def test_penalty_keeps_few_stars_from_overfitting(rng):
    """Three faint stars: the chosen penalty predicts new noise far better than hardly any."""
    shape = (160, 160)
    support = make_support(6)
    free, held = [], []
    for _ in range(3):
        planes = random_planes(rng, shape, true_kernel(), noise=8.0, n_stars=12)
        pixels = all_pixels(shape, support.half, 40)
        truth = ndimage.gaussian_filter(true_kernel(support.half), 1.2)
        for choice, errors in ((NO_CHANGE, free), (None, held)):
            found = solved(planes, pixels, support, choice).field.at(80.0, 80.0)
            errors.append(float(np.sqrt(((ndimage.gaussian_filter(found, 1.2) - truth) ** 2).sum())))
    assert np.mean(held) < 0.5 * np.mean(free)


def test_variation_is_found_where_there_is_some(make_pair, seeing):
    pair, _ = make_pair(shape=SHAPE, n_stars=400, science=seeing(4.0, growth=0.15), template=seeing(3.2))
    found = subtract_pair(pair, "sfft").metrics
    assert found["kernel_order"] >= 1
    assert subtract_pair(pair, "sfft", {"kernel_order": 0}).metrics["star_residual"] > found["star_residual"] + 0.05


def test_legendre_terms_are_orthonormal():
    y, x = (plane.ravel() for plane in np.mgrid[:300, :400].astype(float))
    terms = legendre_terms(x, y, (300, 400), order=3)
    np.testing.assert_allclose(terms.T @ terms / len(x), np.eye(10), atol=0.03)


def test_roughness_is_positive_and_heavier_outside():
    support = make_support(6)
    matrix = roughness(support)
    assert np.linalg.eigvalsh(matrix).min() > 0
    diagonal = np.diag(matrix)[: len(support.core_dx)]
    radius = np.hypot(support.core_dx, support.core_dy)
    assert diagonal[radius > 5].min() > 5 * diagonal[radius < 1].max()


def test_changed_sources_are_left_out(rng):
    shape = (200, 200)
    planes = random_planes(rng, shape, true_kernel(), noise=2.0, n_stars=80)
    y, x = np.mgrid[: shape[0], : shape[1]]
    new = 2_000 * np.exp(-0.5 * ((x - 90.0) ** 2 + (y - 70.0) ** 2) / 4.0) / (2 * np.pi * 4.0)
    changed = Planes(
        planes.target + new.astype(np.float32), *(planes.target_variance, planes.reference, planes.reference_variance)
    )
    support = make_support(5)
    pixels = all_pixels(shape, support.half, 200)
    keep = np.ones(len(pixels.index), bool)
    first = solved(planes, pixels, support)
    sum_cells(changed, pixels, support, kernels=first.cells, clip=Clip(3, 0.1, 0.1), keep=keep)
    rows, columns = np.divmod(pixels.index, shape[1])
    distance = np.hypot(columns - 90, rows - 70)
    assert not keep[distance < 3].any()
    assert keep[distance > 15].mean() > 0.999


def test_cost_of_memory_is_bounded():
    """The sums do not grow with the frame: cells stay as many, pixels are limited to the brightest regions."""
    levels = np.tile(np.arange(250, dtype=np.uint8), (900, 4))
    good = np.ones(levels.shape, bool)
    few = list_pixels(levels, good, 100_000)
    assert isinstance(few, SourcePixels)
    assert 90_000 < len(few.index) <= 100_000
    assert levels.ravel()[few.index].min() > 200
    assert few.first[-1] == len(few.index)
    assert few.grid[0] * few.grid[1] <= 400
    huge = np.zeros((3000, 4000), np.uint8)
    assert list_pixels(huge, np.zeros(huge.shape, bool), 10).first.shape[0] <= 401


CASES = {
    "template sharper": {},
    "science sharper": {"science": {"fwhm": 3.2}, "template": {"fwhm": 4.2}},
    "shift of whole pixels": {"template": {"fwhm": 3.3, "dx": 3.0, "dy": -2.0}},
    "elongated": {
        "science": {"fwhm": 4.4, "ellipticity": 0.25, "angle": 0.5},
        "template": {"fwhm": 3.6, "ellipticity": 0.2, "angle": 2.0},
    },
    "shallow template": {"template_depth": 1.0},
}


@pytest.mark.parametrize("case", CASES)
def test_transients_keep_their_flux(case, make_pair, seeing, transients, flux_at):
    changes = {k: seeing(**v) if isinstance(v, dict) else v for k, v in CASES[case].items()}
    placed = transients(SHAPE, 15_000.0)
    pair, _ = make_pair(shape=SHAPE, n_stars=130, transients=placed, **changes)
    difference = subtract_pair(pair, "sfft")
    fluxes = np.array([flux_at(difference, x, y)[0] for x, y, _ in placed])
    assert np.mean(fluxes) / 15_000 == pytest.approx(1.0, abs=0.012)
    assert false_peaks(difference, placed) == 0
    assert difference.convolved == ("science" if case == "science sharper" else "template")
    assert difference.kernel_sum == pytest.approx(1.0, rel=0.03)


def test_sparse_and_crowded_fields(make_pair, transients):
    placed = transients(SHAPE, 3_000.0, step=160)
    pair, _ = make_pair(shape=SHAPE, n_stars=15, faintest=3_000.0, transients=placed, seed=4)
    sparse = subtract_pair(pair, "sfft")
    assert all(sparse.score[round(y), round(x)] > 15 for x, y, _ in placed)
    assert false_peaks(sparse, placed) == 0
    placed = transients(SHAPE, 8_000.0, step=120)
    pair, _ = make_pair(shape=SHAPE, n_stars=2500, transients=placed)
    crowded = subtract_pair(pair, "sfft")
    assert all(crowded.score[round(y), round(x)] > 15 for x, y, _ in placed)
    assert false_peaks(crowded, placed) < 5


def test_no_stars_is_an_error_with_facts(make_pair):
    pair, _ = make_pair(n_stars=0)
    with pytest.raises(TooFewStars):
        subtract_pair(pair, "sfft")


def test_scattered_bad_pixels_cost_no_stars(make_pair, rng):
    """One pixel in a hundred is bad on the template: holes under the kernel's outer parts are filled."""
    pair, _ = make_pair(shape=SHAPE, n_stars=150)
    bad = rng.uniform(size=SHAPE) < 0.01
    mask = np.where(bad, np.uint16(Mask.DEFECT.value), np.uint16(0)) | pair.template.mask
    data = np.where(bad, np.float32(np.nan), pair.template.data)
    spotted = Pair(pair.science, pair.template.replace(data=data, mask=mask))
    difference, clean = subtract_pair(spotted, "sfft"), subtract_pair(pair, "sfft")
    assert difference.metrics["fit_pixels"] > 0.4 * clean.metrics["fit_pixels"]
    assert difference.kernel_sum == pytest.approx(clean.kernel_sum, rel=0.01)
    assert false_peaks(difference, ()) <= 2
    assert ((difference.mask & HARD) != 0).mean() < 0.8


def test_result_does_not_depend_on_threads(make_pair):
    pair, _ = make_pair()
    one, two = (subtract_pair(pair, "sfft", {"threads": n}) for n in (1, 3))
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.score, two.score)


def test_misplaced_stars_do_not_blow_up_the_kernel(make_pair, seeing):
    """Where much noise was taken off the equations, no kernel of large positive and negative pixels comes out."""
    pair, _ = make_pair(shape=(480, 480), n_stars=250, science=seeing(4.2, jitter=0.21))
    difference = subtract_pair(pair, "sfft")
    kernel = difference.kernel_map[2, 2]
    assert np.abs(kernel).sum() < 1.3 * kernel.sum()
    assert difference.kernel_sum == pytest.approx(1.0, abs=0.02)


def test_smeared_noise_is_that_of_the_kernel_at_each_cell(rng):
    """The quadratic form is the sum over cells of weight times squared norm of the kernel there."""
    n_cells, n_terms, functions = 12, 3, rng.normal(size=(5, 9))
    terms, noise, fold = rng.normal(size=(n_cells, n_terms)), rng.uniform(1, 2, n_cells), np.arange(n_cells) % 2
    weight = np.stack([(terms[fold == k].T * noise[fold == k]) @ terms[fold == k] for k in range(2)])
    index = np.array([0, 2, 3, 7, 14])
    solution = rng.normal(size=len(index))
    all_of_them = np.zeros(n_terms * 5)
    all_of_them[index] = solution
    all_of_them[0] += 0.7
    kernels = terms @ all_of_them.reshape(n_terms, 5) @ functions
    brute = np.bincount(fold, weights=noise * (kernels**2).sum(axis=1))
    np.testing.assert_allclose(SmearedNoise(weight, functions @ functions.T, index, 0.7).of(solution), brute)
