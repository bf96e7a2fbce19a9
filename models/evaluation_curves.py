"""Curves of an evaluation: rates against the threshold, recovery, reliability, risk against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation import Evaluated, texts
from models.examples import SYNTHETIC
from models.scoring_rules import risk_coverage

Float64 = npt.NDArray[np.float64]

SNR_EDGES = (3.0, 5.0, 6.0, 8.0, 10.0, 15.0, 25.0, 50.0, 100.0)
OFFSET_EDGES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
MAG_WIDTH = 0.5
LEAST_IN_BIN = 5


def threshold_curves(one: Evaluated, points: int = 161) -> dict[str, Any]:
    """FNR by kind of real example, and FPR, against the threshold.

    Parameters
    ----------
    one : Evaluated
        Scores.
    points : int, optional
        Thresholds, even in the logit.

    Returns
    -------
    dict
        ``logit`` of the thresholds; ``missed`` by name of the subset; ``fpr``.
    """
    logits = np.linspace(-9.0, 9.0, points)
    thresholds = 1.0 / (1.0 + np.exp(-logits))
    real, bogus = one.labels == 1, one.scores[one.labels == 0]
    kinds, source = one.columns["kind"], one.columns.get("source")
    subsets = {"all real": real, "minor planets": real & np.isin(kinds.astype(str), ("asteroid", "minor_planet"))}
    if source is not None:
        subsets["minor planets"] |= real & (source == "minor_planet")
        subsets["synthetic transients"] = real & np.isin(source.astype(str), SYNTHETIC)
    subsets["transients and variables"] = real & ~np.any(
        [rows for name, rows in subsets.items() if name != "all real"], axis=0
    )
    missed = {
        f"{name} ({int(rows.sum())})": _below(one.scores[rows], thresholds)
        for name, rows in subsets.items()
        if rows.sum() >= LEAST_IN_BIN
    }
    return {"logit": logits, "missed": missed, "fpr": 1.0 - _below(bogus, thresholds), "bogus": len(bogus)}


def recovery(one: Evaluated, column: str, edges: Sequence[float] | None = None) -> dict[str, dict[str, Any]]:
    """Part of the real examples above the threshold, by a column, observed and synthetic ones apart.

    Parameters
    ----------
    one : Evaluated
        Scores.
    column : str
        ``snr``, ``mag`` or ``host_offset``.
    edges : sequence of float, optional
        Edges of the bins; half magnitudes over the range when not given.

    Returns
    -------
    dict of str to dict
        By subset ``middle``, ``part``, ``error`` and ``n`` of each bin; empty where the set lacks the column.
    """
    values = _numbers(one.columns.get(column), len(one.labels))
    real = (one.labels == 1) & np.isfinite(values)
    if real.sum() < LEAST_IN_BIN:
        return {}
    if edges is None:
        low, high = np.floor(values[real].min() / MAG_WIDTH), np.ceil(values[real].max() / MAG_WIDTH)
        edges = tuple(np.arange(low, high + 1) * MAG_WIDTH)
    synthetic = np.isin(texts(one.columns.get("source"), len(one.labels)), SYNTHETIC)
    subsets = {"all": real}
    if synthetic[real].any():
        subsets = {"all": real, "without synthetic": real & ~synthetic, "synthetic only": real & synthetic}
    return {name: _binned(one.scores >= one.threshold, values, rows, edges) for name, rows in subsets.items()}


def reliability_bins(scores: Float64, labels: npt.NDArray[np.int64], bins: int = 16) -> dict[str, Any]:
    """Mean score against the part that is real, in bins of equal numbers of examples.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
        Scores, and 1 real or 0 bogus.
    bins : int, optional
        Number of bins.

    Returns
    -------
    dict
        ``score``, ``real`` and ``error`` of each bin.
    """
    parts = np.array_split(np.argsort(scores, kind="stable"), bins)
    parts = [part for part in parts if len(part)]
    real = np.array([labels[part].mean() for part in parts])
    n = np.array([len(part) for part in parts])
    score = np.array([scores[part].mean() for part in parts])
    return {"score": score, "real": real, "error": np.sqrt((real * (1 - real) + 0.25 / n) / n)}


def risk_curves(one: Evaluated) -> dict[str, dict[str, Float64]]:
    """Part of wrong decisions among the examples that the model is surest of, by two orders of sureness.

    Parameters
    ----------
    one : Evaluated
        Scores.

    Returns
    -------
    dict of str to dict
        ``coverage`` and ``risk`` by order.
    """
    orders = {"by score": None, "by confidence of the samples": one.confidence, "by spread": -one.spread}
    found = {}
    for name, certainty in orders.items():
        coverage, risk = risk_coverage(one.scores, one.labels, certainty)
        found[name] = {"coverage": coverage, "risk": risk}
    return found


def _below(scores: Float64, thresholds: Float64) -> Float64:
    return np.searchsorted(np.sort(scores), thresholds, side="left") / max(len(scores), 1)


def _binned(good: npt.NDArray[np.bool_], values: Float64, rows: Any, edges: Sequence[float]) -> dict[str, Any]:
    place = np.digitize(values, edges) - 1
    found: dict[str, list[float]] = {"middle": [], "part": [], "error": [], "n": []}
    for one in range(len(edges) - 1):
        inside = rows & (place == one)
        n = int(inside.sum())
        if n < LEAST_IN_BIN:
            continue
        part = float(good[inside].mean())
        error = float(np.sqrt((part * (1 - part) + 0.25 / n) / n))
        for name, value in zip(found, (0.5 * (edges[one] + edges[one + 1]), part, error, n), strict=True):
            found[name].append(float(value))
    return found


def _numbers(column: npt.NDArray[Any] | None, n: int) -> Float64:
    return np.full(n, np.nan) if column is None else np.array([np.nan if v is None else v for v in column], dtype=float)
