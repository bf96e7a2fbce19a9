"""The statistics of the transfer experiment: they find what is there, and only that."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.transfer import strategies


def rows(gain: float, seeds: int = 12) -> list[dict]:
    rng = np.random.default_rng(4)
    out = []
    for seed in range(seeds):
        unit = rng.normal(0, 0.01)  # easy and hard units differ by more than the strategies do
        for strategy, more in (("frozen", 0.0), ("head", gain), ("full", 0.0)):
            for labels in (20, 100):
                noise = rng.normal(0, 0.001)
                figure = {"auc": 0.97 + unit + more + noise, "fpr_1_missed": 0.05, "nll": 0.1, "ece": 0.01}
                out.append({"seed": seed, "strategy": strategy, "wanted": labels, **figure})
    return out


def test_holm_is_that_of_the_paper() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(strategies.holm(p), [0.03, 0.06, 0.06, 0.02])
    assert strategies.holm(np.array([0.9, 0.8])).max() == 1.0


def test_pairs_see_what_the_spread_of_units_hides() -> None:
    found = {(row["strategy"], row["labels"]): row for row in strategies.compare(rows(0.003)) if row["metric"] == "auc"}
    assert found["head", 20]["p_paired_holm"] < 0.01 < 0.3 < found["head", 20]["p_welch_holm"]
    assert found["head", 20]["gain"] == pytest.approx(0.003, abs=0.001)
    assert found["full", 100]["p_paired_holm"] > 0.2
    assert found["head", 100]["better_in"] >= 10


def test_equal_figures_are_no_effect() -> None:
    for row in strategies.compare(rows(0.0)):
        if row["metric"] != "auc":
            assert (row["hedges_g"], row["p_paired"], row["p_welch"]) == (0.0, 1.0, 1.0)


def test_a_longer_draw_holds_the_shorter_one_and_both_classes() -> None:
    labels = np.zeros(400, int)
    labels[:20] = 1
    short, long = (strategies.draw(np.arange(400), labels, n, seed=3) for n in (20, 100))
    assert set(short) <= set(long)
    assert (labels[short] == 1).sum() >= 5
