"""The calibration of a unit from its own labelled candidates, and thresholds stated by their cost.

``"FPR 1e-3"`` or ``"miss 1%"`` are resolved on a unit's own labels. A rule is refused where the labels cannot decide
it: a rate of 1e-3 is not seen in 500 bogus candidates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from scipy.special import expit, logit

from models.calibration.calibrate import Calibration, fit_calibration, mean_probability
from models.calibration.metrics import threshold_at_fpr, threshold_at_missed
from models.network.classifier import sample_logits
from models.network.store import NO_MODEL, load
from models.network.unit_scoring import wrong_calibration
from models.training.examples import read_rows
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.core.errors import ConfigurationError, TooFewLabels
from nightsift.core.probabilities import short_threshold
from nightsift.unit.units import Unit

LEAST_EVENTS = 3.0
"""Candidates beyond the threshold that the labels must hold on the average, for the rate to be more than a guess."""


DRAWS = 500
"""Bootstrap draws of the interval."""


_RULE = re.compile(r"^\s*(fpr|miss)\s+([0-9.]+(?:e-?[0-9]+)?)\s*(%?)\s*$", re.IGNORECASE)
SEED = 0
"""Seed of the dropout samples, the same as in service."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score threshold and what it is known to cost.

    Attributes
    ----------
    value : float
        Candidates at or above it are accepted.
    rule : str
        The rule that it follows.
    low, high : float
        Range of the rate (of bogus let through, or of real missed) in 95 of 100 other draws of the labels.
    examples : int
        Labels of the class that the rate is counted in.
    """

    value: float
    rule: str
    low: float
    high: float
    examples: int


def parse_rule(rule: str, where: str = "unit") -> tuple[str, float]:
    """Read a rule for a threshold.

    Parameters
    ----------
    rule, where : str
        ``"FPR 1e-3"`` or ``"miss 1%"``, and where it was given, for errors.

    Returns
    -------
    kind : str
        ``"fpr"`` or ``"miss"``.
    rate : float
        Between 0 and 1.

    Raises
    ------
    ConfigurationError
        If it is no rule.
    """
    match = _RULE.match(rule)
    rate = float(match[2]) / (100.0 if match[3] else 1.0) if match else np.nan
    if match is None or not 0.0 < rate < 1.0:
        raise ConfigurationError(
            file=where, table="model", key="threshold", what=f"{rule!r} is no rule",
            advice='give a score such as 0.4, "FPR 1e-3" or "miss 1%"',
        )  # fmt: skip
    return match[1].lower(), rate


def resolve(rule: str, scores: npt.NDArray[np.floating], labels: npt.ArrayLike, *, seed: int = 0) -> Threshold:
    """Find the threshold that follows a rule on labelled scores.

    Parameters
    ----------
    rule : str
        ``"FPR 1e-3"``: at most this part of the bogus is let through; ``"miss 1%"``: at most this part of the real
        is lost.
    scores : ndarray, shape (n,)
        Scores, calibrated as in service.
    labels : array_like of int, shape (n,)
        1 real, 0 bogus.
    seed : int, optional
        Seed of the bootstrap.

    Returns
    -------
    Threshold
        The threshold with the range of its rate.

    Raises
    ------
    ConfigurationError
        If it is no rule.
    TooFewLabels
        If the labels are too few to measure the rate.
    """
    kind, rate = parse_rule(rule)
    scores, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    counted = scores[y == (0 if kind == "fpr" else 1)]
    needed = int(np.ceil(LEAST_EVENTS / rate))
    if len(counted) < needed:
        raise TooFewLabels(rule=rule, found=len(counted), needed=needed, label="bogus" if kind == "fpr" else "real")
    find = threshold_at_fpr if kind == "fpr" else threshold_at_missed
    value = short_threshold(find(scores, y, rate), scores)
    beyond = counted >= value if kind == "fpr" else counted < value
    drawn = np.random.default_rng(seed).binomial(len(counted), max(beyond.mean(), 1e-12), DRAWS) / len(counted)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Threshold(float(value), rule, float(low), float(high), len(counted))


def carry_over(value: float, calibration: Calibration) -> float:
    """Return a threshold on uncalibrated scores as one on calibrated scores, until labels give a better one.

    The map is monotone, so that nearly the same candidates are accepted (exactly so for one sample).
    """
    inside = float(np.clip(value, 1e-12, 1.0 - 1e-12))
    carried = float(expit(calibration(np.array([logit(inside)]))[0]))
    return short_threshold(carried, np.array([carried]), digits=6)


def learn_calibration(
    archive: Archive, unit: Unit, labels: Mapping[str, int], *, rule: str = "", prevalence: float | None = None
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
        Threshold wanted, such as ``"FPR 1e-2"`` (`models.network.unit_scoring`).
    prevalence : float, optional
        Part of the candidates that is real in service; that of the labels if not given.

    Returns
    -------
    calibration : Calibration
        The calibration, ``"none"`` with its reasons where the labels are too few.
    threshold : Threshold, TooFewLabels or None
        The threshold that follows the rule on these labels, or why they cannot decide it.

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
    stamps = read_rows(archive, candidates, rows, size=classifier.recipe.size)
    logits = sample_logits(stamps, chosen["sign"].to_numpy(), classifier, samples=unit.model.samples, seed=SEED)
    # Candidates of one field and night share their sky, their template and their faults.
    groups = [
        f"{night}/{field}" for night, field in zip(*(chosen[n].to_pylist() for n in ("night", "field")), strict=True)
    ]
    if len(set(groups)) < 2:
        groups = chosen["exposure_id"].to_pylist()
    stated = float(classifier.card.get("training", {}).get("prevalence", 0.5))
    calibration = fit_calibration(
        logits, truth, groups, prevalence=prevalence, model_id=classifier.model_id, unit=unit.name, stated=stated
    )
    if not rule:
        return calibration, None
    try:
        return calibration, resolve(rule, mean_probability(logits, calibration), truth)
    except TooFewLabels as error:
        return calibration, error
