"""Which part of a network learns in fine-tuning, and what draws its weights back to where they started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.contract import HEAD, TRUNK

if TYPE_CHECKING:
    import keras

STRATEGIES = ("frozen", "head", "partial", "full", "scratch")
LEAST_SCALE = 0.03
"""Weight arrays that are smaller than this (such as biases of zero) are drawn back as if they had this size."""


def frozen_layers(model: keras.Model, strategy: str) -> list[keras.Layer]:
    """Layers that do not learn: all, the trunk, its first two thirds, or normalisations over the batch only.

    Parameters
    ----------
    model : keras.Model
        A network that keeps `models.contract`.
    strategy : str
        One of `STRATEGIES`.

    Returns
    -------
    list of keras.Layer
        Layers of trunk and head.
    """
    import keras

    trunk = model.get_layer(TRUNK)
    if strategy == "frozen":
        return [*trunk.layers, *model.get_layer(HEAD).layers]
    if strategy == "head":
        return list(trunk.layers)
    holding = [layer for layer in trunk.layers if layer.weights]
    first = len(holding) - -(-len(holding) // 3) if strategy == "partial" else 0
    statistics = [one for one in trunk.layers if isinstance(one, keras.layers.BatchNormalization)]
    return [*holding[:first], *(statistics if strategy != "scratch" else [])]


def draw_back(variable: Any, prior: float) -> Any:
    """Penalty for leaving the weights of the base, see `models.tuner`.

    Parameters
    ----------
    variable : keras.Variable
        A weight array as it is in the base.
    prior : float
        Strength.

    Returns
    -------
    callable
        ``weights -> penalty`` (nat), a Keras regularizer.
    """
    from keras import ops

    start = array_of(variable)
    scale = max(float(np.sqrt(np.mean(start**2))), LEAST_SCALE)

    def penalty(weights: Any) -> Any:
        return 0.5 * prior * ops.sum(ops.square((weights - start) / scale))

    return penalty


def array_of(variable: Any) -> npt.NDArray[Any]:
    """Copy the present value of a variable.

    Parameters
    ----------
    variable : keras.Variable
        A variable.

    Returns
    -------
    ndarray
        Its value.
    """
    from keras import ops

    return np.array(ops.convert_to_numpy(variable))
