"""Everything that is to be known of a model on a labelled set, as plain numbers: what `nightsift evaluate` draws.

What is judged must not have been learnt from: the part ``test`` of a set, or a set of units that training never saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.calibrate import fit_calibration, mean_probability
from models.classifier import Classifier
from models.evaluate import auc, missed_and_fpr, threshold_at_fpr, threshold_at_missed
from models.examples import TrainingSet
from models.predict import sample_logits, summarise
from models.scoring_rules import brier, ece, grouped_bootstrap, nll

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

DRAWS = 200
"""Draws of the bootstrap over fields and nights."""


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
    classifier: Classifier, examples: TrainingSet, threshold: float | None = None, samples: int = 20, seed: int = 0
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
    logits = sample_logits(examples.stamps, examples.sign, classifier, samples, seed)
    told = summarise(logits)
    labels = examples.labels.astype(np.int64)
    columns = {name: np.array(examples.table[name].to_pylist(), dtype=object) for name in examples.table.column_names}
    groups = np.array([f"{f}/{n}" for f, n in zip(columns["field"], columns["night"], strict=True)], dtype=np.str_)
    given = float(classifier.card.get("threshold", 0.5)) if threshold is None else threshold
    return Evaluated(
        classifier.name, classifier.model_id, given, labels, told["score"].astype(np.float64),
        told["score_std"].astype(np.float64), told["confidence"].astype(np.float64),
        calibrated_elsewhere(logits, labels, groups, seed), columns, groups,
    )  # fmt: skip


def calibrated_elsewhere(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], groups: npt.NDArray[np.str_], seed: int = 0
) -> Float64:
    """Scores after calibration, each half of the fields and nights by a map that was learnt on the other half.

    Parameters
    ----------
    logits : ndarray, shape (samples, n)
        Sampled logits.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.
    groups : ndarray of str, shape (n,)
        Field and night of each example.
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
            found = fit_calibration(logits[:, learnt], labels[learnt], groups[learnt], seed=seed)
            out[judged] = mean_probability(logits[:, judged], found)
    return out


def headline(one: Evaluated, draws: int = DRAWS) -> list[dict[str, Any]]:
    """The figures by which models are compared, with their ranges when fields and nights are drawn again.

    Parameters
    ----------
    one : Evaluated
        Scores.
    draws : int, optional
        Draws of the bootstrap.

    Returns
    -------
    list of dict
        ``name``, ``value``, ``low``, ``high`` (95 %) and ``note``: a rate that the set cannot tell is noted.
    """

    def at_missed(rows: Rows) -> float:
        s, y = one.scores[rows], one.labels[rows]
        return missed_and_fpr(s, y, threshold_at_missed(s, y, 0.01))[1]

    def at_fpr(rate: float) -> Any:
        def found(rows: Rows) -> float:
            s, y = one.scores[rows], one.labels[rows]
            return 1.0 - missed_and_fpr(s, y, threshold_at_fpr(s, y, rate))[0]

        return found

    bogus = int((one.labels == 0).sum())
    figures: list[tuple[str, Any, str]] = [
        ("AUC", lambda rows: auc(one.scores[rows], one.labels[rows]), ""),
        (
            "missed at the threshold",
            lambda rows: missed_and_fpr(one.scores[rows], one.labels[rows], one.threshold)[0],
            "",
        ),
        ("FPR at the threshold", lambda rows: missed_and_fpr(one.scores[rows], one.labels[rows], one.threshold)[1], ""),
        ("FPR at 1 % missed", at_missed, ""),
        *((f"TPR at FPR {rate:g}", at_fpr(rate), _too_few(bogus, rate)) for rate in (1e-2, 1e-3, 1e-4)),
        ("NLL", lambda rows: nll(one.scores[rows], one.labels[rows]), ""),
        ("Brier", lambda rows: brier(one.scores[rows], one.labels[rows]), ""),
        ("ECE, equal mass", lambda rows: ece(one.scores[rows], one.labels[rows], equal_mass=True), ""),
        ("ECE after calibration", lambda rows: ece(one.calibrated[rows], one.labels[rows], equal_mass=True), ""),
        ("NLL after calibration", lambda rows: nll(one.calibrated[rows], one.labels[rows]), ""),
    ]
    out = []
    for name, of, note in figures:
        low, high = grouped_bootstrap(of, one.groups, draws)
        out.append({"name": name, "value": of(np.arange(len(one.labels))), "low": low, "high": high, "note": note})
    return out


def confusion(one: Evaluated) -> dict[str, int]:
    """Real and bogus examples, accepted and rejected at the threshold.

    Parameters
    ----------
    one : Evaluated
        Scores.

    Returns
    -------
    dict of str to int
        ``real_accepted``, ``real_rejected``, ``bogus_accepted``, ``bogus_rejected``.
    """
    accepted, real = one.scores >= one.threshold, one.labels == 1
    return {
        "real_accepted": int(np.count_nonzero(real & accepted)),
        "real_rejected": int(np.count_nonzero(real & ~accepted)),
        "bogus_accepted": int(np.count_nonzero(~real & accepted)),
        "bogus_rejected": int(np.count_nonzero(~real & ~accepted)),
    }


def by_unit(one: Evaluated) -> list[dict[str, Any]]:
    """Figures of each unit at the model's threshold, the worst first.

    Parameters
    ----------
    one : Evaluated
        Scores.

    Returns
    -------
    list of dict
        ``unit``, ``real``, ``bogus``, ``auc``, ``missed``, ``fpr``, ``fpr_1`` (at 1 % missed) and ``ece``.
    """
    units = texts(one.columns.get("unit"), len(one.labels))
    rows = []
    for unit in np.unique(units):
        s, y = one.scores[units == unit], one.labels[units == unit]
        missed, fpr = missed_and_fpr(s, y, one.threshold)
        fpr_1 = missed_and_fpr(s, y, threshold_at_missed(s, y, 0.01))[1]
        counts = {"unit": str(unit), "real": int((y == 1).sum()), "bogus": int((y == 0).sum())}
        rows.append({**counts, "auc": auc(s, y), "missed": missed, "fpr": fpr, "fpr_1": fpr_1, "ece": ece(s, y)})
    return sorted(rows, key=lambda row: (np.isnan(row["auc"]), row["auc"]))


def worst(one: Evaluated, most: int = 24) -> dict[str, Rows]:
    """Rows of the surest errors.

    Parameters
    ----------
    one : Evaluated
        Scores.
    most : int, optional
        Rows of each kind.

    Returns
    -------
    dict of str to ndarray of int64
        ``missed``: real below the threshold, lowest score first. ``accepted``: bogus above, highest first.
    """
    order = np.argsort(one.scores, kind="stable")
    below, above = one.scores[order] < one.threshold, one.scores[order] >= one.threshold
    real = one.labels[order] == 1
    return {"missed": order[below & real][:most], "accepted": order[above & ~real][::-1][:most]}


def texts(column: npt.NDArray[Any] | None, n: int) -> npt.NDArray[np.str_]:
    """A column as text, empty where it is null or absent.

    Parameters
    ----------
    column : ndarray of object or None
        The column.
    n : int
        Its length where it is absent.

    Returns
    -------
    ndarray of str, shape (n,)
        The texts.
    """
    return np.full(n, "") if column is None else np.array(["" if v is None else str(v) for v in column], dtype=np.str_)


def _too_few(bogus: int, rate: float) -> str:
    return "" if bogus * rate >= 10 else f"{bogus} bogus examples: {bogus * rate:.2g} expected above the threshold"
