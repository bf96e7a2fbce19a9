"""Evaluation of a model on a labelled set, as plain numbers, which `nightsift evaluate` draws.

What is measured on must not have been learnt from: the part ``test`` of a set, or a set of units that training never
saw. `card_figures` are those that a model's card holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from models.calibration.calibrate import fit_calibration, mean_probability
from models.calibration.metrics import (
    Labels,
    Scores,
    auc,
    brier,
    ece,
    grouped_bootstrap,
    missed_and_fpr,
    nll,
    reliability,
    risk_coverage,
    threshold_at_fpr,
    threshold_at_missed,
)
from models.network.classifier import Classifier, sample_logits, summarise
from models.training.examples import SYNTHETIC, TrainingSet

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

DRAWS = 200
"""Draws of the bootstrap over fields and nights."""
SNR_BINS = (0.0, 6.0, 8.0, 12.0, 20.0, 50.0, np.inf)
SNR_EDGES = (3.0, 5.0, 6.0, 8.0, 10.0, 15.0, 25.0, 50.0, 100.0)
OFFSET_EDGES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
MAG_WIDTH = 0.5
LEAST_IN_BIN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """A model's scores on a set.

    Attributes
    ----------
    name, model_id : str
        The model.
    threshold : float
        The threshold that it is judged at, chosen on other examples.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.
    scores, spread, confidence, calibrated : ndarray, shape (n,)
        Mean over the samples, their standard deviation, 1 - mean entropy, and the scores after calibration, each field
        and night by a map that was learnt on the others.
    columns : dict of str to ndarray
        Columns of the set; those that it lacks are absent.
    groups : ndarray of str, shape (n,)
        Field and night of each example.
    """

    name: str
    model_id: str
    threshold: float
    labels: npt.NDArray[np.int64]
    scores: Float64
    spread: Float64
    confidence: Float64
    calibrated: Float64
    columns: Mapping[str, npt.NDArray[Any]]
    groups: npt.NDArray[np.str_]


def evaluate(
    classifier: Classifier, examples: TrainingSet, threshold: float | None = None, *, samples: int = 20, seed: int = 0
) -> Evaluated:
    """Score a labelled set.

    Parameters
    ----------
    classifier : Classifier
        A loaded model.
    examples : TrainingSet
        Labelled stamps.
    threshold : float, optional
        Threshold to judge at; the one that the model's card recommends when not given.
    samples : int, optional
        Dropout samples.
    seed : int, optional
        Seed of the samples and of the folds.

    Returns
    -------
    Evaluated
        The scores and what is known of the examples.
    """
    logits = sample_logits(examples.stamps, examples.sign, classifier, samples=samples, seed=seed)
    summary = summarise(logits)
    labels = examples.labels.astype(np.int64)
    columns = {name: np.array(examples.table[name].to_pylist(), dtype=object) for name in examples.table.column_names}
    groups = np.array([f"{f}/{n}" for f, n in zip(columns["field"], columns["night"], strict=True)], dtype=np.str_)
    given = float(classifier.card.get("threshold", 0.5)) if threshold is None else threshold
    return Evaluated(
        classifier.name, classifier.model_id, given, labels, summary["score"].astype(np.float64),
        summary["score_std"].astype(np.float64), summary["confidence"].astype(np.float64),
        cross_calibrated(logits, labels, groups, seed=seed), columns, groups,
    )  # fmt: skip


def cross_calibrated(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], groups: npt.NDArray[np.str_], *, seed: int = 0
) -> Float64:
    """Return scores after calibration, each half of the fields and nights by a map learnt on the other half.

    Parameters
    ----------
    logits : ndarray, shape (samples, n)
        Sampled logits.
    labels, groups : ndarray of int, of str, shape (n,)
        1 real, 0 bogus; field and night of each example.
    seed : int, optional
        Seed of the halves.

    Returns
    -------
    ndarray of float64, shape (n,)
        The scores; as they were where a half holds one class only.
    """
    names, code = np.unique(groups, return_inverse=True)
    half = (np.random.default_rng(seed).permutation(len(names)) % 2)[code]
    out = mean_probability(logits)
    for held in (0, 1):
        learnt, judged = half != held, half == held
        if judged.any() and len(set(labels[learnt].tolist())) == 2:
            fitted = fit_calibration(logits[:, learnt], labels[learnt], groups[learnt], seed=seed)
            out[judged] = mean_probability(logits[:, judged], fitted)
    return out


def headline(scored: Evaluated, draws: int = DRAWS) -> list[dict[str, Any]]:
    """The figures by which models are compared, with their ranges when fields and nights are drawn again.

    Parameters
    ----------
    scored : Evaluated
        Scores.
    draws : int, optional
        Draws of the bootstrap.

    Returns
    -------
    list of dict
        ``name``, ``value``, ``low``, ``high`` (95 %) and ``note``: a rate for which the set is too small is noted.
    """

    def at_missed(rows: Rows) -> float:
        s, y = scored.scores[rows], scored.labels[rows]
        return missed_and_fpr(s, y, threshold_at_missed(s, y, 0.01))[1]

    def at_fpr(rate: float) -> Any:
        def recovered(rows: Rows) -> float:
            s, y = scored.scores[rows], scored.labels[rows]
            return 1.0 - missed_and_fpr(s, y, threshold_at_fpr(s, y, rate))[0]

        return recovered

    bogus = int((scored.labels == 0).sum())
    figures: list[tuple[str, Any, str]] = [
        ("AUC", lambda rows: auc(scored.scores[rows], scored.labels[rows]), ""),
        (
            "missed at the threshold",
            lambda rows: missed_and_fpr(scored.scores[rows], scored.labels[rows], scored.threshold)[0],
            "",
        ),
        (
            "FPR at the threshold",
            lambda rows: missed_and_fpr(scored.scores[rows], scored.labels[rows], scored.threshold)[1],
            "",
        ),
        ("FPR at 1 % missed", at_missed, ""),
        *((f"TPR at FPR {rate:g}", at_fpr(rate), _too_few(bogus, rate)) for rate in (1e-2, 1e-3, 1e-4)),
        ("NLL", lambda rows: nll(scored.scores[rows], scored.labels[rows]), ""),
        ("Brier", lambda rows: brier(scored.scores[rows], scored.labels[rows]), ""),
        ("ECE, equal mass", lambda rows: ece(scored.scores[rows], scored.labels[rows], equal_mass=True), ""),
        ("ECE after calibration", lambda rows: ece(scored.calibrated[rows], scored.labels[rows], equal_mass=True), ""),
        ("NLL after calibration", lambda rows: nll(scored.calibrated[rows], scored.labels[rows]), ""),
    ]
    out = []
    for name, of, note in figures:
        low, high = grouped_bootstrap(of, scored.groups, draws)
        out.append({"name": name, "value": of(np.arange(len(scored.labels))), "low": low, "high": high, "note": note})
    return out


def confusion(scored: Evaluated) -> dict[str, int]:
    """Real and bogus examples, accepted and rejected at the threshold.

    Parameters
    ----------
    scored : Evaluated
        Scores.

    Returns
    -------
    dict of str to int
        ``real_accepted``, ``real_rejected``, ``bogus_accepted``, ``bogus_rejected``.
    """
    accepted, real = scored.scores >= scored.threshold, scored.labels == 1
    return {
        "real_accepted": int(np.count_nonzero(real & accepted)),
        "real_rejected": int(np.count_nonzero(real & ~accepted)),
        "bogus_accepted": int(np.count_nonzero(~real & accepted)),
        "bogus_rejected": int(np.count_nonzero(~real & ~accepted)),
    }


def by_unit(scored: Evaluated) -> list[dict[str, Any]]:
    """Figures of each unit at the model's threshold, the worst first.

    Parameters
    ----------
    scored : Evaluated
        Scores.

    Returns
    -------
    list of dict
        ``unit``, ``real``, ``bogus``, ``auc``, ``missed``, ``fpr``, ``fpr_1`` (at 1 % missed) and ``ece``.
    """
    units = _texts(scored.columns.get("unit"), len(scored.labels))
    rows = []
    for unit in np.unique(units):
        s, y = scored.scores[units == unit], scored.labels[units == unit]
        missed, fpr = missed_and_fpr(s, y, scored.threshold)
        fpr_1 = missed_and_fpr(s, y, threshold_at_missed(s, y, 0.01))[1]
        counts = {"unit": str(unit), "real": int((y == 1).sum()), "bogus": int((y == 0).sum())}
        rows.append({**counts, "auc": auc(s, y), "missed": missed, "fpr": fpr, "fpr_1": fpr_1, "ece": ece(s, y)})
    return sorted(rows, key=lambda row: (np.isnan(row["auc"]), row["auc"]))


def worst(scored: Evaluated, most: int = 24) -> dict[str, Rows]:
    """Return the rows of the surest errors, at most `most` of each kind.

    ``missed``: real below the threshold, lowest score first. ``accepted``: bogus at or above it, highest first.
    """
    order = np.argsort(scored.scores, kind="stable")
    below, above = scored.scores[order] < scored.threshold, scored.scores[order] >= scored.threshold
    real = scored.labels[order] == 1
    return {"missed": order[below & real][:most], "accepted": order[above & ~real][::-1][:most]}


def _texts(column: npt.NDArray[Any] | None, n: int) -> npt.NDArray[np.str_]:
    """Return a column as text, shape (n,), empty where it is null or absent."""
    return np.full(n, "") if column is None else np.array(["" if v is None else str(v) for v in column], dtype=np.str_)


def _too_few(bogus: int, rate: float) -> str:
    return "" if bogus * rate >= 10 else f"{bogus} bogus examples: {bogus * rate:.2g} expected above the threshold"


def threshold_curves(scored: Evaluated, points: int = 161) -> dict[str, Any]:
    """FNR by kind of real example, and FPR, against the threshold.

    Parameters
    ----------
    scored : Evaluated
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
    real, bogus = scored.labels == 1, scored.scores[scored.labels == 0]
    kinds, source = scored.columns["kind"], scored.columns.get("source")
    subsets = {"all real": real, "minor planets": real & np.isin(kinds.astype(str), ("asteroid", "minor_planet"))}
    if source is not None:
        subsets["minor planets"] |= real & (source == "minor_planet")
        subsets["synthetic transients"] = real & np.isin(source.astype(str), SYNTHETIC)
    subsets["transients and variables"] = real & ~np.any(
        [rows for name, rows in subsets.items() if name != "all real"], axis=0
    )
    missed = {
        f"{name} ({int(rows.sum())})": _below(scored.scores[rows], thresholds)
        for name, rows in subsets.items()
        if rows.sum() >= LEAST_IN_BIN
    }
    return {"logit": logits, "missed": missed, "fpr": 1.0 - _below(bogus, thresholds), "bogus": len(bogus)}


