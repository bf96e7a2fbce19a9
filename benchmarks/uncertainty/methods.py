"""Ways to estimate the uncertainty of a score, side by side.

    python benchmarks/uncertainty/methods.py --sets FOLDER --out bench/uncertainty [--model FOLDER]

FOLDER holds one folder a unit with a labelled set. Units are dealt to training, validation and test, and a network is
trained on the first; or, with ``--model`` and ``--new``, heads learn from FOLDER, which that model was trained on, and
two units of ``--new`` are for validation, the others for the test. On the features of the trunk: the head as it is, MC
dropout, an ensemble of small heads (`ensemble`), last-layer Laplace (`laplace`). Compared on what the pipeline detected
in the test units as they are, after planted faults that none was trained on, and in units of another kind
(``--other``); ranges are from drawing fields again. Writes ``uncertainty.json`` and ``uncertainty.png``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, shift
from scipy.special import expit

from benchmarks.uncertainty.ensemble import FeatureSet, HeadOptions, train_heads
from benchmarks.uncertainty.laplace import fit_laplace
from benchmarks.uncertainty.methods_figure import WAYS, draw
from models.calibration.calibrate import fit_calibration
from models.calibration.metrics import (
    auc,
    aurc,
    brier,
    ece,
    grouped_bootstrap,
    missed_and_fpr,
    nll,
    threshold_at_missed,
)
from models.network.classifier import Classifier, flattened, sample_logits, summarise, trunk_features
from models.network.inputs import prepare
from models.network.sampling import draw_gates
from models.network.store import load, save
from models.training import examples as sets
from models.training.augment import AugmentOptions, augment
from models.training.dataset import assign_splits
from models.training.examples import TrainingSet, detected, join, weights
from models.training.split import SPLITS
from models.training.train import TrainOptions, train
from nightsift.core.frames import Stamps

SAMPLES = 20
CHANGES = AugmentOptions(seeing=0, no_difference=0, no_template=0, no_science=0)
FAULTS = ("none", "defocus", "misaligned", "flux scale")
OTHER = "another kind"
FOR_VALIDATION = 2  # of the new units


def read_some(folder: Path, most: int, seed: int) -> TrainingSet:
    """What the pipeline detected, at most so many of each unit, drawn at random."""
    parts = []
    for path in sorted(folder.glob("*/examples.parquet")):
        one = sets.read(path.parent)
        rows = np.random.default_rng([seed, len(parts)]).permutation(np.flatnonzero(detected(one.table)))[:most]
        parts.append(one.take(np.sort(rows)))
    return join(parts)


def parts_of(options: argparse.Namespace) -> dict[str, TrainingSet]:
    """Training, validation, test, and units of another kind where they are given."""
    known = read_some(options.sets, options.most, options.seed)
    if options.new is None:
        known = assign_splits(known, seed=options.seed)
        parts = {name: known.part(name) for name in SPLITS}
    else:
        new = read_some(options.new, options.most, options.seed)
        unit = np.array(new.table["unit"].to_pylist())
        for_validation = np.random.default_rng(options.seed).permutation(np.unique(unit))[:FOR_VALIDATION]
        inside = np.isin(unit, for_validation)
        parts = {
            "train": known, "validation": new.take(np.flatnonzero(inside)), "test": new.take(np.flatnonzero(~inside))
        }  # fmt: skip
    if options.other is not None:
        parts[OTHER] = read_some(options.other, options.most, options.seed)
    return parts


def fields_of(part: TrainingSet) -> np.ndarray:
    """Field and night of each example."""
    names = (part.table[name].to_pylist() for name in ("field", "night"))
    return np.array([f"{field}/{night}" for field, night in zip(*names, strict=True)])


def network(options: argparse.Namespace, parts: dict[str, TrainingSet]) -> Classifier:
    """The model named by --model, or one trained on the training part and stored beside the results."""
    if options.model:
        return load(options.model)
    folder = options.out / "network"
    if not (folder / "model.keras").is_file():
        made = train(
            join([parts[name] for name in SPLITS]),
            TrainOptions(epochs=14, patience=4, seed=options.seed),
            lambda *line: print(*line, flush=True),
        )
        golden = parts["test"].take(np.arange(16))
        save(
            folder, made.model, made.options.recipe, card={"note": "benchmark"}, golden=golden.stamps, sign=golden.sign
        )
    return load(folder)


def with_fault(examples: TrainingSet, fault: str) -> TrainingSet:
    """The same candidates as another unit would deliver them: what stands in the difference changes with the planes."""
    data = np.where(examples.stamps.mask[..., None], 0, np.nan_to_num(examples.stamps.data)).astype(np.float32)
    science, template = data[..., 0].copy(), data[..., 1].copy()
    if fault == "defocus":
        data[..., 0] = gaussian_filter(science, (0, 1.2, 1.2))
    elif fault == "misaligned":
        data[..., 1] = shift(template, (0, 0.4, 0.3), order=1, mode="nearest")
    elif fault == "flux scale":
        data[..., 1] = 0.9 * template
    data[..., 2] += (data[..., 0] - science) - (data[..., 1] - template)
    return TrainingSet(Stamps(data, examples.stamps.mask), examples.table, examples.card)


def learn_heads(
    model: Classifier, examples: dict[str, TrainingSet], many: int, seed: int
) -> tuple[Any, Any, dict[str, float]]:
    """Heads and the posterior of the first one, with the seconds that they cost."""
    rng, parts = np.random.default_rng(seed), {}
    for name in ("train", "validation"):
        part = examples[name]
        rows = [flattened(trunk_features(part.stamps, part.sign, model))]
        data, mask = prepare(part.stamps, part.sign, model.recipe)
        views = range(many if name == "train" else 0)
        rows += [flattened(model.trunk(*augment(data, mask, CHANGES, rng=rng))) for _ in views]
        unit = np.array(part.table["unit"].to_pylist())
        parts[name] = FeatureSet(
            np.concatenate(rows), *(np.tile(one, len(rows)) for one in (part.labels, weights(part.labels), unit))
        )
    start = time.perf_counter()
    heads = train_heads(parts["train"], parts["validation"], HeadOptions(), seed)
    middle = time.perf_counter()
    plain = len(parts["train"].labels) // (many + 1)  # views are not new evidence
    first = FeatureSet(*(getattr(parts["train"], name)[:plain] for name in ("features", "labels", "weights", "groups")))
    posterior = fit_laplace(heads, first, parts["validation"], samples=SAMPLES)
    return heads, posterior, {"ensemble": middle - start, "laplace": time.perf_counter() - middle}


def logits_of(model: Classifier, heads: Any, posterior: Any, part: TrainingSet) -> dict[str, np.ndarray]:
    """Sampled logits (samples, n) in each way."""
    features = flattened(trunk_features(part.stamps, part.sign, model))
    keep = [np.ones_like(gate) for gate in draw_gates(model.gates, 1, 0)]
    data, mask = prepare(part.stamps, part.sign, model.recipe)
    return {
        "one head": model.sample(data, mask, keep),
        "dropout": sample_logits(part.stamps, part.sign, model, samples=SAMPLES, seed=0),
        "ensemble": heads.logits(features),
        "laplace": posterior.logits(heads.hidden(features), SAMPLES),
    }


def measure(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Every figure of one way on one set; ranges of the proper scores over fields drawn again."""
    summary = summarise(logits)
    p, spread = summary["score"].astype(np.float64), summary["score_std"]
    threshold = threshold_at_missed(p, labels, 0.01)
    area, excess = aurc(p, labels)
    return {
        "nll": nll(p, labels), "nll_range": grouped_bootstrap(lambda r: nll(p[r], labels[r]), groups),
        "brier": brier(p, labels), "ece": ece(p, labels, equal_mass=True), "auc": auc(p, labels),
        "fpr_at_1_percent_missed": missed_and_fpr(p, labels, threshold)[1],
        "fpr_range": grouped_bootstrap(
            lambda r: missed_and_fpr(p[r], labels[r], threshold_at_missed(p[r], labels[r], 0.01))[1], groups
        ),
        "aurc": area, "excess_aurc": excess, "aurc_by_spread": aurc(p, labels, -spread)[0],
        "aurc_by_confidence": aurc(p, labels, summary["confidence"])[0], "mean_spread": float(spread.mean()),
        "mean_confidence": float(summary["confidence"].mean()),
    }  # fmt: skip


