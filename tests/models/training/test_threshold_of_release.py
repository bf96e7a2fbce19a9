"""The threshold on the card of a model: what holds in most units, not in their mean."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration.metrics import threshold_at_missed
from models.training.release import threshold_for_units


def _units(hard: int, easy: int, n: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real examples of units, in the hard ones of which scores are lower."""
    rng = np.random.default_rng(5)
    scores = [rng.beta(3.0 if unit < hard else 20.0, 1.0, n) for unit in range(hard + easy)]
    units = np.repeat([f"u{unit}" for unit in range(hard + easy)], n)
    return np.concatenate(scores), np.ones(len(units), dtype=np.int8), units


def test_five_of_six_units_lose_no_more_than_asked() -> None:
    scores, labels, units = _units(hard=6, easy=6)
    threshold, where = threshold_for_units(scores, labels, units, missed=0.01)
    lost = [(scores[units == unit] < threshold).mean() for unit in np.unique(units)]
    assert np.mean(np.array(lost) <= 0.0101) >= 0.75
    assert threshold < threshold_at_missed(scores, labels, 0.01)
    assert where == "in five of six of 12 units"


def test_one_bad_unit_does_not_drag_all_the_others_down() -> None:
    scores, labels, units = _units(hard=1, easy=11)
    threshold, _ = threshold_for_units(scores, labels, units, missed=0.01)
    assert threshold > 0.7


def test_few_units_are_taken_together() -> None:
    scores, labels, units = _units(hard=2, easy=2)
    threshold, where = threshold_for_units(scores, labels, units, missed=0.01)
    assert threshold == pytest.approx(threshold_at_missed(scores, labels, 0.01))
    assert where == "of all units"
