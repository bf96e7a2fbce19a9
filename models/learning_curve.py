"""What more data bring: the same network trained on growing parts of a set, judged on the same test part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from models.classifier import of_network
from models.evaluate import auc, missed_and_fpr, threshold_at_missed
from models.examples import TrainingSet
from models.predict import predict
from models.train import TrainOptions, train

FRACTIONS = (0.125, 0.25, 0.5, 1.0)
SMALLEST = 1e-5
"""Errors drawn on a logarithmic axis are not smaller."""
LONGER = 0.5
"""Epochs grow by this power of how much smaller a part is: 0 as many epochs for all, 1 as many steps for all."""


def first_units(units: npt.ArrayLike, fraction: float, seed: int) -> npt.NDArray[np.str_]:
    """Part of the units, in an order drawn by the seed, so that each part holds the smaller ones.

    Parameters
    ----------
    units : array_like of str
        Unit of each example, or units.
    fraction : float
        Part of the units; at least one is taken.
    seed : int
        Seed of the order.

    Returns
    -------
    ndarray of str
        The units.
    """
    order = np.random.default_rng(seed).permutation(np.unique(np.asarray(units, dtype=np.str_)))
    return order[: max(1, round(fraction * len(order)))]


def longer(options: TrainOptions, fraction: float, power: float = LONGER) -> TrainOptions:
    """Options of a training on part of a set: a small part is gone through more often.

    Parameters
    ----------
    options : TrainOptions
        For the whole set.
    fraction : float
        How large the part is.
    power : float, optional
        See `LONGER`.

    Returns
    -------
    TrainOptions
        With more epochs, and as much more patience.
    """
    factor = float(1.0 / max(fraction, 1e-3) ** power)
    epochs, patience = (max(1, round(one * factor)) for one in (options.epochs, options.patience))
    return dataclasses.replace(options, epochs=epochs, patience=patience)


def learning_curve(
    examples: TrainingSet,
    options: TrainOptions,
    fractions: Sequence[float] = FRACTIONS,
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
        trained = train(examples.take(rows), longer(options, fraction), None)
        model = of_network(trained.model, trained.options.recipe)
        scores = np.asarray(predict(test.stamps, test.sign, model)["score"])
        fpr = missed_and_fpr(scores, test.labels, threshold_at_missed(scores, test.labels, 0.01))[1]
        trained_on = int(np.isin(units[parts == "train"], chosen).sum())
        numbers = {"fpr_1": max(fpr, SMALLEST), "one_minus_auc": max(1.0 - auc(scores, test.labels), SMALLEST)}
        points.append({"fraction": fraction, "units": len(chosen), "examples": trained_on, **numbers})
        if progress is not None:
            progress(done + 1, len(fractions))
    return points
