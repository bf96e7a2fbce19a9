"""The method that is picked for a pair follows from what the frames are like, and the difference says why."""

from __future__ import annotations

import numpy as np
import pytest

import subtraction
from nightsift.core.errors import ConfigurationError
from nightsift.core.frames import Pair
from subtraction.api.pairs import choose, traits


def test_alike_and_well_sampled_frames_take_the_quickest(make_pair) -> None:
    pair, _ = make_pair(shape=(600, 600), n_stars=150)
    chosen = choose(pair)
    assert chosen.method == "hotpants"
    difference = subtraction.subtract_pair(pair, "auto")
    assert difference.method == "hotpants"
    assert difference.choice == chosen.why
    assert subtraction.subtract_pair(pair, "hotpants").choice == ""


def test_what_a_frame_is_like_is_measured(make_pair, seeing) -> None:
    scene = {"shape": (600, 600), "n_stars": 200, "science": seeing(4.2, ellipticity=0.3), "template": seeing(3.2)}
    pair, _ = make_pair(**scene)
    science, template = traits(pair.science), traits(pair.template)
    assert science.elongation == pytest.approx(1.0 / 0.7, abs=0.12)
    assert template.elongation < 1.12
    assert template.fwhm == pytest.approx(3.2, rel=0.12)
    assert 0.5 * 200 * np.pi * 3.2**2 / 360_000 < template.crowding < 200 * np.pi * 4.2**2 / 360_000
    assert choose(pair).method == "zogy"
    assert "elongated" in choose(pair).why


def test_sharper_science_frames_have_no_direction_to_choose(make_pair, seeing) -> None:
    pair, _ = make_pair(shape=(600, 600), n_stars=200, science=seeing(3.0), template=seeing(4.2))
    assert choose(pair).method == "zogy"
    assert "sharper" in choose(pair).why


def test_a_psf_that_cannot_be_trusted_is_not_used(make_pair, seeing) -> None:
    few, _ = make_pair(n_stars=12, faintest=20_000.0, science=seeing(3.0), template=seeing(4.2))
    assert choose(few).method == "hotpants"
    assert "too few" in choose(few).why
    sharp, _ = make_pair(n_stars=200, science=seeing(1.5), template=seeing(1.6))
    assert "undersampled" in choose(sharp).why
    crowd, _ = make_pair(shape=(320, 320), n_stars=2500, science=seeing(4.2), template=seeing(4.0))
    assert choose(crowd).method == "sfft"
    assert "every lit pixel" in choose(crowd).why


def test_frames_without_stars_are_left_to_the_method_to_refuse(make_pair) -> None:
    pair, _ = make_pair(n_stars=1, faintest=1.0, brightest=2.0)
    empty = Pair(pair.science, pair.template)
    assert choose(empty).method == "hotpants"


def test_options_belong_to_a_method_that_is_named(make_pair) -> None:
    pair, _ = make_pair(shape=(256, 256), n_stars=40)
    with pytest.raises(ConfigurationError, match="picked for each pair"):
        subtraction.subtract_pair(pair, "auto", {"kernel_order": 1})
    with pytest.raises(ConfigurationError, match="did you mean 'auto'"):
        subtraction.subtract_pair(pair, "autos")
