"""Classes of real candidates on real stamps.

    python benchmarks/transfer/classes.py --sets FOLDER --data FOLDER --out bench/classes

Classes of ZTF alerts come from minor planets (mover), catalogued variable stars (variable), spectra, and, where nothing
better is there, a brightening 0.7 to 10 arcsec off a galaxy that nothing else explains (transient; a pseudo label by
context, not by an image classifier). A head learns them from few examples a class (`benchmarks.transfer.class_head`),
from nothing or
as deviations from a head learnt on simulated units; folds share no object and no exposure. Then the four classes with
bogus: the hierarchy against a flat softmax of four, and what each does to the calibration of real/bogus. Writes
``classes.json`` and ``classes.png``.

What it cannot tell: nearly all movers and variables are of one night in 2018, most transients of other years, so that a
head may tell epochs for classes; ``confound`` gives what is known about that. Hostless transients and minor planets
look alike.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.special import expit, logit

from benchmarks.transfer.class_head import BOGUS, CLASSES, ClassHead, fit_classes, hierarchical
from benchmarks.transfer.classes_figure import draw
from benchmarks.transfer.few_labels import fit_correction
from benchmarks.transfer.real_stamps import RealSet, read_btsbot, read_ztf
from models.calibration.metrics import brier, ece, nll
from models.network.classifier import Classifier, pooled, sample_logits, trunk_features
from models.network.store import load
from models.training import examples as sets
from models.training.examples import join
from models.training.split import groups_of

FOLDS, DRAWS = 5, 10
EACH = (3, 5, 10, 20, 30)
KINDS = {
    "supernova": "transient",
    "nuclear": "transient",
    "hostless": "transient",
    "variable": "variable",
    "asteroid": "mover",
}
ALL = (*CLASSES, BOGUS)


def embedding(features: np.ndarray) -> np.ndarray:
    """Means of the feature maps and their values at the centre, where the candidate stands."""
    middle = features.shape[1] // 2
    return np.concatenate([pooled(features), features[:, middle, middle]], axis=1)


def source_head(folder: Path, model: Classifier, seed: int, most: int = 600) -> ClassHead:
    """A head learnt on simulated units, classes in balance."""
    found = join([sets.read(path.parent) for path in sorted(folder.glob("*/examples.parquet"))])
    kinds = np.array([KINDS.get(one, "") for one in found.table["kind"].to_pylist()], dtype=object)
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero((kinds == name) & (found.labels == 1)))[:most] for name in CLASSES]
    )
    some = found.take(rows)
    units = np.array(some.table["unit"].to_pylist())
    return fit_classes(embedding(trunk_features(some.stamps, some.sign, model)), kinds[rows], units, seed=seed)


def classes_of(ztf: RealSet, index: Any) -> np.ndarray:
    """Class of each alert, bogus included; None where nothing says so."""
    class_labels = ztf.column("class").copy()
    galaxy, distance = index["sgscore1"].to_numpy(), index["distpsnr1"].to_numpy()
    beside = (galaxy >= 0) & (galaxy < 0.3) & (distance > 0.7) & (distance < 10)
    class_labels[
        beside & (ztf.sign > 0) & (ztf.column("label") == 1) & np.array([one is None for one in class_labels])
    ] = "transient"
    return class_labels


def folds_of(ztf: RealSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fold and group of each alert: objects and exposures whole."""
    group = groups_of({name: ztf.column(name) for name in ("object_id", "exposure_id")})
    return np.random.default_rng(seed).permutation(group.max() + 1)[group] % FOLDS, group


def held_out(
    x: np.ndarray, class_labels: np.ndarray, fold: np.ndarray, group: np.ndarray, source: ClassHead | None
) -> np.ndarray:
    """P(class | real) of every alert, those without a class included, by heads that did not see its fold."""
    known = np.isin(class_labels, CLASSES)
    out = np.empty((len(class_labels), len(CLASSES)))
    for k in range(FOLDS):
        learn = known & (fold != k)
        out[fold == k] = fit_classes(x[learn], class_labels[learn], group[learn], source).conditional(x[fold == k])
    return out


