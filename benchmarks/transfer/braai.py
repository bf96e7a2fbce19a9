"""Against braai on real stamps.

    python benchmarks/transfer/braai.py --data FOLDER --out bench/braai [--model base] [--rounds 6]

FOLDER holds ``stamps/`` (ZTF, Gattini-IR, ATLAS and BTSbot's example, see `benchmarks.transfer.real_stamps`) and
``catalogs/vsx.parquet``. The ZTF alerts are dealt into folds so that no object and no exposure stands on two sides
(``--by night``: no night; but one night holds 499 of 656 alerts, so that for those only the 157 others can be learnt
from); every alert is scored by a model that saw neither. Three ways to use our model: as it is, with a correction
learnt from the other folds (`benchmarks.transfer.few_labels`), and with all weights fine-tuned on them. braai d6_m9's
own scores are of the same rows.

How to read it: most bogus of this set are what braai and the survey's forests call bogus, so that braai cannot be
wrong about them. Labels that no image classifier made are minor planets, spectra and catalogued variables on the one
side, and on the other candidates that fade where the template holds nothing (`benchmarks.transfer.real_stamps`); on
these alone the comparison is fair, and they are few. Writes ``braai.json`` and ``braai.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.special import expit, logit

from benchmarks.transfer.braai_figure import draw, recall_at
from benchmarks.transfer.few_labels import fit_correction
from benchmarks.transfer.real_stamps import RealSet, read_atlas, read_btsbot, read_pgir, read_ztf
from models.calibration.calibrate import mean_probability
from models.calibration.metrics import auc, brier, ece, grouped_bootstrap, nll
from models.network.classifier import pooled, sample_logits, trunk_features
from models.network.inputs import prepare
from models.network.store import load
from models.training.planes import planes_of
from models.training.split import groups_of
from models.transfer.transfer import fit
from models.transfer.tuner import TuneOptions, Tuner

FOLDS, SAMPLES, DRAWS = 5, 20, 100
POSITIVES = {"minor planets": "ephemeris", "variables": "catalogue", "spectra": "spectrum"}
ACCEPTED = (0, 1, 2, 5, 10, 20)
WAYS = ("zero-shot", "corrected", "fine-tuned", "braai")


def folds_of(ztf: RealSet, by: str, seed: int) -> np.ndarray:
    """Fold of each alert; objects and exposures (or nights) whole, folds of like size."""
    group = groups_of({name: ztf.column(name) for name in ("object_id", by)})
    size = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(size))
    fold, filled = np.empty(len(size), int), np.zeros(FOLDS)
    for one in order[np.argsort(-size[order], kind="stable")]:
        fold[one] = filled.argmin()
        filled[fold[one]] += size[one]
    return fold[group]


def fine_tuned(tuner: Tuner, known: RealSet, held: RealSet) -> np.ndarray:
    """Scores of stamps by the model with all its weights tuned on others, at the part of those that is real."""
    examples, _ = known.labelled()
    fit(tuner, tuner.prepare(examples), tuner.rounds)
    data, mask = prepare(held.stamps, held.sign, tuner.recipe)
    logits = tuner.logits(planes_of(data, mask, tuner.recipe))  # of a tuning with as many real as bogus
    return mean_probability(logits + float(logit(examples.labels.mean())))


def scores_of_ztf(
    ztf: RealSet, model: str, by: str, rounds: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Score of every alert in each way, none by a model that saw its object or night; calibrated on the other folds."""
    fold, label = folds_of(ztf, by, seed), ztf.column("label")
    classifier = load(model)
    raw = sample_logits(ztf.stamps, ztf.sign, classifier, samples=SAMPLES, seed=0)
    embedding = pooled(trunk_features(ztf.stamps, ztf.sign, classifier))
    mean = logit(np.clip(expit(raw.astype(float)).mean(axis=0), 1e-9, 1 - 1e-9))
    out = {name: np.empty(len(ztf)) for name in WAYS[:3]}
    tuner = Tuner(load(model, engine="keras"), "full", TuneOptions(rounds=rounds, seed=seed))
    for k in range(FOLDS):
        held, known = np.flatnonzero(fold == k), np.flatnonzero((fold != k) & np.isfinite(label))
        out["zero-shot"][held] = mean_probability(raw[:, held])
        correction = fit_correction(mean[known], embedding[known], label[known], unlabelled=embedding)
        out["corrected"][held] = expit(correction.logits(mean[held], embedding[held]))
        out["fine-tuned"][held] = fine_tuned(tuner, ztf.take(known), ztf.take(held))
    return {**out, "braai": ztf.column("peer")}, fold


