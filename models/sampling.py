"""Dropout samples of a network at the cost of little more than one pass (Gal & Ghahramani 2016, ICML 48, 1050).

The trunk holds no dropout, so that its features are the same for every sample: they are computed once, and only
the head is evaluated `samples` times, all samples in one matrix product.

The gates (what is kept and what is dropped) are drawn from the seed alone and shared by all stamps: every stamp is
judged by the same `samples` thinned networks. So a score depends neither on the batch that its stamp came in nor on
its place there, and the order of candidates carries no noise of the drawing. Sample k is the same whatever the
number of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.contract import HEAD, TRUNK, is_dropout
from models.inputs import BoolStamps, FloatStamps

if TYPE_CHECKING:
    import keras

Gates = list[npt.NDArray[np.float32]]
Sampler = Callable[[FloatStamps, BoolStamps, Gates], npt.NDArray[np.float32]]


def draw_gates(model: keras.Model, samples: int, seed: int) -> Gates:
    """Draw what the dropout layers of the head keep.

    Parameters
    ----------
    model : keras.Model
        A network that keeps `models.contract`.
    samples : int
        Number of samples, at least 1.
    seed : int
        Seed; the same one always gives the same gates.

    Returns
    -------
    list of ndarray of float32
        One array (samples, ...) a dropout layer: 0 where dropped, 1 / (1 - rate) where kept.

    Raises
    ------
    ValueError
        If `samples` is less than 1.
    """
    if samples < 1:
        raise ValueError(f"at least one dropout sample is needed, got {samples}")
    gates = []
    for place, layer in enumerate(model.get_layer(HEAD).layers):
        if not is_dropout(layer):
            continue
        shape = tuple(layer.input.shape[1:])
        if "SpatialDropout" in type(layer).__name__:
            shape = (1,) * (len(shape) - 1) + shape[-1:]
        kept = np.random.default_rng([seed, place]).random((samples, *shape)) >= layer.rate
        gates.append((kept / (1.0 - layer.rate)).astype(np.float32))
    return gates


def make_sampler(model: keras.Model) -> Sampler:
    """Compile the function that samples a network.

    Parameters
    ----------
    model : keras.Model
        A network that keeps `models.contract`.

    Returns
    -------
    callable
        ``(stamps (n, size, size, 3), mask (n, size, size), gates) -> logits (samples, n) float32``.
    """
    from keras import ops

    compiled = _compile(_logits(model), model)

    def sample(stamps: FloatStamps, mask: BoolStamps, gates: Gates) -> npt.NDArray[np.float32]:
        return np.asarray(ops.convert_to_numpy(compiled(stamps, mask, *gates)), dtype=np.float32)

    return sample


def _logits(model: keras.Model) -> Callable[..., Any]:
    from keras import ops

    trunk, layers = model.get_layer(TRUNK), model.get_layer(HEAD).layers
    shapes = [tuple(layer.input.shape[1:]) for layer in layers]

    def logits(stamps: Any, mask: Any, *gates: Any) -> Any:
        x = trunk([stamps, mask], training=False)
        waiting, sampled = list(gates), False
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


def _compile(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """Compile for the backend in use, once for all batch sizes; run as it is where there is nothing to compile with."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    stamps, mask = model.inputs
    gates = [tf.TensorSpec((None, *gate.shape[1:]), tf.float32) for gate in draw_gates(model, 1, 0)]
    signature = [tf.TensorSpec(stamps.shape, tf.float32), tf.TensorSpec(mask.shape, tf.bool), *gates]
    return tf.function(function, input_signature=signature)  # XLA is slower on CPU
