"""What every subtraction method must do, whatever it is; a new file in subtraction/methods is tested by being there."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import numpy as np
import pytest

import subtraction
from nightsift.errors import ConfigurationError, SubtractionFailed
from nightsift.flags import Mask
from nightsift.frames import Pair
from subtraction.contract import METRICS, check
from subtraction.masks import HARD

METHODS = subtraction.method_names()


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def clean_sky(difference, truth, radius=12):
    """Pixels far from every star, transient and masked pixel."""
    ny, nx = difference.shape
    sky = (difference.mask & HARD) == 0
    yy, xx = np.mgrid[:ny, :nx]
    for x, y, _ in [*zip(truth["x"], truth["y"], truth["flux"], strict=True), *truth["scene"].transients]:
        sky &= np.hypot(xx - x, yy - y) > radius
    return sky


def test_there_is_a_method():
    assert "hotpants" in METHODS


def test_options_are_documented_and_frozen(method):
    kind = type(subtraction.make_options(method))
    text = inspect.getsource(kind)
    for field in dataclasses.fields(kind):
        line = text.index(f"    {field.name}: ")
        assert text[text.index("\n", line) + 1 :].lstrip().startswith('"""'), f"{field.name} lacks its docstring"
    assert typing.get_type_hints(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(subtraction.make_options(method), dataclasses.fields(kind)[0].name, 1)


def test_unknown_names_give_hints(method):
    with pytest.raises(ConfigurationError, match=f"did you mean '{method}'"):
        subtraction.make_options(method + "s")
    name = dataclasses.fields(type(subtraction.make_options(method)))[0].name
    with pytest.raises(ConfigurationError, match=f"did you mean '{name}'"):
        subtraction.make_options(method, {name + "x": 1})
    with pytest.raises(ConfigurationError, match="type"):
        subtraction.make_options(method, {name: object()})


def test_noise_flux_and_sign(method, make_pair, transients, flux_at):
    shape = (480, 480)
    pair, truth = make_pair(shape=shape, n_stars=130, transients=transients(shape, 12_000.0))
    before = pair.science.data.copy(), pair.template.data.copy(), pair.science.mask.copy()
    difference = subtraction.subtract(pair, method)
    # Inputs are left alone.
    for old, new in zip(before, (pair.science.data, pair.template.data, pair.science.mask), strict=True):
        np.testing.assert_array_equal(old, new)
    assert difference.method == method
    assert set(METRICS) <= set(difference.metrics)
    # Fluxes on the scale of the science frame, each within its error, all together to one percent.
    fluxes = np.array([flux_at(difference, x, y) for x, y, _ in truth["scene"].transients])
    assert np.mean(fluxes[:, 0]) / 12_000 == pytest.approx(1.0, abs=0.01)
    # PSF error (some 1 %) comes on top of the noise.
    assert np.std((fluxes[:, 0] - np.mean(fluxes[:, 0])) / np.hypot(fluxes[:, 1], 120.0)) < 1.5
    assert all(difference.score[round(y), round(x)] > 30 for x, y, _ in truth["scene"].transients)
    # The score is a unit Gaussian on the sky, without an offset.
    sky = clean_sky(difference, truth)
    assert sky.sum() > 20_000
    low, middle, high = np.percentile(difference.score[sky], (15.8655, 50, 84.1345))
    assert (high - low) / 2 == pytest.approx(1.0, abs=0.05)
    assert abs(middle) < 0.15
    # Stars leave nothing significant.
    far = np.ones(shape, bool)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    for x, y, _ in truth["scene"].transients:
        far &= np.hypot(xx - x, yy - y) > 20
    assert np.abs(difference.score[far]).max() < 6.5


def test_noise_is_white_and_variance_right_by_monte_carlo(method, make_pair):
    """Differences of the same scene with other noise scatter by the variance map, and neighbours are uncorrelated."""
    pulls, products = [], []
    for _ in range(6):
        pair, truth = make_pair(shape=(300, 300), n_stars=90, template_depth=1.5)
        difference = subtraction.subtract(pair, method)
        sky = clean_sky(difference, truth, radius=14)
        pull = np.where(sky, difference.data / np.sqrt(difference.variance), np.nan)
        pulls.append(pull[sky])
        products.append([np.nanmean(pull[:, 1:] * pull[:, :-1]), np.nanmean(pull[1:] * pull[:-1])])
    assert np.concatenate(pulls).std() == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.mean(products, axis=0)).max() < 0.05


def test_mask_covers_inputs_and_nan_stay_inside(method, make_pair):
    pair, _ = make_pair(n_stars=200)
    science, template = pair.science.data.copy(), pair.template.data.copy()
    mask = pair.science.mask.copy()
    science[100:140, 150:180] = np.nan
    mask[100:140, 150:180] |= np.uint16(Mask.NONFINITE.value)
    template_mask = pair.template.mask.copy()
    template[:, :120] = np.nan
    template_mask[:, :120] |= np.uint16(Mask.NO_DATA.value)
    broken = Pair(
        pair.science.replace(data=science, mask=mask), pair.template.replace(data=template, mask=template_mask), 0.7
    )
    difference = subtraction.subtract(broken, method)
    assert np.isfinite(difference.data).all()
    assert np.isfinite(difference.score).all()
    inputs = ((mask | template_mask) & HARD) != 0
    out = (difference.mask & HARD) != 0
    assert out[inputs].all()
    # Grown by the kernel, but by no more than a kernel.
    assert out[120, 121]
    assert out.mean() < inputs.mean() + 0.2
    # The NaN patch is no source.
    assert np.abs(difference.score[90:150, 140:190]).max() < 6


def test_check_refuses_what_breaks_the_contract(method, make_pair):
    pair, _ = make_pair(shape=(256, 256), n_stars=80)
    difference = subtraction.subtract(pair, method)
    assert check(difference, pair) is difference
    score = difference.score.copy()
    score[100, 100] = np.nan
    with pytest.raises(SubtractionFailed, match="score is not finite"):
        check(dataclasses.replace(difference, score=score), pair)
    worse = Pair(pair.science.replace(mask=np.full(pair.science.shape, 2, np.uint16)), pair.template)
    with pytest.raises(SubtractionFailed, match="mask does not cover"):
        check(difference, worse)
    with pytest.raises(SubtractionFailed, match="kernel has the sum"):
        check(dataclasses.replace(difference, kernel_sum=float("nan")), pair)
