"""Scoring by ONNX Runtime: what a worker that only scores needs, without TensorFlow or Keras."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.inputs import BoolStamps, FloatStamps, Recipe
from models.normalise import normalise
from models.sampling import Gates, GateShape, Sampler, Trunk
from nightsift.errors import ModelMismatch
from nightsift.parallel import over_rows, thread_count

TRUNK_FILE, HEAD_FILE = "trunk.onnx", "head.onnx"
BATCH = 64
"""Stamps that go through at a time: their feature maps stay in the cache."""


def is_there(folder: Path) -> bool:
    """Tell whether a model can be scored without Keras here.

    Parameters
    ----------
    folder : Path
        Folder of the model.

    Returns
    -------
    bool
        Whether it has been exported and ONNX Runtime is installed.
    """
    from importlib.util import find_spec

    exported = all((folder / name).is_file() for name in (TRUNK_FILE, HEAD_FILE))
    return exported and find_spec("onnxruntime") is not None


def read_parts(
    folder: Path, digest: str, recipe: Recipe, threads: int | None = None
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
        As `models.sampling.make_sampler` gives it.
    shapes : tuple
        As `models.sampling.gate_shapes` gives them.
    trunk : callable
        As `models.sampling.make_trunk` gives it.

    Raises
    ------
    ModelMismatch
        If the export belongs to another network or recipe.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # batches side by side beat threads inside one, which spin while they wait
    options.log_severity_level = 3
    trunk, head = (
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in (TRUNK_FILE, HEAD_FILE)
    )
    for session in (trunk, head):
        told = session.get_modelmeta().custom_metadata_map
        if told.get("sha256") != digest:
            raise ModelMismatch(model=folder.name, what="its export is not of the network that its card describes")
        if Recipe.from_mapping(json.loads(told["recipe"])) != recipe:
            raise ModelMismatch(model=folder.name, what="its export follows another recipe than its card tells")
    shapes = tuple((place, tuple(shape), rate) for place, shape, rate in json.loads(told["gates"]))
    names = [one.name for one in head.get_inputs()]
    entry = trunk.get_inputs()[0].name

    limit = os.environ.get("OMP_NUM_THREADS", "")
    threads = threads or (int(limit) if limit.isdigit() else thread_count())

    def features(data: FloatStamps, mask: BoolStamps) -> npt.NDArray[np.float32]:
        return np.asarray(trunk.run(None, {entry: normalise(data, mask, recipe)})[0], dtype=np.float32)

    def sample(data: FloatStamps, mask: BoolStamps, gates: Gates) -> npt.NDArray[np.float32]:
        out = np.empty((len(gates[0]), len(data)), dtype=np.float32)

        def one(part: slice) -> None:
            inputs = [features(data[part], mask[part]), *gates]
            out[:, part] = head.run(None, dict(zip(names, inputs, strict=True)))[0]

        _in_batches(one, len(data), threads)
        return out

    def of_stamps(data: FloatStamps, mask: BoolStamps) -> npt.NDArray[np.float32]:
        out = np.empty((len(data), *trunk.get_outputs()[0].shape[1:]), dtype=np.float32)

        def one(part: slice) -> None:
            out[part] = features(data[part], mask[part])

        _in_batches(one, len(data), threads)
        return out

    return sample, shapes, of_stamps


def _in_batches(one: Callable[[slice], None], count: int, threads: int) -> None:
    """Call a function for every batch, batches side by side over the cores."""

    def rows(first: int, last: int) -> None:
        for start in range(first, last, BATCH):
            one(slice(start, min(start + BATCH, last)))

    over_rows(rows, count, BATCH, threads)
