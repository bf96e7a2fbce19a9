from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.calibration import metrics
from models.network.inputs import Recipe
from models.network.store import predict, save
from models.training import examples
from models.training.dataset import assign_splits
from models.training.examples import TrainingSet, weights
from models.training.train import TrainOptions, train

NETWORK = {"filters": (6, 8, 12), "dense": 16}


def test_learns_a_separable_set(separable: TrainingSet, tmp_path: Path) -> None:
    seen: list[int] = []
    options = TrainOptions(network=NETWORK, epochs=4, batch=64, learning_rate=3e-3, seed=3)
    trained = train(separable, options, lambda epoch, of, losses: seen.append(epoch))
    assert seen == [1, 2, 3, 4]
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    held = separable.part("test")
    golden = held.take(np.arange(8))
    classifier = save(tmp_path / "learnt", trained.model, Recipe(), card={}, golden=golden.stamps, sign=golden.sign)
    scores = predict(held.stamps, held.sign, classifier)
    assert metrics.auc(scores["score"], held.labels) > 0.95
    assert scores["score_std"].mean() > 0


def test_same_seed_same_network(separable: TrainingSet) -> None:
    small = separable.take(np.arange(0, 1600, 8))
    options = TrainOptions(network=NETWORK, epochs=1, batch=64, seed=11)
    one, other = (train(small, options).model.get_weights() for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_stopped_training_goes_on_to_the_same_network(separable: TrainingSet, tmp_path: Path) -> None:
    small = separable.take(np.arange(0, 1600, 20))
    options = TrainOptions(network=NETWORK, epochs=3, batch=64, seed=4)
    whole = train(small, options)

    class Stopped(Exception):
        pass

    def stop(epoch: int, of: int, losses: dict[str, float]) -> None:
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(small, options, stop, checkpoint=tmp_path / "state.npz")
    seen: list[int] = []
    again = train(small, options, lambda epoch, of, losses: seen.append(epoch), checkpoint=tmp_path / "state.npz")
    assert seen == [3]
    assert again.best_epoch == whole.best_epoch
    assert [one["validation_loss"] for one in again.history] == pytest.approx(
        [one["validation_loss"] for one in whole.history], rel=1e-4
    )
    for one, other in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    train(
        small,
        dataclasses.replace(options, seed=5),
        lambda *told: seen.append(told[0]),
        checkpoint=tmp_path / "state.npz",
    )
    assert seen == [3, 1, 2, 3], "the state of another training is not taken up"


def test_stops_when_validation_gets_no_better(separable: TrainingSet) -> None:
    small = separable.take(np.arange(0, 1600, 16))
    trained = train(small, TrainOptions(network=NETWORK, epochs=12, patience=2, learning_rate=0.0, averaging=0.0))
    assert len(trained.history) == 3
    assert trained.best_epoch == 1


@pytest.mark.parametrize("prevalence", [0.1, 0.5])
def test_weights_give_the_stated_prevalence(prevalence: float) -> None:
    labels = np.array([1] * 7 + [0] * 93, dtype=np.int8)
    found = weights(labels, prevalence)
    assert found[labels == 1].sum() / found.sum() == pytest.approx(prevalence)
    assert found.mean() == pytest.approx(1)


def test_one_class_cannot_be_learnt(separable: TrainingSet) -> None:
    real = separable.take(np.flatnonzero(separable.labels == 1))
    with pytest.raises(ValueError, match="both classes"):
        train(real, TrainOptions(network=NETWORK, epochs=1))


def test_set_survives_the_disk_and_is_split_without_leaks(separable: TrainingSet, tmp_path: Path) -> None:
    joined = examples.join([separable, separable.take(np.arange(10))])
    assert joined.card["surveys"] == 1, "two sets of one survey"
    dealt = assign_splits(joined, seed=2)
    examples.write(tmp_path / "set", dealt)
    back = examples.read(tmp_path / "set")
    assert back.table.equals(dealt.table)
    np.testing.assert_array_equal(back.stamps.data, joined.stamps.data)
    assert back.card["split_by"] == ["unit", "field", "exposure_id", "object_id", "host_id"]
    split, unit = np.asarray(back.table["split"]), np.asarray(back.table["unit"])
    assert all(len(set(split[unit == one])) == 1 for one in np.unique(unit))
    assert sum(part["real"] + part["bogus"] for part in back.card["parts"]) == len(joined)
