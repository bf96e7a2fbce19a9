"""From a base model to one for a new unit, with as few labels as there are; and its card, calibration and threshold.

The number of rounds of fine-tuning, and whether any is good, comes from cross-validation over groups (fields, exposures
or objects, the strictest that there are enough of): each label is scored by networks that did not learn from it. None
is set aside for good: the final network learns from all of them, for as many rounds as were best. The held-out logits
of that round are then what the calibration is learnt from, so that it corrects the overconfidence of the tuning and not
that of the memory. Round 0, the base as it is, is always among the choices.

Where the strategy is left open (``"auto"``), the simplest one within one standard error of the best is taken; with a
handful of labels, where that error is itself not known, nothing is tuned.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.calibration.calibrate import Calibration, fit_calibration, mean_probability
from models.calibration.metrics import auc, brier, ece, losses, nll
from models.network.classifier import Classifier, of_network
from models.network.runtime import versions
from models.network.store import save
from models.training.examples import TrainingSet
from models.training.release import golden_of
from models.training.split import groups_of
from models.transfer.tuner import Prepared, TuneOptions, Tuner
from models.transfer.unit_calibration import Threshold, resolve
from nightsift.core.errors import TooFewLabels

AUTO = "auto"
CHOICES = ("frozen", "head", "partial", "full")
"""Strategies that ``"auto"`` chooses among, the simplest first."""
LEAST = 4
"""Labels of each class without which nothing is tuned."""
FEW = 50
"""Labels below which ``"auto"`` tunes nothing: measured, the first ones do more harm than good."""
KEYS = (("field", "object_id"), ("exposure_id", "object_id"), ("object_id",), ("example_id",))

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """Options of a transfer to a new unit.

    Attributes
    ----------
    strategy : str
        One of `models.transfer.tuner.STRATEGIES`, or ``"auto"``.
    tune : TuneOptions
        How to fine-tune.
    folds : int
        Folds of the cross-validation.
    prevalence : float or None
        Part of the candidates that is real in service; that of the labels when None.
    """

    strategy: str = AUTO
    tune: TuneOptions = field(default_factory=TuneOptions)
    folds: int = 4
    prevalence: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Transferred:
    """A model that was carried over.

    Attributes
    ----------
    classifier : Classifier
        The network with the weights learnt from all labels; not yet on disk.
    strategy : str
        The strategy taken.
    rounds : int
        Rounds trained.
    calibration : Calibration
        Learnt from the held-out logits.
    held_out : ndarray of float32, shape (samples, n)
        Logits of each label by networks that did not learn from it.
    curves : dict of str to list of float
        Mean held-out loss (nat, classes weighted equally) after each round, by strategy; round 0 first.
    keys : tuple of str
        What no two folds shared.
    notes : tuple of str
        What was not tried or not possible.
    """

    classifier: Classifier
    strategy: str
    rounds: int
    calibration: Calibration
    held_out: npt.NDArray[np.float32]
    curves: dict[str, list[float]]
    keys: tuple[str, ...]
    notes: tuple[str, ...]


def transfer(
    base: Classifier,
    examples: TrainingSet,
    options: TransferOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Transferred:
    """Carry a model over to a unit.

    Parameters
    ----------
    base : Classifier
        A model loaded with Keras (``load(name, engine="keras")``).
    examples : TrainingSet
        Labelled stamps of the unit; all are learnt from, whatever their split.
    options : TransferOptions, optional
        How; the defaults when not given.
    progress : callable, optional
        Called with strategy, number of fits done and of all fits of this strategy.

    Returns
    -------
    Transferred
        The new model with its calibration.

    Raises
    ------
    TooFewLabels
        If a class has fewer labels than are needed to tune at all.
    ModelMismatch
        If the stamps do not fit the recipe of the base.
    ValueError
        If the strategy is unknown.
    """
    options = options or TransferOptions()
    for name, label in (("real", 1), ("bogus", 0)):
        count = int((examples.labels == label).sum())
        if count < LEAST:
            raise TooFewLabels(rule="transfer", needed=LEAST, label=name, found=count)
    fold, keys = folds_of(examples, options.folds, options.tune.seed)
    few = options.strategy == AUTO and len(examples) < FEW
    names = CHOICES[:1] if few else CHOICES if options.strategy == AUTO else (options.strategy,)
    tuners = {name: Tuner(base, name, options.tune) for name in names}
    tries = {
        name: cross_fit(tuner, tuner.prepare(examples), fold, progress=_progress_of(progress, name))
        for name, tuner in tuners.items()
    }
    name = simplest(tries, examples.labels)
    crossed, tuner = tries[name], tuners[name]
    fit(tuner, tuner.prepare(examples), crossed.best)
    groups = groups_of(_columns(examples, keys))
    made = fit_calibration(
        crossed.logits[crossed.best], examples.labels, groups, prevalence=options.prevalence, seed=options.tune.seed
    )
    notes: tuple[str, ...] = (f"held out by {' and '.join(keys)}",) if keys != KEYS[0] else ()
    notes += (f"auto tunes nothing with fewer than {FEW} labels, got {len(examples)}: label more",) if few else ()
    return Transferred(
        classifier=of_network(tuner.model, base.recipe, base.name),
        strategy=name,
        rounds=crossed.best,
        calibration=made,
        held_out=crossed.logits[crossed.best],
        curves={one: tried.curve for one, tried in tries.items()},
        keys=keys,
        notes=notes,
    )


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Held-out logits of all labels after each round.

    Attributes
    ----------
    logits : list of ndarray of float32, each of shape (samples, n)
        After 0, 1, ... rounds.
    curve : list of float
        Their mean losses (nat), both classes weighted equally.
    best : int
        Round with the smallest loss.
    """

    logits: list[npt.NDArray[np.float32]]
    curve: list[float]
    best: int


