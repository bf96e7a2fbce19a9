from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.network.contract import HEAD, TRUNK, architecture, build, check, list_architectures
from models.network.inputs import Recipe
from nightsift.core.errors import ModelMismatch


@pytest.mark.parametrize("name", list_architectures())
def test_every_architecture_keeps_the_contract(name: str) -> None:
    module = architecture(name)
    assert dataclasses.is_dataclass(module.Options)
    recipe = Recipe()
    model = build(name, recipe)
    assert 30_000 <= model.count_params() <= 150_000
    logits = model([np.zeros((2, 31, 31, 3), np.float32), np.zeros((2, 31, 31), bool)])
    assert logits.shape == (2, 1)
    assert str(logits.dtype).endswith("float32'>") or "float32" in str(logits.dtype)
    with pytest.raises(ModelMismatch, match="recipe"):
        check(model, Recipe(softening=1.0), name)


def test_channels_and_size_are_those_of_the_recipe() -> None:
    model = build("vgg", Recipe(size=21, channels=("science", "difference")), filters=(4, 4), dense=8)
    assert model.get_layer(TRUNK).layers[2].output.shape == (None, 21, 21, 3)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ModelMismatch, match="vgg"):
        build("resnet-9000", Recipe())
    with pytest.raises(ModelMismatch, match=r"unknown options \['filter'\]"):
        build("vgg", Recipe(), filter=3)


def test_dropout_outside_the_head_is_refused() -> None:
    import keras

    from models.network.contract import join
    from models.network.inputs import input_layers

    inputs, x = input_layers(Recipe())
    trunk = keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.Flatten()(x)), name=TRUNK)
    head = keras.Sequential([keras.Input(trunk.output.shape[1:]), keras.layers.Dense(1)], name=HEAD)
    with pytest.raises(ModelMismatch, match="dropout must stand in the head"):
        check(join(trunk, head), Recipe(), "leaky")
