"""A deep ensemble of small heads on the features of one trunk, in plain numpy.

Lakshminarayanan et al. 2017 (NeurIPS 30, 6402): networks that differ in their start and in the order of their data
agree where the data decide and differ where they do not. Whole networks cost a trunk each; heads cost next to
nothing. Members may each see another draw of the *groups* of the training part (units, fields: bagging, Breiman 1996,
Mach. Learn. 24, 123); with the tens of units of a training set that costs more than the differences are worth, and is
off.

Member: features (centred and scaled) -> dense layer with ReLU -> one logit. Trained by Adam with dropout on the dense
layer, with the weights of the epoch that has the smallest loss on the validation part. Neither training nor scoring
needs Keras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Members of an ensemble, of one shape.

    Attributes
    ----------
    centre, scale : ndarray of float32, shape (k,)
        What features are centred on and divided by.
    inner : ndarray of float32, shape (members, k, hidden)
        Weights of the dense layers.
    inner_bias : ndarray of float32, shape (members, hidden)
        Their biases.
    outer : ndarray of float32, shape (members, hidden)
        Weights of the logits.
    outer_bias : ndarray of float32, shape (members,)
        Their biases.
    """

    centre: Float32
    scale: Float32
    inner: Float32
    inner_bias: Float32
    outer: Float32
    outer_bias: Float32

    def __len__(self) -> int:
        return len(self.inner)

    def hidden(self, features: Float32, member: int = 0) -> Float32:
        """Return the activations of one member's dense layer, shape (n, hidden).

        `features` of the trunk are flattened, (n, k).
        """
        x = (features - self.centre) / self.scale
        return np.maximum(x @ self.inner[member] + self.inner_bias[member], 0.0)

    def logits(self, features: Float32) -> Float32:
        """Return the logits of every member, shape (members, n); `features` of the trunk are flattened, (n, k)."""
        x = (features - self.centre) / self.scale
        out = np.empty((len(self), len(features)), dtype=np.float32)
        for k in range(len(self)):
            out[k] = np.maximum(x @ self.inner[k] + self.inner_bias[k], 0.0) @ self.outer[k] + self.outer_bias[k]
        return out


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How heads are trained.

    Attributes
    ----------
    members : int
        Heads.
    hidden : int
        Units of the dense layer.
    groups : float
        Part of the groups that a member learns from, drawn without putting back; 1 for all of them.
    dropout : float
        Part of the dense units dropped in training.
    decay : float
        Decoupled weight decay of a step (Loshchilov and Hutter 2019).
    learning_rate : float
        Of Adam at the start; it falls to zero along a cosine.
    epochs, patience, batch : int
        Most epochs, epochs without a better validation loss after which training ends, and examples a step.
    """

    members: int = 10
    hidden: int = 128
    groups: float = 1.0
    dropout: float = 0.4
    decay: float = 1e-2
    learning_rate: float = 1e-3
    epochs: int = 20
    patience: int = 4
    batch: int = 256


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Features with their labels.

    Attributes
    ----------
    features : ndarray of float32, shape (n, k)
        Flattened features of the trunk.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.
    weights : ndarray of float32, shape (n,)
        Weights, mean one (`models.training.examples.weights`).
    groups : ndarray, shape (n,)
        What belongs together (unit, field and night).
    """

    features: Float32
    labels: npt.NDArray[np.int8]
    weights: Float32
    groups: npt.NDArray[np.generic]


