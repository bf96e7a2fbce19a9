"""How good a classifier is: the figures by which real/bogus classifiers are compared.

Missed: part of the real examples that a threshold loses (FNR). FPR: part of the bogus examples that it lets through.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from models.scoring_rules import ece

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
SNR_BINS = (0.0, 6.0, 8.0, 12.0, 20.0, 50.0, np.inf)


def auc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve: the probability that a real example scores above a bogus one; ties count half.

    Parameters
    ----------
    scores : ndarray, shape (n,)
        Scores.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    float
        The area; NaN where a class is absent.
    """
    real = labels == 1
    n_real, n_bogus = int(real.sum()), int((~real).sum())
    if not n_real or not n_bogus:
        return float("nan")
    from scipy.stats import rankdata  # slow to import

    ranks = rankdata(scores)
    return float((ranks[real].sum() - n_real * (n_real + 1) / 2) / (n_real * n_bogus))


def threshold_at_missed(scores: Scores, labels: Labels, missed: float) -> float:
    """Highest threshold that loses at most a given part of the real examples.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
        Scores, and 1 real, 0 bogus; a candidate is accepted where its score is at or above the threshold.
    missed : float
        Part of the real examples.

    Returns
    -------
    float
        The threshold; NaN where there are no real examples.
    """
    real = np.sort(scores[labels == 1])
    return float(real[int(np.floor(missed * len(real)))]) if len(real) else float("nan")


def threshold_at_fpr(scores: Scores, labels: Labels, fpr: float) -> float:
    """Lowest threshold that lets at most a given part of the bogus examples through.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
        Scores, and 1 real, 0 bogus.
    fpr : float
        Part of the bogus examples.

    Returns
    -------
    float
        The threshold; NaN where there are no bogus examples.
    """
    bogus = np.sort(scores[labels == 0])[::-1]
    if not len(bogus):
        return float("nan")
    return float(np.nextafter(bogus[int(np.floor(fpr * len(bogus)))], np.inf))


def missed_and_fpr(scores: Scores, labels: Labels, threshold: float) -> tuple[float, float]:
    """Part of the real examples lost and part of the bogus ones let through at a threshold.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
        Scores, and 1 real, 0 bogus.
    threshold : float
        Accepted where the score is at or above it.

    Returns
    -------
    missed, fpr : float
        NaN where a class is absent.
    """
    real, bogus = scores[labels == 1], scores[labels == 0]
    missed = float((real < threshold).mean()) if len(real) else float("nan")
    return missed, float((bogus >= threshold).mean()) if len(bogus) else float("nan")


def reliability(scores: Scores, labels: Labels, bins: int = 10) -> list[dict[str, float]]:
    """Mean score against the part that is real, in bins of equal width.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
        Scores, and 1 real, 0 bogus.
    bins : int, optional
        Number of bins.

    Returns
    -------
    list of dict
        ``low``, ``high``, ``n``, ``mean_score`` and ``real`` of every bin that is not empty.
    """
    place = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    return [
        {
            "low": one / bins,
            "high": (one + 1) / bins,
            "n": int((place == one).sum()),
            "mean_score": float(scores[place == one].mean()),
            "real": float(labels[place == one].mean()),
        }
        for one in np.unique(place)
    ]


def by_snr(
    scores: Scores, labels: Labels, snr: Scores, threshold: float, bins: Sequence[float] = SNR_BINS
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


def by_kind(scores: Scores, labels: Labels, kinds: npt.NDArray[Any], threshold: float) -> list[dict[str, Any]]:
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


def figures(scores: Scores, labels: Labels, snr: Scores, kinds: npt.NDArray[Any], threshold: float) -> dict[str, Any]:
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
        "by_snr": by_snr(scores, labels, snr, threshold),
        "by_kind": by_kind(scores, labels, kinds, threshold),
        "reliability": reliability(scores, labels),
    }


def _counts(scores: Scores, labels: Labels, threshold: float) -> dict[str, Any]:
    missed, fpr = missed_and_fpr(scores, labels, threshold)
    real, bogus = int((labels == 1).sum()), int((labels == 0).sum())
    return {"real": real, "missed": missed if real else None, "bogus": bogus, "fpr": fpr if bogus else None}
