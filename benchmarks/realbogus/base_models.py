"""Base models that never saw some units.

    python benchmarks/realbogus/base_models.py --sets FOLDER --out FOLDER

The units of all stamp sets found under ``--sets`` are dealt out to folds; for each fold a network is trained on the
units of the others. `unseen_units`, `architectures`, `side_inputs` and `benchmarks.transfer.strategies` measure on
them. A fold that is on disk is not trained again, and a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.network import store
from models.network.classifier import Classifier
from models.training import examples
from models.training.examples import TrainingSet
from models.training.train import TrainOptions, train

FOLDS = 4


def read_sets(folders: list[Path]) -> TrainingSet:
    """All stamp sets under some folders, joined."""
    found = sorted(file.parent for folder in folders for file in folder.rglob(examples.TABLE))
    return examples.join([part for part in map(examples.read, found) if len(part)])


def fold_of_units(units: np.ndarray, folds: int = FOLDS, seed: int = 0) -> dict[str, int]:
    """Fold of each unit: equally many in each, drawn at random."""
    names = np.unique(units.astype(str))
    order = np.random.default_rng(seed).permutation(len(names))
    return {str(names[unit]): place % folds for place, unit in enumerate(order)}


def with_parts(found: TrainingSet, fold: int, folds: dict[str, int], check: float = 0.15, seed: int = 0) -> TrainingSet:
    """The set with the units of one fold as test part, and a few others to stop the training by."""
    units = np.asarray(found.table["unit"]).astype(str)
    others = sorted(unit for unit, one in folds.items() if one != fold)
    count = max(1, round(check * len(others)))
    stopping = set(np.random.default_rng([seed, fold]).permutation(others)[:count].tolist())
    part = ["test" if folds[u] == fold else "validation" if u in stopping else "train" for u in units.tolist()]
    place = found.table.schema.get_field_index("split")
    table = found.table.set_column(place, found.table.schema.field(place), pa.array(part, pa.string()))
    return TrainingSet(found.stamps, table, found.card)


def base_of(
    out: Path, found: TrainingSet, fold: int, folds: dict[str, int], options: TrainOptions, tag: str = ""
) -> Classifier:
    """The base model of one fold, trained if it is not there; its card tells units, options and seconds."""
    folder = out / f"base-{tag or options.architecture}-{fold}"
    if not (folder / store.MODEL).is_file():
        parts, start = with_parts(found, fold, folds), time.perf_counter()
        done: list[float] = []

        def report(epoch: int, of: int, losses: dict[str, float]) -> None:
            done.append(time.perf_counter() - start)
            text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
            print(f"{folder.name} epoch {epoch}/{of} {done[-1]:.0f} s: {text}", flush=True)

        trained = train(parts, options, report, checkpoint=out / f"{folder.name}.npz")
        test = parts.part("test")
        rows = np.sort(np.random.default_rng(0).permutation(len(test))[:24])
        card: dict[str, Any] = {
            "held_out": sorted(unit for unit, one in folds.items() if one == fold),
            "examples": len(parts.part("train")),
            "parameters": int(trained.model.count_params()),
            "seconds": done[-1] if done else None,
            "best_epoch": trained.best_epoch,
            "history": trained.history,
            "training": json.loads(json.dumps(options.to_mapping(), default=str)),
        }
        golden = test.take(rows)
        store.save(folder, trained.model, options.recipe, card=card, golden=golden.stamps, sign=golden.sign)
    return store.load(folder, engine="keras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="folders with stamp sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default=TrainOptions().architecture)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tag", default="")
    parser.add_argument("--network", type=json.loads, default={}, help="options of the architecture as JSON")
    parser.add_argument("--augment", type=json.loads, default={}, help="fields of AugmentOptions as JSON")
    arguments = parser.parse_args()
    found = read_sets(arguments.sets)
    folds = fold_of_units(np.asarray(found.table["unit"]))
    plain = TrainOptions()
    options = dataclasses.replace(
        plain, architecture=arguments.architecture, epochs=arguments.epochs, seed=arguments.seed,
        network=arguments.network,
        augment=dataclasses.replace(plain.augment, **arguments.augment),
    )  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    for fold in arguments.folds:
        base_of(arguments.out, found, fold, folds, options, arguments.tag)


if __name__ == "__main__":
    main()
