"""Training that goes on where it was stopped: weights, state of the optimizer and history after each epoch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.examples import TrainingSet
from nightsift.io.atomic import atomic

if TYPE_CHECKING:
    import keras

Weights = list[np.ndarray]


def purpose(examples: TrainingSet, options: dict[str, Any]) -> str:
    """Identity of a training: what is learnt from what, and how.

    Parameters
    ----------
    examples : TrainingSet
        The set.
    options : dict
        All options of the training as plain values.

    Returns
    -------
    str
        SHA-256 of the names, labels and parts of the examples and of the options.
    """
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for name in ("example_id", "label", "split"):
        digest.update("\n".join(map(str, examples.table[name].to_pylist())).encode())
    return digest.hexdigest()


def write(path: Path, network: keras.Model, best: Weights, history: list[dict[str, float]], identity: str) -> None:
    """Write the state of a training after an epoch.

    Parameters
    ----------
    path : Path
        File to write; it replaces that of the epoch before.
    network : keras.Model
        The compiled network.
    best : list of ndarray
        Weights of the best epoch.
    history : list of dict
        Losses by epoch.
    identity : str
        What `purpose` gives.
    """
    arrays = {f"state{i}": np.asarray(one) for i, one in enumerate(_state(network))}
    arrays |= {f"best{i}": one for i, one in enumerate(best)}
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, history=json.dumps(history), identity=identity, **arrays)  # type: ignore[arg-type]


def read(path: Path, network: keras.Model, identity: str) -> tuple[Weights, list[dict[str, float]]] | None:
    """Put a network back into the state of its last epoch.

    Parameters
    ----------
    path : Path
        File that `write` wrote.
    network : keras.Model
        The compiled network, of the same architecture; its state is replaced.
    identity : str
        What `purpose` gives; the state of another training is left alone.

    Returns
    -------
    best : list of ndarray
        Weights of the best epoch.
    history : list of dict
        Losses by epoch. None instead of both where there is no state of this training.
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