def train_heads(learn: FeatureSet, check: FeatureSet, options: HeadOptions | None = None, seed: int = 0) -> Heads:
    """Train an ensemble.

    Parameters
    ----------
    learn : FeatureSet
        What is learnt from.
    check : FeatureSet
        What stops the training; no group of `learn`.
    options : HeadOptions, optional
        How; the defaults when not given.
    seed : int, optional
        Seed; member k has seed and k.

    Returns
    -------
    Heads
        The members.

    Raises
    ------
    ValueError
        If there is nothing to learn from, or a member's draw of groups lacks a class.
    """
    options = options or HeadOptions()
    if not len(learn.labels) or not len(check.labels):
        raise ValueError("an ensemble needs examples to learn from and others to stop on")
    centre = learn.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = learn.features.std(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.where(scale > 1e-6, scale, np.float32(1.0)).astype(np.float32)
    inputs = tuple((one.features - centre) / scale for one in (learn, check))
    names = np.unique(learn.groups)
    members = []
    for member in range(options.members):
        rng = np.random.default_rng([seed, member])
        count = max(1, round(options.groups * len(names)))
        rows = np.flatnonzero(np.isin(learn.groups, rng.permutation(names)[:count]))
        if len(np.unique(learn.labels[rows])) < 2:
            raise ValueError(f"member {member} would see one class only in {count} of {len(names)} groups")
        members.append(_member(inputs[0][rows], learn, rows, inputs[1], check, options, rng))
    inner, inner_bias, outer, outer_bias = (np.stack(one) for one in zip(*members, strict=True))
    return Heads(centre, scale, inner, inner_bias, outer, outer_bias[:, 0])


def _member(
    x: Float32, learn: FeatureSet, rows: npt.NDArray[np.int64], held: Float32, check: FeatureSet,
    options: HeadOptions, rng: np.random.Generator,
) -> list[Float32]:  # fmt: skip
    """One member's weights: Adam on the weighted cross-entropy, of the best epoch."""
    y, weight = learn.labels[rows].astype(np.float32), learn.weights[rows]
    k, hidden = x.shape[1], options.hidden
    values = [
        rng.normal(0, np.sqrt(2 / k), (k, hidden)).astype(np.float32),
        np.zeros(hidden, np.float32),
        rng.normal(0, np.sqrt(1 / hidden), hidden).astype(np.float32),
        np.zeros(1, np.float32),
    ]
    adam = _Adam(values, options, steps=options.epochs * -(-len(x) // options.batch))
    best, best_values, since = np.inf, [one.copy() for one in values], 0
    for _ in range(options.epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(order), options.batch):
            part = order[start : start + options.batch]
            adam.step(_gradients(values, x[part], y[part], weight[part], options.dropout, rng))
        logits = np.maximum(held @ values[0] + values[1], 0) @ values[2] + values[3]
        loss = float(np.mean(check.weights * np.logaddexp(0.0, np.where(check.labels == 1, -logits, logits))))
        since += 1
        if loss < best:
            best, best_values, since = loss, [one.copy() for one in values], 0
        if since > options.patience:
            break
    return best_values


def _gradients(
    values: list[Float32], x: Float32, y: Float32, weight: Float32, dropout: float, rng: np.random.Generator
) -> list[Float32]:
    inner, inner_bias, outer, outer_bias = values
    before = x @ inner + inner_bias
    gate = (rng.random(before.shape, dtype=np.float32) >= dropout) / np.float32(1 - dropout)
    active = np.maximum(before, 0) * gate
    logit = active @ outer + outer_bias
    error = weight * (0.5 * (1 + np.tanh(0.5 * logit)) - y) / np.float32(len(y))
    back = np.outer(error, outer).astype(np.float32) * gate * (before > 0)
    return [x.T @ back, back.sum(axis=0), active.T @ error, error.sum(keepdims=True)]


class _Adam:
    """Kingma and Ba 2015 (ICLR), with decoupled weight decay and a cosine schedule; changes the values in place."""

    def __init__(self, values: list[Float32], options: HeadOptions, steps: int) -> None:
        self.values, self.options, self.steps, self.done = values, options, steps, 0
        self.mean = [np.zeros_like(one) for one in values]
        self.square = [np.zeros_like(one) for one in values]

    def step(self, gradients: list[Float32]) -> None:
        self.done += 1
        rate = self.options.learning_rate * 0.5 * (1 + np.cos(np.pi * self.done / (self.steps + 1)))
        fast, slow = 1 - 0.9**self.done, 1 - 0.999**self.done
        for value, gradient, mean, square in zip(self.values, gradients, self.mean, self.square, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            value -= (rate * (mean / fast) / (np.sqrt(square / slow) + 1e-7)).astype(np.float32)
            if value.ndim > 1 or len(value) > 1:
                value *= np.float32(1 - rate * self.options.decay)
