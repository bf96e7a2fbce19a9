"""From a trained network to a model on disk: threshold from the validation part, figures from the test part, card."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.calibration.metrics import threshold_at_fpr, threshold_at_missed
from models.network.classifier import Classifier, of_network
from models.network.runtime import versions
from models.network.store import predict, save
from models.training.evaluation import card_figures
from models.training.examples import TrainingSet, detected, identity_of
from models.training.train import TrainedModel
from nightsift.core.probabilities import short_threshold, threshold_text

LEAST_REAL = 500  # without flags, to choose a threshold by them alone: five are missed
LEAST_OF_UNIT, LEAST_UNITS = 200, 5  # real examples of a unit, and units, to ask for a rate in most units
MOST_UNITS = 5 / 6
MOST_NAMED = 20  # units or nights that a card names; of more it gives the number
FEW = 1000  # examples of a class: of fewer a network from scratch is worse than one that was carried over
GOLDEN = 24  # golden stamps, half of them real: enough to notice any fault, small on disk


def release(
    folder: str | Path, trained: TrainedModel, examples: TrainingSet, *, made: dict[str, Any], missed: float = 0.01
) -> Classifier:
    """Choose the threshold, measure the model on the test part, and write it with its card.

    Parameters
    ----------
    folder : str or Path
        Where to; its last part is the name of the model.
    trained : TrainedModel
        The network.
    examples : TrainingSet
        The set that it was trained on, with all three parts.
    made : dict
        How the set was made: command, ``from`` (in words), seed, number of units; goes into the card as it is.
    missed : float, optional
        Part of the real examples that the recommended threshold may lose, in five of six units of the validation
        part where there are enough of them: a new unit is not the mean of the known ones.

    Returns
    -------
    Classifier
        The model as written; ``card["threshold"]`` is the recommended threshold.
    """
    model = of_network(trained.model, trained.options.recipe)
    validation, test = examples.part("validation"), examples.part("test")
    known, new = (np.asarray(predict(part.stamps, part.sign, model)["score"]) for part in (validation, test))
    rows, which = _threshold_rows(validation)
    units = np.asarray(validation.table["unit"])[rows]
    lowest, where = threshold_for_units(known[rows], validation.labels[rows], units, missed=missed)
    threshold = short_threshold(lowest, known)
    card = {
        "purpose": f"real/bogus score of candidates of difference images; learnt from {made['from']}",
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threshold": threshold,
        "threshold_rule": f"loses {missed:.1%} of {which} {where} of the validation part",
        "threshold_at_fpr_1_percent": short_threshold(threshold_at_fpr(known, validation.labels, 0.01), known),
        "score_means": f"the probability to be real where {trained.options.prevalence:.0%} of the candidates are",
        "parameters": int(trained.model.count_params()),
        "made": made,
        "versions": versions(),
        "learnt_from": contents(examples, ("train", "validation")),
        "tested_on": contents(examples, ("test",)),
        "data": {**examples.card, **identity_of(examples)},
        "training": {**trained.options.to_mapping(), "best_epoch": trained.best_epoch, "history": trained.history},
        _figures_name(examples): _all_figures(test, new, threshold),
    }
    golden = golden_of(test)
    return save(folder, trained.model, trained.options.recipe, card=card, golden=golden.stamps, sign=golden.sign)


def contents(examples: TrainingSet, parts: tuple[str, ...]) -> dict[str, Any]:
    """Return what some parts of a set hold, for people.

    Parameters
    ----------
    examples : TrainingSet
        A set with its parts.
    parts : tuple of str
        Names of parts.

    Returns
    -------
    dict
        ``surveys``, ``units`` and ``nights`` (names, or their number where they are many), number of ``exposures`` and
        of examples, and these by source and label.
    """
    some = examples.take(np.flatnonzero(np.isin(np.asarray(examples.table["split"]).astype(str), parts)))
    sources = zip(some.table["source"].to_pylist(), some.labels.tolist(), strict=True)
    counts = Counter(f"{source or 'unknown'}, {'real' if label else 'bogus'}" for source, label in sources)
    named = {f"{one}s": sorted(set(some.table[one].to_pylist())) for one in ("survey", "unit", "night")}
    return {
        **{name: values if len(values) <= MOST_NAMED else len(values) for name, values in named.items()},
        "exposures": len(some.table["exposure_id"].unique()),
        "examples": len(some),
        "examples_by_source": dict(counts.most_common()),
    }


def _figures_name(examples: TrainingSet) -> str:
    """Name of the figures of the test part: whether its units were learnt from must not be mistaken."""
    part, unit = (np.asarray(examples.table[name]).astype(str) for name in ("split", "unit"))
    shared = set(unit[part == "test"]) & set(unit[np.isin(part, ("train", "validation"))])
    return "figures_on_test_part" if shared else "figures_on_unseen_units"


def after_training(folder: Path, card: dict[str, Any], sets: tuple[str, ...]) -> list[str]:
    """Return what a person needs to know of a model that was just written, in lines.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    card : dict
        Its card.
    sets : tuple of str
        Folders of the stamp sets that it learnt from; their test part is named where none was written.

    Returns
    -------
    list of str
        Its identity, what it learnt from, what it was tested on and where that lies, and the command that evaluates it.
    """
    learnt, tested = card["learnt_from"], card["tested_on"]
    lines = [
        f"model {card['model_id']} written to {folder}, threshold {threshold_text(card['threshold'])}",
        f"learnt from {_in_words(learnt)}; tested on {_in_words(tested)}",
    ]
    by_label = Counter({"real": 0, "bogus": 0})
    for name, number in learnt["examples_by_source"].items():
        by_label[name.rpartition(", ")[2]] += number
    rarer = min(by_label, key=by_label.__getitem__)
    if by_label[rarer] < FEW:
        lines.append(
            f"it learnt from {by_label[rarer]} {rarer} examples only: nightsift transfer, which starts from a trained "
            "model, needs far fewer"
        )
    held_out = held_out_folder(folder)
    if held_out.is_dir():
        lines.append(f"the test examples are in {held_out}")
        sets = ()
    command = f"nightsift evaluate {folder}{''.join(f' --set {one}' for one in sets)} --out {folder.name}.html"
    return [*lines, f"next: {command}"]


def _in_words(part: dict[str, Any]) -> str:
    units, nights = (one if isinstance(one, int) else len(one) for one in (part["units"], part["nights"]))
    sources = ", ".join(f"{number} {name.replace(', ', ' ')}" for name, number in part["examples_by_source"].items())
    plural = ["" if number == 1 else "s" for number in (units, nights)]
    return f"{part['examples']} examples of {units} unit{plural[0]} and {nights} night{plural[1]} ({sources})"


def held_out_folder(folder: str | Path) -> Path:
    """Return where the examples lie that a model was tested on: beside its folder, under its name."""
    return Path(folder).with_name(f"{Path(folder).name}-held-out")


def threshold_for_units(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], units: npt.NDArray[np.generic], *, missed: float
) -> tuple[float, str]:
    """Threshold that loses at most a part of the real examples in most units, not in the mean of all.

    Parameters
    ----------
    scores, labels, units : ndarray, shape (n,)
        Scores, 1 real or 0 bogus, and unit of each example.
    missed : float
        Part of the real examples.

    Returns
    -------
    threshold : float
        Quantile over units of the threshold of each, so that `MOST_UNITS` of them lose no more; that of all examples
        together where fewer than `LEAST_UNITS` have `LEAST_OF_UNIT` real ones.
    where : str
        In which units.
    """
    own = [
        threshold_at_missed(scores[units == unit], labels[units == unit], missed)
        for unit in np.unique(units)
        if int(labels[units == unit].sum()) >= LEAST_OF_UNIT
    ]
    if len(own) < LEAST_UNITS:
        return threshold_at_missed(scores, labels, missed), "of all units"
    return float(np.quantile(own, 1.0 - MOST_UNITS)), f"in five of six of {len(own)} units"


def _threshold_rows(validation: TrainingSet) -> tuple[npt.NDArray[np.bool_], str]:
    """Examples that the threshold is chosen by, and their description.

    Only what has no flag can be accepted, and a survey does not lower its guards; but a threshold needs real examples.
    """
    sound = np.asarray(validation.table["reduction"]) == "standard"
    rows = sound & (np.asarray(validation.table["flags"]) == 0) & detected(validation.table)
    if int(validation.labels[rows].sum()) >= LEAST_REAL:
        return rows, "the real examples without flags, of sound reductions,"
    return np.full(len(validation), True), "the real examples"


def _all_figures(test: TrainingSet, scores: npt.NDArray[np.floating], threshold: float) -> dict[str, Any]:
    """Figures of the test part: of all of it, of what was detected, by the standard reduction, and without flags."""
    was_detected = detected(test.table)
    standard = was_detected & (np.asarray(test.table["reduction"]) == "standard")
    unflagged = standard & (np.asarray(test.table["flags"]) == 0)
    snr, kinds = np.asarray(test.table["snr"]), np.asarray(test.table["kind"])
    return {
        name: card_figures(scores[rows], test.labels[rows], snr[rows], kinds=kinds[rows], threshold=threshold)
        for name, rows in {
            "all": np.full(len(test), True),
            "detected": was_detected,
            "standard": standard,
            "unflagged": unflagged,
        }.items()
        if len(set(test.labels[rows])) == 2
    }


def golden_of(test: TrainingSet) -> TrainingSet:
    """Pick golden stamps: at most `GOLDEN` examples spread over a set, half of them real where there are enough."""
    rows = [np.flatnonzero(test.labels == label) for label in (1, 0)]
    picked = [one[np.linspace(0, len(one) - 1, min(GOLDEN // 2, len(one))).astype(int)] for one in rows]
    return test.take(np.concatenate(picked))