def paired(logits: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """NLL of each way less that of dropout on the same candidates: the difference and its range over fields."""
    loss = {name: expit(z.astype(float)).mean(axis=0) for name, z in logits.items()}

    def excess(name: str, rows: np.ndarray) -> float:
        return nll(loss[name][rows], labels[rows]) - nll(loss["dropout"][rows], labels[rows])

    every = np.arange(len(labels))
    return {
        name: {"excess": excess(name, every), "range": grouped_bootstrap(lambda r, name=name: excess(name, r), groups)}
        for name in logits
    }


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="a model that learnt from --sets and from nothing of --new")
    parser.add_argument("--new", type=Path, help="units that the model did not see")
    parser.add_argument("--other", type=Path, help="units of another kind")
    parser.add_argument("--most", type=int, default=3000, help="examples of a unit, at most")
    parser.add_argument("--views", type=int, default=3, help="augmented views of each stamp that heads learn from")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    if options.new is not None and not options.model:
        parser.error("--new needs --model: a model that learnt from --sets")
    return options


def print_table(found: dict[str, Any], against: dict[str, Any], maps: dict[str, Any]) -> None:
    """Print the figures of each way by fault."""
    print(
        f"{'fault':14s}{'way':10s}"
        + "".join(f"{name:>8s}" for name in ("NLL", "Brier", "ECE", "AUC", "FPR@1%", "AURC", "conf."))
        + "   NLL - dropout"
    )
    for fault, by in found.items():
        for name, row in by.items():
            one = against.get(fault, {}).get(name)
            less = (
                f"{one['excess']:+.4f} [{one['range'][0]:+.4f}, {one['range'][1]:+.4f}]" if one else maps[name].method
            )
            print(f"{fault:14s}{name:10s}{row['nll']:8.4f}{row['brier']:8.4f}{row['ece']:8.4f}{row['auc']:8.4f}"
                  f"{row['fpr_at_1_percent_missed']:8.4f}{row['aurc']:8.5f}"
                  f"{row['mean_confidence']:8.3f}   {less}")  # fmt: skip


