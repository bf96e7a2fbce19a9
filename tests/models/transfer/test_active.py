"""What to ask people for: information without duplicates, and how the questions differ from the pool."""

from __future__ import annotations

import numpy as np
import pytest

from models.transfer.active import RULES, bald, bias_report, choose, predictive_entropy


def _pool(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Three clumps of twins that the samples disagree about, and many stamps that they agree about."""
    embedding = np.concatenate([rng.normal(k * 8, 0.1, (30, 3)) for k in (1, 2, 3)] + [rng.normal(0, 1, (210, 3))])
    logits = np.full((20, 300), 4.0)
    for k, size in enumerate((3.0, 2.5, 2.0)):
        logits[:, 30 * k : 30 * k + 30] = (size * np.where(np.arange(20) % 2, 1, -1))[:, None]
    return logits + rng.normal(0, 0.01, logits.shape), embedding


def test_information_of_known_samples() -> None:
    logits = np.array([[0.0, 60.0, 60.0], [0.0, -60.0, 60.0]])
    np.testing.assert_allclose(bald(logits), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(predictive_entropy(logits), [1, 1, 0], atol=1e-6)


def test_bald_asks_for_twins_and_the_batch_rule_does_not(rng: np.random.Generator) -> None:
    logits, embedding = _pool(rng)
    clump = np.repeat([0, 1, 2, 3], (30, 30, 30, 210))
    assert set(clump[choose("bald", logits, embedding, count=3)]) == {0}
    assert {0, 1, 2} <= set(clump[choose("batch", logits, embedding, count=4)])


@pytest.mark.parametrize("rule", RULES)
def test_rows_are_new_distinct_and_repeatable(rng: np.random.Generator, rule: str) -> None:
    logits, embedding = _pool(rng)
    known = np.arange(25)
    chosen = choose(rule, logits, embedding, count=40, seed=2, known=known)
    assert len(set(chosen.tolist()) - set(known.tolist())) == 40
    np.testing.assert_array_equal(chosen, choose(rule, logits, embedding, count=40, seed=2, known=known))
    assert len(choose(rule, logits, embedding, count=999, known=known)) == 275
    assert len(choose(rule, logits, embedding, count=0)) == 0


def test_nonsense_is_refused(rng: np.random.Generator) -> None:
    logits, embedding = _pool(rng)
    with pytest.raises(ValueError, match="rule 'best' is unknown"):
        choose("best", logits, embedding, count=3)
    with pytest.raises(ValueError, match="do not belong together"):
        choose("bald", logits, embedding[:5], count=3)


def test_bias_is_reported_and_a_fair_draw_has_none(rng: np.random.Generator) -> None:
    pool = {
        "mag": np.where(rng.random(4000) < 0.1, np.nan, rng.uniform(15, 20, 4000)),
        "unit": np.array(["a", "b"])[rng.integers(0, 2, 4000)],
    }
    faint = np.flatnonzero(pool["mag"] > 19)[:200]
    skewed = {row["name"]: row for row in bias_report(pool, faint)}
    assert skewed["mag"]["p"] < 1e-10
    assert skewed["mag"]["shares"][-1]["ratio"] == pytest.approx(5, rel=0.1)
    assert skewed["mag"]["shares"][0]["ratio"] == 0
    assert sum(part["asked"] for part in skewed["mag"]["shares"]) == pytest.approx(1)
    fair = {row["name"]: row for row in bias_report(pool, rng.permutation(4000)[:200])}
    assert fair["mag"]["p"] > 0.01
    assert fair["unit"]["p"] > 0.01
    one_sided = {row["name"]: row for row in bias_report(pool, np.flatnonzero(pool["unit"] == "a")[:200])}
    assert one_sided["unit"]["statistic"] > 0.2


def test_a_property_without_values_or_without_variety_has_no_test() -> None:
    report = bias_report({"mag": np.full(10, np.nan), "unit": np.full(10, "a")}, np.array([1, 2]))
    assert all(np.isnan(row["p"]) for row in report)
    assert report[1]["shares"] == [{"part": "a", "pool": 1.0, "asked": 1.0, "ratio": 1.0}]
    assert bias_report({"mag": np.ones(10)}, np.array([1, 2]))[0]["shares"][0]["ratio"] == 1.0
