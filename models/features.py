"""What a network makes of stamps before it judges them: the features of its trunk.

The trunk is deterministic, so that features are a fixed embedding of stamps: heads of other kinds (ensembles, classes,
last-layer Laplace), drift tests and transfer all start from them, and none of these needs TensorFlow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.classifier import Classifier
from models.inputs import prepare
from nightsift.frames import Stamps

Features = npt.NDArray[np.float32]
BATCH = 1024


def trunk_features(stamps: Stamps, sign: npt.ArrayLike, classifier: Classifier) -> Features:
    """Features of stamps, by Keras or by ONNX Runtime, as the model was loaded.

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
    """All features in one row a stamp.

    Parameters
    ----------
    features : ndarray of float32, shape (n, ...)
        What `trunk_features` gives.

    Returns
    -------
    ndarray of float32, shape (n, k)
        In the order of memory, as Keras's ``Flatten`` puts them.
    """
    return features.reshape(len(features), int(np.prod(features.shape[1:])))


def pooled(features: Features) -> Features:
    """Mean over the places of feature maps: an embedding that does not move with the source.

    Parameters
    ----------
    features : ndarray of float32, shape (n, ..., channels)
        What `trunk_features` gives.

    Returns
    -------
    ndarray of float32, shape (n, channels)
        The means.
    """
    places = tuple(range(1, features.ndim - 1))
    return features.mean(axis=places, dtype=np.float32) if places else features
