"""Fine-tuning of a trained network on few labels, by a stated part of its weights.

=========  =====================================================================================
frozen     nothing is learnt: the base network as it is (only its calibration is)
head       the head; the features of the trunk are computed a single time
partial    the head and the last third of the trunk's layers
full       all weights
scratch    all weights, from a fresh start: what the labels alone can do
=========  =====================================================================================

**Prior.** Weights w that start from those of the base, w0, are drawn back to them (L2-SP: Li, Grandvalet and Davoine
2018, ICML 35, 2825, eq. 1), as a Gaussian prior about the base of a width relative to the size r of each weight
array::

    loss = sum over labels of the cross-entropy + prior / 2 sum ((w - w0) / r)^2

so that few labels can move them little, and what they move is what most labels agree on.

**Rounds.** Training goes in rounds of some steps; each step draws a batch of as many real as bogus labels, augmented
anew. Normalisations over the batch, if an architecture has any, stay at the statistics of the base.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.network.classifier import Classifier
from models.network.contract import HEAD, TRUNK
from models.network.inputs import prepare
from models.network.normalise import normalise
from models.network.runtime import start_keras
from models.network.sampling import draw_gates, gate_shapes, head_function
from models.training.augment import AugmentOptions, augment
from models.training.examples import TrainingSet
from models.training.planes import Planes, from_planes, planes_of

if TYPE_CHECKING:
    import keras

STRATEGIES = ("frozen", "head", "partial", "full", "scratch")
LEAST_SCALE = 0.03
"""Weight arrays that are smaller than this (such as biases of zero) are drawn back as if they had this size."""
VIEWS = 12
"""Augmented views of each stamp whose features are learnt from where the trunk is frozen."""


def _frozen_layers(model: keras.Model, strategy: str) -> list[keras.Layer]:
    """Layers that do not learn: all, the trunk, its first two thirds, or normalisations over the batch only."""
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


def _draw_back(variable: Any, prior: float) -> Any:
    """Penalty (nat), a Keras regularizer, for leaving the weights of the base; `prior` is its strength."""
    from keras import ops

    start = _array_of(variable)
    scale = max(float(np.sqrt(np.mean(start**2))), LEAST_SCALE)

    def penalty(weights: Any) -> Any:
        return 0.5 * prior * ops.sum(ops.square((weights - start) / scale))

    return penalty


def _array_of(variable: Any) -> npt.NDArray[Any]:
    from keras import ops

    return np.array(ops.convert_to_numpy(variable))


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Options of fine-tuning.

    Attributes
    ----------
    rounds : int
        Most rounds; held-out labels decide the number used (`models.transfer.transfer`).
    steps : int
        Steps per round at least; more where one pass over the labels needs more.
    batch : int
        Stamps per step.
    learning_rate : float
        Of Adam, for all strategies but ``scratch``.
    prior : float
        Strength of the draw back to the base, see above.
    scratch_rate, scratch_rounds : float, int
        Learning rate from scratch, and the factor of its number of rounds.
    augment : AugmentOptions
        How stamps are changed.
    samples, sample_seed : int
        Dropout samples of held-out logits, as in service.
    seed : int
        Seed of order, augmentation and dropout.
    """

    rounds: int = 6
    steps: int = 8
    batch: int = 32
    learning_rate: float = 3e-4
    prior: float = 0.1
    scratch_rate: float = 1e-3
    scratch_rounds: int = 3
    augment: AugmentOptions = field(
        default_factory=lambda: AugmentOptions(subpixel=0.25, scale=0.1, no_difference=0, no_template=0, no_science=0)
    )
    samples: int = 20
    sample_seed: int = 0
    seed: int = 0


