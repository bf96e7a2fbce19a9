from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.calibration.metrics import auc
from models.training.examples import TrainingSet
from models.training.split import deal_folds, groups_of
from models.training.subsets import DOUBTFUL, confident_joint, doubt, measure_doubt, network_fit, out_of_fold
from models.training.train import TrainOptions
from nightsift.core.errors import TooFewGroups


def flipped(examples: TrainingSet, part: float, seed: int = 1) -> tuple[TrainingSet, np.ndarray]:
    """A set with some labels turned round, and which."""
    wrong = np.random.default_rng(seed).random(len(examples)) < part
    labels = np.where(wrong, 1 - examples.labels, examples.labels).astype(np.int8)
    place = examples.table.schema.get_field_index("label")
    table = examples.table.set_column(place, examples.table.schema.field(place), pa.array(labels, pa.int8()))
    return TrainingSet(examples.stamps, table, examples.card), wrong


def linear(examples: TrainingSet):
    """A stand-in for a network: how much flux the middle of the difference holds, on one side or on both."""

    def feature(some: TrainingSet) -> np.ndarray:
        middle = some.stamps.data[:, 13:18, 13:18, 2] * some.sign[:, None, None]
        return middle.sum(axis=(1, 2)) / np.abs(some.stamps.data[:, 13:18, 13:18, 2]).sum(axis=(1, 2))

    learn = examples.part("train")
    value, labels = feature(learn), learn.labels
    middle = 0.5 * (np.median(value[labels == 1]) + np.median(value[labels == 0]))
    return lambda some: 1.0 / (1.0 + np.exp(-12.0 * (feature(some) - middle)))


def test_wrong_labels_are_found_and_stay_in_the_set(separable: TrainingSet) -> None:
    noisy, wrong = flipped(separable, 0.08)
    found = measure_doubt(noisy, linear, folds=4)
    assert len(found) == len(noisy)
    assert found.table.drop_columns(["label_doubt"]).equals(noisy.table.drop_columns(["label_doubt"]))
    doubts = np.asarray(found.table["label_doubt"], dtype=np.float64)
    assert doubts.min() >= 0
    assert doubts.max() <= 1
    assert auc(doubts, wrong.astype(int)) > 0.98
    assert wrong[doubts > DOUBTFUL].mean() > 0.85
    assert (doubts[wrong] > DOUBTFUL).mean() > 0.9
    told = found.card["label_noise"]
    assert sum(told["doubtful"].values()) == (doubts > DOUBTFUL).sum()
    for rate in told["estimated_wrong"].values():
        assert rate == pytest.approx(0.08, abs=0.04)


def test_a_network_doubts_too(separable: TrainingSet) -> None:
    noisy, wrong = flipped(separable.take(np.arange(0, 1600, 3)), 0.1)
    options = TrainOptions(epochs=5, batch=24, learning_rate=3e-3, network={"filters": (6, 8, 12), "dense": 16})
    real = out_of_fold(noisy, network_fit(options), folds=3)
    assert auc(doubt(real, noisy.labels), wrong.astype(int)) > 0.85


def test_doubt_is_relative_to_the_class() -> None:
    labels = np.array([1] * 50 + [0] * 50, dtype=np.int8)
    real = np.array([0.7] * 50 + [0.3] * 50)  # an unsure network is no reason for doubt
    assert doubt(real, labels).max() < DOUBTFUL
    real[0], real[99] = 0.2, 0.9
    assert np.flatnonzero(doubt(real, labels) > DOUBTFUL).tolist() == [0, 99]
    members = np.stack([real, np.full(100, 0.5)])
    np.testing.assert_allclose(doubt(members, labels)[0], (doubt(real, labels)[0] + doubt(members[1], labels)[0]) / 2)
    with pytest.raises(ValueError, match="both classes"):
        doubt(real, np.ones(100, dtype=np.int8))


def test_joint_estimates_rates_of_unequal_noise() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(20000) < 0.3
    given = np.where(true, rng.random(20000) >= 0.10, rng.random(20000) < 0.02)
    real = 1.0 / (1.0 + np.exp(-(np.where(true, 3.0, -3.0) + rng.normal(0, 1.0, 20000))))
    joint = confident_joint(real, given.astype(np.int8))
    assert joint.sum() == pytest.approx(1.0)
    assert joint[0, 1] == pytest.approx(np.mean(~given & true), abs=0.008)
    assert joint[1, 0] == pytest.approx(np.mean(given & ~true), abs=0.008)


def test_folds_hold_whole_groups_of_about_equal_size() -> None:
    rng = np.random.default_rng(0)
    keys = {"unit": np.array([f"u{k}" for k in rng.integers(0, 30, 3000)], dtype=object)}
    fold = deal_folds(keys, (("unit",),), 4)
    group = groups_of(keys)
    assert all(len(set(fold[group == one])) == 1 for one in range(group.max() + 1))
    assert np.bincount(fold).min() > 600
    with pytest.raises(TooFewGroups):
        deal_folds({"unit": np.array(["a", "b"], dtype=object)}, (("unit",),), 3)
