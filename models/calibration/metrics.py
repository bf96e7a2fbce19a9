"""Measures of a real/bogus classifier: ranking, rates at a threshold, proper scoring rules and calibration errors.

Missed: part of the real examples that a threshold loses (FNR). FPR: part of the bogus examples that it lets through.
Gneiting and Raftery 2007 (J. Am. Stat. Assoc. 102, 359); Guo et al. 2017 (ICML 34, 1321) for the calibration error;
Nixon et al. 2019 (CVPR workshops) for bins of equal mass. Labels are 1 real, 0 bogus; a candidate is accepted where its
score is at or above the threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

TINY = 1e-7
"""Probabilities nearer to 0 or 1 count as this near, so that one sure error does not cost infinitely much."""
Scores = npt.NDArray[np.floating]


def nll(probability: Probabilities, labels: Labels) -> float:
    """Return the mean negative log-likelihood (nat) of labels under probabilities to be real; NaN for no examples."""
    return float(losses(probability, labels).mean()) if len(labels) else float("nan")


def losses(probability: Probabilities, labels: Labels) -> npt.NDArray[np.float64]:
    """Return the negative log-likelihood (nat) of each label, shape (n,), under probabilities to be real."""
    p = np.clip(np.asarray(probability, dtype=np.float64), TINY, 1.0 - TINY)
    return np.where(np.asarray(labels) == 1, -np.log(p), -np.log1p(-p))


def brier(probability: Probabilities, labels: Labels) -> float:
    """Return the Brier score, the mean squared error of probabilities to be real; NaN for no examples."""
    if not len(labels):
        return float("nan")
    return float(np.mean((np.asarray(probability, dtype=np.float64) - np.asarray(labels)) ** 2))


def ece(probability: Probabilities, labels: Labels, bins: int = 15, *, equal_mass: bool = False) -> float:
    """Expected calibration error: mean distance of probability and part that is real, over bins (Guo et al., eq. 3).

    Parameters
    ----------
    probability : ndarray, shape (n,)
        Probabilities to be real.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.
    bins : int, optional
        Number of bins.
    equal_mass : bool, optional
        Bins of equal numbers of examples instead of equal width.

    Returns
    -------
    float
        The error, each bin weighted with its number; NaN for no examples.
    """
    n = len(labels)
    if not n:
        return float("nan")
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if equal_mass:
        place = np.empty(n, dtype=np.int64)
        place[np.argsort(p, kind="stable")] = np.arange(n) * bins // n
    else:
        place = np.minimum((p * bins).astype(np.int64), bins - 1)
    excess = np.bincount(place, p - y, minlength=bins)
    return float(np.abs(excess).sum() / n)


def risk_coverage(
    probability: Probabilities, labels: Labels, certainty: npt.NDArray[np.floating] | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return coverage and risk, each (n,): part decided, surest examples first, and the part of wrong decisions in it.

    A probability at or above one half counts as real. Examples are ranked by `certainty`, or by the distance of the
    probability from one half.
    """
    sure = np.abs(np.asarray(probability) - 0.5) if certainty is None else np.asarray(certainty)
    order = np.argsort(-sure, kind="stable")
    wrong = ((np.asarray(probability) >= 0.5) != (np.asarray(labels) == 1))[order]
    count = np.arange(1, len(order) + 1, dtype=np.float64)
    return count / max(len(order), 1), np.cumsum(wrong) / count


def aurc(
    probability: Probabilities, labels: Labels, certainty: npt.NDArray[np.floating] | None = None
) -> tuple[float, float]:
    """Area under the risk-coverage curve, and what it exceeds the best possible order by.

    Geifman, Uziel and El-Yaniv 2019 (ICLR), eq. 1 and section 5.

    Parameters
    ----------
    probability : ndarray, shape (n,)
        Probabilities to be real; at or above one half counts as real.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.
    certainty : ndarray, shape (n,), optional
        What the examples are ranked by; the distance of the probability from one half when not given.

    Returns
    -------
    area, excess : float
        Mean risk over all coverages; the same less that of an order which puts every error last. NaN for no examples.
    """
    n = len(labels)
    if not n:
        return float("nan"), float("nan")
    area = float(risk_coverage(probability, labels, certainty)[1].mean())
    wrong = round(float(((np.asarray(probability) >= 0.5) != (np.asarray(labels) == 1)).sum()))
    best = np.maximum(np.arange(1, n + 1) - (n - wrong), 0) / np.arange(1, n + 1)
    return area, area - float(best.mean())


def grouped_bootstrap(
    figure: Callable[[npt.NDArray[np.int64]], float],
    groups: npt.NDArray[np.generic],
    draws: int = 200,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Range of a figure when whole groups are drawn again: candidates of one field share their sky and their faults.

    Davison and Hinkley 1997 (Bootstrap Methods and their Application, section 3.8).

    Parameters
    ----------
    figure : callable
        Rows (with repetitions) to a number; draws that give NaN are passed over.
    groups : ndarray, shape (n,)
        Field, night or unit of each example.
    draws : int, optional
        Number of draws.
    seed : int, optional
        Seed of the draws.
    level : float, optional
        Part of the draws inside the range.

    Returns
    -------
    low, high : float
        The range; NaN if no draw gives a number.
    """
    _, index = np.unique(groups, return_inverse=True)
    order = np.argsort(index, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(index))[:-1]) if len(order) else []
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        rows = order
        if members:
            rows = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        drawn.append(figure(rows))
    values = np.array([one for one in drawn if np.isfinite(one)])
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


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
    """Return the highest threshold that loses at most the part `missed` of the real examples; NaN without real ones."""
    real = np.sort(scores[labels == 1])
    return float(real[int(np.floor(missed * len(real)))]) if len(real) else float("nan")


def threshold_at_fpr(scores: Scores, labels: Labels, fpr: float) -> float:
    """Return the lowest threshold that lets at most the part `fpr` of the bogus examples through; NaN without bogus."""
    bogus = np.sort(scores[labels == 0])[::-1]
    if not len(bogus):
        return float("nan")
    return float(np.nextafter(bogus[int(np.floor(fpr * len(bogus)))], np.inf))


def missed_and_fpr(scores: Scores, labels: Labels, threshold: float) -> tuple[float, float]:
    """Return the parts of the real examples lost and of the bogus let through; NaN where a class is absent."""
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
