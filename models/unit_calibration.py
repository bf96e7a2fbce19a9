"""The calibration that a unit file names, and learning one from labelled candidates of that unit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from models.calibrate import Calibration, fit_calibration, mean_probability
from models.errors import TooFewLabels
from models.predict import sample_logits
from models.store import NO_MODEL, load, model_id
from models.stored_stamps import read_rows
from models.thresholds import Threshold, resolve
from nightsift.errors import ConfigurationError, ModelMismatch
from nightsift.io.parquet import read_candidates
from nightsift.io.paths import Archive
from nightsift.units import Unit

SEED = 0
"""Seed of the dropout samples, the same as in service."""


def calibration_of(unit: Unit) -> Calibration | None:
    """Read the calibration that a unit file names.

    Parameters
    ----------
    unit : Unit
        The unit.

    Returns
    -------
    Calibration or None
        None where the unit names none.

    Raises
    ------
    ConfigurationError
        If the file is absent, is no calibration, or belongs to another model.
    """
    if not unit.model.calibration or unit.model.name == NO_MODEL:
        return None
    path = Path(unit.file).parent / unit.model.calibration
    try:
        found = _read(path, path.stat().st_mtime_ns)
    except (OSError, ModelMismatch) as error:
        raise _wrong(unit, f"{path} cannot be used: {error}") from error
    current = model_id(unit.model.name)
    if found.model_id != current:
        raise _wrong(unit, f"{path} was learnt for the model {found.model_id}, and the unit scores with {current}")
    return found


def scoring_identity(unit: Unit) -> str:
    """Identity of what gives a unit's scores: the model and the calibration.

    Parameters
    ----------
    unit : Unit
        The unit.

    Returns
    -------
    str
        Identity of the model, with that of the calibration where there is one.

    Raises
    ------
    ModelMismatch
        If there is no such model.
    ConfigurationError
        If the calibration cannot be used.
    """
    identity = model_id(unit.model.name)
    calibration = calibration_of(unit)
    return identity if calibration is None else f"{identity}+{calibration.digest}"


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
        raise _wrong(unit, "the unit has no model whose scores could be calibrated")
    candidates = read_candidates(archive, unit=unit.name)
    rows = np.flatnonzero(np.asarray(pc.is_in(candidates["candidate_id"], pc.cast(list(labels), "string"))))
    if not len(rows):
        raise _wrong(unit, f"none of the {len(labels)} labels belongs to a candidate of {unit.name} in {archive.root}")
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


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Calibration:
    return Calibration.from_json(path.read_text(encoding="utf-8"), str(path))


def _wrong(unit: Unit, what: str) -> ConfigurationError:
    return ConfigurationError(
        file=unit.file, table="model", key="calibration", what=what,
        advice="learn one with nightsift calibrate, or leave it empty",
    )  # fmt: skip
