"""The benchmarks of real/bogus count what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.transfer import active_learning, braai, classes
from benchmarks.uncertainty import methods
from models.training.examples import EXAMPLES, TrainingSet
from nightsift.core.frames import Stamps


def test_recall_at_accepted_bogus_counts_ties_as_accepted():
    score = np.array([0.9, 0.8, 0.7, 0.7, 0.5, 0.4])
    real, bogus = np.array([0, 2, 4]), np.array([1, 3, 5])
    recall = [braai.recall_at(score, real, bogus, k) for k in range(5)]
    assert recall == pytest.approx([1 / 3, 1 / 3, 1.0, 1.0, 1.0])


def test_a_fault_changes_the_difference_as_it_changes_the_planes():
    rng = np.random.default_rng(1)
    science, template = rng.normal(0, 1, (2, 4, 31, 31)).astype(np.float32)
    data = np.stack([science, template, science - template], axis=-1)
    examples = TrainingSet(Stamps(data, np.zeros((4, 31, 31), bool)), EXAMPLES.empty_table(), {})
    for fault in methods.FAULTS:
        planes = methods.with_fault(examples, fault).stamps.data
        np.testing.assert_allclose(planes[..., 2], planes[..., 0] - planes[..., 1], atol=1e-5)
        assert np.array_equal(planes, data) == (fault == "none")


def test_figures_of_known_classes():
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])
    labels = np.array(["transient", "variable", "mover", "mover"], dtype=object)
    found = classes.figures(p, labels, ("transient", "variable", "mover"))
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_an_evening_of_labels_never_looks_at_the_test_exposures():
    rng = np.random.default_rng(2)
    n, labels = 400, rng.integers(0, 2, 400)
    logits = (3 * labels - 1.5)[None] + rng.normal(0, 1, (8, n))
    unit = active_learning.Unit("u", logits, rng.normal(0, 1, (n, 6)), labels, np.arange(n) // 50, {})
    for rule in ("random", "batch"):
        curve, pool, asked = active_learning.run(unit, rule, seed=1)
        assert len(curve["nll"]) == active_learning.LABELS // active_learning.BATCH + 1
        assert len(set(asked.tolist())) == active_learning.LABELS
        assert asked.max() < len(pool) == 200
        assert curve["nll"][-1] < curve["nll"][0] + 0.05
