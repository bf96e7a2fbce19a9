"""Training of a network on a labelled set: augmented batches, early stopping on units that it is not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.augment import AugmentOptions, augment
from models.contract import build
from models.examples import TrainingSet, weights
from models.inputs import BoolStamps, FloatStamps, Recipe, prepare
from models.runtime import start_keras

if TYPE_CHECKING:
    import keras

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes
    ----------
    architecture : str
        Name of a file in `models/architectures/`.
    network : dict
        Fields of its `Options` that differ from their defaults.
    recipe : Recipe
        How stamps become tensors.
    augment : AugmentOptions
        How stamps are changed in training.
    epochs, patience : int
        Most epochs, and epochs without a better validation loss after which training ends.
    batch : int
        Stamps a step.
    learning_rate : float
        Of Adam at the start; it falls to zero along a cosine.
    prevalence : float
        Weight of real examples in the loss, see `models.examples.weights`.
    seed : int
        Seed of weights, order, augmentation and dropout.
    threads : int or None
        Threads of the network, see `models.runtime`.
    """

    architecture: str = "vgg"
    network: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    epochs: int = 25
    patience: int = 6
    batch: int = 128
    learning_rate: float = 1e-3
    prevalence: float = 0.5
    seed: int = 0
    threads: int | None = None

    def to_mapping(self) -> dict[str, Any]:
        """All options as plain values, for the card."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What training gives.

    Attributes
    ----------
    model : keras.Model
        The network with the weights of its best epoch.
    options : TrainOptions
        How it was trained.
    history : list of dict
        Losses by epoch.
    best_epoch : int
        Epoch whose weights were kept, counted from 1.
    """

    model: keras.Model
    options: TrainOptions
    history: list[dict[str, float]]
    best_epoch: int


def train(examples: TrainingSet, options: TrainOptions | None = None, progress: Progress | None = None) -> TrainedModel:
    """Train a network from scratch.

    Parameters
    ----------
    examples : TrainingSet
        Its part ``"train"`` is learnt from, its part ``"validation"`` stops the training; ``"test"`` is not looked at.
    options : TrainOptions, optional
        How to train; the defaults when not given.
    progress : callable, optional
        Called after each epoch with its number, the number of epochs and their losses.

    Returns
    -------
    TrainedModel
        The network of the epoch with the smallest validation loss.

    Raises
    ------
    ValueError
        If a class is absent from the training or validation part.
    ModelMismatch
        If the stamps do not fit the recipe or the network options are wrong.
    """
    options = options or TrainOptions()
    keras = start_keras(options.threads)
    keras.utils.set_random_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    learn, check = (_tensors(examples.part(name), options) for name in ("train", "validation"))
    model = build(options.architecture, options.recipe, **options.network)
    steps = -(-len(learn.labels) // options.batch)
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * steps)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,  # slower on CPU
    )
    history: list[dict[str, float]] = []
    best, best_weights = np.inf, model.get_weights()
    for epoch in range(options.epochs):
        losses = {"loss": _epoch(model, learn, options, rng), "validation_loss": _loss(model, check)}
        history.append(losses)
        if losses["validation_loss"] < best:
            best, best_weights = losses["validation_loss"], model.get_weights()
        if progress is not None:
            progress(epoch + 1, options.epochs, losses)
        best_epoch = int(np.argmin([one["validation_loss"] for one in history]))
        if epoch - best_epoch >= options.patience:
            break
    model.set_weights(best_weights)
    return TrainedModel(model, options, history, best_epoch + 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Tensors:
    data: FloatStamps
    mask: BoolStamps
    labels: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


def _tensors(examples: TrainingSet, options: TrainOptions) -> _Tensors:
    data, mask = prepare(examples.stamps, examples.sign, options.recipe)
    return _Tensors(data, mask, examples.labels.astype(np.float32), weights(examples.labels, options.prevalence))


def _epoch(model: keras.Model, learn: _Tensors, options: TrainOptions, rng: np.random.Generator) -> float:
    """One pass over the training part in random order; its mean loss."""
    order = rng.permutation(len(learn.labels))
    total = 0.0
    for start in range(0, len(order), options.batch):
        rows = order[start : start + options.batch]
        data, mask = augment(learn.data[rows], learn.mask[rows], options.augment, rng)
        loss = model.train_on_batch([data, mask], learn.labels[rows, None], sample_weight=learn.weights[rows])
        model.reset_metrics()
        total += float(loss) * len(rows)
    return total / len(order)


def _loss(model: keras.Model, check: _Tensors, batch: int = 512) -> float:
    """Weighted mean cross-entropy without dropout (nat)."""
    logits = np.concatenate(
        [
            np.asarray(model.predict_on_batch([check.data[start : start + batch], check.mask[start : start + batch]]))
            for start in range(0, len(check.labels), batch)
        ]
    )[:, 0].astype(np.float64)
    return float(np.mean(check.weights * np.logaddexp(0.0, np.where(check.labels > 0, -logits, logits))))
