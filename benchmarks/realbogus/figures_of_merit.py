"""The figures by which networks are compared here, with their spread over fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.calibration.metrics import auc, brier, ece, missed_and_fpr, nll, threshold_at_fpr, threshold_at_missed

NAMES = {
    "auc": "AUC",
    "fpr_1_missed": "FPR at 1 % missed",
    "tpr_1e-2": "TPR at FPR 1e-2",
    "tpr_1e-3": "TPR at FPR 1e-3",
    "tpr_1e-4": "TPR at FPR 1e-4",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
}
PERCENT = ("fpr_1_missed", "tpr_1e-2", "tpr_1e-3", "tpr_1e-4")


def figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All figures of one set of scores."""
    out = {
        "auc": auc(scores, labels),
        "fpr_1_missed": missed_and_fpr(scores, labels, threshold_at_missed(scores, labels, 0.01))[1],
        "nll": nll(scores, labels),
        "brier": brier(scores, labels),
        "ece": ece(scores, labels),
    }
    for name in ("1e-2", "1e-3", "1e-4"):
        out[f"tpr_{name}"] = 1.0 - missed_and_fpr(scores, labels, threshold_at_fpr(scores, labels, float(name)))[0]
    return out


def with_spread(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, draws: int = 200, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Each figure with the 16th and 84th percentile of a bootstrap over groups (fields)."""
    plain, rng = figures(scores, labels), np.random.default_rng(seed)
    _, index = np.unique(groups.astype(str), return_inverse=True)
    members = [np.flatnonzero(index == one) for one in range(index.max() + 1)]
    found: dict[str, list[float]] = {name: [] for name in plain}
    for _ in range(draws):
        rows = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
        if len(set(labels[rows])) == 2:
            for name, value in figures(scores[rows], labels[rows]).items():
                found[name].append(value)
    return {name: (value, *np.percentile(found[name], [16, 84]).tolist()) for name, value in plain.items()}


def text(name: str, value: Any) -> str:
    """A figure as it is printed: value, and its range where there is one."""
    factor, digits = (100.0, 2) if name in PERCENT else (1.0, 4)
    unit = " %" if name in PERCENT else ""
    if isinstance(value, tuple | list):
        middle, low, high = (factor * one for one in value)
        return f"{middle:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{factor * value:.{digits}f}{unit}"


def table(rows: Mapping[str, Mapping[str, Any]], first: str) -> str:
    """A Markdown table, one row a thing."""
    names = list(next(iter(rows.values())))
    lines = [f"| {first} | {' | '.join(NAMES.get(name, name) for name in names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {row} | {' | '.join(text(name, value) for name, value in values.items())} |" for row, values in rows.items()
    ]
    return "\n".join(lines)
