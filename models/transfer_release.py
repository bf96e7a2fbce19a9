"""From a transferred network to a model on disk: card, calibration with the identity of the new model, threshold."""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from models.calibrate import Calibration, mean_probability
from models.classifier import Classifier
from models.errors import TooFewLabels
from models.evaluate import auc
from models.examples import TrainingSet
from models.release import golden_of
from models.runtime import versions
from models.scoring_rules import brier, ece, nll
from models.store import save
from models.thresholds import Threshold, resolve
from models.transfer import TransferOptions, Transferred


def write_transferred(
    folder: str | Path,
    found: Transferred,
    base: Classifier,
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
    found : Transferred
        What `models.transfer.transfer` gave.
    base : Classifier
        The model that it comes from.
    examples : TrainingSet
        The labelled stamps that it learnt from.
    made : dict
        How it was made; goes into the card as it is.
    options : TransferOptions, optional
        How it was transferred.
    rule : str, optional
        Threshold wanted (`models.thresholds`).
    unit : str, optional
        The unit that it is for.

    Returns
    -------
    model : Classifier
        The model as written.
    calibration : Calibration
        Its calibration, which belongs to the unit and not into the folder of the model.
    threshold : Threshold or TooFewLabels
        Threshold on calibrated scores, resolved on held-out scores, or why the labels cannot tell it.

    Raises
    ------
    ModelMismatch
        If the network does not keep the contract.
    OSError
        If it cannot be written.
    """
    held_out, labels = mean_probability(found.held_out), examples.labels
    scores = mean_probability(found.held_out, found.calibration)
    threshold: Threshold | TooFewLabels
    try:
        threshold = resolve(rule, scores, labels)
    except TooFewLabels as error:
        threshold = error
    told = isinstance(threshold, Threshold)
    card = {
        "purpose": f"real/bogus score of candidates of {unit or 'one unit'}, transferred from {base.model_id}",
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threshold": round(threshold.value, 4) if isinstance(threshold, Threshold) else base.card.get("threshold"),
        "threshold_rule": f"{rule}, on calibrated held-out scores" if told else f"that of the base: {threshold}",
        "score_means": base.card.get("score_means", ""),
        "parameters": int(found.classifier.network.count_params()),
        "base": {"model_id": base.model_id, "made": base.card.get("made", {}), "data": base.card.get("data", {})},
        "made": made,
        "versions": versions(),
        "data": _counts(examples),
        "transfer": {
            "strategy": found.strategy,
            "rounds": found.rounds,
            "held_out_by": list(found.keys),
            "notes": list(found.notes),
            "options": dataclasses.asdict(options or TransferOptions()),
            "curves": [
                {"strategy": name, "best": min(curve), "rounds": int(np.argmin(curve)), "base": curve[0]}
                for name, curve in found.curves.items()
            ],
        },
        "figures_held_out": {
            "auc": auc(held_out, labels),
            "nll": nll(held_out, labels),
            "brier": brier(held_out, labels),
            "ece_before_calibration": ece(held_out, labels),
            "ece": found.calibration.figures["ece_after"],  # of labels that the map did not learn from
            "calibration": found.calibration.method,
        },
    }
    golden = golden_of(examples)
    model = save(folder, found.classifier.network, base.recipe, card, golden.stamps, golden.sign)
    calibration = dataclasses.replace(found.calibration, model_id=model.model_id, unit=unit)
    return model, calibration, threshold


def _counts(examples: TrainingSet) -> dict[str, Any]:
    return {
        "real": int((examples.labels == 1).sum()),
        "bogus": int((examples.labels == 0).sum()),
        **{f"{name}s": len(Counter(examples.table[name].to_pylist())) for name in ("unit", "field", "night")},
        "left_out": examples.card.get("left_out", {}),
    }
