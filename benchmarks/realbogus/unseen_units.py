"""Units never trained on.

    python benchmarks/realbogus/unseen_units.py --sets FOLDER --out FOLDER {--model base | --bases FOLDER}

1. Every unit is scored by a model that never saw it: one model for all (``--model``; the sets must be of units that it
   was not trained on, as `new_units` makes them), or the base of its fold (`base_models`). Figures of all units
   together, with a bootstrap over fields, and of each unit. Only what the pipeline detected is counted.
2. Calibration: up to 500 labels of one half of a unit's fields, probabilities tested on the other half, and the other
   way round; against none at all, and against one calibration for all units, learnt from other units.
   Beside the calibration error stands the one that perfect probabilities would show on as many stamps, because it is
   never zero.
3. The matrix: the head tuned to one unit, tested on the other units (of its fold) and on the other fields of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realbogus import base_models, figures_of_merit
from models.calibration.calibrate import Calibration, fit_calibration, mean_probability
from models.calibration.metrics import ece
from models.network.classifier import Classifier, sample_logits
from models.network.store import load
from models.training.examples import TrainingSet, detected
from models.training.train import TrainOptions
from models.transfer.transfer import cross_fit, fit, folds_of
from models.transfer.tuner import TuneOptions, Tuner

LABELS = 500
SHOWN = ("auc", "fpr_1_missed", "tpr_1e-2", "tpr_1e-3", "tpr_1e-4", "nll", "ece")


def sides(fields: np.ndarray, seed: int) -> np.ndarray:
    """Which half of the fields each stamp belongs to (0 or 1)."""
    names = np.random.default_rng(seed).permutation(np.unique(fields))
    return np.isin(fields, names[: (len(names) + 1) // 2]).astype(int)


def calibrated_scores(logits: np.ndarray, labels: np.ndarray, fields: np.ndarray, seed: int) -> tuple[np.ndarray, list]:
    """Scores of each half of a unit's fields under the calibration learnt from the other half."""
    side, scores, made = sides(fields, seed), np.empty(len(labels)), []
    for here in (0, 1):
        rows = np.random.default_rng([seed, here]).permutation(np.flatnonzero(side == here))[:LABELS]
        out = np.flatnonzero(side != here)
        found = fit_calibration(logits[:, rows], labels[rows], prevalence=float(labels[out].mean()), seed=seed)
        scores[out] = mean_probability(logits[:, out], found)
        made.append({"labels": len(rows), "map": found.method})
    return scores, made


def shared_calibration(logits: np.ndarray, labels: np.ndarray, seed: int) -> Calibration:
    """One calibration for all, from as many labels as one unit gives."""
    rows = np.random.default_rng(seed).permutation(len(labels))[:LABELS]
    return fit_calibration(logits[:, rows], labels[rows], seed=seed)


def floor(scores: np.ndarray, draws: int = 100, seed: int = 0) -> float:
    """Mean calibration error of perfect probabilities on as many stamps."""
    rng = np.random.default_rng(seed)
    return float(np.mean([ece(scores, (rng.random(len(scores)) < scores).astype(int)) for _ in range(draws)]))