def main() -> None:
    """Train or load, learn heads, compare, draw."""
    options = asked()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = parts_of(options)
    model = network(options, parts)
    heads, posterior, seconds = learn_heads(model, parts, options.views, options.seed)
    known, new = parts["validation"], parts["test"]
    known_logits = logits_of(model, heads, posterior, known)
    groups, fields = fields_of(known), fields_of(new)
    maps = {name: fit_calibration(z, known.labels, groups) for name, z in known_logits.items()}
    shown = {fault: logits_of(model, heads, posterior, with_fault(new, fault)) for fault in FAULTS}
    found: dict[str, Any] = {
        fault: {name: measure(z, new.labels, fields) for name, z in by.items()} for fault, by in shown.items()
    }
    if OTHER in parts:
        strange = parts[OTHER]
        shown[OTHER] = logits_of(model, heads, posterior, strange)
        found[OTHER] = {name: measure(z, strange.labels, fields_of(strange)) for name, z in shown[OTHER].items()}
    calibrated = {name: measure(maps[name](z), new.labels, fields) for name, z in shown["none"].items()}
    alarm = {  # does the spread tell a faulty unit from a sound one
        fault: {name: auc(np.concatenate([summarise(shown[f][name])["score_std"] for f in ("none", fault)]),
                          np.repeat([0, 1], [len(new), shown[fault][name].shape[1]])) for name in WAYS[1:]}
        for fault in list(shown)[1:]
    }  # fmt: skip
    many = sample_logits(new.stamps, new.sign, model, samples=100, seed=1)
    steps = {k: nll(expit(many[:k].astype(float)).mean(axis=0), new.labels) for k in (1, 2, 3, 5, 10, 20, 50, 100)}
    results = {
        "parts": {name: np.bincount(one.labels, minlength=2).tolist() for name, one in parts.items()},
        "units": {name: sorted(set(one.table["unit"].to_pylist())) for name, one in parts.items()},
        "seconds": seconds, "by_fault": found,
        "laplace": {"precision": posterior.precision, "factor": posterior.factor},
        "calibrated": {name: {"method": maps[name].method, **row} for name, row in calibrated.items()},
        "against_dropout": {
            fault: paired(by, part.labels, fields_of(part))
            for fault, by in shown.items() for part in [parts[OTHER] if fault == OTHER else new]
        },
        "auc_of_spread_for_fault": alarm, "nll_by_samples": steps,
    }  # fmt: skip
    (options.out / "uncertainty.json").write_text(json.dumps(results, indent=2) + "\n")
    print_table({**found, "calibrated": calibrated}, results["against_dropout"], maps)
    print("AUC of the spread for telling the fault:", json.dumps(alarm))
    print("NLL by samples:", {k: round(v, 4) for k, v in steps.items()}, "seconds:", seconds)
    draw(options.out, found, shown, new.labels, steps)


if __name__ == "__main__":
    main()
