"""Training of a network on a labelled set: augmented batches, early stopping on units that it is not trained on.

After each epoch the weights, the state of the optimizer and the history can go to a checkpoint, from which a stopped
training goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.network.contract import build
from models.network.inputs import BoolStamps, FloatStamps, Recipe, prepare
from models.network.normalise import normalise
from models.network.runtime import start_keras
from models.training.augment import AugmentOptions, augment
from models.training.examples import TrainingSet, weights
from models.training.planes import Planes, from_planes, planes_of, prefetch
from nightsift.io.atomic import atomic

if TYPE_CHECKING:
    import keras

Weights = list[np.ndarray]
Progress = Callable[[int, int, dict[str, float]], None]


def _identity_of(examples: TrainingSet, options: dict[str, Any]) -> str:
    """SHA-256 of the names, labels and parts of the examples and of the options: the identity of a training."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for name in ("example_id", "label", "split"):
        digest.update("\n".join(map(str, examples.table[name].to_pylist())).encode())
    return digest.hexdigest()


def _write_checkpoint(
    path: Path, network: keras.Model, best: Weights, *, history: list[dict[str, float]], identity: str
) -> None:
    """Write the state of a training after an epoch: network, optimizer, weights of the best epoch, losses."""
    arrays = {f"state{i}": np.asarray(one) for i, one in enumerate(_state(network))}
    arrays |= {f"best{i}": one for i, one in enumerate(best)}
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, history=json.dumps(history), identity=identity, **arrays)  # type: ignore[arg-type]


def _read_checkpoint(path: Path, network: keras.Model, identity: str) -> tuple[Weights, list[dict[str, float]]] | None:
    """Put a network back into the state of its last epoch; return the best weights and the losses by epoch.

    None where there is no state of this training; that of another training is left alone.
    """
    if not path.is_file():
        return None
    with np.load(path) as found:
        if str(found["identity"]) != identity:
            return None
        state = _state(network)
        for i, variable in enumerate(state):
            variable.assign(found[f"state{i}"])
        best = [found[f"best{i}"] for i in range(sum(name.startswith("best") for name in found.files))]
        return best, json.loads(str(found["history"]))


