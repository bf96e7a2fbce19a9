"""Export of a network for scoring without TensorFlow: two ONNX graphs, compared with Keras before they are kept.

``trunk.onnx`` takes normalised planes to features, ``head.onnx`` takes features and the gates of its dropout layers to
logits, all samples in one product (`models.sampling`). The normalisation is not in the graphs, because its medians
would cost more there than all convolutions: `models.normalise` does it, and is part of the comparison.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.contract import HEAD, TRUNK
from models.inputs import prepare
from models.onnx_scorer import HEAD_FILE, TRUNK_FILE, read_parts
from models.sampling import draw_gates, gate_shapes, head_function
from nightsift.errors import ModelMismatch
from nightsift.frames import Stamps

if TYPE_CHECKING:
    import keras

    from models.classifier import Classifier
    from models.inputs import Recipe

TOLERANCE = 1e-4
"""Largest difference of a probability from Keras's."""

OPSET = 17


def can_export() -> bool:
    """Tell whether networks can be exported here.

    Returns
    -------
    bool
        Whether the converter and ONNX Runtime are installed and TensorFlow is Keras's backend.
    """
    from importlib.util import find_spec

    import keras

    installed = all(find_spec(name) is not None for name in ("tf2onnx", "onnxruntime"))
    return installed and keras.backend.backend() == "tensorflow"


def export(folder: Path, classifier: Classifier, stamps: Stamps, sign: np.ndarray, digest: str) -> None:
    """Write the ONNX graphs of a network beside it and compare them with Keras.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    classifier : Classifier
        The network, with its sampler in Keras.
    stamps : Stamps
        Stamps to compare on.
    sign : ndarray of int, shape (n,)
        Their signs.
    digest : str
        SHA-256 of the network's file, written into both graphs.

    Raises
    ------
    ModelMismatch
        If the graphs do not give what Keras gives.
    """
    recipe = classifier.recipe
    _write(folder, classifier.network, recipe, digest)
    sampler, shapes, _ = read_parts(folder, digest, recipe)
    data, mask = prepare(stamps, sign, recipe)
    gates = draw_gates(shapes, 3, 0)
    one, other = (1.0 / (1.0 + np.exp(-f(data, mask, gates).astype(np.float64))) for f in (classifier.sample, sampler))
    worst = float(np.abs(one - other).max()) if one.size else 0.0
    if not worst <= TOLERANCE:
        raise ModelMismatch(
            model=folder.name,
            what=f"its export differs from Keras by {worst:.3g} in probability; at most {TOLERANCE:g} is allowed",
        )


def _write(folder: Path, model: keras.Model, recipe: Recipe, digest: str) -> None:
    import keras
    import tensorflow as tf
    import tf2onnx

    trunk, head = model.get_layer(TRUNK), model.get_layer(HEAD)
    planes = trunk.get_layer("normalisation").output
    network = keras.Model(planes, trunk.output)
    shapes = gate_shapes(model)
    entry = [tf.TensorSpec((None, *planes.shape[1:]), tf.float32, name="planes")]
    features = tf.TensorSpec((None, *trunk.output.shape[1:]), tf.float32, name="features")
    gates = [tf.TensorSpec((None, *shape), tf.float32, name=f"gate{place}") for place, shape, _ in shapes]

    def features_of(planes: Any) -> Any:
        return network(planes, training=False)

    told = {"sha256": digest, "gates": json.dumps(shapes), "recipe": recipe.to_json()}
    for name, function, signature in (
        (TRUNK_FILE, tf.function(features_of, input_signature=entry), entry),
        (HEAD_FILE, tf.function(head_function(head), input_signature=[features, *gates]), [features, *gates]),
    ):
        graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
        for key, value in told.items():
            graph.metadata_props.add(key=key, value=value)
        (folder / name).write_bytes(graph.SerializeToString())
