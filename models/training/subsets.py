"""Networks trained on parts of a set: the learning curve, and labels that may be wrong.

The learning curve trains on growing parts and compares on the same test part.

Doubtful labels are found by confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70, 1373): a network scores
examples of groups that it was not trained on; an example that is as much at home in the other class as the members of
that class are on average is doubtful, and is marked, never dropped. The networks are trained for this purpose from
scratch; no earlier classifier has a say in what is learnt from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.calibration.metrics import auc, missed_and_fpr, threshold_at_missed
from models.network.classifier import of_network
from models.network.inputs import prepare
from models.network.store import predict
from models.training.examples import TrainingSet
from models.training.labels import BOGUS, REAL
from models.training.split import Keys, deal_folds
from models.training.train import TrainOptions, train

Probabilities = npt.NDArray[np.float64]
Fit = Callable[[TrainingSet], Callable[[TrainingSet], Probabilities]]
FRACTIONS = (0.125, 0.25, 0.5, 1.0)
SMALLEST = 1e-5
"""Errors drawn on a logarithmic axis are not smaller."""
LONGER = 0.5
"""Power of the growth of epochs as a part shrinks: 0 as many epochs for all, 1 as many steps for all."""
DOUBTFUL = 0.5
FOLDS, EPOCHS = 4, 5
KEYS = ("unit", "field", "exposure_id", "object_id", "host_id")
_LOOSER = ("field", "exposure_id", "object_id", "host_id"), ("exposure_id", "object_id", "host_id"), ("exposure_id",)


def first_units(units: npt.ArrayLike, fraction: float, seed: int) -> npt.NDArray[np.str_]:
    """Return a part of the units (at least one), in an order drawn by the seed: each part holds the smaller ones."""
    order = np.random.default_rng(seed).permutation(np.unique(np.asarray(units, dtype=np.str_)))
    return order[: max(1, round(fraction * len(order)))]


def more_epochs(options: TrainOptions, fraction: float, power: float = LONGER) -> TrainOptions:
    """Return options to train on a part of the set: epochs and patience times ``fraction**-power`` (`LONGER`)."""
    factor = float(1.0 / max(fraction, 1e-3) ** power)
    epochs, patience = (max(1, round(one * factor)) for one in (options.epochs, options.patience))
    return dataclasses.replace(options, epochs=epochs, patience=patience)


def learning_curve(
    examples: TrainingSet,
    options: TrainOptions,
    fractions: Sequence[float] = FRACTIONS,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, float]]:
    """Train on growing parts of the training part, whole units at a time, each part holding the smaller ones.

    Parameters
    ----------
    examples : TrainingSet
        With all three parts.
    options : TrainOptions
        How to train.
    fractions : sequence of float, optional
        Parts of the units of the training part.
    progress : callable, optional
        Called with the number of networks done and of all.

    Returns
    -------
    list of dict
        ``fraction``, ``units``, ``examples``, ``fpr_1`` (FPR at 1 % missed) and ``one_minus_auc`` of each network.
    """
    parts = np.array(examples.table["split"].to_pylist())
    units = np.array(examples.table["unit"].to_pylist())
    test = examples.part("test")
    points = []
    for done, fraction in enumerate(fractions):
        chosen = first_units(units[parts == "train"], fraction, options.seed)
        rows = np.flatnonzero((parts != "train") | np.isin(units, chosen))
        trained = train(examples.take(rows), more_epochs(options, fraction), None)
        model = of_network(trained.model, trained.options.recipe)
        scores = np.asarray(predict(test.stamps, test.sign, model)["score"])
        fpr = missed_and_fpr(scores, test.labels, threshold_at_missed(scores, test.labels, 0.01))[1]
        trained_on = int(np.isin(units[parts == "train"], chosen).sum())
        numbers = {"fpr_1": max(fpr, SMALLEST), "one_minus_auc": max(1.0 - auc(scores, test.labels), SMALLEST)}
        points.append({"fraction": fraction, "units": len(chosen), "examples": trained_on, **numbers})
        if progress is not None:
            progress(done + 1, len(fractions))
    return points


def _class_confidence(real: Probabilities, labels: npt.NDArray[np.int8]) -> tuple[float, float]:
    """Mean probability of their own class over the bogus and over the real examples: the thresholds (eq. 2)."""
    if not bool((labels == REAL).any()) or not bool((labels == BOGUS).any()):
        raise ValueError("both classes are needed to doubt a label")
    return float(np.mean(1.0 - real[labels == BOGUS])), float(np.mean(real[labels == REAL]))


def doubt(real: Probabilities, labels: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Doubt in each label, 0 to 1.

    ``(q / t_q) / (p / t_p + q / t_q)``, with the probabilities p of the label given and q of the other one and the mean
    confidences t of both classes: above one half where the example is more at home in the other class.

    Parameters
    ----------
    real : ndarray of float64, shape (n,) or (m, n)
        Probability to be real, by networks that have not seen the example; of an ensemble, one row a member, and the
        doubts of the members are averaged.
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    ndarray of float32, shape (n,)
        Doubt.
    """
    if real.ndim == 2:
        return np.asarray(np.mean([doubt(one, labels) for one in real], axis=0), dtype=np.float32)
    t_bogus, t_real = _class_confidence(real, labels)
    at_home = np.stack([(1.0 - real) / t_bogus, real / t_real])
    given = np.where(labels == REAL, at_home[1], at_home[0])
    other = np.where(labels == REAL, at_home[0], at_home[1])
    return np.asarray(other / np.maximum(given + other, 1e-12), dtype=np.float32)


