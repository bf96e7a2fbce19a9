"""Networks and the sets that they learn from, on a machine that has Keras and little else.

A network is a folder with ``model.keras`` and ``training.json``: no ONNX export and no golden scores, so that it can be
trained where there is no TensorFlow. Stamps are read only for the examples that are asked for: many networks can then
be trained side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.network import store
from models.network.classifier import Classifier, of_network
from models.network.inputs import Recipe
from models.network.runtime import start_keras
from models.network.store import predict
from models.training import examples
from models.training.augment import AugmentOptions
from models.training.dataset import leave_out, split_without_test
from models.training.examples import EXAMPLES, TrainingSet
from models.training.train import TrainedModel, TrainOptions
from nightsift.core.frames import Stamps
from nightsift.io.parquet import read_table

TRAINING = "training.json"
SAMPLES = 20  # of the dropout, as in service


@dataclass(frozen=True, eq=False)
class Sets:
    """Stamp sets of which only the tables are in memory."""

    folders: list[Path]
    sizes: list[int]
    table: pa.Table
    card: dict[str, Any]

    def column(self, name: str) -> np.ndarray:
        """A column, empty text where it is null."""
        return np.array([one if one is not None else "" for one in self.table[name].to_pylist()])

    def read(self, wanted: np.ndarray) -> TrainingSet:
        """The examples of a mask, in the parts that they have here, with their stamps."""
        found, start = [], 0
        for folder, size in zip(self.folders, self.sizes, strict=True):
            rows = np.flatnonzero(wanted[start : start + size])
            if len(rows):
                one = examples.read(folder).take(rows)
                found.append(TrainingSet(one.stamps, self.table.take(pa.array(start + rows)), one.card))
            start += size
        return examples.join(found)


def open_sets(folders: list[Path], seed: int = 1) -> Sets:
    """All stamp sets under some folders, dealt out to learn from and to stop the training by."""
    found = sorted(file.parent for folder in folders for file in folder.rglob(examples.TABLE))
    tables = {folder: examples.mark_galaxy_pixels(read_table(folder / examples.TABLE, EXAMPLES)) for folder in found}
    tables = {folder: table for folder, table in tables.items() if len(table)}
    if not tables:
        raise SystemExit(f"there is no stamp set in {', '.join(map(str, folders))}")
    dealt = split_without_test(_without_stamps(pa.concat_tables(tables.values())), seed)
    return Sets(list(tables), [len(one) for one in tables.values()], dealt.table, dealt.card)


def leaving_out(sets: Sets, names: list[str]) -> Sets:
    """The sets with examples of some sources in no part, see `models.training.dataset`."""
    left = leave_out(TrainingSet(_without_stamps(sets.table).stamps, sets.table, sets.card), names)
    return Sets(sets.folders, sets.sizes, left.table, left.card)


def _without_stamps(table: pa.Table) -> TrainingSet:
    return TrainingSet(Stamps(np.zeros((0, 1, 1, 3), np.float32), np.zeros((0, 1, 1), np.bool_)), table, {})


def save(folder: Path, trained: TrainedModel, facts: dict[str, Any]) -> None:
    """Write a network, all or nothing; ``facts`` are plain values."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trained.model.save(partial / store.MODEL)
    whole = {
        **facts, "training": trained.options.to_mapping(), "best_epoch": trained.best_epoch, "history": trained.history,
        "recipe": json.loads(trained.options.recipe.to_json()), "parameters": int(trained.model.count_params()),
    }  # fmt: skip
    (partial / TRAINING).write_text(json.dumps(whole, indent=1, default=str))
    os.replace(partial, folder)


def is_plain(name: str | Path) -> bool:
    """Whether a folder holds a network of `save`."""
    return (Path(name) / TRAINING).is_file()


def training_of(folder: Path) -> dict[str, Any]:
    """What `save` wrote beside the network."""
    return dict(json.loads((folder / TRAINING).read_text()))


def load(name: str | Path) -> Classifier:
    """A network of `save`, or a released model by its name or folder."""
    if not is_plain(name):
        return store.load(str(name))
    from models.network.contract import check
    from models.network.inputs import normalisation_layer

    folder, keras = Path(name), start_keras()
    normalisation_layer()  # registers the layer under its name, which reading needs
    model, facts = keras.saving.load_model(folder / store.MODEL, compile=False), training_of(folder)
    recipe = Recipe.from_mapping(facts["recipe"])
    check(model, recipe, folder.name)
    return of_network(model, recipe, folder.name, identity=folder.name, card=facts)


def as_trained(folder: Path) -> TrainedModel:
    """A network of `save` as its training left it, for `models.training.release`."""
    facts = training_of(folder)
    options = dict(facts["training"])
    options |= {"recipe": Recipe.from_mapping(facts["recipe"]), "augment": AugmentOptions(**options["augment"])}
    return TrainedModel(load(folder).network, TrainOptions(**options), facts["history"], facts["best_epoch"])


def scores_of(name: str | Path, found: TrainingSet) -> np.ndarray:
    """Scores of examples; those of a network of `save` are stored beside it."""
    digest = hashlib.sha256("\n".join(found.table["example_id"].to_pylist()).encode()).hexdigest()[:12]
    cache = Path(name) / f"scores-{digest}.npy"
    if is_plain(name) and cache.is_file():
        return np.asarray(np.load(cache), dtype=float)
    score = np.asarray(predict(found.stamps, found.sign, load(name), samples=SAMPLES)["score"], dtype=np.float32)
    if is_plain(name):
        partial = cache.with_name(f".{cache.name}.{os.getpid()}.npy")
        np.save(partial, score)
        os.replace(partial, cache)
    return score.astype(float)


def shared_with(name: str | Path, found: TrainingSet) -> list[str]:
    """Units of a set that a network of `save` learnt from."""
    known = set(training_of(Path(name))["units_known"]) if is_plain(name) else set()
    return sorted(known & set(found.table["unit"].to_pylist()))
