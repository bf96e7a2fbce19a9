"""Distances of samples, tests of nights, control of alarms: on drawn numbers whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from models.drift.alarm import adjust, cauchy_combination, judge_night, judge_unit, priors
from models.drift.control_tests import (
    NO_PRIOR,
    TAIL,
    Prior,
    baseline,
    departure,
    departure_p,
    tail_freedom,
    variance_prior,
)
from models.drift.exposure_inputs import (
    COLUMNS,
    INPUTS,
    learn_clear_sky,
    learn_inputs,
    robust_slope,
    shortest_half,
    steady_loss,
)
from models.drift.night_channels import (
    CHANNELS,
    NightData,
    classifier_statistic,
    ks_statistic,
    learn_reference,
    median_bandwidth,
    mmd_statistic,
    night_values,
)
from nightsift.core.errors import TooFewNights


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_kolmogorov_is_that_of_scipy() -> None:
    a, b = rng(1).normal(size=40), rng(2).normal(0.3, 1.0, size=70)
    expected = ks_2samp(a, b).statistic * np.sqrt(40 * 70 / 110)
    assert ks_statistic(a, b) == pytest.approx(expected)
    assert np.isnan(ks_statistic(a[:3], b))


@pytest.mark.parametrize("n", [30, 300])
def test_mmd_of_like_samples_is_that_of_permuted_ones_whatever_the_size(n: int) -> None:
    draw = rng(3)
    values = [mmd_statistic(draw.normal(size=(n, 4)), draw.normal(size=(200, 4)), 2.0, seed=seed) for seed in range(40)]
    assert np.mean(values) == pytest.approx(1.0, abs=0.1)
    assert np.std(values) < 0.3


def test_mmd_and_classifier_see_a_shift_and_no_permuted_one() -> None:
    draw = rng(4)
    a, b = draw.normal(0.8, 1.0, size=(60, 5)), draw.normal(size=(200, 5))
    of_a, of_b = np.arange(60) // 10, np.arange(200) // 20
    assert mmd_statistic(a, b, median_bandwidth(b)) > 2.5
    assert classifier_statistic(a, b, of_a, reference_groups=of_b) > 5
    assert abs(classifier_statistic(b[:60], b[60:], of_a, reference_groups=np.arange(140) // 20)) < 3
    assert median_bandwidth(np.zeros((9, 2))) == 1.0


def test_cauchy_combination_keeps_one_and_bounds_many() -> None:
    assert cauchy_combination(np.array([0.03])) == pytest.approx(0.03)
    assert cauchy_combination(np.array([1e-9, np.nan, 0.7, 0.7, 0.7])) == pytest.approx(4e-9, rel=0.01)
    assert np.isnan(cauchy_combination(np.array([np.nan])))
    # exactly dependent tests: no gain; independent ones: still a p-value
    assert cauchy_combination(np.full(8, 0.01)) == pytest.approx(0.01)
    drawn = rng(5).random((4000, 10))
    combined = np.array([cauchy_combination(one) for one in drawn])
    assert (combined < 0.01).mean() < 0.017


def test_adjusted_values_are_those_of_the_papers() -> None:
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005])  # four tested
    hochberg = adjust(p, dependent=False)
    assert hochberg == pytest.approx([0.02, 0.04, 0.04, np.nan, 0.02], nan_ok=True)
    assert adjust(p) == pytest.approx(hochberg * (1 + 1 / 2 + 1 / 3 + 1 / 4), nan_ok=True)


def test_prediction_holds_its_promise_over_nights() -> None:
    draw = rng(6)
    p = []
    for _ in range(3000):
        known = baseline(draw.normal(5.0, 2.0, size=7))
        assert known is not None
        p.append(departure_p(departure(draw.normal(5.0, 2.0, size=2), known), known.freedom))
    assert kstest(p, "uniform").pvalue > 0.01


def test_few_nights_steady_channels_and_tails() -> None:
    assert baseline(np.ones(4)) is None
    steady = baseline(np.full(9, 3.0))
    assert steady is not None
    assert departure(np.array([3.0]), steady) == 0.0
    assert departure(np.array([3.1]), steady) == np.inf
    floored = baseline(np.full(9, 3.0), floor=0.1)
    assert floored is not None
    assert abs(departure(np.array([3.1]), floored)) < 1
    assert departure_p(4.0, 8, "low") > 0.99 > 0.01 > departure_p(4.0, 8, "high")
    with pytest.raises(ValueError, match="tail"):
        departure_p(1.0, 8, "left")


def test_units_lend_each_other_what_they_know_of_the_scatter() -> None:
    draw = rng(7)
    alike = [float(draw.normal(0, 2.0, size=10).var(ddof=1)) for _ in range(30)]
    prior = variance_prior(alike, [9.0] * 30)
    assert prior.variance == pytest.approx(4.0, rel=0.3)
    assert prior.freedom > 30
    unlike = [one * factor for one, factor in zip(alike, np.exp(draw.normal(0, 2.0, 30)), strict=True)]
    assert 0 < variance_prior(unlike, [9.0] * 30).freedom < 3
    assert variance_prior(alike[:2], [9.0] * 2) == NO_PRIOR
    values = draw.normal(size=6)
    more = baseline(values, Prior(float(values.var(ddof=1)), 20.0))
    assert more is not None
    assert more.freedom == TAIL
    spread = baseline(draw.normal(size=6), Prior(100.0, 20.0))
    assert spread is not None
    assert spread.deviation > 5.0


def night(
    seed: int,
    name: str,
    shift: float = 0.0,
    gain: float = 1.0,
    candidates: int = 60,
    core: float = 0.0,
    seeing: float = 1.0,
    lost: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> NightData:
    """A drawn night of three exposures: moonlight and seeing; a fault is a shift of scores, a gain or a flat core."""
    draw = rng(seed)
    width = 2.5 * seeing * np.exp(draw.normal(0, 0.1)) * np.exp(draw.normal(0, 0.05, 3))
    sky = 200.0 * np.exp(draw.uniform(0, 1)) * np.exp(draw.normal(0, 0.03, 3))
    inputs = {
        "seeing": width,
        "core_width": np.exp(core + 0.05 * np.log(width) + draw.normal(0, 0.004, 3)),
        "ellipticity": np.abs(draw.normal(0.05, 0.01, 3)),
        "width_gradient": np.abs(draw.normal(0.03, 0.01, 3)),
        "sky": sky,
        "sky_rms": np.sqrt((sky / gain + 30.0) * np.exp(draw.normal(0, 0.01, 3))),
        "zero_point": 25.0 - 0.02 * draw.random(3) - np.array(lost),
        "limiting_mag": np.full(3, 19.0) + draw.normal(0, 0.05, 3),
        "n_stars": draw.poisson(200, 3).astype(float),
        "area": np.full(3, 0.05),
        "n_candidates": draw.poisson(20, 3).astype(float),
        "n_unflagged": np.full(3, 15.0),
        "n_accepted": draw.binomial(15, 0.7, 3).astype(float),
        "star_residual": np.exp(draw.normal(0.1, 0.05, 3)),
        "align_residual": np.exp(draw.normal(-3, 0.1, 3)),
        "refused": np.zeros(3),
        "good": np.ones(3),
        "field": np.array(["a", "a", "b"]),
    }
    real = draw.random(candidates) < 0.5
    logits = np.where(real, 3.0, -3.0) + draw.normal(shift, 1.5, candidates)
    features = np.stack([logits, *draw.normal(0, 1, (4, candidates))], axis=1) + draw.normal(0, 0.1, 5)
    return NightData("u", name, inputs, logits, features, draw.integers(0, 3, candidates), 40, draw.binomial(40, 0.8))


def test_channels_of_a_reference_and_of_a_night() -> None:
    reference = learn_reference([night(seed, f"n{seed}") for seed in range(10)])
    assert set(reference.values) == {channel.name for channel in CHANNELS}
    assert all(np.isfinite(values).all() for values in reference.values.values())
    assert abs(np.median(reference.values["noise"])) < 0.02  # freed from the moonlight
    again = night_values(night(50, "x"), reference)
    np.testing.assert_equal(again, night_values(night(50, "x"), reference))
    empty = replace(night(51, "y", candidates=0), injected=0)
    values = night_values(empty, reference)
    assert all(np.isnan(values[name]) for name in ("scores", "embedding", "classifier", "recovery"))
    with pytest.raises(TooFewNights):
        learn_reference([night(0, "only")])


def test_inputs_of_fields_apart_are_compared_with_their_own() -> None:
    def of(field: str, stars: float, n: int) -> dict[str, np.ndarray]:
        columns = {name: np.ones(n) for name in (*COLUMNS, "refused", "good")}
        return {**columns, "n_stars": np.full(n, stars), "field": np.array([field] * n)}

    model = learn_inputs([of("rich", 1000.0, 6), of("poor", 100.0, 6)])
    assert model.night(of("rich", 1000.0, 2))["stars"] == pytest.approx(0.0, abs=1e-6)
    assert model.night(of("poor", 200.0, 2))["stars"] == pytest.approx(np.log(2), abs=0.01)
    assert set(model.night(of("new", 1000.0, 2))) == {one.name for one in INPUTS}


def test_alarms_for_faults_and_hardly_any_without() -> None:
    units = [learn_reference([night(1000 * u + seed, f"n{seed}") for seed in range(12)]) for u in range(4)]
    prior = priors(units)
    false, total = 0, 0
    for place in range(25):
        told = []
        for u, reference in enumerate(units):
            history = [night_values(night(1000 * u + 100 + place + k, f"c{place + k}"), reference) for k in range(2)]
            told.append(judge_unit(reference, history, prior))
        verdicts = judge_night(told)
        false += sum(one.drifted for one in verdicts)
        total += len(verdicts)
        assert all(not one.reasons for one in verdicts if not one.drifted)
    assert false <= 1, f"{false} false alarms in {total}"
    bad = judge_unit(units[0], [night_values(night(7, "gain", gain=0.6), units[0])], prior)
    sick = judge_unit(units[1], [night_values(night(8, "shift", shift=-3.5), units[1])], prior)
    fine = judge_unit(units[2], [night_values(night(2901, "fine"), units[2])], prior)
    gain, shift, clean = judge_night([bad, sick, fine])
    assert gain.drifted
    assert "noise" in gain.reasons
    assert shift.drifted
    assert {"scores", "embedding"} & set(shift.reasons)
    assert not clean.drifted


def test_a_unit_without_enough_nights_is_not_judged() -> None:
    reference = learn_reference([night(seed, f"n{seed}") for seed in range(3)])
    verdict = judge_unit(reference, [night_values(night(9, "x"), reference)])
    assert np.isnan(verdict.p)
    assert not judge_night([verdict])[0].drifted


def test_a_flat_core_is_an_alarm_and_a_night_of_wide_seeing_is_none() -> None:
    reference = learn_reference([night(seed, f"n{seed}") for seed in range(14)])
    defocused = judge_unit(reference, [night_values(night(70, "x", core=0.05), reference)])
    wide = judge_unit(reference, [night_values(night(71, "y", seeing=1.25), reference)])
    sick, fine = judge_night([defocused, wide])
    assert sick.drifted
    assert sick.reasons[0] == "focus"
    assert not fine.drifted
    focus = next(one for one in fine.channels if one.channel == "focus")
    assert abs(focus.t) < 3, "the line of the calibration nights takes the seeing out"


def test_columns_that_an_old_ledger_lacks_are_channels_without_a_value() -> None:
    nights = [night(seed, f"n{seed}") for seed in range(8)]
    for one in nights:
        for name in ("core_width", "ellipticity", "width_gradient"):
            one.inputs[name][:] = np.nan
    verdict = judge_unit(learn_reference(nights[:7]), [night_values(nights[7], learn_reference(nights[:7]))])
    told = {one.channel: one.p for one in verdict.channels}
    assert all(np.isnan(told[name]) for name in ("focus", "elongation", "tilt"))
    assert np.isfinite(verdict.p)


def test_clouds_are_weather_and_a_loss_that_stays_is_none() -> None:
    known = [night(seed, f"n{seed}", lost=(0.0, 0.6, 0.0) if seed % 3 == 0 else (0.0, 0.0, 0.0)) for seed in range(12)]
    reference = learn_reference(known)
    zero = reference.values["zero_point"]
    assert zero.std() < 0.02, "clouds of single exposures are no scatter"
    passing = [night(80, "a", lost=(0.5, 1.1, 0.3)), night(81, "b", lost=(1.4, 0.3, 0.8))]
    staying = [night(82, "c", lost=(0.5, 0.5, 0.5)), night(83, "d", lost=(0.5, 0.5, 0.5))]
    partly = night(84, "e", lost=(0.9, 0.0, 0.4))
    values = [night_values(one, reference) for one in (*passing, *staying, partly)]
    weather = judge_night([judge_unit(reference, values[:2])])[0]
    assert not weather.drifted
    assert weather.clouds == pytest.approx(0.3, abs=0.03)
    first = judge_night([judge_unit(reference, values[2:3])])[0]
    assert not first.drifted
    assert np.isfinite(first.clouds)
    second = judge_night([judge_unit(reference, values[2:4])])[0]
    assert second.drifted
    assert "zero_point" in second.reasons
    last = judge_night([judge_unit(reference, values[4:])])[0]
    assert not last.drifted
    assert np.isnan(last.clouds)


def test_clear_level_is_where_the_clear_exposures_are() -> None:
    draw = rng(20)
    lost = np.where(draw.random(60) < 0.4, draw.uniform(0.3, 2.0, 60), 0.0)
    zero_point, field = 25.0 + draw.normal(0, 0.02, 60) - lost, np.array(["a"] * 60)
    clear = learn_clear_sky(zero_point, field)
    level, scatter = clear.levels["a"]
    assert level == pytest.approx(25.0, abs=0.02)
    assert 0.01 < scatter < 0.05
    assert np.array_equal(clear.cloudy(zero_point, field), lost > 0)
    assert not clear.cloudy(np.array([np.nan]), np.array(["a"])).any()
    assert shortest_half(np.array([3.0])) == (3.0, 0.0)
    assert not steady_loss(np.array([[0.4, 0.5], [np.nan, np.nan]]))
    assert not steady_loss(np.array([[0.4, 0.5]]))


def test_robust_slope_passes_outliers_by() -> None:
    x = rng(21).uniform(0, 1, 500)
    y = 0.3 * x + np.where(np.arange(500) % 9 == 0, 4.0, 0.0)
    assert robust_slope(x, y) == pytest.approx(0.3, abs=0.02)
    assert robust_slope(np.zeros(20), y[:20]) == 0.0
    assert robust_slope(x[:3], y[:3]) == 0.0


def test_tails_are_learnt_from_the_nights() -> None:
    draw = rng(22)
    assert tail_freedom(draw.normal(size=400)) >= 12
    assert tail_freedom(draw.standard_t(2.0, size=400)) <= 3
    assert tail_freedom(np.array([])) == TAIL
    skewed = np.where(draw.random(400) < 0.03, 15.0, draw.normal(size=400))
    assert tail_freedom(skewed, "high") < tail_freedom(skewed, "low")
