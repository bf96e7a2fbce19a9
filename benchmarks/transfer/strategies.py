"""From few labels to a model of a new unit.

    python benchmarks/transfer/strategies.py --model base --target FOLDER --out FOLDER

The experiment of a survey that takes over a classifier from another one. For each seed a unit that its base model never
saw is drawn; the labels come from some of its fields, and the figures from the others. With 20, 50, 100 and 500 labels
the base is taken as it is (with calibration), its head is tuned, a part of it, all of it, or a network is trained from
scratch, all by the same rules (`models.transfer.transfer`). Strategies see the same labels and are tested on the same
stamps, so they are compared pair by pair (paired t-test) and, as elsewhere, unpaired (Welch); p-values of all
comparisons with the frozen base are corrected together after Holm (1979, Scand. J. Stat. 6, 65); the size of an effect
is Hedges' g (1981, J. Educ. Stat. 6, 107) and the mean difference itself.

``--target FOLDER`` holds stamp sets of units that the model was not trained on: those of
`benchmarks.realbogus.new_units`, or real ones. Instead of ``--model`` bases of folds may be taken (``--sets FOLDER
--bases FOLDER``, `benchmarks.realbogus.base_models`), whose held-out units are the new ones where no target is given.
Each result is written to ``--out``, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.realbogus import base_models, figures_of_merit
from models.calibration.calibrate import fit_calibration, mean_probability
from models.network.classifier import Classifier
from models.network.store import load
from models.training.examples import TrainingSet
from models.training.split import groups_of
from models.training.train import TrainOptions
from models.transfer.transfer import KEYS, cross_fit, fit, folds_of
from models.transfer.tuner import STRATEGIES, TuneOptions, Tuner

LABELS = (20, 50, 100, 500)
COMPARED = ("auc", "fpr_1_missed", "nll", "ece")
BETTER = {"auc": 1, "fpr_1_missed": -1, "nll": -1, "ece": -1}
COLOURS = dict(zip(STRATEGIES, ("0.4", "C0", "C2", "C1", "C3"), strict=True))


def halves(found: TrainingSet, seed: int, labels: int, apart: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows to label and rows to test on; nothing stands on both sides, and each side has a third of each class.

    The side to label is half of the stamps, or more where so many labels need it.
    """
    groups = groups_of({name: np.array(found.table[name].to_pylist(), dtype=object) for name in (apart, "object_id")})
    rng = np.random.default_rng(seed)
    count = max(len(found) // 2, int(1.1 * labels))
    for _ in range(1000):
        order = rng.permutation(groups.max() + 1)
        taken = order[: np.searchsorted(np.cumsum(np.bincount(groups)[order]), count) + 1]
        side = np.isin(groups, taken)
        share = [float(side[found.labels == one].mean()) for one in (0, 1)]
        if min(share) > 0.33 and max(share) < 0.67:
            break
    return np.flatnonzero(side), np.flatnonzero(~side)


def draw(rows: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many rows at random, at least five of each class, as people would label them."""
    rng = np.random.default_rng([seed, 9])
    order = rng.permutation(rows)  # a longer draw holds the shorter one
    first = np.concatenate([order[labels[order] == one][:5] for one in (1, 0)])
    rest = order[~np.isin(order, first)]
    return np.concatenate([first, rest])[:count]


def one_fit(tuner: Tuner, learn: TrainingSet, test: TrainingSet, seed: int) -> dict[str, Any]:
    """Cross-validated tuning on some labels, calibrated on held-out logits, tested on the other fields."""
    start = time.perf_counter()
    seen = tuner.prepare(learn)
    fold, keys = folds_of(learn, 3, seed)
    crossed = cross_fit(tuner, seen, fold)
    fit(tuner, seen, crossed.best)
    names = keys if keys in KEYS else ("example_id",)
    groups = groups_of({name: np.array(learn.table[name].to_pylist(), dtype=object) for name in names})
    balance = float((test.labels == 1).mean())  # as a survey knows how many of its candidates are real
    made = fit_calibration(crossed.logits[crossed.best], learn.labels, groups, prevalence=balance, seed=seed)
    logits = tuner.logits(tuner.planes(test))
    after = figures_of_merit.figures(mean_probability(logits, made), test.labels)
    raw = figures_of_merit.figures(mean_probability(logits), test.labels)
    return {
        **after, "ece_raw": raw["ece"], "nll_raw": raw["nll"], "rounds": crossed.best, "map": made.method,
        "labels": len(learn), "tested": len(test), "seconds": time.perf_counter() - start,
    }  # fmt: skip


def run_seed(
    seed: int,
    base: Classifier,
    unit: TrainingSet,
    strategies: list[str],
    counts: tuple[int, ...],
    out: Path,
    apart: str,
) -> list[dict[str, Any]]:
    """All strategies and numbers of labels for one seed; what is on disk is not done again."""
    file = out / f"seed-{seed}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    done = {(row["strategy"], row["wanted"]) for row in rows}
    to_label, to_test = halves(unit, seed, max(counts), apart)
    test, units = unit.take(to_test), sorted(set(unit.table["unit"].to_pylist()))
    name = units[0] if len(units) == 1 else f"{len(units)} units"
    for strategy in strategies:
        tuner = Tuner(base, strategy, TuneOptions(seed=seed))
        for count in counts:
            if (strategy, count) in done or count > len(to_label):
                continue
            learn = unit.take(draw(to_label, unit.labels, count, seed))
            row = {"seed": seed, "unit": name, "strategy": strategy, "wanted": count}
            rows.append(row | one_fit(tuner, learn, test, seed))
            file.write_text(json.dumps(rows, indent=1))
            print(
                f"seed {seed} {name} {strategy:8s} {count:4d} labels, {rows[-1]['rounds']:2d} rounds: "
                f"AUC {rows[-1]['auc']:.4f}, FPR at 1 % missed {100 * rows[-1]['fpr_1_missed']:.2f} %, "
                f"NLL {rows[-1]['nll']:.4f}, ECE {rows[-1]['ece']:.4f}, {rows[-1]['seconds']:.1f} s",
                flush=True,
            )
    return rows


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number, step by step (Holm 1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(steps, 1.0)
    return out


def compare(rows: list[dict[str, Any]], reference: str = "frozen") -> list[dict[str, Any]]:
    """Each strategy against the frozen base, at each number of labels, for each figure."""
    found = []
    value = {(r["strategy"], r["wanted"], r["seed"]): r for r in rows}
    strategies = [name for name in STRATEGIES if name != reference and any(r["strategy"] == name for r in rows)]
    for metric in COMPARED:
        for count in sorted({r["wanted"] for r in rows}):
            for name in strategies:
                keys = [(count, s) for n, c, s in value if n == name and c == count and (reference, c, s) in value]
                if len(keys) < 3:
                    continue
                one = np.array([value[name, c, s][metric] for c, s in keys])
                other = np.array([value[reference, c, s][metric] for c, s in keys])
                found.append({"metric": metric, "labels": count, "strategy": name, **_tests(one, other, metric)})
    for test in ("welch", "paired"):
        corrected = holm(np.array([row[f"p_{test}"] for row in found])) if found else []
        for row, p in zip(found, corrected, strict=True):
            row[f"p_{test}_holm"] = float(p)
    return found


def _tests(one: np.ndarray, other: np.ndarray, metric: str) -> dict[str, Any]:
    n, difference = len(one), one - other
    same, constant = bool(np.ptp(difference) == 0), bool(np.ptp(one) == 0 and np.ptp(other) == 0)
    pooled = float(np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2))
    small = 1 - 3 / (8 * n - 9)
    return {
        "n": n,
        "mean": float(one.mean()),
        "reference": float(other.mean()),
        "gain": float(BETTER[metric] * difference.mean()),
        "better_in": int((BETTER[metric] * difference > 0).sum()),
        "hedges_g": BETTER[metric] * small * float(difference.mean()) / pooled if not constant else 0.0,
        "p_welch": 1.0 if constant else float(stats.ttest_ind(one, other, equal_var=False).pvalue),
        "p_paired": 1.0 if same else float(stats.ttest_rel(one, other).pvalue),
    }


def plot(rows: list[dict[str, Any]], file: Path, title: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7), layout="constrained")
    counts = sorted({row["wanted"] for row in rows})
    names = [name for name in STRATEGIES if any(row["strategy"] == name for row in rows)]
    for axis, metric in zip(axes.flat, COMPARED, strict=True):
        factor = 100.0 if metric == "fpr_1_missed" else 1.0
        for place, name in enumerate(names):
            x, mean, error = [], [], []
            for count in counts:
                values = [factor * r[metric] for r in rows if r["strategy"] == name and r["wanted"] == count]
                if values:
                    x.append(count * 1.04 ** (place - len(names) / 2))
                    mean.append(np.mean(values))
                    error.append(np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0)
            axis.errorbar(x, mean, yerr=error, color=COLOURS[name], marker="o", ms=4, capsize=2, label=name)
        axis.set(xscale="log", xlabel="labels of the new unit", xticks=counts, xticklabels=counts)
        axis.set_ylabel("FPR at 1 % missed (%)" if metric == "fpr_1_missed" else figures_of_merit.NAMES[metric])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False)
    seeds = len({row["seed"] for row in rows})
    figure.suptitle(f"{title}; mean and standard error of {seeds} seeds", fontsize=11)
    figure.savefig(file, dpi=130)


def report(rows: list[dict[str, Any]], out: Path, title: str) -> None:
    """Tables on stdout, figure and JSON in `out`."""
    for count in sorted({row["wanted"] for row in rows}):
        means = {}
        for name in STRATEGIES:
            here = [row for row in rows if row["strategy"] == name and row["wanted"] == count]
            if here:
                means[name] = {metric: float(np.mean([row[metric] for row in here])) for metric in COMPARED}
        print(f"\n{count} labels\n\n{figures_of_merit.table(means, 'strategy')}")
    compared = compare(rows)
    print("\nagainst the frozen base; p corrected after Holm over all rows\n")
    print("| figure | labels | strategy | gain | better in | Hedges' g | p Welch | p paired |\n|" + "---|" * 8)
    for one in compared:
        print(
            f"| {figures_of_merit.NAMES[one['metric']]} | {one['labels']} | {one['strategy']} | {one['gain']:+.4f} | "
            f"{one['better_in']}/{one['n']} | {one['hedges_g']:+.2f} | {one['p_welch_holm']:.3g} | "
            f"{one['p_paired_holm']:.3g} |"
        )
    plot(rows, out / "strategies.png", title)
    (out / "strategies.json").write_text(json.dumps({"rows": rows, "compared": compared}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model that was trained on no unit of the target")
    parser.add_argument("--sets", type=Path, nargs="+", help="stamp sets that the bases are of")
    parser.add_argument("--bases", type=Path, help="folder of benchmarks/realbogus/base_models.py")
    parser.add_argument(
        "--target", type=Path, nargs="+", help="stamp sets of the new units; held-out units if not given"
    )
    parser.add_argument("--pool", action="store_true", help="take all stamps of the target as one unit")
    parser.add_argument("--apart", default="field", help="column that labels and tests do not share, with objects")
    parser.add_argument("--fold", type=int, help="only this base, and the units that it never saw")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--labels", type=int, nargs="+", default=list(LABELS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--architecture", default=TrainOptions().architecture)
    parser.add_argument("--title", default="new units of the kind trained on")
    parser.add_argument("--only-report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.only_report and not (arguments.target if arguments.model else arguments.sets and arguments.bases):
        parser.error("give --model and --target, or --sets and --bases")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.only_report:
        run(arguments)
    files = sorted(arguments.out.glob("seed-*.json"))
    report([row for file in files for row in json.loads(file.read_text())], arguments.out, arguments.title)


def run(arguments: argparse.Namespace) -> None:
    """All seeds, each with a unit of its own as far as there are units."""
    found = base_models.read_sets(arguments.sets or arguments.target)
    folds = base_models.fold_of_units(np.asarray(found.table["unit"]))
    target = base_models.read_sets(arguments.target) if arguments.target else found
    names = np.asarray(target.table["unit"]).astype(str)
    if not arguments.target and arguments.fold is not None:
        names = np.where([folds[one] == arguments.fold for one in names.tolist()], names, "")
    if arguments.pool:
        names = np.where(names == "", "", "all")
    units = np.random.default_rng(5).permutation([one for one in np.unique(names) if one])
    for seed in arguments.seeds:
        unit = str(units[seed % len(units)])
        if arguments.model:
            base = load(arguments.model, engine="keras")
        else:
            fold = folds.get(unit, arguments.fold or 0)
            options = TrainOptions(architecture=arguments.architecture, epochs=12)
            base = base_models.base_of(arguments.bases, found, fold, folds, options)
        rows = np.flatnonzero(names == unit)
        run_seed(
            seed, base, target.take(rows), arguments.strategies, tuple(arguments.labels), arguments.out, arguments.apart
        )


if __name__ == "__main__":
    main()
