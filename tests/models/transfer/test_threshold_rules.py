"""Thresholds of a unit stated by their cost, and carried over to calibrated scores."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration.calibrate import fit_calibration, mean_probability
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


@pytest.mark.parametrize("rule", ["0.5", "FPR", "FPR 2", "miss 0%", "FPR 1e-3 or so"])
def test_another_text_is_refused(rule):
    with pytest.raises(ConfigurationError, match="is no rule"):
        parse_rule(rule)
