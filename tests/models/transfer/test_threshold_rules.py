"""Thresholds of a unit stated by their cost, and carried over to calibrated scores."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration.calibrate import fit_calibration, mean_probability
from models.calibration.metrics import threshold_at_fpr, threshold_at_missed
from models.transfer.unit_calibration import carry_over, parse_rule, resolve
from nightsift.core.errors import ConfigurationError, TooFewLabels


def test_a_threshold_is_carried_to_calibrated_scores(rng):
    labels = (rng.random(800) < 0.3).astype(int)
    z = rng.normal(np.where(labels == 1, 2.0, -2.0), 1.5)
    logits = 3.0 * z + 1.5 + rng.normal(0, 1.0, (1, 800))  # too sure, and preferring one class
    made = fit_calibration(logits, labels)
    assert made.method != "none"
    before, after = mean_probability(logits), mean_probability(logits, made)
    np.testing.assert_array_equal(before >= 0.645, after >= carry_over(0.645, made))


def test_rules_hold_on_the_labels(rng):
    labels = (rng.random(20_000) < 0.5).astype(int)
    scores = rng.normal(labels, 0.3)
    strict = resolve("FPR 1e-3", scores, labels)
    assert (scores[labels == 0] >= strict.value).mean() <= 1e-3
    assert strict.low < 1e-3 < strict.high
    loose = resolve("miss 1%", scores, labels)
    assert (scores[labels == 1] < loose.value).mean() <= 0.01
    assert loose.value < strict.value
    with pytest.raises(TooFewLabels, match="needs 3000 bogus labels, got"):
        resolve("FPR 0.1%", scores[:1000], labels[:1000])


def test_a_threshold_near_one_is_short_and_decides_every_label_as_before(rng):
    """The rate of false candidates is counted just above one of them: rounded down, it would let that one through."""
    labels = (np.arange(2000) < 500).astype(int)
    scores = 1.0 - 10.0 ** -rng.normal(np.where(labels == 1, 6.0, 3.0), 0.7)
    for rule, find in (("FPR 1%", threshold_at_fpr), ("miss 2%", threshold_at_missed)):
        value = resolve(rule, scores, labels).value
        assert 0.9 < value < 1.0
        exact = find(scores, labels, 0.01 if "FPR" in rule else 0.02)
        np.testing.assert_array_equal(scores >= value, scores >= exact)
        assert len(repr(value)) < len("0.99997001234")


@pytest.mark.parametrize("rule", ["0.5", "FPR", "FPR 2", "miss 0%", "FPR 1e-3 or so"])
def test_another_text_is_refused(rule):
    with pytest.raises(ConfigurationError, match="is no rule"):
        parse_rule(rule)
