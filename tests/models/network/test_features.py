from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.network.classifier import Classifier, flattened, pooled, trunk_features
from models.network.contract import HEAD
from models.network.inputs import prepare
from models.network.store import load
from models.training.examples import TrainingSet

Saved = tuple[Path, Classifier]


def test_features_are_those_of_the_network_by_both_engines(few: TrainingSet, untrained: Saved) -> None:
    folder, classifier = untrained
    by_keras, by_onnx = (
        trunk_features(few.stamps, few.sign, load(folder, engine=engine)) for engine in ("keras", "onnx")
    )
    assert by_keras.dtype == by_onnx.dtype == np.float32
    assert by_keras.shape == (24, 3, 3, 12)
    np.testing.assert_allclose(by_onnx, by_keras, atol=1e-4)
    model = classifier.network
    whole = np.asarray(model(list(prepare(few.stamps, few.sign, classifier.recipe)), training=False))
    np.testing.assert_allclose(np.asarray(model.get_layer(HEAD)(by_keras, training=False)), whole, atol=1e-4)


@pytest.mark.parametrize("engine", ["keras", "onnx"])
def test_features_do_not_depend_on_company(few: TrainingSet, untrained: Saved, engine: str) -> None:
    model = load(untrained[0], engine=engine)
    many = few.take(np.tile(np.arange(24), 50))  # more than one batch
    alone = trunk_features(few.stamps, few.sign, model)
    among = trunk_features(many.stamps, many.sign, model).reshape(50, *alone.shape)
    np.testing.assert_allclose(among, np.broadcast_to(alone, among.shape), atol=1e-5)


@pytest.mark.parametrize("engine", ["keras", "onnx"])
def test_no_stamps_give_no_features(few: TrainingSet, untrained: Saved, engine: str) -> None:
    none = few.take(np.arange(0))
    assert trunk_features(none.stamps, none.sign, load(untrained[0], engine=engine)).shape == (0, 3, 3, 12)


def test_rows_and_means() -> None:
    maps = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    np.testing.assert_array_equal(flattened(maps)[1], np.arange(12, 24))
    np.testing.assert_array_equal(pooled(maps)[0], [4.5, 5.5, 6.5])
    np.testing.assert_array_equal(pooled(maps[:, 0, 0]), maps[:, 0, 0])
    assert flattened(maps[:0]).shape == (0, 12)
