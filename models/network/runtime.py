"""The two engines that run a network: Keras, and ONNX Runtime for workers that only score.

Exposures run in parallel processes; a TensorFlow that takes every core in each of them makes all of them slower. The
numbers of threads must be set before its first use, so every function that needs Keras gets it from `start_keras`.

An export is two ONNX graphs, compared with Keras before they are accepted: ``trunk.onnx`` takes normalised planes to
features, ``head.onnx`` takes features and the gates of its dropout layers to logits, all samples in one product
(`models.network.sampling`). The normalisation is not in the graphs, because its medians would cost more there than all
convolutions: `models.network.normalise` does it, and is part of the comparison.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.network.contract import HEAD, TRUNK
from models.network.inputs import BoolStamps, FloatStamps, Recipe, prepare
from models.network.normalise import normalise
from models.network.sampling import Gates, GateShape, Sampler, Trunk, draw_gates, gate_shapes, head_function
from nightsift.core.errors import ModelMismatch
from nightsift.core.frames import Stamps
from nightsift.core.parallel import over_rows, thread_count

if TYPE_CHECKING:
    import keras

    from models.network.classifier import Classifier

GREETINGS = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ")
"""First bytes of lines without meaning to an operator: hints about the build, of the level of information."""
TRUNK_FILE, HEAD_FILE = "trunk.onnx", "head.onnx"
BATCH = 64
"""Stamps that go through at a time: their feature maps stay in the cache."""
TOLERANCE = 1e-4
"""Largest difference of a probability from Keras's."""
OPSET = 17


def start_keras(threads: int | None = None) -> ModuleType:
    """Import Keras, and set its number of threads if this is its first use in the process.

    Parameters
    ----------
    threads : int, optional
        Threads for one operation. When not given: ``$TF_NUM_INTRAOP_THREADS``, else ``$OMP_NUM_THREADS`` (so that
        a worker pinned to one thread for BLAS is pinned here too), else as many as there are cores.

    Returns
    -------
    module
        `keras`.
    """
    limit = str(threads) if threads else os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit():
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", limit)
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        with _without_greetings():
            import keras
    import keras

    return keras


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Hold back what TensorFlow says of its build on stderr before its logging obeys; everything else passes."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            others = [line for line in held.read().splitlines(keepends=True) if not line.startswith(GREETINGS)]
            os.write(2, b"".join(others))


def versions() -> dict[str, str]:
    """Return the versions of what a model's numbers depend on: nightsift, keras, its backend, numpy and python."""
    import platform
    from importlib.metadata import packages_distributions, version

    keras = start_keras()
    backend = keras.backend.backend()
    numbers = {"nightsift": version("nightsift"), "keras": keras.__version__, "numpy": np.__version__}
    for distribution in packages_distributions().get(backend, [])[:1]:
        numbers[distribution] = version(distribution)
    return {**numbers, "python": platform.python_version()}


def is_exported(folder: Path) -> bool:
    """Tell whether the model in a folder can be scored without Keras: exported, and ONNX Runtime installed."""
    from importlib.util import find_spec

    exported = all((folder / name).is_file() for name in (TRUNK_FILE, HEAD_FILE))
    return exported and find_spec("onnxruntime") is not None


