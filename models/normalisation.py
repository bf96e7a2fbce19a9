"""The normalisation of stamps as a Keras layer: saved with the weights, so that the two can never be parted.

The class is made inside a function, because Keras is imported on use only; it is registered as
``nightsift>StampNormalisation``. The formula stands in `models.inputs`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from models.inputs import PLANES, Recipe
from nightsift.errors import ModelMismatch

if TYPE_CHECKING:
    import keras

COMPRESSION = 3.0  # brings asinh of 10^4 sigma to about 3, where networks learn well
MAD = 1.4826  # standard deviation over median absolute deviation of a Gaussian


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
            finite = ops.all(ops.isfinite(stamps), axis=-1)
            good = ops.logical_and(ops.logical_not(mask), finite)
            planes = {name: ops.where(good, stamps[..., PLANES.index(name)], 0.0) for name in self.recipe.channels}
            scale = self.recipe.softening * _noise(planes["difference"], good)[:, None, None]
            channels = []
            for name, plane in planes.items():
                level = 0.0 if name == "difference" else _border_level(plane, good, self.recipe.border)[:, None, None]
                channels.append(ops.where(good, ops.arcsinh((plane - level) / scale) / COMPRESSION, 0.0))
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


def _noise(difference: Any, good: Any) -> Any:
    """Robust noise of each difference (n,); 1 where nothing is left to measure it on."""
    from keras import ops

    pixels = int(difference.shape[1]) * int(difference.shape[2])
    values, usable = ops.reshape(ops.abs(difference), (-1, pixels)), ops.reshape(good, (-1, pixels))
    robust = MAD * _median(values, usable)
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
