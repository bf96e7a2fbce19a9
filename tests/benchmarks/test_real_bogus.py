"""The benchmarks of real/bogus count what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.training.examples import EXAMPLES, TrainingSet
from nightsift.core.frames import Stamps

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """The modules of benchmarks/, which is no package."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import rb_active
        import rb_braai
        import rb_classes
        import rb_uncertainty

        yield SimpleNamespace(active=rb_active, braai=rb_braai, classes=rb_classes, uncertainty=rb_uncertainty)
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_recall_at_accepted_bogus_counts_ties_as_accepted(bench):
    score = np.array([0.9, 0.8, 0.7, 0.7, 0.5, 0.4])
    real, bogus = np.array([0, 2, 4]), np.array([1, 3, 5])
    recall = [bench.braai.recall_at(score, real, bogus, k) for k in range(5)]
    assert recall == pytest.approx([1 / 3, 1 / 3, 1.0, 1.0, 1.0])


def test_a_fault_changes_the_difference_as_it_changes_the_planes(bench):
    rng = np.random.default_rng(1)
    science, template = rng.normal(0, 1, (2, 4, 31, 31)).astype(np.float32)
    data = np.stack([science, template, science - template], axis=-1)
    examples = TrainingSet(Stamps(data, np.zeros((4, 31, 31), bool)), EXAMPLES.empty_table(), {})
    for fault in bench.uncertainty.FAULTS:
        planes = bench.uncertainty.with_fault(examples, fault).stamps.data
        np.testing.assert_allclose(planes[..., 2], planes[..., 0] - planes[..., 1], atol=1e-5)
        assert np.array_equal(planes, data) == (fault == "none")


def test_figures_of_known_classes(bench):
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])
    told = np.array(["transient", "variable", "mover", "mover"], dtype=object)
    found = bench.classes.figures(p, told, ("transient", "variable", "mover"))
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_an_evening_of_labels_never_looks_at_the_test_exposures(bench):
    rng = np.random.default_rng(2)
    n, labels = 400, rng.integers(0, 2, 400)
    logits = (3 * labels - 1.5)[None] + rng.normal(0, 1, (8, n))
    unit = bench.active.Unit("u", logits, rng.normal(0, 1, (n, 6)), labels, np.arange(n) // 50, {})
    for rule in ("random", "batch"):
        told, pool, asked = bench.active.run(unit, rule, seed=1)
        assert len(told["nll"]) == bench.active.LABELS // bench.active.BATCH + 1
        assert len(set(asked.tolist())) == bench.active.LABELS
        assert asked.max() < len(pool) == 200
        assert told["nll"][-1] < told["nll"][0] + 0.05
