"""Contract of an architecture, and where architectures are found: one file in `models/network/architectures/` is one.

An architecture module holds two names:

``Options``
    A frozen dataclass of everything that shapes the network; all fields have defaults and fit into JSON.
``build(options, recipe) -> keras.Model``
    A network of two parts: ``trunk`` (deterministic; raw stamps and mask to features) and ``head`` (a
    `keras.Sequential`; features to one logit per stamp), with all dropout in the head. The trunk starts with
    `models.network.inputs.input_layers`, so that the normalisation is part of the saved graph.

The division makes dropout uncertainty cheap: the trunk, which costs 95 % of the work, runs once, and only the head is
sampled. The output is a logit in float32, because probabilities in float32 saturate at 1 and lose the order of the
best candidates.
"""

from __future__ import annotations

import dataclasses
import importlib
from importlib.resources import files
from types import ModuleType
from typing import TYPE_CHECKING, Any

from models.network.inputs import Recipe, recipe_inside
from nightsift.core.errors import ModelMismatch

if TYPE_CHECKING:
    import keras

TRUNK, HEAD = "trunk", "head"


def list_architectures() -> list[str]:
    """Return the names of all architectures, sorted."""
    names = (entry.name for entry in files("models.network.architectures").iterdir())
    return sorted(name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_"))


def architecture(name: str) -> ModuleType:
    """Import an architecture by the name of its file: a module with `Options` and `build`.

    Raises `ModelMismatch` if there is no such architecture.
    """
    known = list_architectures()
    if name not in known:
        raise ModelMismatch(model=name, what=f"there is no such architecture; there are {', '.join(known)}")
    return importlib.import_module(f"models.network.architectures.{name}")


def build(name: str, recipe: Recipe, **options: Any) -> keras.Model:
    """Build a network with fresh weights and check that it keeps its promises.

    Parameters
    ----------
    name : str
        Name of the architecture.
    recipe : Recipe
        How stamps become tensors; the normalisation becomes part of the network.
    **options
        Fields of the architecture's `Options` that differ from their defaults.

    Returns
    -------
    keras.Model
        Takes ``[stamps (n, size, size, 3) float32, mask (n, size, size) bool]``, gives logits (n, 1) float32.

    Raises
    ------
    ModelMismatch
        If the architecture is unknown, an option is unknown, or the network breaks the contract.
    """
    module = architecture(name)
    known = {field.name for field in dataclasses.fields(module.Options)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ModelMismatch(model=name, what=f"unknown options {unknown}; there are {sorted(known)}")
    model: keras.Model = module.build(module.Options(**options), recipe)
    check(model, recipe, name)
    return model


def join(trunk: keras.Model, head: keras.Sequential) -> keras.Model:
    """Make one network of a trunk (stamps and mask to features) and a head (features to logits)."""
    import keras

    inputs = [keras.Input(one.shape[1:], dtype=one.dtype, name=one.name) for one in trunk.inputs]
    return keras.Model(inputs, head(trunk(inputs)))


def check(model: keras.Model, recipe: Recipe, name: str) -> None:
    """Check that a network keeps the contract of this module.

    Parameters
    ----------
    model : keras.Model
        The network.
    recipe : Recipe
        The recipe that it must follow.
    name : str
        Its name, for the error message.

    Raises
    ------
    ModelMismatch
        If a part is absent, dropout is outside the head, the output is not one float32 logit per stamp, or the recipe
        inside the graph is another one.
    """
    import keras

    parts = {layer.name: layer for layer in model.layers}
    if not {TRUNK, HEAD} <= set(parts):
        raise ModelMismatch(model=name, what=f"it has no parts '{TRUNK}' and '{HEAD}' but {sorted(parts)}")
    trunk, head = parts[TRUNK], parts[HEAD]
    if not isinstance(head, keras.Sequential):
        raise ModelMismatch(model=name, what=f"its head is a {type(head).__name__}, not a keras.Sequential")
    if any(is_dropout(layer) for layer in trunk.layers) or not any(is_dropout(layer) for layer in head.layers):
        raise ModelMismatch(model=name, what="dropout must stand in the head, and only there")
    if tuple(model.output.shape) != (None, 1) or model.output.dtype != "float32":
        raise ModelMismatch(
            model=name, what=f"it gives {model.output.dtype} {model.output.shape}, not float32 (None, 1)"
        )
    inside = recipe_inside(model)
    if inside != recipe:
        raise ModelMismatch(model=name, what=f"it was built with the recipe {inside}, and {recipe} is asked for")


def is_dropout(layer: keras.Layer) -> bool:
    """Tell whether a layer drops units or, as `SpatialDropout2D`, whole channels."""
    import keras

    return isinstance(layer, keras.layers.Dropout | keras.layers.SpatialDropout2D)
