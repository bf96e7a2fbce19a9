"""Which labels help a new unit most.

    python benchmarks/transfer/active_learning.py --sets FOLDER --out bench/active [--data FOLDER] [--units 12]

A person labels some candidates of a unit that the model never saw, ten at a time, chosen by each rule of
`models.transfer.active`; a correction of the network (`few_labels`) is learnt from them and measured on other exposures
of the unit. The mean over units and seeds is shown with its standard error; beside it, how the hundred candidates asked
for differ from the pool, and what that does to a rate that is naively measured on them. With ``--data`` the same on the
labelled ZTF alerts (`real_stamps`), channels together. Writes ``active.json`` and ``active.png``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from scipy.special import expit, logit

from benchmarks.transfer.few_labels import fit_correction
from benchmarks.transfer.real_stamps import read_ztf
from models.calibration.metrics import missed_and_fpr, nll, threshold_at_missed
from models.network.classifier import pooled, sample_logits, trunk_features
from models.network.store import load
from models.training import examples as sets
from models.training.examples import detected
from models.training.split import groups_of
from models.transfer.active import RULES, bias_report, choose
from nightsift.report.plots import COLOURS, STYLE

BATCH, LABELS, SAMPLES = 10, 100, 20
LOOKS = dict(zip(RULES, (COLOURS[0], COLOURS[1], COLOURS[2], "0.5"), strict=True))


@dataclass(frozen=True)
class Unit:
    """A unit's candidates with their logits and features."""

    name: str
    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    exposures: np.ndarray
    properties: dict[str, np.ndarray]


def of_stamps(
    name: str,
    stamps: Any,
    sign: np.ndarray,
    labels: np.ndarray,
    exposures: np.ndarray,
    properties: dict[str, np.ndarray],
    model: Any,
) -> Unit:
    """A unit with the logits and features of its candidates."""
    logits = sample_logits(stamps, sign, model, samples=SAMPLES, seed=0)
    return Unit(name, logits, pooled(trunk_features(stamps, sign, model)), labels, exposures, properties)


def simulated(folder: Path, count: int, model: Any) -> list[Unit]:
    """What the pipeline detected in the units of labelled sets, in the order of their names."""
    units = []
    for path in sorted(folder.glob("*/examples.parquet"))[:count]:
        one = sets.read(path.parent)
        one = one.take(np.flatnonzero(detected(one.table)))
        properties = {
            "S/N": np.asarray(one.table["snr"], float),
            "fading": np.where(one.sign < 0, "fading", "brightening"),
            "flags": np.where(np.asarray(one.table["flags"]) > 0, "flagged", "clean"),
            "reduction": np.array(one.table["reduction"].to_pylist()),
        }
        exposures = np.array(one.table["exposure_id"].to_pylist())
        units.append(
            of_stamps(path.parent.name, one.stamps, one.sign, one.labels.astype(int), exposures, properties, model)
        )
    return units


def real(folder: Path, model: Any) -> list[Unit]:
    """The ZTF alerts with a label."""
    stars = pq.read_table(folder / "catalogs" / "vsx.parquet", columns=["RAJ2000", "DEJ2000"])
    ztf = read_ztf(folder / "stamps" / "ztf", np.stack([stars[n].to_numpy() for n in ("RAJ2000", "DEJ2000")], axis=1))
    ztf = ztf.take(np.flatnonzero(np.isfinite(ztf.column("label"))))
    group = groups_of({name: ztf.column(name) for name in ("object_id", "exposure_id")})
    properties = {"mag": ztf.column("mag"), "S/N": ztf.column("snr"),
            "fading": np.where(ztf.sign < 0, "fading", "brightening"),
            "evidence": ztf.column("evidence").astype(str), "channel": ztf.column("unit").astype(str)}  # fmt: skip
    return [
        of_stamps("ZTF", ztf.stamps, ztf.sign, ztf.column("label").astype(int), group.astype(str), properties, model)
    ]


def mean_logit(logits: np.ndarray) -> np.ndarray:
    """Logit of the mean probability."""
    return np.asarray(logit(np.clip(expit(logits.astype(float)).mean(axis=0), 1e-9, 1 - 1e-9)))