def read_export(
    folder: Path, digest: str, recipe: Recipe, *, threads: int | None = None
) -> tuple[Sampler, tuple[GateShape, ...], Trunk]:
    """Make the sampler and the trunk of an exported model.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    digest : str
        SHA-256 of the network that the export must come from.
    recipe : Recipe
        Recipe that it must follow.
    threads : int, optional
        Threads of one operation; ``$OMP_NUM_THREADS`` or all cores when not given.

    Returns
    -------
    sample : callable
        As `models.network.sampling.make_sampler` gives it.
    shapes : tuple
        As `models.network.sampling.gate_shapes` gives them.
    trunk : callable
        As `models.network.sampling.make_trunk` gives it.

    Raises
    ------
    ModelMismatch
        If the export belongs to another network or recipe.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it counts its uses in the user's cache folder, to be sent
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # batches side by side beat threads inside one, which spin while they wait
    options.log_severity_level = 3
    trunk, head = (
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in (TRUNK_FILE, HEAD_FILE)
    )
    for session in (trunk, head):
        metadata = session.get_modelmeta().custom_metadata_map
        if metadata.get("sha256") != digest:
            raise ModelMismatch(model=folder.name, what="its export is not of the network that its card describes")
        if Recipe.from_mapping(json.loads(metadata["recipe"])) != recipe:
            raise ModelMismatch(model=folder.name, what="its export follows another recipe than its card says")
    shapes = tuple((place, tuple(shape), rate) for place, shape, rate in json.loads(metadata["gates"]))
    names = [one.name for one in head.get_inputs()]
    entry = trunk.get_inputs()[0].name

    limit = os.environ.get("OMP_NUM_THREADS", "")
    threads = threads or (int(limit) if limit.isdigit() else thread_count())

    def features(data: FloatStamps, mask: BoolStamps) -> npt.NDArray[np.float32]:
        return np.asarray(trunk.run(None, {entry: normalise(data, mask, recipe)})[0], dtype=np.float32)

    def sample(data: FloatStamps, mask: BoolStamps, gates: Gates) -> npt.NDArray[np.float32]:
        out = np.empty((len(gates[0]), len(data)), dtype=np.float32)

        def sample_part(part: slice) -> None:
            inputs = [features(data[part], mask[part]), *gates]
            out[:, part] = head.run(None, dict(zip(names, inputs, strict=True)))[0]

        _in_batches(sample_part, len(data), threads)
        return out

    def of_stamps(data: FloatStamps, mask: BoolStamps) -> npt.NDArray[np.float32]:
        out = np.empty((len(data), *trunk.get_outputs()[0].shape[1:]), dtype=np.float32)

        def features_of_part(part: slice) -> None:
            out[part] = features(data[part], mask[part])

        _in_batches(features_of_part, len(data), threads)
        return out

    return sample, shapes, of_stamps


def _in_batches(function: Callable[[slice], None], count: int, threads: int) -> None:
    """Call a function for every batch, batches side by side over the cores."""

    def rows(first: int, last: int) -> None:
        for start in range(first, last, BATCH):
            function(slice(start, min(start + BATCH, last)))

    over_rows(rows, count, BATCH, threads=threads)


def can_export() -> bool:
    """Tell whether networks can be exported here: converter and ONNX Runtime installed, TensorFlow the backend."""
    from importlib.util import find_spec

    import keras

    installed = all(find_spec(name) is not None for name in ("tf2onnx", "onnxruntime"))
    return installed and keras.backend.backend() == "tensorflow"


def export(folder: Path, classifier: Classifier, stamps: Stamps, *, sign: np.ndarray, digest: str) -> None:
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
    _write(folder, classifier.network, recipe, digest=digest)
    sampler, shapes, _ = read_export(folder, digest, recipe)
    data, mask = prepare(stamps, sign, recipe)
    gates = draw_gates(shapes, 3, 0)
    one, other = (1.0 / (1.0 + np.exp(-f(data, mask, gates).astype(np.float64))) for f in (classifier.sample, sampler))
    worst = float(np.abs(one - other).max()) if one.size else 0.0
    if not worst <= TOLERANCE:
        raise ModelMismatch(
            model=folder.name,
            what=f"its export differs from Keras by {worst:.3g} in probability; at most {TOLERANCE:g} is allowed",
        )


def _write(folder: Path, model: keras.Model, recipe: Recipe, *, digest: str) -> None:
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

    metadata = {"sha256": digest, "gates": json.dumps(shapes), "recipe": recipe.to_json()}
    for name, function, signature in (
        (TRUNK_FILE, tf.function(features_of, input_signature=entry), entry),
        (HEAD_FILE, tf.function(head_function(head), input_signature=[features, *gates]), [features, *gates]),
    ):
        graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
        for key, value in metadata.items():
            graph.metadata_props.add(key=key, value=value)
        (folder / name).write_bytes(graph.SerializeToString())