def cross_fit(
    tuner: Tuner, seen: Prepared, fold: npt.NDArray[np.int64], *, progress: Callable[[int, int], None] | None = None
) -> CrossFit:
    """Score each label by networks that did not learn from it, after each round.

    Parameters
    ----------
    tuner : Tuner
        What is tuned.
    seen : Prepared
        Its view of the labelled stamps.
    fold : ndarray of int64, shape (n,)
        Fold of each.
    progress : callable, optional
        Called with the number of fits done and of all, that on all labels included.

    Returns
    -------
    CrossFit
        Held-out logits and losses.
    """
    folds = np.unique(fold)
    logits = [np.empty((tuner.options.samples, len(fold)), np.float32) for _ in range(tuner.rounds + 1)]
    for done, one in enumerate(folds):
        learn, out = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
        still = tuner.features(seen.planes[out]) if tuner.strategy in ("frozen", "head") else None
        tuner.restart()
        for number in range(tuner.rounds + 1):
            if number:
                tuner.round(seen, learn, number)
            logits[number][:, out] = tuner.logits(seen.planes[out]) if still is None else tuner.logits_of(still)
        if progress is not None:
            progress(done + 1, len(folds) + 1)
    curve = [float(_balanced(one, seen.labels).mean()) for one in logits]
    return CrossFit(logits, curve, int(np.argmin(curve)))


def fit(tuner: Tuner, seen: Prepared, rounds: int) -> None:
    """Tune on all labels for a number of rounds, from the start; the network is then `Tuner.model`."""
    tuner.restart()
    for number in range(1, rounds + 1):
        tuner.round(seen, np.arange(len(seen.labels)), number)


def folds_of(examples: TrainingSet, count: int, seed: int) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Deal labels out to folds by the strictest keys that leave enough groups.

    Parameters
    ----------
    examples : TrainingSet
        Labelled stamps.
    count : int
        Folds wanted, at least 2.
    seed : int
        Seed of the order in which groups are dealt.

    Returns
    -------
    fold : ndarray of int64, shape (n,)
        Fold of each; without any one fold, both classes are left.
    keys : tuple of str
        What no two folds share.
    """
    labels = examples.labels
    for keys in KEYS:
        group = groups_of(_columns(examples, keys))
        if group.max() + 1 < count:
            continue
        size = np.zeros((count, 2))
        of_group = np.empty(group.max() + 1, dtype=np.int64)
        members = np.stack([np.bincount(group[labels == one], minlength=len(of_group)) for one in (0, 1)], axis=1)
        order = np.random.default_rng(seed).permutation(len(of_group))
        for one in order[np.argsort(-members[order].max(axis=1), kind="stable")]:
            # to the fold that has least of what this group has most of
            of_group[one] = int(np.lexsort((size.sum(axis=1), size[:, members[one].argmax()]))[0])
            size[of_group[one]] += members[one]
        if ((size.sum(axis=0) - size) > 0).all() and (size.sum(axis=1) > 0).all():
            return of_group[group], keys
    return np.arange(len(labels)) % count, ("nothing",)


def _columns(examples: TrainingSet, keys: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    if keys == ("nothing",):
        keys = ("example_id",)
    return {name: np.array(examples.table[name].to_pylist(), dtype=object) for name in keys}


def _balanced(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Loss of each label, weighted so that both classes have the same weight in the mean."""
    loss = losses(mean_probability(logits), labels)
    weight = np.where(labels == 1, 0.5 / max((labels == 1).mean(), 1e-9), 0.5 / max((labels == 0).mean(), 1e-9))
    return np.asarray(loss * weight)


