"""What more data bring.

    python benchmarks/realbogus/learning_curves.py --sets FOLDERS --test FOLDERS --out FOLDER --fractions 0.125 1

Trains a network on each part of the units and for each seed, as `models.training.subsets` does it: whole units,
each part holding the smaller ones of its seed. Units to stop the training by are the same for all. The number of epochs
grows as the part shrinks, by ``--power``: with 1 (here) every network takes as many steps, whatever it learns from.

A network that is on disk is not trained again, and one that another process is training is left to it: start the same
command as often as there are cores. Without ``--test`` it only trains (``KERAS_BACKEND=jax`` needs no TensorFlow);
without ``--sets`` it only scores what is there and draws.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realbogus import base_models, learning_figure, trained_networks
from benchmarks.realbogus.trained_networks import Sets
from models.network.store import MODEL
from models.training.examples import detected
from models.training.subsets import first_units, more_epochs
from models.training.train import TrainOptions, train

FRACTIONS = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0)
EPOCHS = 8  # those of the shipped base, for the whole set


def kind_of(names: list[str], most_real: int | None) -> str:
    """What networks that learn without some sources are called."""
    without = f"without-{'-'.join(sorted(set(names)))}" if names else "all"
    return without + (f"-{most_real}-real" if most_real else "")


def rows_to_learn(sets: Sets, chosen: np.ndarray, most_real: int | None, seed: int) -> np.ndarray:
    """Mask of the examples that a network sees: training part of some units, and the validation part."""
    part, unit, label = sets.column("split"), sets.column("unit"), sets.column("label")
    learn = (part == "train") & np.isin(unit, chosen)
    real = np.flatnonzero(learn & (label == 1))
    if most_real and len(real) > most_real:
        learn[np.random.default_rng([seed, 1]).permutation(real)[most_real:]] = False
    return learn | (part == "validation")


@contextmanager
def alone(file: Path) -> Iterator[bool]:
    """Whether no other process is at the same work; the lock of one that died is free."""
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def make(out: Path, sets: Sets, units: np.ndarray, fraction: float, seed: int, arguments: argparse.Namespace) -> None:
    """Train one network, unless it is there or in work; ``units`` holds one value an example of the training part."""
    chosen = first_units(units, fraction, seed)
    kind = kind_of(arguments.leave_out, arguments.most_real)
    folder = out / f"{kind}-{len(chosen):04d}-units-seed-{seed}"
    with alone(out / f".{folder.name}.lock") as free:
        if not free or (folder / MODEL).is_file():
            return
        found = sets.read(rows_to_learn(sets, chosen, arguments.most_real, seed))
        learnt = found.labels[np.asarray(found.table["split"]).astype(str) == "train"]
        plain = TrainOptions(
            architecture=arguments.architecture, network=arguments.network, epochs=arguments.epochs, seed=seed,
            threads=arguments.threads,
        )  # fmt: skip
        options, start = more_epochs(plain, len(learnt) / len(units), arguments.power), time.perf_counter()
        print(f"{folder.name}: {len(learnt)} examples, {options.epochs} epochs at most", flush=True)

        def tell(epoch: int, of: int, losses: dict[str, float]) -> None:
            if epoch == of or epoch % max(1, of // 10) == 0:
                text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
                print(f"{folder.name} epoch {epoch}/{of} {time.perf_counter() - start:.0f} s: {text}", flush=True)

        trained = train(found, options, tell, checkpoint=out / f".{folder.name}.npz")
        trained_networks.save(folder, trained, {
            "kind": kind, "left_out": sorted(set(arguments.leave_out)), "seed": seed, "units": len(chosen),
            "fraction": len(chosen) / len(np.unique(units)),
            "examples": len(learnt), "real": int(learnt.sum()),
            "steps": options.epochs * -(-len(learnt) // options.batch),
            "power": arguments.power, "seconds": time.perf_counter() - start,
            "units_known": sorted(set(found.table["unit"].to_pylist())),
        })  # fmt: skip
        (out / f".{folder.name}.npz").unlink(missing_ok=True)


def networks_in(out: Path) -> list[Path]:
    """Folders of the networks that are done, by name."""
    return sorted(
        file.parent for file in out.glob(f"*/{trained_networks.TRAINING}") if not file.parent.name.startswith(".")
    )


def judge(out: Path, test: list[Path]) -> None:
    """Score all networks on what the pipeline detected in the test sets; tables, figure and numbers."""
    found = base_models.read_sets(test)
    found = found.take(np.flatnonzero(detected(found.table)))
    points: list[dict[str, Any]] = []
    for folder in networks_in(out):
        shared = trained_networks.shared_with(folder, found)
        if shared:
            raise SystemExit(f"{folder.name} learnt from units of the test sets: {', '.join(shared)}")
        facts = trained_networks.training_of(folder)
        points.append({**facts, "name": folder.name, "scores": trained_networks.scores_of(folder, found)})
        print(f"scored {folder.name}", file=sys.stderr, flush=True)
    if not points:
        raise SystemExit(f"there is no network in {out}: train some with --sets")
    labels, fields = found.labels.astype(int), np.asarray(found.table["field"]).astype(str)
    results = learning_figure.curves(points, labels, fields)
    print(learning_figure.tables(results, labels, fields))
    learning_figure.draw(results, out / "learning_curves.png")
    (out / "learning_curves.json").write_text(json.dumps(results, indent=1, default=float))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, nargs="+", help="to learn from; none to draw only")
    parser.add_argument("--test", type=Path, nargs="+", help="of other units; none to train only")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS), help="parts of the units")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--leave-out", nargs="+", default=[], help="sources not to learn from, see nightsift train")
    parser.add_argument("--most-real", type=int, help="real examples to learn from at most, drawn at random")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="for the whole set")
    parser.add_argument("--power", type=float, default=1.0, help="epochs grow by this power of how small a part is")
    parser.add_argument("--deal", type=int, default=1, help="seed by which units are set apart to stop the training by")
    parser.add_argument("--architecture", default=TrainOptions().architecture)
    parser.add_argument("--network", type=json.loads, default={}, help="options of the architecture as JSON")
    parser.add_argument("--threads", type=int, help="of TensorFlow")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.sets:
        everything = trained_networks.open_sets(arguments.sets, arguments.deal)
        units = everything.column("unit")[everything.column("split") == "train"]
        sets = trained_networks.leaving_out(everything, arguments.leave_out)
        for fraction in sorted(arguments.fractions, reverse=True):  # the long ones first
            for seed in arguments.seeds:
                make(arguments.out, sets, units, fraction, seed, arguments)
    if arguments.test:
        judge(arguments.out, arguments.test)


if __name__ == "__main__":
    main()