def confident_joint(real: Probabilities, labels: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Estimated joint distribution of given and true labels (eq. 1 and 3).

    Parameters
    ----------
    real : ndarray of float64, shape (n,)
        Probability to be real.
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    ndarray of float64, shape (2, 2)
        Part of all examples with given label i (row) and true label j (column), bogus first; sums to one.
    """
    t_bogus, t_real = _class_confidence(real, labels)
    is_bogus, is_real = 1.0 - real >= t_bogus, real >= t_real
    true = np.where(is_real & (~is_bogus | (real >= 0.5)), REAL, BOGUS)
    counted = is_bogus | is_real
    joint = np.zeros((2, 2))
    for given in (BOGUS, REAL):
        mine = labels == given
        counts = np.array([np.sum(mine & counted & (true == one)) for one in (BOGUS, REAL)], dtype=np.float64)
        if counts.sum() == 0:
            counts[given] = 1.0
        joint[given] = counts / counts.sum() * mine.sum()
    return np.asarray(joint / joint.sum())


def out_of_fold(examples: TrainingSet, fit: Fit, folds: int = FOLDS, *, seed: int = 0) -> Probabilities:
    """Probabilities by networks that have not seen the example, its unit, field, object or galaxy.

    Parameters
    ----------
    examples : TrainingSet
        The set; its own split is not looked at.
    fit : callable
        Learns from the parts ``"train"`` and ``"validation"`` of a set and gives what scores another one.
    folds : int, optional
        Number of folds, at least three: one to score, one to stop the training, the others to learn from.
    seed : int, optional
        Seed of the folds.

    Returns
    -------
    ndarray of float64, shape (n,)
        Probability to be real.

    Raises
    ------
    TooFewGroups
        If the examples hang together too much for so many folds.
    """
    number = deal_folds(_keys(examples), (KEYS, *_LOOSER), folds, seed=seed)
    real = np.empty(len(examples))
    for fold in range(folds):
        check = (fold + 1) % folds
        rows = np.flatnonzero(number != fold)
        part = np.where(number[rows] == check, "validation", "train")
        score = fit(_with_column(examples.take(rows), "split", pa.array(part.tolist(), pa.string())))
        real[number == fold] = score(examples.take(np.flatnonzero(number == fold)))
    return real


def measure_doubt(
    examples: TrainingSet, fit: Fit | None = None, folds: int = FOLDS, *, rounds: int = 1, seed: int = 0
) -> TrainingSet:
    """Fill the column ``label_doubt``.

    Parameters
    ----------
    examples : TrainingSet
        The set.
    fit : callable, optional
        See `out_of_fold`; a small network trained for a few epochs by default.
    folds, rounds : int, optional
        Folds, and the number of times folds are dealt: more rounds are an ensemble and cost as much more.
    seed : int, optional
        Seed.

    Returns
    -------
    TrainingSet
        The same examples, all of them; the card has the numbers of doubtful labels and the estimated parts of wrong.
    """
    fit = fit or network_fit(TrainOptions(epochs=EPOCHS, patience=2, seed=seed))
    real = np.array([out_of_fold(examples, fit, folds, seed=seed + k) for k in range(rounds)])
    doubts = doubt(real, examples.labels)
    joint = confident_joint(real.mean(axis=0), examples.labels)
    noise: dict[str, Any] = {
        "method": "confident learning on scores out of fold", "folds": folds, "rounds": rounds,
        "doubtful": {name: int((doubts[examples.labels == one] > DOUBTFUL).sum())
                     for name, one in (("real", REAL), ("bogus", BOGUS))},
        "estimated_wrong": {"real": float(joint[REAL, BOGUS] / joint[REAL].sum()),
                            "bogus": float(joint[BOGUS, REAL] / joint[BOGUS].sum())},
    }  # fmt: skip
    noted = TrainingSet(examples.stamps, examples.table, {**examples.card, "label_noise": noise})
    return _with_column(noted, "label_doubt", pa.array(doubts, pa.float32()))


def network_fit(options: TrainOptions) -> Fit:
    """A network trained for a few epochs.

    Parameters
    ----------
    options : TrainOptions
        How to train. Few epochs: a network that has learnt the wrong labels by heart does not doubt them.

    Returns
    -------
    callable
        For `out_of_fold`.
    """

    def fit(examples: TrainingSet) -> Callable[[TrainingSet], Probabilities]:

        model = train(examples, options).model

        def score(others: TrainingSet, batch: int = 512) -> Probabilities:
            data, mask = prepare(others.stamps, others.sign, options.recipe)
            logits = [
                np.asarray(model.predict_on_batch([data[first : first + batch], mask[first : first + batch]]))[:, 0]
                for first in range(0, len(others), batch)
            ]
            return np.asarray(1.0 / (1.0 + np.exp(-np.concatenate(logits).astype(np.float64))))

        return score

    return fit


def _keys(examples: TrainingSet) -> Keys:
    return {name: np.array(examples.table[name].to_pylist(), dtype=object) for name in KEYS}


def _with_column(examples: TrainingSet, name: str, values: pa.Array) -> TrainingSet:
    place = examples.table.schema.get_field_index(name)
    table = examples.table.set_column(place, examples.table.schema.field(place), values)
    return TrainingSet(examples.stamps, table, examples.card)
