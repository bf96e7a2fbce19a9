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
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter, shift
from scipy.special import expit

from benchmarks.uncertainty.ensemble import FeatureSet, HeadOptions, train_heads
from benchmarks.uncertainty.laplace import fit_laplace
from models.calibration.calibrate import fit_calibration
from models.calibration.metrics import (
    auc,
    aurc,
    brier,
    ece,
    grouped_bootstrap,
    missed_and_fpr,
    nll,
    reliability,
    risk_coverage,
    threshold_at_missed,
)
from models.network.classifier import Classifier, flattened, trunk_features
from models.network.inputs import prepare
from models.network.sampling import draw_gates
from models.network.store import load, sample_logits, save, summarise
from models.synthesis.synthetic import detected
from models.training import examples as sets
from models.training.augment import AugmentOptions, augment
from models.training.dataset import assign_splits
from models.training.examples import TrainingSet, join, weights
from models.training.split import SPLITS
from models.training.train import TrainOptions, train
from nightsift.core.frames import Stamps
from nightsift.report.plots import COLOURS, STYLE

SAMPLES = 20
CHANGES = AugmentOptions(seeing=0, no_difference=0, no_template=0, no_science=0)
WAYS = ("one head", "dropout", "ensemble", "laplace")
LOOKS = dict(zip(WAYS, ("0.5", COLOURS[0], COLOURS[1], COLOURS[2]), strict=True))
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


def draw(
    out: Path,
    found: dict[str, Any],
    shown: dict[str, dict[str, np.ndarray]],
    labels: np.ndarray,
    steps: dict[int, float],
) -> None:
    """NLL by fault, risk-coverage, reliability, spread of right and wrong decisions, number of samples."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.6), layout="constrained", facecolor="white")
        axes = figure.subplots(2, 3)
        for place, name in enumerate(WAYS):
            x = np.arange(len(found)) + 0.18 * (place - 1.5)
            rows = [found[fault][name] for fault in found]
            value, ranges = np.array([r["nll"] for r in rows]), np.array([r["nll_range"] for r in rows]).T
            axes[0, 0].errorbar(
                x, value, [value - ranges[0], ranges[1] - value], fmt="o", ms=4, color=LOOKS[name], label=name
            )
        axes[0, 0].set_xticks(range(len(found)), [fault.replace(" ", "\n") for fault in found])
        axes[0, 0].set(
            title="new units, as they are and with planted faults", ylabel="negative log-likelihood (nat)", yscale="log"
        )
        axes[0, 0].legend()
        for axis, fault, title in ((axes[0, 1], "none", "new units"), (axes[0, 2], "defocus", "new units, defocused")):
            for name in WAYS:
                coverage, risk = risk_coverage(expit(shown[fault][name].astype(float)).mean(axis=0), labels)
                axis.plot(coverage, 100 * risk, color=LOOKS[name], label=name)
            axis.set(title=title, xlabel="part decided, surest first", ylabel="wrong decisions (%)", xlim=(0.5, 1))
            highest = max(line.get_ydata()[line.get_xdata() >= 0.5].max() for line in axis.lines)
            axis.set_ylim(-0.03 * highest, 1.1 * highest)
        axes[1, 0].plot([0, 1], [0, 1], color="0.8")
        for name in WAYS:
            rows = reliability(expit(shown["none"][name].astype(float)).mean(axis=0), labels, 8)
            axes[1, 0].plot([r["mean_score"] for r in rows], [r["real"] for r in rows], "o-", ms=3, color=LOOKS[name])
        axes[1, 0].set(title="reliability, new units", xlabel="score", ylabel="part that is real")
        for place, name in enumerate(WAYS[1:]):
            summary = summarise(shown["none"][name])
            wrong = (summary["score"] >= 0.5) != (labels == 1)
            for side, rows in ((-0.15, ~wrong), (0.15, wrong)):
                low, first, middle, last, high = np.percentile(summary["score_std"][rows], (5, 25, 50, 75, 95))
                axes[1, 1].plot([place + side] * 2, [low, high], color=LOOKS[name], lw=1)
                axes[1, 1].plot([place + side] * 2, [first, last], color=LOOKS[name], lw=7, solid_capstyle="butt")
                axes[1, 1].plot(place + side, middle, "o", ms=4, color="white", mec=LOOKS[name])
        axes[1, 1].set_xticks(range(3), WAYS[1:])
        axes[1, 1].set(title="spread of right (left) and wrong (right) decisions", ylabel="score_std")
        axes[1, 2].plot(list(steps), list(steps.values()), "o-", ms=4, color=LOOKS["dropout"])
        axes[1, 2].set(
            title="dropout: number of samples", xlabel="samples", ylabel="negative log-likelihood (nat)", xscale="log"
        )
        middle = float(np.median(list(steps.values())))
        axes[1, 2].set_ylim(0.9 * middle, 1.1 * middle)
        figure.savefig(out / "uncertainty.png", dpi=110)


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


def tell(found: dict[str, Any], against: dict[str, Any], maps: dict[str, Any]) -> None:
    """The table on stdout."""
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
    tell({**found, "calibrated": calibrated}, results["against_dropout"], maps)
    print("AUC of the spread for telling the fault:", json.dumps(alarm))
    print("NLL by samples:", {k: round(v, 4) for k, v in steps.items()}, "seconds:", seconds)
    draw(options.out, found, shown, new.labels, steps)


if __name__ == "__main__":
    main()
