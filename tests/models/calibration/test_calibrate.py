"""Calibration of a unit: distorted logits become honest probabilities, and too few labels are told."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration.calibrate import LEAST, ONE_GROUP, Calibration, fit_calibration, mean_probability
from models.calibration.metrics import brier, ece, losses, nll, risk_coverage
from nightsift.core.errors import ModelMismatch


def draw(rng, n, prevalence=0.3, scale=3.0, shift=1.5, samples=8, noise=1.0):
    """Sampled logits of a classifier that is too sure and prefers one class; the best one would have z."""
    labels = (rng.random(n) < prevalence).astype(int)
    z = rng.normal(np.where(labels == 1, 2.0, -2.0), 1.5)
    return scale * z + shift + rng.normal(0, noise, (samples, n)), labels


def test_five_hundred_labels_bring_the_error_below_one_percent(rng):
    test, truth = draw(rng, 40_000)
    assert ece(mean_probability(test), truth) > 0.08
    made = fit_calibration(*draw(rng, 500))
    after = mean_probability(test, made)
    assert made.method == "platt"
    assert ece(after, truth) < 0.01
    assert ece(after, truth, equal_mass=True) < 0.01
    assert nll(after, truth) < 0.7 * nll(mean_probability(test), truth)
    assert made.figures["ece_after"] < made.figures["ece_before"]


def test_what_is_calibrated_stays_as_it_is(rng):
    """A model that is right needs no map: the simplest within one standard error wins."""
    labels = (rng.random(3000) < 0.5).astype(int)
    z = rng.normal(np.where(labels == 1, 2.0, -2.0), 2.0)
    assert fit_calibration(z, labels).method == "none"


def test_skewed_logits_need_more_than_a_straight_line(rng):
    labels = (rng.random(6000) < 0.5).astype(int)
    z = rng.normal(np.where(labels == 1, 2.0, -2.0), 2.0)
    bent = np.where(z > 0, 0.2 * z, 3.0 * z)
    made = fit_calibration(bent, labels)
    assert made.method in ("beta", "isotonic")
    assert ece(mean_probability(bent[None], made), labels) < 0.02


def test_maps_are_monotone_and_order_survives(rng):
    z = np.linspace(-30, 30, 2001)
    for prevalence in (0.01, 0.3):
        logits, labels = draw(rng, 4000, prevalence=0.3)
        made = fit_calibration(logits, labels, prevalence=prevalence)
        assert (np.diff(made(z)) > 0).all()


def test_too_few_labels_are_named_as_reasons(rng):
    made = fit_calibration(*draw(rng, 15))
    assert made.method == "none"
    assert len(made.reasons) == len(LEAST)
    assert "temperature needs 10 labels of each class" in made.reasons[0]
    one_class = fit_calibration(np.ones((3, 40)), np.ones(40, dtype=int))
    assert one_class.method == "none"
    assert "0 bogus" in one_class.reasons[0]
    assert fit_calibration(np.zeros((2, 0)), np.zeros(0, dtype=int)).method == "none"


def test_groups_stay_on_one_side_of_a_fold(rng):
    """A map that only memorises its groups does not win: one group gives no folds at all."""
    logits, labels = draw(rng, 400)
    assert fit_calibration(logits, labels, groups=np.zeros(400)).method == "none"
    assert fit_calibration(logits, labels, groups=np.arange(400) // 20).method == "platt"


def test_labels_of_one_field_are_said_to_test_no_map(rng):
    logits, labels = draw(rng, 400)
    assert fit_calibration(logits, labels, groups=np.zeros(400)).reasons[-1] == ONE_GROUP
    one_holds_all = fit_calibration(logits, labels, groups=labels)
    assert one_holds_all.method == "none"
    assert one_holds_all.reasons[-1] == ONE_GROUP


def test_the_error_after_calibration_is_that_of_labels_not_learnt_from(rng):
    """A staircase follows its own labels almost perfectly; the figure must not."""
    labels = (rng.random(1400) < 0.5).astype(int)
    z = rng.normal(np.where(labels == 1, 2.0, -2.0), 2.0)
    bent = np.where(z > 0, 0.2 * z, 3.0 * z)
    made = fit_calibration(bent, labels)
    assert made.method != "none"
    assert made.figures["ece_after"] > ece(mean_probability(bent[None], made), labels)


def test_too_few_labels_leave_the_prevalence_of_the_model(rng):
    """Ten labels that a person happened to find do not tell for which part of real candidates the scores hold."""
    z, labels = np.linspace(-3, 3, 12), np.array([1] * 10 + [0] * 2)
    assert fit_calibration(z, labels).prevalence == 0.5
    rare = fit_calibration(z, labels, prevalence=0.01)
    np.testing.assert_allclose(rare(z), z + np.log(0.01 / 0.99))
    np.testing.assert_allclose(fit_calibration(z, labels, prevalence=0.1, stated=0.1)(z), z)


def test_another_prevalence_shifts_the_probabilities(rng):
    logits, labels = draw(rng, 3000, prevalence=0.5)
    made = fit_calibration(logits, labels, prevalence=0.01)
    rare, truth = draw(rng, 200_000, prevalence=0.01)
    # 3,000 labels tell the far tail to a quarter
    assert mean_probability(rare, made).mean() == pytest.approx(truth.mean(), rel=0.3)
    assert ece(mean_probability(rare, made), truth) < 0.005


def test_it_survives_its_file_and_nothing_else_does(rng):
    logits, labels = draw(rng, 3000)
    made = fit_calibration(logits, labels, model_id="m", unit="north-1")
    again = Calibration.from_json(made.to_json())
    assert again == made
    np.testing.assert_array_equal(again(logits), made(logits))
    for text in ("{", "{}", made.to_json().replace(made.method, "magic")):
        with pytest.raises(ModelMismatch):
            Calibration.from_json(text)
    with pytest.raises(ValueError, match="belong together"):
        fit_calibration(logits, labels[:-1])


def test_scoring_rules_against_their_definitions(rng):
    p, y = rng.random(5000), (rng.random(5000) < 0.4).astype(int)
    assert brier(p, y) == pytest.approx(np.mean((p - y) ** 2))
    assert losses(p, y) == pytest.approx(-np.log(np.where(y == 1, p, 1 - p)))
    assert ece(np.full(5000, 0.4), y) == pytest.approx(abs(0.4 - y.mean()))
    honest = (rng.random(200_000) < np.tile(p, 40)).astype(int)
    assert ece(np.tile(p, 40), honest) < 0.01
    assert np.isnan(nll(p[:0], y[:0]))
    coverage, risk = risk_coverage(p, (rng.random(5000) < p).astype(int))
    assert coverage[-1] == 1.0
    assert risk[500] < 0.5 * risk[-1]