def compare(ztf: RealSet, scores: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row a way: recall of each kind of positive at the same numbers of accepted bogus, and proper scores."""
    label, evidence = ztf.column("label"), ztf.column("evidence")
    known, bogus = np.flatnonzero(np.isfinite(label)), np.flatnonzero(label == 0)
    exposure = ztf.column("exposure_id")
    rows = []
    for name, score in scores.items():
        row: dict[str, Any] = {"way": name, "auc": auc(score[known], label[known])}
        for title, kind in POSITIVES.items():
            real = np.flatnonzero(evidence == kind)
            row[title] = {str(k): recall_at(score, real, bogus, k) for k in ACCEPTED}
            both = np.concatenate([real, bogus])

            def area(rows: np.ndarray, both: np.ndarray = both, score: np.ndarray = score) -> float:
                return auc(score[both[rows]], label[both[rows]])

            row[f"auc {title}"] = (area(np.arange(len(both))), *grouped_bootstrap(area, exposure[both]))
        independent = np.flatnonzero(np.isin(evidence, list(POSITIVES.values())))
        open_cases = np.flatnonzero(~np.isfinite(label))
        for total in (0.25, 0.5):  # the same workload of alerts nobody can vouch for
            row[f"recall at {total:.0%} of the rest"] = recall_at(
                score, independent, np.concatenate([open_cases, bogus]), int(total * (len(open_cases) + len(bogus)))
            )
        never = np.flatnonzero(evidence == "physics")
        both = np.concatenate([independent, never])
        row["auc independent labels only"] = (
            area(np.arange(len(both)), both),
            *grouped_bootstrap(
                lambda rows, both=both, score=score: auc(score[both[rows]], label[both[rows]]), exposure[both]
            ),
        )
        at = np.quantile(score[independent], 0.05)
        row["impossible accepted at 95% recall"] = [int((score[never] > at).sum()), len(never)]
        row |= {"nll": nll(score[known], label[known].astype(int)), "brier": brier(score[known], label[known])}
        row["ece"] = ece(score[known], label[known], equal_mass=True)
        rows.append(row)
    return rows


def channels(ztf: RealSet, score: np.ndarray, draws: int = 500) -> dict[str, float]:
    """Do readout channels differ: spread of their mean residual against that of channels dealt at random."""
    label = ztf.column("label")
    known = np.flatnonzero(np.isfinite(label))
    residual = (label[known] - score[known]) / np.sqrt(np.maximum(score[known] * (1 - score[known]), 0.01))
    _, unit = np.unique(ztf.column("unit")[known].astype(str), return_inverse=True)
    count = np.bincount(unit)

    def spread(code: np.ndarray) -> float:
        return float((np.bincount(code, residual) ** 2 / count).sum())

    rng = np.random.default_rng(0)
    found, chance = spread(unit), [spread(rng.permutation(unit)) for _ in range(draws)]
    return {
        "channels": len(count),
        "ratio": found / float(np.mean(chance)),
        "p": float(np.mean(np.array(chance) >= found)),
    }


def others(sets: dict[str, RealSet], model: str, labels: int, seed: int) -> list[dict[str, Any]]:
    """Zero-shot, and after a few labels drawn again and again, on the stamps that were not drawn."""
    classifier = load(model)
    rows = []
    for name, one in sets.items():
        label = one.column("label")
        known = np.flatnonzero(np.isfinite(label))
        y = label[known].astype(int)
        raw = sample_logits(one.stamps, one.sign, classifier, samples=SAMPLES, seed=0)
        mean = logit(np.clip(expit(raw.astype(float)).mean(axis=0), 1e-9, 1 - 1e-9))
        embedding = pooled(trunk_features(one.stamps, one.sign, classifier))
        before, after, right = [], [], []
        rng = np.random.default_rng(seed)
        for _ in range(DRAWS if len(np.unique(y)) == 2 else 0):
            drawn = rng.permutation(len(known))
            learn, rest = known[drawn[:labels]], known[drawn[labels:]]
            if len(np.unique(label[learn])) < 2 or len(np.unique(label[rest])) < 2:
                continue
            made = fit_correction(mean[learn], embedding[learn], label[learn], unlabelled=embedding)
            new = made.logits(mean[rest], embedding[rest])
            before.append(auc(mean[rest], label[rest]))
            after.append(auc(new, label[rest]))
            right.append((((mean[rest] > 0) == label[rest]).mean(), ((new > 0) == label[rest]).mean()))
        p = expit(raw.astype(float)).mean(axis=0)[known]
        rows.append(
            {
                "set": name,
                "real": int(y.sum()),
                "bogus": int((1 - y).sum()),
                "median_score_real": float(np.median(p[y == 1])),
                "median_score_bogus": float(np.median(p[y == 0])) if (y == 0).any() else None,
                "accepted_real": float((p[y == 1] >= 0.5).mean()),
                "auc": auc(p, y) if len(np.unique(y)) == 2 else None,
                "draws": len(before),
                "auc_rest_before": _mean(before),
                "auc_rest_after": _mean(after),
                "right_before": _mean([a for a, _ in right]),
                "right_after": _mean([b for _, b in right]),
            }
        )
    return rows


def _mean(values: list[float]) -> tuple[float, float] | None:
    return (float(np.mean(values)), float(np.std(values))) if values else None


def main() -> None:
    """Read, score, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="base")
    parser.add_argument("--rounds", type=int, default=6, help="of fine-tuning, fixed before any score was seen")
    parser.add_argument("--by", default="exposure_id", choices=("exposure_id", "night"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stars = pq.read_table(options.data / "catalogs" / "vsx.parquet", columns=["RAJ2000", "DEJ2000"])
    stamps = options.data / "stamps"
    ztf = read_ztf(stamps / "ztf", np.stack([stars[name].to_numpy() for name in ("RAJ2000", "DEJ2000")], axis=1))
    sets = {
        "PGIR": read_pgir(stamps / "pgir"),
        "ATLAS": read_atlas(stamps / "atlas"),
        "BTSbot": read_btsbot(stamps / "btsbot_example"),
    }
    scores, fold = scores_of_ztf(ztf, options.model, options.by, options.rounds, options.seed)
    rows, other = compare(ztf, scores), others(sets, options.model, 10, options.seed)
    units = {name: channels(ztf, score) for name, score in scores.items()}
    results = {
        "model": load(options.model).model_id,
        "folds": np.bincount(fold).tolist(),
        "ways": rows,
        "other_surveys": other,
        "channels": units,
    }
    (options.out / "braai.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"{'way':12s} {'AUC':>7s} " + " ".join(f"{name:>30s}" for name in POSITIVES) + "   NLL    Brier  ECE")
    for row in rows:
        parts = " ".join(f"{' '.join(f'{row[name][str(k)]:.2f}' for k in (0, 1, 2, 5, 10)):>30s}" for name in POSITIVES)
        print(f"{row['way']:12s} {row['auc']:7.4f} {parts}   {row['nll']:.3f}  {row['brier']:.3f}  {row['ece']:.3f}")
    print(f"recall at {', '.join(map(str, (0, 1, 2, 5, 10)))} accepted bogus")
    for row in rows:
        print(row["way"], {k: v for k, v in row.items() if k.startswith(("auc ", "recall", "impossible"))})
    for row in other:
        print(row)
    print(units)
    draw(options.out, ztf, scores, rows, other)


if __name__ == "__main__":
    main()