def _state(network: keras.Model) -> list[Any]:
    """All variables, those of the optimizer and of the seeds of dropout among them."""
    optimizer = network.optimizer
    if not optimizer.built:
        optimizer.build(network.trainable_variables)
    seen: dict[int, Any] = {}
    for variable in (*network.variables, *optimizer.variables):
        seen.setdefault(id(variable), variable)
    return list(seen.values())


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of a training.

    Attributes
    ----------
    architecture : str
        Name of a file in `models/network/architectures/`.
    network : dict
        Fields of its `Options` that differ from their defaults.
    recipe : Recipe
        How stamps become tensors.
    augment : AugmentOptions
        How stamps are changed in training.
    epochs, patience : int
        Most epochs, and epochs without a better validation loss after which training ends.
    batch : int
        Stamps per step.
    learning_rate : float
        Of Adam at the start; it falls to zero along a cosine.
    averaging : float
        Part of the running mean of the weights that stays at each step (Polyak and Juditsky 1992, SIAM J. Control
        Optim. 30, 838); epochs are compared by this mean, and it is the result; 0 for the weights themselves.
    prevalence : float
        Weight of real examples in the loss, see `models.training.examples.weights`.
    seed : int
        Seed of weights, order, augmentation and dropout.
    threads : int or None
        Threads of the network, see `models.network.runtime`.
    """

    architecture: str = "vgg"
    network: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    epochs: int = 25
    patience: int = 8
    batch: int = 128
    learning_rate: float = 1e-3
    averaging: float = 0.99
    prevalence: float = 0.5
    seed: int = 0
    threads: int | None = None

    def to_mapping(self) -> dict[str, Any]:
        """All options as plain values, for the card."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A trained network and its history.

    Attributes
    ----------
    model : keras.Model
        The network with the weights of its best epoch.
    options : TrainOptions
        How it was trained.
    history : list of dict
        Losses by epoch.
    best_epoch : int
        Epoch of the weights, counted from 1.
    """

    model: keras.Model
    options: TrainOptions
    history: list[dict[str, float]]
    best_epoch: int


def train(
    examples: TrainingSet,
    options: TrainOptions | None = None,
    progress: Progress | None = None,
    *,
    checkpoint: Path | None = None,
) -> TrainedModel:
    """Train a network from scratch.

    Parameters
    ----------
    examples : TrainingSet
        Its part ``"train"`` is learnt from, its part ``"validation"`` stops the training; ``"test"`` is not looked at.
    options : TrainOptions, optional
        How to train; the defaults when not given.
    progress : callable, optional
        Called after each epoch with its number, the number of epochs and their losses.
    checkpoint : Path, optional
        File for the state after each epoch. A training of the same examples and options that finds it goes on from
        there and ends with the same network.

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
    learn, check = (_tensors(examples.part(name), options) for name in ("train", "validation"))
    model = build(options.architecture, options.recipe, **options.network)
    network = _compiled(model, options, -(-len(learn.labels) // options.batch))
    planes = planes_of(check.data, check.mask, options.recipe)
    identity = _identity_of(examples, options.to_mapping()) if checkpoint else ""
    best_weights, history = (_read_checkpoint(checkpoint, network, identity) if checkpoint else None) or (
        network.get_weights(), [],
    )  # fmt: skip
    for epoch in range(len(history), options.epochs):
        if epoch > _best(history) + options.patience:
            break
        loss = _epoch(network, learn, options, epoch=epoch)
        with _averaged(network) as average:
            losses = {"loss": loss, "validation_loss": _loss(network, planes, check)}
        history.append(losses)
        if _best(history) == epoch:
            best_weights = average
        if checkpoint:
            _write_checkpoint(checkpoint, network, best_weights, history=history, identity=identity)
        if progress is not None:
            progress(epoch + 1, options.epochs, losses)
    network.set_weights(best_weights)
    return TrainedModel(model, options, history, _best(history) + 1)


def _compiled(model: keras.Model, options: TrainOptions, steps: int) -> keras.Model:
    """The network from planes on, with optimizer and loss."""
    import keras

    network = from_planes(model)
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * steps)
    network.compile(
        optimizer=keras.optimizers.Adam(
            schedule, clipnorm=1.0, use_ema=options.averaging > 0, ema_momentum=max(options.averaging, 0.5)
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",  # the others are slower with it on CPU; JAX is lost without
    )
    return network


@contextmanager
def _averaged(network: keras.Model) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give the network the running mean of its weights, which is yielded; afterwards it has its own again."""
    own = network.get_weights()
    if network.optimizer.use_ema:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        network.set_weights(network.get_weights())  # copies: JAX takes the memory of what it predicts with
    yield network.get_weights()
    network.set_weights(own)


def _best(history: list[dict[str, float]]) -> int:
    """Number of the best epoch, the first one where none has ended."""
    return int(np.argmin([one["validation_loss"] for one in history])) if history else 0


@dataclass(frozen=True, slots=True, eq=False)
class _Tensors:
    data: FloatStamps
    mask: BoolStamps
    labels: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


def _tensors(examples: TrainingSet, options: TrainOptions) -> _Tensors:
    data, mask = prepare(examples.stamps, examples.sign, options.recipe)
    return _Tensors(data, mask, examples.labels.astype(np.float32), weights(examples.labels, options.prevalence))


def _epoch(network: keras.Model, learn: _Tensors, options: TrainOptions, *, epoch: int) -> float:
    """Run one pass over the training part in random order; return its mean loss. Draws depend on the epoch alone."""
    rng = np.random.default_rng([options.seed, epoch])
    order = rng.permutation(len(learn.labels))
    starts = range(0, len(order), options.batch)
    total = 0.0

    def batch(number: int) -> tuple[npt.NDArray[np.int64], Planes]:
        rows = order[starts[number] : starts[number] + options.batch]
        return rows, normalise(*augment(learn.data[rows], learn.mask[rows], options.augment, rng=rng), options.recipe)

    for rows, planes in prefetch(batch, len(starts)):
        loss = network.train_on_batch(planes, learn.labels[rows, None], sample_weight=learn.weights[rows])
        network.reset_metrics()
        total += float(loss) * len(rows)
    return total / len(order)


def _loss(network: keras.Model, planes: Planes, check: _Tensors, *, batch: int = 512) -> float:
    """Weighted mean cross-entropy without dropout (nat)."""
    starts = range(0, len(check.labels), batch)
    logits = np.concatenate([np.asarray(network.predict_on_batch(planes[start : start + batch])) for start in starts])
    z = logits[:, 0].astype(np.float64)
    return float(np.mean(check.weights * np.logaddexp(0.0, np.where(check.labels > 0, -z, z))))