def matrix(base: Classifier, sets: dict[str, TrainingSet], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of each unit under the base and under heads tuned to each of the units."""
    tuner, out = Tuner(base, "head", TuneOptions(seed=seed)), {}
    features = {name: tuner.features(tuner.planes(one)) for name, one in sets.items()}
    side = {name: sides(np.asarray(one.table["field"]).astype(str), seed) for name, one in sets.items()}

    def tested(name: str) -> dict[str, float]:
        rows = np.flatnonzero(side[name] == 1)
        return figures_of_merit.figures(
            mean_probability(tuner.logits_of(features[name][rows])), sets[name].labels[rows]
        )

    tuner.restart()
    out["base"] = {name: tested(name) for name in sets}
    for name, one in sets.items():
        learn = one.take(np.flatnonzero(side[name] == 0)[:LABELS])
        seen = tuner.prepare(learn)
        fold, _ = folds_of(learn, 3, seed)
        fit(tuner, seen, max(1, cross_fit(tuner, seen, fold).best))
        out[name] = {other: tested(other) for other in sets}
    return out


def plot(units: dict[str, Any], blocks: list[dict[str, Any]], every: dict[str, np.ndarray], file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    order = sorted(units, key=lambda name: units[name]["fpr_1_missed"])
    left.bar(np.arange(len(order)), [100 * units[name]["fpr_1_missed"] for name in order], color="C0")
    left.set_xticks(np.arange(len(order)), [list(units).index(name) for name in order])
    left.set(xlabel="number of the unit", ylabel="FPR at 1 % missed (%)", title="each unit by itself")
    edges = np.linspace(0, 1, 11)
    for name, scores in every.items():
        if name == "labels":
            continue
        place = np.clip(np.digitize(scores, edges) - 1, 0, 9)
        mean = [scores[place == k].mean() for k in range(10) if (place == k).any()]
        real = [every["labels"][place == k].mean() for k in range(10) if (place == k).any()]
        middle.plot(mean, real, "o-", ms=4, label=f"{name}, ECE {ece(scores, every['labels']):.4f}")
    middle.plot([0, 1], [0, 1], color="0.6", lw=1)
    middle.set(xlabel="score", ylabel="part that is real", title="reliability, all units")
    middle.legend(frameon=False, fontsize=9)
    gain = [
        [1e3 * (block[one][other]["auc"] - block["base"][other]["auc"]) for other in block["base"]]
        for block in blocks for one in block["base"]
    ]  # fmt: skip
    most = max(float(np.abs(gain).max()), 1e-6)
    drawn = right.imshow(gain, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    for end in np.cumsum([len(block["base"]) for block in blocks])[:-1]:
        right.axhline(end - 0.5, color="k", lw=1)
    right.set(
        xlabel="tested on unit (of its fold; a line between folds)",
        ylabel="head tuned to unit",
        title="gain of AUC over the base, 1e-3",
    )
    figure.colorbar(drawn, ax=right)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="a model that was trained on none of the units")
    which.add_argument("--bases", type=Path, help="folder of benchmarks/realbogus/base_models.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default=TrainOptions().architecture)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(base_models.FOLDS)))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = base_models.read_sets(arguments.sets)
    found = found.take(np.flatnonzero(detected(found.table)))
    names = np.asarray(found.table["unit"]).astype(str)
    if arguments.model:
        folds = {str(unit): place for place, unit in enumerate(np.unique(names))}
        judges = [(load(arguments.model, engine="keras"), sorted(folds))]
    else:
        folds = base_models.fold_of_units(names)
        options = TrainOptions(architecture=arguments.architecture, epochs=arguments.epochs)
        judges = [
            (base_models.base_of(arguments.bases, found, fold, folds, options), [u for u in folds if folds[u] == fold])
            for fold in arguments.folds
        ]
    logits, blocks = np.empty((20, len(found)), np.float32), []
    for base, inside in judges:
        rows = np.flatnonzero(np.isin(names, inside))
        logits[:, rows] = sample_logits(found.take(rows).stamps, found.sign[rows], base, samples=20, seed=0)
        blocks.append(matrix(base, {one: found.take(np.flatnonzero(names == one)) for one in inside}, arguments.seed))
    scored = np.flatnonzero(np.isin(names, [unit for _, inside in judges for unit in inside]))
    tell(found.take(scored), folds, logits[:, scored], blocks, arguments.out, arguments.seed)


def tell(
    found: TrainingSet, folds: dict[str, int], logits: np.ndarray, blocks: list[dict[str, Any]], out: Path, seed: int
) -> None:
    """Tables on stdout, figure and JSON."""
    labels, names = found.labels.astype(int), np.asarray(found.table["unit"]).astype(str)
    fields = np.asarray(found.table["field"]).astype(str)
    fold = np.array([folds[name] for name in names.tolist()])
    plain = mean_probability(logits)
    own, shared, units, maps = np.empty(len(labels)), np.empty(len(labels)), {}, []
    for one in np.unique(fold):
        others = np.flatnonzero(fold != one)
        made = shared_calibration(logits[:, others], labels[others], seed)
        shared[fold == one] = mean_probability(logits[:, fold == one], made)
    for unit in np.unique(names):
        rows = np.flatnonzero(names == unit)
        own[rows], made = calibrated_scores(logits[:, rows], labels[rows], fields[rows], seed)
        maps += made
        units[str(unit)] = {
            **figures_of_merit.figures(plain[rows], labels[rows]), "ece_own": ece(own[rows], labels[rows]),
            "floor": floor(own[rows]), "stamps": len(rows),
        }  # fmt: skip
    kinds = {"no calibration": plain, "one for all units": shared, "each unit its own": own}
    rows_of_kinds = {name: figures_of_merit.with_spread(scores, labels, fields) for name, scores in kinds.items()}
    print(f"{len(labels)} stamps of {len(units)} units, each scored by a model that never saw it\n")
    print(figures_of_merit.table({n: {k: row[k] for k in SHOWN} for n, row in rows_of_kinds.items()}, "calibration"))
    print(f"\ncalibration error of perfect probabilities on as many stamps: {floor(own):.4f} for all together")
    used = [one["labels"] for one in maps]
    print(f"labels a calibration: {min(used)} to {max(used)}, median {np.median(used):.0f}")
    print(f"maps: { {m: sum(one['map'] == m for one in maps) for m in sorted({one['map'] for one in maps})} }\n")
    wanted = ("auc", "fpr_1_missed", "tpr_1e-2", "ece", "ece_own", "floor")
    print(figures_of_merit.table({name: {key: one[key] for key in wanted} for name, one in units.items()}, "unit"))
    same, other = [], []
    for block in blocks:
        for one in block["base"]:
            for two in block["base"]:
                gain = block[one][two]["auc"] - block["base"][two]["auc"]
                (same if one == two else other).append(gain)
    print(f"\nhead tuned to a unit: AUC {np.mean(same):+.5f} on its own other fields, {np.mean(other):+.5f} on others")
    plot(units, blocks, {**kinds, "labels": labels}, out / "unseen_units.png")
    results = {"all": rows_of_kinds, "units": units, "floor": floor(own), "maps": maps, "matrix": blocks}
    (out / "unseen_units.json").write_text(json.dumps(results, indent=1, default=float))


if __name__ == "__main__":
    main()
