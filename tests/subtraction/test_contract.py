"""What every subtraction method must do, whatever it is; a new file in subtraction/methods is tested by being there."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import numpy as np
import pytest

import subtraction
from nightsift.core.errors import ConfigurationError, FrameError, SubtractionFailed, TooFewStars
from nightsift.core.flags import Mask
from nightsift.core.frames import Pair
from subtraction.contract import METRICS, check

METHODS = subtraction.method_names()


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


def test_check_refuses_what_breaks_the_contract(method, make_pair):
    pair, _ = make_pair(shape=(256, 256), n_stars=80)
    difference = subtraction.subtract_pair(pair, method)
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


def test_inputs_are_left_alone_and_figures_are_given(method, make_pair):
    pair, _ = make_pair(shape=(256, 256), n_stars=80, brightest=1e6)
    frames = (pair.science, pair.template)
    before = [(frame.data.copy(), frame.variance.copy(), frame.mask.copy()) for frame in frames]
    difference = subtraction.subtract_pair(pair, method)
    for frame, planes in zip(frames, before, strict=True):
        for old, new in zip(planes, (frame.data, frame.variance, frame.mask), strict=True):
            np.testing.assert_array_equal(old, new)
    # `auto` hands on the difference of the method that it picked.
    assert difference.method == method or (method == "auto" and difference.method in METHODS)
    assert set(METRICS) <= set(difference.metrics)
    assert difference.convolved in ("science", "template", "both")


def test_threads_change_nothing(method, make_pair):
    pair, _ = make_pair(shape=(300, 420), n_stars=90)
    one, two = (subtraction.subtract_pair(pair, method, {"threads": n}) for n in (1, 2))
    np.testing.assert_array_equal(one.mask, two.mask)
    noise = np.sqrt(np.median(one.variance))
    assert np.abs(one.data - two.data).max() < 1e-3 * noise
    assert np.abs(one.score - two.score).max() < 1e-3
    assert one.verdict == two.verdict


def test_the_same_pair_gives_the_same_difference(method, make_pair):
    pair, _ = make_pair(shape=(256, 256), n_stars=80)
    first, second = (subtraction.subtract_pair(pair, method) for _ in range(2))
    np.testing.assert_allclose(first.score, second.score, atol=1e-5)


@pytest.mark.parametrize("n_stars", [0, 1, 2])
def test_too_few_stars_is_a_named_error(method, make_pair, n_stars):
    pair, _ = make_pair(shape=(256, 256), n_stars=n_stars, faintest=20_000)
    with pytest.raises((TooFewStars, SubtractionFailed), match="test-0"):
        subtraction.subtract_pair(pair, method)


def test_an_empty_template_is_a_named_error(method, make_pair):
    pair, _ = make_pair(shape=(256, 256), n_stars=80)
    mask = np.full(pair.template.shape, Mask.NO_DATA.value, np.uint16)
    with pytest.raises(FrameError, match="test-0"):
        subtraction.subtract_pair(Pair(pair.science, pair.template.replace(mask=mask), 0.0), method)
