"""Architectures side by side.

    python benchmarks/realbogus/architectures.py --sets FOLDER --bases FOLDER --out FOLDER

Each is trained by the same rules on the same units (`base_models`), scored by ONNX Runtime on units that none of them
saw, and timed there: stamps a second for one pass and for 20 dropout samples, with as many threads as ``--threads``
says. The same stamps are scored again without their difference and without their template.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realbogus import base_models, figures_of_merit
from models.network import store
from models.network.contract import list_architectures
from models.network.inputs import PLANES
from models.network.store import predict
from models.training.examples import TrainingSet
from models.training.train import TrainOptions
from nightsift.core.frames import Stamps

STAMPS = 2048  # timed at once, an exposure's worth or more
REPEATS = 5


def without(stamps: Stamps, plane: str | None) -> Stamps:
    """The same stamps as a survey delivers them that lacks a plane."""
    if plane is None:
        return stamps
    data = stamps.data.copy()
    data[..., PLANES.index(plane)] = np.nan
    return Stamps(data, stamps.mask)


def speed(folder: Path, stamps: Stamps, sign: np.ndarray, samples: int, threads: int) -> float:
    """Stamps a second by ONNX Runtime, the best of some repeats."""
    model = store.load(folder, threads=threads, engine="onnx")
    rows = np.resize(np.arange(len(stamps)), STAMPS)
    many, signs = Stamps(stamps.data[rows], stamps.mask[rows]), sign[rows]
    best = np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        predict(many, signs, model, samples=samples)
        best = min(best, time.perf_counter() - start)
    return STAMPS / best


def measure(folder: Path, test: TrainingSet, threads: int) -> dict[str, Any]:
    """All figures of one trained network."""
    model = store.load(folder, engine="onnx")
    fields = np.asarray(test.table["field"])
    found: dict[str, Any] = {"parameters": model.card["parameters"], "seconds": model.card["seconds"]}
    for name in (None, "difference", "template"):
        # a fading candidate of a survey without templates lacks what stands for the science frame: scored all the same
        scores = np.asarray(predict(without(test.stamps, name), test.sign, model)["score"])
        found["whole" if name is None else f"without {name}"] = figures_of_merit.with_spread(
            scores, test.labels, fields
        )
        if name is None:
            found["scores"] = scores.tolist()
    for samples in (1, 20):
        found[f"stamps_per_s_{samples}"] = speed(folder, test.stamps, test.sign, samples, threads)
    found["bytes"] = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".keras"))
    return found


def plot(rows: dict[str, dict[str, Any]], labels: np.ndarray, file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for colour, (name, row) in zip(("C0", "C1", "C2", "C3", "C4"), rows.items(), strict=False):
        scores = np.asarray(row["scores"])
        bogus, real = np.sort(scores[labels == 0])[::-1], np.sort(scores[labels == 1])
        fpr = np.arange(1, len(bogus) + 1) / len(bogus)
        left.plot(fpr, np.searchsorted(real, bogus, side="right") / len(real), color=colour, label=name)
        value, low, high = row["whole"]["fpr_1_missed"]
        right.errorbar(
            row["stamps_per_s_1"], 100 * value, yerr=[[100 * (value - low)], [100 * (high - value)]],
            fmt="o", color=colour, capsize=3,
        )  # fmt: skip
        right.annotate(
            name, (row["stamps_per_s_1"], 100 * high), xytext=(0, 5), textcoords="offset points", ha="center"
        )
    left.set(xscale="log", yscale="log", xlabel="false positive rate", ylabel="missed", title="units never seen")
    left.grid(alpha=0.3, which="both")
    left.legend(frameon=False)
    right.set(xlabel="stamps/s (ONNX Runtime, one pass)", ylabel="FPR at 1 % missed (%)", ylim=(0, None))
    right.margins(x=0.25)
    right.grid(alpha=0.3)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    parser.add_argument("--bases", type=Path, required=True, help="folder of benchmarks/realbogus/base_models.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--architectures",
        nargs="+",
        default=list_architectures(),
        help="architectures, or tags of benchmarks/realbogus/base_models.py",
    )
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    found = base_models.read_sets(arguments.sets)
    folds = base_models.fold_of_units(np.asarray(found.table["unit"]))
    test = base_models.with_parts(found, arguments.fold, folds).part("test")
    rows = {}
    for name in arguments.architectures:
        options = dataclasses.replace(TrainOptions(), architecture=name, epochs=arguments.epochs)
        base_models.base_of(arguments.bases, found, arguments.fold, folds, options, name)
        rows[name] = measure(arguments.bases / f"base-{name}-{arguments.fold}", test, arguments.threads)
    for kind in ("whole", "without difference", "without template"):
        print(f"\n{kind}, {len(test)} stamps of {sum(one == arguments.fold for one in folds.values())} units\n")
        wanted = ("auc", "fpr_1_missed", "tpr_1e-2", "tpr_1e-3", "nll", "ece")
        print(figures_of_merit.table({n: {k: row[kind][k] for k in wanted} for n, row in rows.items()}, "architecture"))
    for name, row in rows.items():
        print(
            f"{name}: {row['parameters']} parameters, {row['bytes'] / 1e6:.2f} MB, trained in {row['seconds']:.0f} s, "
            f"{row['stamps_per_s_1']:.0f} stamps/s, {row['stamps_per_s_20']:.0f} with 20 samples"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    plot(rows, test.labels, arguments.out / "architectures.png")
    without_scores = {name: {key: value for key, value in row.items() if key != "scores"} for name, row in rows.items()}
    (arguments.out / "architectures.json").write_text(json.dumps(without_scores, indent=1))


if __name__ == "__main__":
    main()
