"""Classes below the real/bogus score: they add up to it, they learn from few examples, and more by transfer."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.transfer.class_head import CLASSES, fit_classes, hierarchical
from models.calibration.metrics import ece
from nightsift.core.errors import TooFewLabels


def _made(each: tuple[int, ...], seed: int, turn: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds in ten dimensions; on another survey the first two directions are turned a little."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(3), each)
    centres = np.zeros((3, 10))
    angle = 2 * np.pi * np.arange(3) / 3 + turn
    centres[:, 0], centres[:, 1] = 2 * np.cos(angle), 2 * np.sin(angle)
    return rng.normal(0, 1, (len(code), 10)) + centres[code], np.array(CLASSES, dtype=object)[code]


def _right(probability: np.ndarray, classes: np.ndarray) -> float:
    return float((np.array(CLASSES, dtype=object)[probability.argmax(axis=1)] == classes).mean())


def test_classes_add_up_to_the_score_and_leave_it_calibrated(rng: np.random.Generator) -> None:
    features, classes = _made((60, 60, 60), 1)
    head = fit_classes(features, classes)
    score = rng.random(5000)
    label = (rng.random(5000) < score).astype(int)
    all_four = hierarchical(score, head.conditional(rng.normal(0, 1, (5000, 10))))
    np.testing.assert_allclose(all_four.sum(axis=1), 1)
    np.testing.assert_allclose(all_four[:, :3].sum(axis=1), score)
    assert ece(all_four[:, :3].sum(axis=1), label) == pytest.approx(ece(score, label))


def test_it_learns_and_says_how_well() -> None:
    head = fit_classes(*_made((80, 40, 120), 2))
    features, classes = _made((300, 300, 300), 3)
    p = head.conditional(features)
    assert _right(p, classes) > 0.85
    assert head.counts == {"transient": 80, "variable": 40, "mover": 120}
    code = np.array([CLASSES.index(one) for one in classes])
    assert head.held_out == pytest.approx(-np.log(p[np.arange(900), code]).mean(), abs=0.15)


def test_transfer_needs_fewer_examples() -> None:
    source = fit_classes(*_made((400, 400, 400), 4))
    few, known = _made((4, 4, 4), 5, turn=0.3)
    features, classes = _made((400, 400, 400), 6, turn=0.3)
    alone, moved = (
        _right(fit_classes(few, known, source=one).conditional(features), classes) for one in (None, source)
    )
    assert moved > alone + 0.03
    assert moved > 0.8


def test_prevalence_shifts_the_odds_and_nothing_else() -> None:
    head = fit_classes(*_made((50, 50, 50), 7))
    features, _ = _made((100, 100, 100), 8)
    rare = head.with_prevalence({"transient": 1.0, "variable": 10.0, "mover": 10.0})
    before, after = head.conditional(features), rare.conditional(features)
    np.testing.assert_allclose(after[:, 0] / after[:, 1], before[:, 0] / before[:, 1] / 10)
    np.testing.assert_allclose(after[:, 1] / after[:, 2], before[:, 1] / before[:, 2])
    assert sum(rare.prevalence.values()) == pytest.approx(1)
    for wrong in ({"transient": 1.0}, {"transient": 0.0, "variable": 0.0, "mover": 0.0}):
        with pytest.raises(ValueError, match="prevalence"):
            head.with_prevalence(wrong)


def test_too_few_and_unknown_classes_are_refused() -> None:
    features, classes = _made((10, 2, 10), 9)
    with pytest.raises(TooFewLabels, match="variable"):
        fit_classes(features, classes)
    with pytest.raises(ValueError, match="comet"):
        fit_classes(features, np.array(["comet"] * 22, dtype=object))
    source = fit_classes(*_made((9, 9, 9), 9))
    with pytest.raises(ValueError, match="other head"):
        fit_classes(
            features[classes != "variable"], classes[classes != "variable"], source=source, names=("transient", "mover")
        )


def test_groups_stay_whole_and_twins_are_not_mistaken_for_knowledge() -> None:
    features, classes = _made((20, 20, 20), 10)
    rng = np.random.default_rng(0)
    rng.shuffle(classes)  # nothing to learn
    twins, group = np.repeat(features, 6, axis=0), np.repeat(np.arange(60), 6)
    honest = fit_classes(twins, np.repeat(classes, 6), group)
    fooled = fit_classes(twins, np.repeat(classes, 6))
    assert honest.held_out > 1.0
    assert fooled.held_out < honest.held_out
