"""Learning the calibration of a unit from labelled candidates of that unit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from models.calibrate import Calibration, fit_calibration, mean_probability
from models.errors import TooFewLabels
from models.predict import sample_logits
from models.store import NO_MODEL, load
from models.stored_stamps import read_rows
from models.thresholds import Threshold, resolve
from models.unit_scoring import wrong_calibration
from nightsift.io.parquet import read_candidates
from nightsift.io.paths import Archive
from nightsift.units import Unit

SEED = 0
"""Seed of the dropout samples, the same as in service."""


def learn_calibration(
    archive: Archive, unit: Unit, labels: Mapping[str, int], rule: str = "", prevalence: float | None = None
) -> tuple[Calibration, Threshold | TooFewLabels | None]:
    """Learn a unit's calibration from labels of its candidates.

    Parameters
    ----------
    archive : Archive
        Where candidates and stamps are stored.
    unit : Unit
        The unit, with the model whose scores are calibrated.
    labels : mapping of str to int
        1 real or 0 bogus by candidate_id; those of other units are passed over.
    rule : str, optional
        Threshold wanted, such as ``"FPR 1e-2"`` (`models.thresholds`).
    prevalence : float, optional
        Part of the candidates that is real in service; that of the labels if not given.

    Returns
    -------
    calibration : Calibration
        The calibration, ``"none"`` with its reasons where the labels are too few.
    threshold : Threshold, TooFewLabels or None
        The threshold that follows the rule on these labels, or why they cannot tell it.

    Raises
    ------
    ConfigurationError
        If no label belongs to a stored candidate of the unit, or the unit has no model.
    """
    if unit.model.name == NO_MODEL:
        raise wrong_calibration(unit, "the unit has no model whose scores could be calibrated")
    candidates = read_candidates(archive, unit=unit.name)
    rows = np.flatnonzero(np.asarray(pc.is_in(candidates["candidate_id"], pc.cast(list(labels), "string"))))
    if not len(rows):
        raise wrong_calibration(
            unit, f"none of the {len(labels)} labels belongs to a candidate of {unit.name} in {archive.root}"
        )
    chosen = candidates.take(rows)
    truth = np.array([labels[one] for one in chosen["candidate_id"].to_pylist()])
    classifier = load(unit.model.name)
    stamps = read_rows(archive, candidates, rows, classifier.recipe.size)
    logits = sample_logits(stamps, chosen["sign"].to_numpy(), classifier, unit.model.samples, SEED)
    # Candidates of one field and night share their sky, their template and their faults.
    groups = [
        f"{night}/{field}" for night, field in zip(*(chosen[n].to_pylist() for n in ("night", "field")), strict=True)
    ]
    if len(set(groups)) < 2:
        groups = chosen["exposure_id"].to_pylist()
    stated = float(classifier.card.get("training", {}).get("prevalence", 0.5))
    found = fit_calibration(logits, truth, groups, prevalence, classifier.model_id, unit.name, stated=stated)
    if not rule:
        return found, None
    try:
        return found, resolve(rule, mean_probability(logits, found), truth)
    except TooFewLabels as error:
        return found, error
