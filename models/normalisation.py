"""The normalisation of stamps as a Keras layer: saved with the weights, so that the two can never be parted.

The class is made inside a function, because Keras is imported on use only; it is registered as
``nightsift>StampNormalisation``. The formula stands in `models.inputs`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from models.inputs import PLANES, Recipe
from nightsift.core.robust import MAD_TO_SIGMA
from nightsift.errors import ModelMismatch

if TYPE_CHECKING:
    import keras

COMPRESSION = 3.0  # brings asinh of 10^4 sigma to about 3, where networks learn well
NOISE_FROM = ("difference", "science", "template")  # where the noise is measured: the first plane that is there


@functools.cache
def layer_class() -> type[keras.Layer]:
    """The layer class, registered with Keras when first asked for.

    Returns
    -------
    type
        ``StampNormalisation``; its arguments are the fields of `models.inputs.Recipe`. Called with
        ``[stamps (n, size, size, 3) float32, mask (n, size, size) bool]`` it gives
        (n, size, size, channels + 1) float32: normalised planes in the order of the recipe, then the mask
        (1 where bad).
    """
    import keras
    from keras import ops

    @keras.saving.register_keras_serializable(package="nightsift")
    class StampNormalisation(keras.Layer):
        def __init__(
            self, name: str | None = None, dtype: Any = "float32", trainable: bool = True, **recipe: Any
        ) -> None:
            super().__init__(name=name, dtype=dtype, trainable=trainable)
            self.recipe = Recipe.from_mapping(recipe)

        def get_config(self) -> dict[str, Any]:
            values = dataclasses.asdict(self.recipe)
            return {**super().get_config(), **values, "channels": list(values["channels"])}

        def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
            return (*input_shape[1], len(self.recipe.channels) + 1)

        def call(self, inputs: Any) -> Any:
            stamps, mask = inputs
            good, there = _good(stamps, mask, self.recipe)
            planes = {}
            for name in self.recipe.channels:
                plane = stamps[..., PLANES.index(name)]
                plane = ops.where(ops.logical_and(good, ops.isfinite(plane)), plane, 0.0)
                if name != "difference":
                    plane = plane - _border_level(plane, good, self.recipe.border)[:, None, None]
                planes[name] = ops.where(good, plane, 0.0)
            scale = self.recipe.softening * _scale(planes, good, there)[:, None, None]
            channels = [ops.arcsinh(plane / scale) / COMPRESSION for plane in planes.values()]
            return ops.stack([*channels, 1.0 - ops.cast(good, "float32")], axis=-1)

    return StampNormalisation


def recipe_inside(model: keras.Model) -> Recipe:
    """Recipe that stands in the graph of a network.

    Parameters
    ----------
    model : keras.Model
        A network built by an architecture of `models.architectures`, or its trunk.

    Returns
    -------
    Recipe
        The recipe of its normalisation layer.

    Raises
    ------
    ModelMismatch
        If the network has no normalisation layer, or more than one.
    """
    kind = layer_class()
    layers = [inner for layer in model.layers for inner in getattr(layer, "layers", [layer])]
    found = [layer.recipe for layer in layers if isinstance(layer, kind)]
    if len(found) != 1:
        raise ModelMismatch(model=model.name, what=f"it holds {len(found)} normalisation layers, exactly one is needed")
    return found[0]


def _good(stamps: Any, mask: Any, recipe: Recipe) -> tuple[Any, Any]:
    """Good pixels (n, size, size), and which planes are there (n, 3), None where all must be."""
    from keras import ops

    finite, seen = ops.isfinite(stamps), ops.logical_not(mask)
    if not recipe.planes_may_be_absent:
        return ops.logical_and(seen, ops.all(finite, axis=-1)), None
    there = ops.any(ops.logical_and(finite, seen[..., None]), axis=(1, 2))
    # No plane at all: nothing is absent, everything is bad.
    absent = ops.logical_and(ops.logical_not(there), ops.any(there, axis=-1, keepdims=True))
    return ops.logical_and(seen, ops.all(ops.logical_or(finite, absent[:, None, None, :]), axis=-1)), there


def _scale(planes: dict[str, Any], good: Any, there: Any) -> Any:
    """Noise (n,) of the difference, or of the first plane that is there."""
    from keras import ops

    scale = _noise(planes["difference"], good)
    if there is None:
        return scale
    waiting = ops.logical_not(there[:, PLANES.index("difference")])
    for name in NOISE_FROM[1:]:
        if name in planes:
            found = there[:, PLANES.index(name)]
            scale = ops.where(ops.logical_and(waiting, found), _noise(planes[name], good), scale)
            waiting = ops.logical_and(waiting, ops.logical_not(found))
    return scale


def _noise(plane: Any, good: Any) -> Any:
    """Robust noise of each levelled plane (n,); 1 where nothing is left to measure it on."""
    from keras import ops

    pixels = int(plane.shape[1]) * int(plane.shape[2])
    values, usable = ops.reshape(ops.abs(plane), (-1, pixels)), ops.reshape(good, (-1, pixels))
    robust = MAD_TO_SIGMA * _median(values, usable)
    # more than half of the pixels exactly zero (a filled template): fall back to the mean
    mean = ops.sum(values, axis=1) / ops.maximum(ops.sum(ops.cast(usable, "float32"), axis=1), 1.0)
    scale = ops.where(robust > 0, robust, mean)
    return ops.where(scale > 0, scale, 1.0)


def _border_level(plane: Any, good: Any, border: int) -> Any:
    """Median of the good pixels of the border of each plane (n,); 0 where there are none."""
    import numpy as np
    from keras import ops

    size = int(plane.shape[1])
    rim = np.ones((size, size), dtype=bool)
    rim[border:-border, border:-border] = False
    index = np.flatnonzero(rim)
    flat = (-1, size * size)
    return _median(ops.take(ops.reshape(plane, flat), index, axis=1), ops.take(ops.reshape(good, flat), index, axis=1))


def _median(values: Any, usable: Any) -> Any:
    """Median of the usable values of each row (n, m) -> (n,); 0 where a row has none."""
    from keras import ops

    huge = 3.0e38
    ordered = ops.sort(ops.where(usable, values, huge), axis=1)
    count = ops.sum(ops.cast(usable, "int32"), axis=1)
    low = ops.maximum((count - 1) // 2, 0)
    high = ops.minimum(count // 2, int(values.shape[1]) - 1)
    pair = ops.take_along_axis(ordered, ops.stack([low, high], axis=1), axis=1)
    return ops.where(count > 0, 0.5 * pair[:, 0] + 0.5 * pair[:, 1], 0.0)
