"""Probabilities as text: near 0 and 1 they stay apart, and a threshold decides as it did before it was rounded."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nightsift.core.probabilities import log_odds, log_odds_spread, log_odds_text, probability_text, short_threshold


@pytest.mark.parametrize("p", [0.99997, 1 - 3e-7, 1 - 1e-12, 3e-7, 0.5, 0.25])
def test_text_reads_as_the_same_probability(p: float) -> None:
    near = float(probability_text(p))
    assert 0.0 < near < 1.0
    assert min(near, 1 - near) == pytest.approx(min(p, 1 - p), rel=0.01)


def test_only_the_ends_read_as_the_ends() -> None:
    assert (probability_text(0.0), probability_text(1.0), probability_text(None)) == ("0", "1", "–")
    assert probability_text(math.nan) == "–"


def test_log_odds_tell_apart_what_three_digits_do_not() -> None:
    assert log_odds(0.5) == 0.0
    assert log_odds(1e-3) == pytest.approx(-log_odds(1 - 1e-3))
    assert log_odds(1 - 1e-12) == pytest.approx(12.0, abs=1e-3)
    texts = [log_odds_text(1 - 10.0**-k) for k in range(1, 13)]
    assert len(set(texts)) == len(texts)
    assert (log_odds_text(1.0), log_odds_text(0.0), log_odds_text(None)) == ("> +7", "< −7", "–")
    assert log_odds_text(0.49999) == "0.0"


@pytest.mark.parametrize("middle", [-14.0, 0.0, 14.0])
def test_spread_is_that_of_the_log_odds_of_the_samples(middle: float) -> None:
    """Also where probabilities are all but 0 or 1 and their samples are skewed."""
    width = 1.2 if middle else 0.2
    logits = np.random.default_rng(1).normal(middle, width, 200_000)
    p = 1.0 / (1.0 + np.exp(-logits))
    found = log_odds_spread(float(p.mean()), float(p.std())) * math.log(10.0)
    assert found == pytest.approx(width, rel=0.06)
    assert log_odds_spread(1.0, 0.0) == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_a_short_threshold_decides_as_the_long_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = 1.0 - 10.0 ** -rng.uniform(0.1, 9.0, 3000)
    for exact in (*rng.choice(scores, 20), *np.nextafter(rng.choice(scores, 20), 2.0)):
        short = short_threshold(exact, scores)
        np.testing.assert_array_equal(scores >= short, scores >= exact)
        assert float(repr(short)) == short
        assert len(repr(short)) <= len(repr(float(exact)))
    assert short_threshold(0.5, np.array([0.2, 0.8])) == 0.5
    assert short_threshold(1.0, scores) == 1.0