def simplest(tries: dict[str, CrossFit], labels: npt.NDArray[np.integer]) -> str:
    """Pick the first strategy whose held-out loss is within one standard error of the best one's.

    Parameters
    ----------
    tries : dict of str to CrossFit
        Held-out logits by strategy, the simplest first.
    labels : ndarray of int, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    str
        Its name.
    """
    seen = {name: _balanced(tried.logits[tried.best], labels) for name, tried in tries.items()}
    best = min(seen, key=lambda name: float(seen[name].mean()))
    for name, loss in seen.items():
        excess = loss - seen[best]
        if excess.mean() <= excess.std() / np.sqrt(len(excess)):
            return name
    return best


def _progress_of(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, of: progress(name, done, of)


def write_transferred(
    folder: str | Path,
    transferred: Transferred,
    base: Classifier,
    *,
    examples: TrainingSet,
    made: dict[str, Any],
    options: TransferOptions | None = None,
    rule: str = "FPR 1e-2",
    unit: str = "",
) -> tuple[Classifier, Calibration, Threshold | TooFewLabels]:
    """Write a transferred model with its card.

    Parameters
    ----------
    folder : str or Path
        Where to; its last part is the name of the model.
    transferred : Transferred
        What `models.transfer.transfer.transfer` gave.
    base : Classifier
        The model that it comes from.
    examples : TrainingSet
        The labelled stamps that it learnt from.
    made : dict
        How it was made; goes into the card as it is.
    options : TransferOptions, optional
        How it was transferred.
    rule : str, optional
        Threshold wanted (`models.network.unit_scoring`).
    unit : str, optional
        The unit that it is for.

    Returns
    -------
    model : Classifier
        The model as written.
    calibration : Calibration
        Its calibration, which belongs to the unit and not into the folder of the model.
    threshold : Threshold or TooFewLabels
        Threshold on calibrated scores, resolved on held-out scores, or why the labels cannot decide it.

    Raises
    ------
    ModelMismatch
        If the network does not keep the contract.
    OSError
        If it cannot be written.
    """
    held_out, labels = mean_probability(transferred.held_out), examples.labels
    scores = mean_probability(transferred.held_out, transferred.calibration)
    threshold: Threshold | TooFewLabels
    try:
        threshold = resolve(rule, scores, labels)
    except TooFewLabels as error:
        threshold = error
    resolved = isinstance(threshold, Threshold)
    card = {
        "purpose": f"real/bogus score of candidates of {unit or 'one unit'}, transferred from {base.model_id}",
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threshold": threshold.value if isinstance(threshold, Threshold) else base.card.get("threshold"),
        "threshold_rule": f"{rule}, on calibrated held-out scores" if resolved else f"that of the base: {threshold}",
        "score_means": base.card.get("score_means", ""),
        "parameters": int(transferred.classifier.network.count_params()),
        "base": {"model_id": base.model_id, "made": base.card.get("made", {}), "data": base.card.get("data", {})},
        "made": made,
        "versions": versions(),
        "data": _counts(examples),
        "transfer": {
            "strategy": transferred.strategy,
            "rounds": transferred.rounds,
            "held_out_by": list(transferred.keys),
            "notes": list(transferred.notes),
            "options": dataclasses.asdict(options or TransferOptions()),
            "curves": [
                {"strategy": name, "best": min(curve), "rounds": int(np.argmin(curve)), "base": curve[0]}
                for name, curve in transferred.curves.items()
            ],
        },
        "figures_held_out": {
            "auc": auc(held_out, labels),
            "nll": nll(held_out, labels),
            "brier": brier(held_out, labels),
            "ece_before_calibration": ece(held_out, labels),
            "ece": transferred.calibration.figures["ece_after"],  # of labels that the map did not learn from
            "calibration": transferred.calibration.method,
        },
    }
    golden = golden_of(examples)
    model = save(folder, transferred.classifier.network, base.recipe, card=card, golden=golden.stamps, sign=golden.sign)
    calibration = dataclasses.replace(transferred.calibration, model_id=model.model_id, unit=unit)
    return model, calibration, threshold


def _counts(examples: TrainingSet) -> dict[str, Any]:
    return {
        "real": int((examples.labels == 1).sum()),
        "bogus": int((examples.labels == 0).sum()),
        **{f"{name}s": len(Counter(examples.table[name].to_pylist())) for name in ("unit", "field", "night")},
        "left_out": examples.card.get("left_out", {}),
    }