def recovery(scored: Evaluated, column: str, edges: Sequence[float] | None = None) -> dict[str, dict[str, Any]]:
    """Part of the real examples above the threshold, by a column, observed and synthetic ones apart.

    Parameters
    ----------
    scored : Evaluated
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
    values = _numbers(scored.columns.get(column), len(scored.labels))
    real = (scored.labels == 1) & np.isfinite(values)
    if real.sum() < LEAST_IN_BIN:
        return {}
    if edges is None:
        low, high = np.floor(values[real].min() / MAG_WIDTH), np.ceil(values[real].max() / MAG_WIDTH)
        edges = tuple(np.arange(low, high + 1) * MAG_WIDTH)
    synthetic = np.isin(_texts(scored.columns.get("source"), len(scored.labels)), SYNTHETIC)
    subsets = {"all": real}
    if synthetic[real].any():
        subsets = {"all": real, "without synthetic": real & ~synthetic, "synthetic only": real & synthetic}
    return {
        name: _binned(scored.scores >= scored.threshold, values, rows, edges=edges) for name, rows in subsets.items()
    }


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


def risk_curves(scored: Evaluated) -> dict[str, dict[str, Float64]]:
    """Part of wrong decisions among the examples that the model is surest of, by two orders of sureness.

    Parameters
    ----------
    scored : Evaluated
        Scores.

    Returns
    -------
    dict of str to dict
        ``coverage`` and ``risk`` by order.
    """
    orders = {"by score": None, "by confidence of the samples": scored.confidence, "by spread": -scored.spread}
    curves = {}
    for name, certainty in orders.items():
        coverage, risk = risk_coverage(scored.scores, scored.labels, certainty)
        curves[name] = {"coverage": coverage, "risk": risk}
    return curves


def _below(scores: Float64, thresholds: Float64) -> Float64:
    return np.searchsorted(np.sort(scores), thresholds, side="left") / max(len(scores), 1)


def _binned(good: npt.NDArray[np.bool_], values: Float64, rows: Any, *, edges: Sequence[float]) -> dict[str, Any]:
    place = np.digitize(values, edges) - 1
    bins: dict[str, list[float]] = {"middle": [], "part": [], "error": [], "n": []}
    for k in range(len(edges) - 1):
        inside = rows & (place == k)
        n = int(inside.sum())
        if n < LEAST_IN_BIN:
            continue
        part = float(good[inside].mean())
        error = float(np.sqrt((part * (1 - part) + 0.25 / n) / n))
        for name, value in zip(bins, (0.5 * (edges[k] + edges[k + 1]), part, error, n), strict=True):
            bins[name].append(float(value))
    return bins


def _numbers(column: npt.NDArray[Any] | None, n: int) -> Float64:
    return np.full(n, np.nan) if column is None else np.array([np.nan if v is None else v for v in column], dtype=float)


def card_figures(
    scores: Scores,
    labels: Labels,
    snr: Scores,
    *,
    kinds: npt.NDArray[Any],
    threshold: float,
) -> dict[str, Any]:
    """All figures of one test set, as they stand in a card.

    Parameters
    ----------
    scores, labels, snr : ndarray, shape (n,)
        Scores, 1 real or 0 bogus, and S/N.
    kinds : ndarray of str, shape (n,)
        Kind of each example.
    threshold : float
        The threshold that will be used, chosen on other examples than these.

    Returns
    -------
    dict
        Plain values, fit for JSON.
    """
    missed, fpr = missed_and_fpr(scores, labels, threshold)
    at = {f"{name}": threshold_at_fpr(scores, labels, value) for name, value in (("1e-2", 1e-2), ("1e-3", 1e-3))}
    return {
        "real": int((labels == 1).sum()),
        "bogus": int((labels == 0).sum()),
        "auc": auc(scores, labels),
        "threshold": float(threshold),
        "missed_at_threshold": missed,
        "fpr_at_threshold": fpr,
        "fpr_at_1_percent_missed": missed_and_fpr(scores, labels, threshold_at_missed(scores, labels, 0.01))[1],
        "missed_at_fpr_1e-2": missed_and_fpr(scores, labels, at["1e-2"])[0],
        "missed_at_fpr_1e-3": missed_and_fpr(scores, labels, at["1e-3"])[0],
        "expected_calibration_error": ece(scores, labels, bins=10),
        "by_snr": by_snr(scores, labels, snr, threshold=threshold),
        "by_kind": by_kind(scores, labels, kinds, threshold=threshold),
        "reliability": reliability(scores, labels),
    }


def by_snr(
    scores: Scores,
    labels: Labels,
    snr: Scores,
    *,
    threshold: float,
    bins: Sequence[float] = SNR_BINS,
) -> list[dict[str, Any]]:
    """Missed and FPR in bins of S/N.

    Parameters
    ----------
    scores, labels, snr : ndarray, shape (n,)
        Scores, 1 real or 0 bogus, and S/N.
    threshold : float
        Accepted where the score is at or above it.
    bins : sequence of float, optional
        Edges.

    Returns
    -------
    list of dict
        ``snr``, ``real``, ``missed``, ``bogus`` and ``fpr`` of each bin; None where a class is absent.
    """
    rows = []
    for low, high in pairwise(bins):
        inside = (snr >= low) & (snr < high)
        name = f">= {low:g}" if np.isinf(high) else f"< {high:g}" if low == 0 else f"{low:g}-{high:g}"
        rows.append({"snr": name, **_counts(scores[inside], labels[inside], threshold)})
    return rows


def by_kind(scores: Scores, labels: Labels, kinds: npt.NDArray[Any], *, threshold: float) -> list[dict[str, Any]]:
    """Missed by kind of real object.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
        Scores, and 1 real, 0 bogus.
    kinds : ndarray of str, shape (n,)
        Kind of each real example.
    threshold : float
        Accepted where the score is at or above it.

    Returns
    -------
    list of dict
        ``kind``, ``real``, ``missed``.
    """
    rows = []
    for kind in np.unique(kinds[labels == 1].astype(str)):
        inside = (kinds == kind) & (labels == 1)
        counts = _counts(scores[inside], labels[inside], threshold)
        rows.append({"kind": str(kind), "real": counts["real"], "missed": counts["missed"]})
    return rows


def _counts(scores: Scores, labels: Labels, threshold: float) -> dict[str, Any]:
    missed, fpr = missed_and_fpr(scores, labels, threshold)
    real, bogus = int((labels == 1).sum()), int((labels == 0).sum())
    return {"real": real, "missed": missed if real else None, "bogus": bogus, "fpr": fpr if bogus else None}