def run(unit: Unit, rule: str, seed: int) -> tuple[dict[str, list[float]], np.ndarray, np.ndarray]:
    """One person's evening: figures after every batch, the rows of the pool, and those asked for."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(unit.exposures))
    pool = np.flatnonzero(np.isin(unit.exposures, names[: len(names) // 2]))
    test = np.flatnonzero(~np.isin(unit.exposures, names[: len(names) // 2]))
    z, curve = mean_logit(unit.logits), {"nll": [], "fpr": []}
    asked = np.empty(0, np.int64)
    while True:
        learnt = pool[asked]
        made = fit_correction(z[learnt], unit.features[learnt], unit.labels[learnt], unlabelled=unit.features[pool])
        p = expit(made.logits(z[test], unit.features[test]))
        curve["nll"].append(nll(p, unit.labels[test]))
        threshold = threshold_at_missed(p, unit.labels[test], 0.01)
        curve["fpr"].append(missed_and_fpr(p, unit.labels[test], threshold)[1])
        if len(asked) >= LABELS:
            return curve, pool, asked
        # what is asked next follows from the corrected samples, and from what the labels have not settled yet
        sampled = made.sampled(z[pool], unit.features[pool], SAMPLES, seed)
        both = np.concatenate([made.logits(unit.logits[:, pool], unit.features[pool]), sampled])
        new = choose(rule, both, unit.features[pool], count=BATCH, seed=seed + len(asked), known=asked)
        asked = np.concatenate([asked, new])


def naive_rate(unit: Unit, pool: np.ndarray, asked: np.ndarray) -> tuple[float, float]:
    """Part of the candidates that is wrong at a score of one half: as the asked ones say, and in truth."""
    wrong = (expit(mean_logit(unit.logits)[pool]) >= 0.5) != (unit.labels[pool] == 1)
    return float(wrong[asked].mean()), float(wrong.mean())


def study(units: list[Unit], seeds: int) -> dict[str, Any]:
    """All rules on all units and seeds: curves, bias, naive rates."""
    out: dict[str, Any] = {}
    for rule in RULES:
        curves, rates, asked_of, every = [], [], {}, {}
        for unit in units:
            for seed in range(seeds):
                curve, pool, asked = run(unit, rule, seed)
                curves.append([curve["nll"], curve["fpr"]])
                rates.append(naive_rate(unit, pool, asked))
                for name, values in unit.properties.items():
                    every.setdefault(name, []).append(values[pool])
                    asked_of.setdefault(name, []).append(np.isin(np.arange(len(pool)), asked))
        joined = {name: np.concatenate(values) for name, values in every.items()}
        rows = np.flatnonzero(np.concatenate(next(iter(asked_of.values()))))
        curve = np.array(curves)
        gain = curve[:, 0, :] - curve[:, 0, :1]
        out[rule] = {
            "nll": curve[:, 0].mean(axis=0).tolist(), "fpr": curve[:, 1].mean(axis=0).tolist(),
            "nll_gain": gain.mean(axis=0).tolist(), "nll_gain_error": (gain.std(axis=0) / np.sqrt(len(gain))).tolist(),
            "wrong_as_asked": float(np.mean([a for a, _ in rates])),
            "wrong_in_truth": float(np.mean([b for _, b in rates])),
            "bias": bias_report(joined, rows),
        }  # fmt: skip
    base = np.array(out["random"]["nll"])
    for rule in RULES:  # labels that a fair draw needs for the same NLL
        goal = out[rule]["nll"][-1]
        enough = np.flatnonzero(base <= goal)
        out[rule]["labels_of_a_fair_draw"] = int(enough[0] * BATCH) if len(enough) else None
    return out


def draw(out: Path, studies: dict[str, dict[str, Any]]) -> None:
    """Learning curves on the left, the factor by which parts of the pool are asked for on the right."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6 * len(studies)), layout="constrained", facecolor="white")
        axes = figure.subplots(len(studies), 3, squeeze=False, width_ratios=(1, 1, 1.5))
        for line, (name, study) in zip(axes, studies.items(), strict=True):
            for rule, row in study.items():
                x = np.arange(len(row["nll"])) * BATCH
                line[0].errorbar(
                    x, row["nll_gain"], row["nll_gain_error"], color=LOOKS[rule], label=rule, lw=1.4, elinewidth=0.7
                )
                line[1].plot(x, 100 * np.array(row["fpr"]), color=LOOKS[rule], lw=1.4)
            line[0].axhline(0, color="0.8")
            line[0].set(title=name, xlabel="labels", ylabel="change of NLL (nat)")
            line[0].legend()
            line[1].set(title="FPR at 1 % missed", xlabel="labels", ylabel="%")
            _bias(line[2], study)
        figure.savefig(out / "active.png", dpi=110)


def _bias(axes: Any, study: dict[str, Any]) -> None:
    names = []
    for shift, rule in ((-0.24, "bald"), (-0.08, "batch"), (0.08, "entropy"), (0.24, "random")):
        place = 0
        for row in study[rule]["bias"]:
            if len(row["shares"]) > 6:
                continue
            for part in row["shares"]:
                if part["ratio"] is not None:
                    axes.plot(max(part["ratio"], 0.05), place + shift, "o", ms=3.5, color=LOOKS[rule])
                    alone = row["name"] in ("evidence", "fading", "reduction")
                    names += [(place, part["part"] if alone else f"{row['name']} {part['part']}")] * (rule == "bald")
                    place += 1
    axes.axvline(1, color="0.8")
    axes.set_yticks([at for at, _ in names], [text for _, text in names], fontsize=7)
    axes.set(title="asked for more (right) or less (left) often than a fair draw", xlabel="factor", xscale="log")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.invert_yaxis()


def main() -> None:
    """Score the candidates, play all evenings, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = load(options.model)
    studies = {"simulated units": study(simulated(options.sets, options.units, model), options.seeds)}
    if options.data:
        studies["ZTF alerts"] = study(real(options.data, model), 4 * options.seeds)
    (options.out / "active.json").write_text(json.dumps(studies, indent=2) + "\n")
    for name, found in studies.items():
        print(f"{name}: NLL and FPR at 1 % missed after 0, 20, 50, 100 labels; wrong as the asked ones say, in truth")
        for rule, row in found.items():
            steps = [k // BATCH for k in (0, 20, 50, 100)]
            curves = [[round(row[key][k], 4) for k in steps] for key in ("nll", "fpr")]
            print(f"  {rule:8s} {curves[0]} {curves[1]}  gain {row['nll_gain'][-1]:+.4f} +- "
                  f"{row['nll_gain_error'][-1]:.4f}  {row['wrong_as_asked']:.3f} {row['wrong_in_truth']:.3f}"
                  f"  a fair draw needs {row['labels_of_a_fair_draw']}")  # fmt: skip
            print("    bias:", {b["name"]: (round(b["statistic"], 2), f"{b['p']:.1e}") for b in row["bias"]})
    draw(options.out, studies)


if __name__ == "__main__":
    main()
