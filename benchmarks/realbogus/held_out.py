"""Models side by side on units that none saw.

    python benchmarks/realbogus/held_out.py --sets FOLDER --models A B --out FOLDER

All stamp sets under ``--sets`` (those of ``new_units.py --kind usual``) are scored by each model as the pipeline does
it. Printed are the figures of all examples, of what the pipeline detected (without the residuals of galaxies in which
it detected nothing, which are easy), of the detections at or above the threshold of the shipped units (the examples of
careless reductions go down to S/N 4) and of those of sound reductions, each with the spread over fields; what is missed
of each kind of real example and accepted of each kind of bogus, at the threshold that misses 1 % and at the ones that
let 1e-2 and 1e-3 of the bogus through; and the differences to the first model, fields drawn again for both at once. A
rate of which the set holds fewer than ten bogus is marked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realbogus import base_models, figures_of_merit
from models.calibration.metrics import auc, threshold_at_fpr, threshold_at_missed
from models.network.store import load, predict
from models.training.examples import TrainingSet, detected

DRAWS = 200
RATES = (1e-2, 1e-3)
LEAST = 10  # bogus above a threshold, for its rate to be more than chance
THRESHOLD = 5.0  # S/N from which the shipped units take a detection for a candidate


def by_source(scores: np.ndarray, found: TrainingSet) -> dict[str, dict[str, float]]:
    """What each kind of example loses or lets through, and its AUC against all examples of the other class."""
    labels, source = found.labels.astype(int), np.asarray(found.table["source"]).astype(str)
    cuts = {"1 % missed": threshold_at_missed(scores, labels, 0.01)}
    cuts |= {f"FPR {rate:g}": threshold_at_fpr(scores, labels, rate) for rate in RATES}
    rows: dict[str, dict[str, float]] = {}
    for name in sorted(set(source.tolist())):
        here = source == name
        real = bool(labels[here].mean() > 0.5)
        against = here | (labels == int(not real))
        rows[name] = {"n": int(here.sum()), "real": float(real), "auc": auc(scores[against], labels[against])}
        for point, cut in cuts.items():
            accepted = float((scores[here] >= cut).mean())
            rows[name][point] = 1 - accepted if real else accepted
    return rows


def differences(
    scores: dict[str, np.ndarray], labels: np.ndarray, fields: np.ndarray, seed: int = 0
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Each figure of the other models less that of the first, with its range when fields are drawn for both at once."""
    first, *others = scores
    _, index = np.unique(fields, return_inverse=True)
    members = [np.flatnonzero(index == one) for one in range(index.max() + 1)]
    rng = np.random.default_rng(seed)
    plain = {name: figures_of_merit.figures(one, labels) for name, one in scores.items()}
    drawn: dict[str, dict[str, list[float]]] = {name: {key: [] for key in plain[first]} for name in others}
    for _ in range(DRAWS):
        rows = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
        start = figures_of_merit.figures(scores[first][rows], labels[rows])
        for name in others:
            for key, value in figures_of_merit.figures(scores[name][rows], labels[rows]).items():
                drawn[name][key].append(value - start[key])
    return {
        name: {
            key: (plain[name][key] - plain[first][key], *np.percentile(values, [2.5, 97.5]).tolist())
            for key, values in found.items()
        }
        for name, found in drawn.items()
    }


def tell(title: str, scores: dict[str, np.ndarray], found: TrainingSet) -> dict[str, Any]:
    """Tables of one choice of examples on stdout; their numbers."""
    labels, fields = found.labels.astype(int), np.asarray(found.table["field"]).astype(str)
    units, bogus = len(set(found.table["unit"].to_pylist())), int((labels == 0).sum())
    print(f"\n## {title}: {units} units, {len(set(fields))} fields, {int(labels.sum())} real, {bogus} bogus\n")
    rows = {name: figures_of_merit.with_spread(one, labels, fields, DRAWS) for name, one in scores.items()}
    print(figures_of_merit.table(rows, "model"))
    few = [f"{rate:g}" for rate in (1e-2, 1e-3, 1e-4) if rate * bogus < LEAST]
    if few:
        print(f"\nfewer than {LEAST} bogus stand behind an FPR of {', '.join(few)}")
    apart = differences(scores, labels, fields)
    print("\nless the first model (2.5 to 97.5 % over fields)\n")
    if apart:
        print(figures_of_merit.table(apart, "model"))
    sources = {name: by_source(one, found) for name, one in scores.items()}
    for name, kinds in sources.items():
        print(f"\n{name}: missed (real) or accepted (bogus)\n\n| source | n | AUC | 1 % missed | FPR 1e-2 | FPR 1e-3 |")
        print("|---" * 6 + "|")
        for kind, one in kinds.items():
            rates = " | ".join(f"{100 * one[point]:.2f} %" for point in ("1 % missed", "FPR 0.01", "FPR 0.001"))
            print(f"| {kind} ({'real' if one['real'] else 'bogus'}) | {one['n']} | {one['auc']:.4f} | {rates} |")
    return {"real": int(labels.sum()), "bogus": bogus, "figures": rows, "differences": apart, "sources": sources}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    parser.add_argument("--models", nargs="+", default=["base"], help="names or folders; the first is compared with")
    parser.add_argument("--only-test", action="store_true", help="only the part 'test' of sets that have parts")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = base_models.read_sets(arguments.sets)
    if arguments.only_test:
        found = found.part("test")
    scores = {
        one: np.asarray(predict(found.stamps, found.sign, load(one))["score"], dtype=float) for one in arguments.models
    }
    sound = np.asarray(found.table["reduction"]).astype(str) == "standard"
    was_detected = detected(found.table)
    snr = np.asarray(found.table["snr"])
    choices = {
        "everything": np.full(len(found), True), "detections alone": was_detected,
        f"detections at S/N {THRESHOLD:g} and above": was_detected & (snr >= THRESHOLD),
        f"detections at S/N {THRESHOLD + 1:g} and above": was_detected & (snr >= THRESHOLD + 1.0),
        "detections of sound reductions": was_detected & sound,
    }  # fmt: skip
    results = {
        name: tell(name, {model: one[rows] for model, one in scores.items()}, found.take(np.flatnonzero(rows)))
        for name, rows in choices.items()
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "held_out.json").write_text(json.dumps(results, indent=1, default=float))


if __name__ == "__main__":
    main()
