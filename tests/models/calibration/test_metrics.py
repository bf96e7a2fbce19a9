from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import metrics
from models.calibration.metrics import ece


def test_auc_equals_its_definition(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, 200)
    scores = np.round(np.clip(0.3 * labels + rng.random(200) * 0.7, 0, 1), 2)  # rounded: there are ties
    real, bogus = scores[labels == 1][:, None], scores[labels == 0][None]
    assert metrics.auc(scores, labels) == pytest.approx(((real > bogus) + 0.5 * (real == bogus)).mean())


def test_auc_of_one_class_is_nan() -> None:
    assert np.isnan(metrics.auc(np.array([0.1, 0.2]), np.array([1, 1])))


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=80), st.floats(0, 0.5))
def test_thresholds_keep_their_word(rows: list[tuple[float, bool]], part: float) -> None:
    scores, labels = np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows])
    if 0 < labels.sum() < len(labels):
        missed, _ = metrics.missed_and_fpr(scores, labels, metrics.threshold_at_missed(scores, labels, part))
        _, fpr = metrics.missed_and_fpr(scores, labels, metrics.threshold_at_fpr(scores, labels, part))
        assert missed <= part + 1e-12
        assert fpr <= part + 1e-12


def test_thresholds_are_as_good_as_allowed() -> None:
    scores, labels = np.arange(200) / 200, (np.arange(200) >= 100).astype(int)
    assert metrics.threshold_at_missed(scores, labels, 0.1) == pytest.approx(0.55)
    assert metrics.missed_and_fpr(scores, labels, metrics.threshold_at_fpr(scores, labels, 0.1)) == (0.0, 0.1)


def test_calibration_error(rng: np.random.Generator) -> None:
    scores = rng.random(100_000)
    honest = (rng.random(100_000) < scores).astype(int)
    assert ece(scores, honest, bins=10) < 0.01
    assert ece(scores, 1 - honest, bins=10) > 0.4
    rows = metrics.reliability(scores, honest)
    assert sum(row["n"] for row in rows) == 100_000
    weighted = sum(row["n"] * abs(row["mean_score"] - row["real"]) for row in rows) / 100_000
    assert ece(scores, honest, bins=10) == pytest.approx(weighted), "Guo et al. 2017, eq. 3"
