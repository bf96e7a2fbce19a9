"""A handful of labels: nothing changes without them, a shift with ten, weights with hundreds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.transfer.few_labels import fit_correction
from models.calibration.metrics import nll


def _unit(n: int, seed: int, shift: float = 0.0, feature: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a network, features of which the first one matters on this unit, and labels."""
    rng = np.random.default_rng(seed)
    logits, features = rng.normal(0, 3, n), rng.normal(5, 2, (n, 12))
    true = logits + shift + feature * (features[:, 0] - 5) / 2
    return logits, features, (rng.random(n) < expit(true)).astype(np.int8)


def test_without_labels_the_network_is_left_as_it_is() -> None:
    logits, features, labels = _unit(50, 1)
    none = fit_correction(logits[:0], features[:0], labels[:0], unlabelled=features)
    np.testing.assert_allclose(none.logits(logits, features), logits)
    assert none.sampled(logits, features, 200).std(axis=0).min() > 0.5, "the prior is not sure of itself"


def test_few_labels_find_a_shift_and_no_more() -> None:
    found = fit_correction(*_unit(20, 2, shift=-4.0))
    assert found.weights[1] < -1.5
    assert np.abs(found.weights[2:]).max() < 0.6


def test_many_labels_find_the_feature_that_matters_here() -> None:
    found = fit_correction(*_unit(600, 3, shift=1.0, feature=3.0))
    assert found.width > 0
    assert found.weights[2] == pytest.approx(3.0, rel=0.3)
    logits, features, labels = _unit(4000, 4, shift=1.0, feature=3.0)
    after = nll(expit(found.logits(logits, features)), labels)
    assert after < 0.8 * nll(expit(logits), labels)


def test_a_right_network_is_hardly_changed() -> None:
    logits, features, labels = _unit(4000, 6)
    found = fit_correction(*_unit(30, 5))
    assert nll(expit(found.logits(logits, features)), labels) < nll(expit(logits), labels) + 0.06


def test_posterior_shrinks_with_labels() -> None:
    few, many = (fit_correction(*_unit(n, 7, shift=1.0)) for n in (10, 1000))
    assert many.covariance[1, 1] < 0.2 * few.covariance[1, 1]
    logits, features, _ = _unit(40, 8)
    drawn = many.sampled(logits, features, 4000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), many.logits(logits, features), atol=0.1)
    np.testing.assert_array_equal(drawn, many.sampled(logits, features, 4000, seed=1))


def test_separable_labels_stay_finite() -> None:
    logits = np.array([-5.0, -4.0, 4.0, 5.0])
    found = fit_correction(logits, np.zeros((4, 3)), [0, 0, 1, 1])
    assert np.isfinite(found.weights).all()
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-12


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        fit_correction(np.zeros(3), np.zeros((2, 4)), [0, 1, 1])
