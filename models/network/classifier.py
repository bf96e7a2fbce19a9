"""A model that is ready to score, with or without Keras: features, sampled logits and scores of stamps.

The trunk is deterministic, so that its features are a fixed embedding of stamps: heads of other kinds (ensembles,
classes, last-layer Laplace), drift tests and transfer all start from them, and none of these needs TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.network.inputs import Recipe, prepare
from models.network.sampling import GateShape, Sampler, Trunk, draw_gates, gate_shapes, make_sampler, make_trunk
from nightsift.core.errors import ModelMismatch
from nightsift.core.frames import Stamps

if TYPE_CHECKING:
    import keras

Features = npt.NDArray[np.float32]
BATCH = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A model that is ready to score.

    Attributes
    ----------
    name : str
        Name of its folder.
    model_id : str
        Name and the first 12 hexadecimal digits of the SHA-256 of its network.
    recipe : Recipe
        How stamps become tensors.
    sample : callable
        Its sampler, see `models.network.sampling.make_sampler`.
    gates : tuple
        What its dropout layers draw, see `models.network.sampling.gate_shapes`.
    card : dict
        How it was made and what it reaches.
    trunk : callable
        Its deterministic part, see `models.network.sampling.make_trunk` and `models.network.classifier.trunk_features`.
    model : keras.Model or None
        The network, see `models.network.contract`; None where it is scored without Keras.
    """

    name: str
    model_id: str
    recipe: Recipe
    sample: Sampler
    gates: tuple[GateShape, ...]
    card: dict[str, Any]
    trunk: Trunk
    model: keras.Model | None = None

    @property
    def network(self) -> keras.Model:
        """The network, of a model that was loaded with Keras; `ModelMismatch` of one loaded for scoring only."""
        if self.model is None:
            raise ModelMismatch(model=self.name, what="it was loaded for scoring only; load it with engine='keras'")
        return self.model


def of_network(
    model: keras.Model, recipe: Recipe, name: str = "", *, identity: str = "", card: dict[str, Any] | None = None
) -> Classifier:
    """Make a `Classifier` of a network and its recipe, with sampler and trunk; name, identity and card may be given."""
    return Classifier(
        name, identity, recipe, make_sampler(model), gate_shapes(model), card or {}, make_trunk(model), model
    )


def trunk_features(stamps: Stamps, sign: npt.ArrayLike, classifier: Classifier) -> Features:
    """Return features of stamps, by Keras or by ONNX Runtime, as the model was loaded.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps; bigger ones than the model needs are cropped.
    sign : array_like of int, shape (n,)
        +1 for candidates brighter than in the template, -1 for fainter ones.
    classifier : Classifier
        A loaded model.

    Returns
    -------
    ndarray of float32, shape (n, ...)
        Output of the trunk, maps (n, height, width, channels) for convolutional networks. A stamp's features do not
        depend on the other stamps.

    Raises
    ------
    ModelMismatch
        If the stamps do not fit the recipe.
    ValueError
        If the signs do not fit the stamps.
    """
    data, mask = prepare(stamps, sign, classifier.recipe)
    parts = [
        classifier.trunk(data[start : start + BATCH], mask[start : start + BATCH])
        for start in range(0, max(len(data), 1), BATCH)
    ]
    return np.concatenate(parts)


def flattened(features: Features) -> Features:
    """Return features (n, ...) as one row per stamp, shape (n, k), in the order of memory, as Keras's ``Flatten``."""
    return features.reshape(len(features), int(np.prod(features.shape[1:])))


def pooled(features: Features) -> Features:
    """Return the mean of feature maps (n, ..., channels) over their places, shape (n, channels).

    An embedding that does not move with the source.
    """
    places = tuple(range(1, features.ndim - 1))
    return features.mean(axis=places, dtype=np.float32) if places else features


def sample_logits(
    stamps: Stamps, sign: npt.ArrayLike, classifier: Classifier, *, samples: int, seed: int
) -> npt.NDArray[np.float32]:
    """Logits of every dropout sample.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps.
    sign : array_like of int, shape (n,)
        +1 or -1.
    classifier : Classifier
        A loaded model.
    samples : int
        Dropout samples.
    seed : int
        Seed of the samples.

    Returns
    -------
    ndarray of float32, shape (samples, n)
        Logits; a stamp's values do not depend on the other stamps.

    Raises
    ------
    ModelMismatch
        If the stamps do not fit the recipe.
    ValueError
        If signs or samples make no sense.
    """
    gates = draw_gates(classifier.gates, samples, seed)
    signs = np.asarray(sign).reshape(-1)
    if len(signs) != len(stamps):
        raise ValueError(f"sign must hold {len(stamps)} values of +1 or -1, got {len(signs)}")
    logits = np.empty((samples, len(stamps)), dtype=np.float32)
    for start in range(0, max(len(stamps), 1), BATCH):
        part = slice(start, start + BATCH)
        # prepared part by part: fresh memory for all stamps at once costs as much as normalising them
        data, mask = prepare(Stamps(stamps.data[part], stamps.mask[part]), signs[part], classifier.recipe)
        logits[:, part] = classifier.sample(data, mask, gates)
    return logits


def summarise(logits: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.generic]]:
    """Mean, spread and confidence of sampled probabilities.

    Parameters
    ----------
    logits : ndarray of float, shape (samples, n)
        Sampled logits.

    Returns
    -------
    dict of str to ndarray, each of shape (n,)
        ``score`` and ``score_std`` float64, in which 1 - 1e-12 is not 1, and ``confidence`` float32, see `predict`.
    """
    wide = logits.astype(np.float64)
    probability = np.exp(-np.logaddexp(0.0, -wide))
    # -log p = softplus(-z) and -log(1 - p) = softplus(z): no logarithm of zero, however sure the network is
    entropy = probability * np.logaddexp(0.0, -wide) + (1.0 - probability) * np.logaddexp(0.0, wide)
    return {
        "score": probability.mean(axis=0),
        "score_std": probability.std(axis=0),
        "confidence": np.clip(1.0 - entropy.mean(axis=0) / np.log(2.0), 0.0, 1.0).astype(np.float32),
    }