class Tuner:
    """A copy of a base network that can be tuned again and again, each time from the start.

    Parameters
    ----------
    base : Classifier
        A model that was loaded with Keras; it stays as it is.
    strategy : str
        One of `STRATEGIES`.
    options : TuneOptions
        How to tune.

    Attributes
    ----------
    model : keras.Model
        The copy, with the weights of the last fit.
    """

    def __init__(self, base: Classifier, strategy: str, options: TuneOptions) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"the strategy '{strategy}' is unknown; known: {', '.join(STRATEGIES)}")
        keras = start_keras()
        self.strategy, self.options, self.recipe = strategy, options, base.recipe
        keras.utils.set_random_seed(options.seed)
        self.model = keras.models.clone_model(base.network)
        if strategy != "scratch":
            self.model.set_weights(base.network.get_weights())
        trunk, head = self.model.get_layer(TRUNK), self.model.get_layer(HEAD)
        self._trunk = keras.Model(trunk.get_layer("normalisation").output, trunk.output)
        self._head = head_function(head)
        self._gates = draw_gates(gate_shapes(self.model), options.samples, options.sample_seed)
        self._network = self._compiled()
        # with the seeds of dropout, so that each fit draws the same
        self._state = [*self.model.variables, *self._network.optimizer.variables]
        self._start = [_array_of(one) for one in self._state]

    @property
    def rounds(self) -> int:
        """Most rounds of a fit."""
        factor = {"frozen": 0, "scratch": self.options.scratch_rounds}.get(self.strategy, 1)
        return self.options.rounds * factor

    def _compiled(self) -> keras.Model:
        import keras

        for layer in _frozen_layers(self.model, self.strategy):
            layer.trainable = False
        whole = self.strategy in ("partial", "full", "scratch")
        network = from_planes(self.model) if whole else self.model.get_layer(HEAD)
        if self.strategy != "scratch":
            for variable in network.trainable_variables:
                variable.regularizer = _draw_back(variable, self.options.prior)
        rate = self.options.scratch_rate if self.strategy == "scratch" else self.options.learning_rate
        network.compile(
            optimizer=keras.optimizers.Adam(rate),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            jit_compile=keras.backend.backend() == "jax",  # slower with TensorFlow on CPU
        )
        network.optimizer.build(network.trainable_variables)
        return network

    def prepare(self, examples: TrainingSet) -> Prepared:
        """Prepare labelled stamps for any number of fits.

        Parameters
        ----------
        examples : TrainingSet
            Labelled stamps.

        Returns
        -------
        Prepared
            Stamps, planes, and the features of views where the trunk is frozen.
        """
        data, mask = prepare(examples.stamps, examples.sign, self.recipe)
        planes, views = planes_of(data, mask, self.recipe), None
        if self.strategy == "head":
            rng = np.random.default_rng(self.options.seed)
            views = np.stack(
                [
                    self.features(planes_of(*augment(data, mask, self.options.augment, rng=rng), self.recipe))
                    for _ in range(VIEWS)
                ]
            )
        return Prepared(data, mask, examples.labels.astype(np.int64), planes, views)

    def planes(self, examples: TrainingSet) -> Planes:
        """Return the normalised planes (n, size, size, channels + 1) of stamps that are only scored, for `logits`."""
        return planes_of(*prepare(examples.stamps, examples.sign, self.recipe), self.recipe)

    def restart(self) -> None:
        """Go back to the weights of the base (or to the fresh ones), with a fresh optimizer."""
        for variable, value in zip(self._state, self._start, strict=True):
            variable.assign(value)

    def round(self, seen: Prepared, rows: npt.NDArray[np.int64], number: int) -> float:
        """Train for one round.

        Parameters
        ----------
        seen : Prepared
            What `prepare` gave.
        rows : ndarray of int64
            Rows to learn from; both classes must be there.
        number : int
            Number of the round; with the seed it decides what is drawn.

        Returns
        -------
        float
            Mean loss per label (nat), prior included.
        """
        rng = np.random.default_rng([self.options.seed, number])
        real, bogus = rows[seen.labels[rows] == 1], rows[seen.labels[rows] == 0]
        half, total = self.options.batch // 2, 0.0
        steps = max(self.options.steps, -(-len(rows) // self.options.batch))
        weight = np.full(2 * half, float(len(rows)), dtype=np.float32)  # the loss sums over labels
        for _ in range(steps):
            drawn = np.concatenate([rng.choice(one, half) for one in (real, bogus)])
            inputs = self._inputs(seen, drawn, rng)
            wanted = seen.labels[drawn, None].astype(np.float32)
            total += float(self._network.train_on_batch(inputs, wanted, sample_weight=weight))
            self._network.reset_metrics()
        return total / steps / len(rows)

    def _inputs(self, seen: Prepared, drawn: npt.NDArray[np.int64], rng: np.random.Generator) -> Planes:
        if seen.views is not None:
            return np.asarray(seen.views[rng.integers(len(seen.views), size=len(drawn)), drawn])
        return normalise(*augment(seen.data[drawn], seen.mask[drawn], self.options.augment, rng=rng), self.recipe)

    def features(self, planes: Planes, batch: int = 256) -> npt.NDArray[np.float32]:
        """Return the features (n, ...) of planes (n, size, size, channels + 1) by the trunk as it is now."""
        parts = [self._trunk.predict_on_batch(planes[at : at + batch]) for at in range(0, len(planes), batch)]
        return np.concatenate(parts) if parts else np.empty((0, *self._trunk.output.shape[1:]), np.float32)

    def logits(self, planes: Planes, batch: int = 256) -> npt.NDArray[np.float32]:
        """Return the sampled logits (samples, n) of planes (n, size, size, channels + 1) by the present weights."""
        return self.logits_of(self.features(planes, batch), batch)

    def logits_of(self, features: npt.NDArray[np.float32], batch: int = 256) -> npt.NDArray[np.float32]:
        """Return the sampled logits (samples, n) of features (n, ...) by the head as it is now."""
        from keras import ops

        out = np.empty((self.options.samples, len(features)), dtype=np.float32)
        for at in range(0, len(features), batch):
            out[:, at : at + batch] = ops.convert_to_numpy(self._head(features[at : at + batch], *self._gates))
        return out

    def to_mapping(self) -> dict[str, Any]:
        """Strategy and options as plain values, for the card."""
        return {"strategy": self.strategy, **dataclasses.asdict(self.options)}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Labelled stamps as a `Tuner` sees them.

    Attributes
    ----------
    data, mask : ndarray, shape (n, size, size, 3) and (n, size, size)
        Prepared stamps.
    labels : ndarray of int64, shape (n,)
        1 real, 0 bogus.
    planes : ndarray of float32, shape (n, size, size, channels + 1)
        Normalised planes.
    views : ndarray of float32, shape (VIEWS, n, ...) or None
        Features of augmented views, where only the head learns.
    """

    data: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    planes: Planes
    views: npt.NDArray[np.float32] | None
