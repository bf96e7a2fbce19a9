"""Dropout samples of a network at the cost of little more than one pass (Gal & Ghahramani 2016, ICML 48, 1050).

The trunk holds no dropout, so that its features are the same for every sample: they are computed a single time, and
only the head is evaluated `samples` times, all samples in one matrix product.

The gates (which units stay and which are dropped) are drawn from the seed alone and shared by all stamps: every stamp
is scored by the same `samples` thinned networks. So a score depends neither on the batch that its stamp came in nor on
its place there, and the order of candidates carries no noise of the drawing. Sample k is the same whatever the number
of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.network.contract import HEAD, TRUNK, is_dropout
from models.network.inputs import BoolStamps, FloatStamps

if TYPE_CHECKING:
    import keras

Gates = list[npt.NDArray[np.float32]]
GateShape = tuple[int, tuple[int, ...], float]
"""Place of a dropout layer in the head, shape of its draw for one sample, and its rate."""
Sampler = Callable[[FloatStamps, BoolStamps, Gates], npt.NDArray[np.float32]]
Trunk = Callable[[FloatStamps, BoolStamps], npt.NDArray[np.float32]]
"""Prepared stamps (n, size, size, 3) and mask (n, size, size) to features (n, ...)."""


def gate_shapes(model: keras.Model) -> tuple[GateShape, ...]:
    """Return place, shape and rate of each dropout layer of a network's head: what one sample has to draw.

    Parameters
    ----------
    model : keras.Model
        A network that keeps `models.network.contract`.

    Returns
    -------
    tuple of (int, tuple of int, float)
        One entry per dropout layer, in order.
    """
    shapes: list[GateShape] = []
    for place, layer in enumerate(model.get_layer(HEAD).layers):
        if is_dropout(layer):
            shape = tuple(int(n) for n in layer.input.shape[1:])
            if "SpatialDropout" in type(layer).__name__:
                shape = (1,) * (len(shape) - 1) + shape[-1:]
            shapes.append((place, shape, float(layer.rate)))
    return tuple(shapes)


def draw_gates(shapes: Sequence[GateShape], samples: int, seed: int) -> Gates:
    """Draw which units the dropout layers of the head leave in.

    Parameters
    ----------
    shapes : sequence of (int, tuple of int, float)
        From `gate_shapes`.
    samples : int
        Number of samples, at least 1.
    seed : int
        Seed; the same one always gives the same gates.

    Returns
    -------
    list of ndarray of float32
        One array (samples, ...) per dropout layer: 0 where dropped, 1 / (1 - rate) elsewhere.

    Raises
    ------
    ValueError
        If `samples` is less than 1.
    """
    if samples < 1:
        raise ValueError(f"at least one dropout sample is needed, got {samples}")
    gates = []
    for place, shape, rate in shapes:
        stays = np.random.default_rng([seed, place]).random((samples, *shape)) >= rate
        gates.append((stays / (1.0 - rate)).astype(np.float32))
    return gates


def make_sampler(model: keras.Model) -> Sampler:
    """Compile the function that samples a network.

    Returns ``(stamps (n, size, size, 3), mask (n, size, size), gates) -> logits (samples, n) float32``.
    """
    from keras import ops

    compiled = _compile(_logits(model), model)

    def sample(stamps: FloatStamps, mask: BoolStamps, gates: Gates) -> npt.NDArray[np.float32]:
        return np.asarray(ops.convert_to_numpy(compiled(stamps, mask, *gates)), dtype=np.float32)

    return sample


def make_trunk(model: keras.Model) -> Trunk:
    """Compile the deterministic part of a network.

    Parameters
    ----------
    model : keras.Model
        A network that keeps `models.network.contract`.

    Returns
    -------
    callable
        ``(stamps (n, size, size, 3), mask (n, size, size)) -> features (n, ...) float32``.
    """
    from keras import ops

    trunk = model.get_layer(TRUNK)

    def features(stamps: Any, mask: Any) -> Any:
        return ops.cast(trunk([stamps, mask], training=False), "float32")

    compiled = _compile(features, model, gates=False)

    def of_stamps(stamps: FloatStamps, mask: BoolStamps) -> npt.NDArray[np.float32]:
        return np.asarray(ops.convert_to_numpy(compiled(stamps, mask)), dtype=np.float32)

    return of_stamps


def _logits(model: keras.Model) -> Callable[..., Any]:
    trunk, of_features = model.get_layer(TRUNK), head_function(model.get_layer(HEAD))

    def logits(stamps: Any, mask: Any, *gates: Any) -> Any:
        return of_features(trunk([stamps, mask], training=False), *gates)

    return logits


def head_function(head: keras.Sequential) -> Callable[..., Any]:
    """The head as a function of features and gates.

    Parameters
    ----------
    head : keras.Sequential
        Head of a network that keeps `models.network.contract`.

    Returns
    -------
    callable
        ``(features (n, ...), *gates) -> logits (samples, n)``, of tensors.
    """
    from keras import ops

    layers = head.layers
    shapes = [tuple(layer.input.shape[1:]) for layer in layers]

    def logits(features: Any, *gates: Any) -> Any:
        x, waiting, sampled = features, list(gates), False
        for layer, shape in zip(layers, shapes, strict=True):
            if not is_dropout(layer):
                x = layer(x, training=False)
                continue
            gate = waiting.pop(0)
            samples = ops.shape(gate)[0]
            spread = ops.reshape(x, (samples, -1, *shape)) if sampled else x[None]
            x = ops.reshape(spread * ops.expand_dims(gate, 1), (-1, *shape))
            sampled = True
        return ops.reshape(x, (ops.shape(gates[0])[0], -1))

    return logits


def _compile(function: Callable[..., Any], model: keras.Model, gates: bool = True) -> Callable[..., Any]:
    """Compile for the backend in use, one graph for all batch sizes; where it cannot, return the function itself."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    stamps, mask = model.inputs
    signature = [tf.TensorSpec(stamps.shape, tf.float32), tf.TensorSpec(mask.shape, tf.bool)]
    if gates:
        drawn = draw_gates(gate_shapes(model), 1, 0)
        signature += [tf.TensorSpec((None, *gate.shape[1:]), tf.float32) for gate in drawn]
    return tf.function(function, input_signature=signature)  # XLA is slower on CPU