def figures(p: np.ndarray, class_labels: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Balanced accuracy, confusion, and the likelihood with every class weighing the same."""
    code = np.array([names.index(one) for one in class_labels])
    guess = p.argmax(axis=1)
    confusion = np.array([np.bincount(guess[code == k], minlength=len(names)) for k in range(len(names))])
    loss = -np.log(np.maximum(p[np.arange(len(code)), code], 1e-7))
    return {
        "balanced_accuracy": float(np.mean([(guess[code == k] == k).mean() for k in range(len(names))])),
        "accuracy": float((guess == code).mean()), "confusion": confusion.tolist(),
        "counts": confusion.sum(axis=1).tolist(),
        "balanced_nll": float(np.mean([loss[code == k].mean() for k in range(len(names))])),
    }  # fmt: skip


def learning_curve(
    x: np.ndarray, class_labels: np.ndarray, group: np.ndarray, source: ClassHead, seed: int
) -> dict[str, Any]:
    """Balanced accuracy on the alerts not learnt from, against examples a class, with and without transfer."""
    known = np.flatnonzero(np.isin(class_labels, CLASSES))
    zero = figures(source.conditional(x[known]), class_labels[known], CLASSES)
    out: dict[str, Any] = {"each": list(EACH), "source_alone": zero, "from_nothing": [], "by_transfer": []}
    for each in EACH:
        rows: dict[str, list[float]] = {"from_nothing": [], "by_transfer": []}
        for turn in range(DRAWS):
            rng = np.random.default_rng([seed, each, turn])
            learn = np.concatenate([rng.permutation(known[class_labels[known] == name])[:each] for name in CLASSES])
            rest = known[~np.isin(group[known], group[learn])]
            if min(np.sum(class_labels[rest] == name) for name in CLASSES) < 3:
                continue
            for name, start in (("from_nothing", None), ("by_transfer", source)):
                head = fit_classes(x[learn], class_labels[learn], group[learn], start, seed=turn)
                rows[name].append(figures(head.conditional(x[rest]), class_labels[rest], CLASSES)["balanced_accuracy"])
        for name, values in rows.items():
            out[name].append([float(np.mean(values)), float(np.std(values))] if values else [float("nan")] * 2)
    return out


def four_classes(
    ztf: RealSet,
    x: np.ndarray,
    class_labels: np.ndarray,
    fold: np.ndarray,
    group: np.ndarray,
    conditional: np.ndarray,
    model: Classifier,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The hierarchy on a corrected score against a flat softmax: four classes, and real/bogus of each."""
    raw, label = sample_logits(ztf.stamps, ztf.sign, model, samples=20, seed=0), ztf.column("label")
    real, flat = np.empty(len(ztf)), np.empty((len(ztf), 4))
    z = logit(np.clip(expit(raw.astype(float)).mean(axis=0), 1e-9, 1 - 1e-9))[:, None]
    with_score = np.concatenate([x, z], axis=1)
    for k in range(FOLDS):
        learn, held = np.flatnonzero((fold != k) & np.isfinite(label)), fold == k
        made = fit_correction(z[learn, 0], x[learn], label[learn], unlabelled=x)
        real[held] = expit(made.logits(z[held, 0], x[held]))
        four = np.flatnonzero((fold != k) & np.isin(class_labels, ALL))
        head = fit_classes(with_score[four], class_labels[four], group[four], names=ALL)
        head = head.with_prevalence({name: float((class_labels[four] == name).mean()) for name in ALL})
        flat[held] = head.conditional(with_score[held])
    ways = {"hierarchical": hierarchical(real, conditional), "flat": flat}
    known, both = np.isin(class_labels, ALL), np.isfinite(label)
    out = {}
    for name, p in ways.items():
        score = np.clip(p[:, :3].sum(axis=1), 0, 1)
        y = label[both].astype(int)
        rules = {
            "ece": ece(score[both], y, equal_mass=True),
            "nll": nll(score[both], y),
            "brier": brier(score[both], y),
        }
        out[name] = {**figures(p[known], class_labels[known], ALL), "real_bogus": rules}
    return out, ways


def confound(ztf: RealSet, class_labels: np.ndarray, conditional: np.ndarray) -> dict[str, Any]:
    """How classes and epochs hang together, and what the head says of the few that break the rule."""
    big = ztf.column("night") == max(set(ztf.column("night")), key=list(ztf.column("night")).count)
    guess = np.array(CLASSES, dtype=object)[conditional.argmax(axis=1)]
    rows = {}
    for name in CLASSES:
        for where, mask in (("in_the_big_night", big), ("elsewhere", ~big)):
            some = (class_labels == name) & mask
            rows[f"{name}_{where}"] = {
                "n": int(some.sum()),
                "right": float((guess[some] == name).mean()) if some.any() else None,
            }
    return rows


def main() -> None:
    """Learn on simulated units, carry over, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="base")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stars = pq.read_table(options.data / "catalogs" / "vsx.parquet", columns=["RAJ2000", "DEJ2000"])
    folder = options.data / "stamps" / "ztf"
    ztf = read_ztf(folder, np.stack([stars[name].to_numpy() for name in ("RAJ2000", "DEJ2000")], axis=1))
    model = load(options.model)
    class_labels = classes_of(ztf, pq.read_table(folder / "index.parquet"))
    x = embedding(trunk_features(ztf.stamps, ztf.sign, model))
    source = source_head(options.sets, model, options.seed)
    fold, group = folds_of(ztf, options.seed)
    known = np.isin(class_labels, CLASSES)
    conditional = held_out(x, class_labels, fold, group, source)
    three = figures(conditional[known], class_labels[known], CLASSES)
    alone = figures(held_out(x, class_labels, fold, group, None)[known], class_labels[known], CLASSES)
    four, ways = four_classes(ztf, x, class_labels, fold, group, conditional, model)
    curve = learning_curve(x, class_labels, group, source, options.seed)
    bts = read_btsbot(options.data / "stamps" / "btsbot_example")
    every = fit_classes(x[known], class_labels[known], group[known], source)
    of_bts = every.conditional(embedding(trunk_features(bts.stamps, bts.sign, model)))
    people = {}
    for name in np.unique(bts.column("object_id")):
        guess = of_bts[bts.column("object_id") == name].argmax(axis=1)
        people[str(name)] = dict(zip(CLASSES, np.bincount(guess, minlength=3).tolist(), strict=True))
    found = {
        "classes": {name: int((class_labels == name).sum()) for name in ALL},
        "source": {"held_out": source.held_out, "counts": source.counts}, "three": three, "three_from_nothing": alone,
        "four": four, "learning_curve": curve, "confound": confound(ztf, class_labels, conditional),
        "btsbot_objects": people,
    }  # fmt: skip
    (options.out / "classes.json").write_text(json.dumps(found, indent=2) + "\n")
    print("classes", found["classes"])
    shown = {
        "3, by transfer": three, "3, from nothing": alone, "3, simulated head": curve["source_alone"],
        "3 + bogus, hierarchical": four["hierarchical"], "3 + bogus, flat": four["flat"],
    }  # fmt: skip
    for name, rows in shown.items():
        right = f"balanced {rows['balanced_accuracy']:.3f} all {rows['accuracy']:.3f} NLL {rows['balanced_nll']:.3f}"
        print(f"{name:24s} {right} {rows['confusion']} {rows.get('real_bogus', '')}")
    for name in ("from_nothing", "by_transfer"):
        print(f"{name:14s}", {each: tuple(np.round(v, 3).tolist()) for each, v in zip(EACH, curve[name], strict=True)})
    print("confound", found["confound"], "\nBTSbot", people)
    draw(options.out / "classes.png", curve, three, four, class_labels, ways)


if __name__ == "__main__":
    main()
