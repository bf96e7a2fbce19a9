"""Ensemble and Laplace: they learn, their spread says where they have not learnt, and they are deterministic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.uncertainty.ensemble import FeatureSet, HeadOptions, Heads, train_heads
from benchmarks.uncertainty.laplace import fit_laplace, quantiles
from models.calibration.metrics import aurc, grouped_bootstrap, nll

QUICK = HeadOptions(members=4, hidden=16, epochs=12, batch=128, learning_rate=1e-2)


def _made(n: int, seed: int, groups: int = 8) -> FeatureSet:
    """Two overlapping clouds in five dimensions, of which three say nothing; each group shifted a little."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.int8)
    group = np.arange(n) % groups
    x = rng.normal(0, 1, (n, 5)) + 0.2 * rng.normal(0, 1, (groups, 5))[group]
    x[:, 0] += 2.0 * labels - 1
    x[:, 1] -= 2.0 * labels - 1
    return FeatureSet((3 * x + 7).astype(np.float32), labels, np.ones(n, np.float32), group)


@pytest.fixture(scope="module")
def trained() -> tuple[Heads, FeatureSet, FeatureSet]:
    learn, check = _made(2000, 1), _made(600, 2)
    return train_heads(learn, check, QUICK, seed=3), learn, check


def test_members_learn_and_together_are_no_worse_than_their_mean(trained: tuple[Heads, FeatureSet, FeatureSet]) -> None:
    heads, _, check = trained
    p = expit(heads.logits(check.features).astype(np.float64))
    alone = [nll(one, check.labels) for one in p]
    assert max(alone) < 0.35
    assert nll(p.mean(axis=0), check.labels) <= np.mean(alone)


def test_same_seed_same_heads_and_more_members_change_nothing_before(
    trained: tuple[Heads, FeatureSet, FeatureSet],
) -> None:
    heads, learn, check = trained
    again = train_heads(learn, check, QUICK, seed=3)
    np.testing.assert_array_equal(again.inner, heads.inner)
    first = train_heads(learn, check, replace(QUICK, members=1), seed=3)
    np.testing.assert_array_equal(first.outer[0], heads.outer[0])


def test_members_disagree_where_there_were_no_data(trained: tuple[Heads, FeatureSet, FeatureSet]) -> None:
    heads, _, check = trained
    far = np.full((1, 5), 7.0, np.float32)
    far[0, 2:] = 60.0  # along the directions that say nothing
    near = heads.logits(check.features).std(axis=0)
    assert heads.logits(far).std(axis=0)[0] > np.quantile(near, 0.9)


def test_nothing_to_learn_from_is_an_error() -> None:
    some = _made(40, 1)
    none = FeatureSet(some.features[:0], some.labels[:0], some.weights[:0], some.groups[:0])
    with pytest.raises(ValueError, match="examples to learn from"):
        train_heads(some, none, QUICK)
    one_class = FeatureSet(some.features, np.ones(40, np.int8), some.weights, some.groups)
    with pytest.raises(ValueError, match="one class only"):
        train_heads(one_class, some, QUICK)


def test_laplace_keeps_the_mean_and_widens_away_from_the_data(trained: tuple[Heads, FeatureSet, FeatureSet]) -> None:
    heads, learn, check = trained
    posterior = fit_laplace(heads, learn, check, member=2)
    hidden = heads.hidden(check.features, 2)
    mean, variance = posterior.moments(hidden)
    np.testing.assert_allclose(mean, heads.logits(check.features)[2], atol=1e-4)
    assert (variance > 0).all()
    _, far = posterior.moments(3 * hidden)
    assert (far > variance).all()
    assert np.abs(posterior.logits(hidden, 20).mean(axis=0) - mean).max() < 1e-3


def test_quantiles_stand_for_the_posterior(trained: tuple[Heads, FeatureSet, FeatureSet]) -> None:
    heads, learn, check = trained
    posterior = fit_laplace(heads, learn, check)
    hidden = heads.hidden(check.features)
    mean, variance = posterior.moments(hidden)
    many = expit(mean + np.sqrt(variance) * np.random.default_rng(0).normal(0, 1, (20000, 1))).mean(axis=0)
    few = expit(posterior.logits(hidden, 20).astype(np.float64)).mean(axis=0)
    assert np.abs(many - few).max() < 0.01
    drawn = expit(posterior.drawn_logits(hidden, 5000, 1).astype(np.float64)).mean(axis=0)
    assert np.abs(drawn - few).max() < 0.03
    assert quantiles(1).tolist() == [0.0]
    assert quantiles(20).std() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least one sample"):
        quantiles(0)


def test_area_under_risk_coverage_of_known_orders() -> None:
    p, y = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 1, 0])
    area, excess = aurc(p, y)
    assert area == pytest.approx(0.25 / 4)
    assert excess == pytest.approx(0.0)
    worst, more = aurc(p, y, np.array([1.0, 2.0, 3.0, 4.0]))
    assert worst == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert more == pytest.approx(worst - area)
    assert all(np.isnan(aurc(p[:0], y[:0])))


def test_groups_are_drawn_whole() -> None:
    groups = np.repeat(np.arange(10), 30)
    values = np.repeat(np.arange(10.0), 30)
    low, high = grouped_bootstrap(lambda rows: float(values[rows].mean()), groups, 400)
    alone = grouped_bootstrap(lambda rows: float(values[rows].mean()), np.arange(300), 400)
    assert low < 4.5 < high
    assert high - low > 3 * (alone[1] - alone[0]), "thirty copies of one value are one observation"
    assert all(np.isnan(grouped_bootstrap(lambda rows: float("nan"), groups, 5)))
    assert all(np.isnan(grouped_bootstrap(lambda rows: float("nan"), groups[:0], 5)))
