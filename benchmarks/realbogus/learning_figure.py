"""The figure of `learning_curves`: figures against the number of examples, and the power laws through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from models.calibration.metrics import auc, missed_and_fpr, nll, threshold_at_missed
from models.training.subsets import SMALLEST
from nightsift.report.plots import COLOURS, STYLE

DRAWS = 100
LEAST_SIZES = 3  # different sizes, for a power law
NAMES = {"fpr_1": "FPR at 1 % missed", "one_minus_auc": "1 − AUC", "nll": "NLL (nat)"}
TELLING = {
    "all": "all sources", "without-detected": "synthetic, minor planets real",
    "without-real-but-minor-planets": "only minor planets real", "without-synthetic": "without synthetic",
}  # fmt: skip


def figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The three figures of a network."""
    found = {
        "fpr_1": missed_and_fpr(scores, labels, threshold_at_missed(scores, labels, 0.01))[1],
        "one_minus_auc": 1.0 - auc(scores, labels), "nll": nll(scores, labels),
    }  # fmt: skip
    return {name: max(float(value), SMALLEST) for name, value in found.items()}


def power_law(examples: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Exponent and logarithm of the factor of ``factor * examples**exponent``, by least squares of the logarithms."""
    exponent, factor = np.polyfit(np.log(np.asarray(examples, float)), np.log(np.asarray(values, float)), 1)
    return float(exponent), float(factor)


def curves(
    points: list[dict[str, Any]], labels: np.ndarray, fields: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Figures of each network and power laws of each kind, with ranges over fields and seeds drawn again.

    Fields are drawn for all networks at once; networks of a size are drawn among those of that size.
    """
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for point in points:
        kinds[point["kind"]].append(point)
    _, index = np.unique(fields, return_inverse=True)
    members = [np.flatnonzero(index == one) for one in range(index.max() + 1)]
    results = {}
    for kind, group in kinds.items():
        rng = np.random.default_rng(seed)
        sizes = np.array([point["units"] for point in group])
        examples = np.array([point["examples"] for point in group], dtype=float)
        plain = [figures(point["scores"], labels) for point in group]
        laws: dict[str, Any] = {}
        if len(set(sizes.tolist())) >= LEAST_SIZES:
            drawn: dict[str, list[float]] = {name: [] for name in NAMES}
            for _ in range(draws):
                rows = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
                which = np.concatenate([rng.choice(np.flatnonzero(sizes == n), int((sizes == n).sum()))
                                        for n in np.unique(sizes)])  # fmt: skip
                again = {one: figures(group[one]["scores"][rows], labels[rows]) for one in set(which.tolist())}
                for name, values in drawn.items():
                    values.append(power_law(examples[which], [again[one][name] for one in which])[0])
            for name, values in drawn.items():
                exponent, factor = power_law(examples, [one[name] for one in plain])
                laws[name] = {"exponent": exponent, "log_factor": factor,
                              "range": np.percentile(values, [2.5, 97.5]).tolist()}  # fmt: skip
        keep = ("name", "seed", "units", "examples", "real", "best_epoch", "steps")
        results[kind] = {
            "networks": [{**{key: p[key] for key in keep}, **one} for p, one in zip(group, plain, strict=True)],
            "laws": laws,
        }
    return results


def tables(results: dict[str, Any], labels: np.ndarray, fields: np.ndarray) -> str:
    """Markdown: mean and scatter over seeds of each size, and the power laws."""
    lines = [
        f"{int(labels.sum())} real, {int((labels == 0).sum())} bogus detections, {len(set(fields.tolist()))} fields\n",
        "| learnt from | units | examples | real | networks | FPR at 1 % missed | 1 - AUC | NLL |", "|---" * 8 + "|",
    ]  # fmt: skip
    for kind, one in results.items():
        for units in sorted({network["units"] for network in one["networks"]}):
            group = [network for network in one["networks"] if network["units"] == units]
            mean = {key: np.mean([network[key] for network in group]) for key in ("examples", "real")}
            values = {name: [network[name] for network in group] for name in NAMES}
            lines.append(
                f"| {TELLING.get(kind, kind)} | {units} | {mean['examples']:,.0f} | {mean['real']:,.0f} | {len(group)} "
                f"| {_scatter(values['fpr_1'], 100.0, 2)} % | {_scatter(values['one_minus_auc'], 1.0, 5)} "
                f"| {_scatter(values['nll'], 1.0, 4)} |"
            )
    lines += ["", "| learnt from | figure | power of the number of examples | 95 % | between |", "|---" * 5 + "|"]
    for kind, one in results.items():
        n = [network["examples"] for network in one["networks"]]
        lines += [
            f"| {TELLING.get(kind, kind)} | {NAMES[name]} | {law['exponent']:+.2f} | {law['range'][0]:+.2f} to "
            f"{law['range'][1]:+.2f} | {min(n):,} and {max(n):,} |"
            for name, law in one["laws"].items()
        ]
    return "\n".join(lines)


def _scatter(values: list[float], factor: float, digits: int) -> str:
    """Mean and standard deviation over networks, the mean alone where there is one."""
    mean = f"{factor * np.mean(values):.{digits}f}"
    return f"{mean} ± {factor * np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


def draw(results: dict[str, Any], file: Path) -> None:
    """One panel a figure: every network a dot, the means joined, the power law dashed."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.7), facecolor="white", layout="constrained")
        for axes, (name, title) in zip(figure.subplots(1, len(NAMES)), NAMES.items(), strict=True):
            for place, (kind, one) in enumerate(results.items()):
                _curve(axes, one, name, COLOURS[place % len(COLOURS)], TELLING.get(kind, kind))
            axes.set(xscale="log", yscale="log", xlabel="examples learnt from", title=title)
            _readable(axes)
            axes.legend(loc="lower left", fontsize=7)
        figure.savefig(file, dpi=130)


def _curve(axes: Any, one: dict[str, Any], name: str, colour: str, label: str) -> None:
    networks = one["networks"]
    n, values = (np.array([network[key] for network in networks], float) for key in ("examples", name))
    sizes = np.array([network["units"] for network in networks])
    means = [(n[sizes == s].mean(), np.exp(np.log(values[sizes == s]).mean())) for s in np.unique(sizes)]
    law = one["laws"].get(name)
    legend = (
        f"{label}: $n^{{{law['exponent']:+.2f}}}$ ({law['range'][0]:+.2f} to {law['range'][1]:+.2f})" if law else label
    )
    axes.plot(n, values, "o", ms=3.5, alpha=0.45, mew=0, color=colour)
    axes.plot(*zip(*means, strict=True), color=colour, marker="o", ms=5, label=legend)
    if law:
        ends = np.array([n.min(), n.max()])
        axes.plot(ends, np.exp(law["log_factor"]) * ends ** law["exponent"], "--", color=colour, lw=1, alpha=0.7)


def _readable(axes: Any) -> None:
    """Plain numbers on both axes, however few decades they span."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.6, high * 1.05)  # room for the legend
