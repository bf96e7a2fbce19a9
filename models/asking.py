"""Candidates of an archive that are worth a person's label, and how they differ from all of the unit's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

from models.active import bald, bias_report, choose
from models.calibrate import mean_probability
from models.features import pooled, trunk_features
from models.predict import sample_logits
from models.store import NO_MODEL, load
from models.stored_stamps import read_rows
from models.unit_scoring import calibration_of
from nightsift.errors import ConfigurationError
from nightsift.frames import Stamps
from nightsift.io.parquet import read_candidates
from nightsift.io.paths import Archive
from nightsift.tables import Column, schema, table
from nightsift.units import Unit

MOST = 20_000
"""Candidates that are looked at; of more, so many are drawn at random."""

_ME = "models.asking"
QUESTIONS = schema(
    (
        Column("candidate_id", pa.string(), "", "candidate to be labelled", _ME),
        Column("label", pa.string(), "", "to be filled in: real or bogus", _ME, True),
        Column("night", pa.string(), "", "local date of the evening", _ME),
        Column("exposure_id", pa.string(), "", "identity of the exposure", _ME),
        Column("x", pa.float64(), "pixel", "column", _ME),
        Column("y", pa.float64(), "pixel", "row", _ME),
        Column("snr", pa.float32(), "", "peak of the signal-to-noise map", _ME),
        Column("score", pa.float32(), "", "real/bogus score", _ME),
        Column("information", pa.float32(), "", "mutual information of label and network (bit)", _ME),
        Column("rule", pa.string(), "", "rule by which it was chosen; all but random are no fair draw", _ME),
    ),
    "questions",
)


def questions(
    archive: Archive, unit: Unit, count: int, rule: str = "batch", known: Collection[str] = (), seed: int = 0
) -> tuple[pa.Table, list[dict[str, Any]], Stamps]:
    """Choose the candidates of a unit that are worth a label.

    Parameters
    ----------
    archive : Archive
        Where candidates and stamps are stored.
    unit : Unit
        The unit; its model and, if it has one, its calibration tell what is unsure.
    count : int
        How many.
    rule : str, optional
        One of `models.active.RULES`.
    known : collection of str, optional
        Candidates that have a label already.
    seed : int, optional
        Seed of all draws.

    Returns
    -------
    questions : pyarrow.Table
        Schema `QUESTIONS`, the most wanted first, labels null.
    bias : list of dict
        See `models.active.bias_report`.
    stamps : Stamps
        What is to be looked at, one a question.

    Raises
    ------
    ConfigurationError
        If the unit has no model or no stored candidates.
    ValueError
        If the rule is unknown.
    """
    if unit.model.name == NO_MODEL:
        raise _wrong(unit, "name", "the unit has no model that could be unsure", "name a model")
    candidates = read_candidates(archive, unit=unit.name)
    if not candidates.num_rows:
        raise _wrong(unit, "name", f"{archive.root} holds no candidates of {unit.name}", "reduce some nights first")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(candidates.num_rows)[:MOST])
    pool = candidates.take(pa.array(rows))
    classifier, sign = load(unit.model.name), pool["sign"].to_numpy()
    stamps = read_rows(archive, candidates, rows, classifier.recipe.size)
    logits = sample_logits(stamps, sign, classifier, unit.model.samples, 0).astype(np.float64)
    calibration = calibration_of(unit)
    logits = logits if calibration is None else calibration(logits)
    labelled = np.flatnonzero(np.isin(np.array(pool["candidate_id"].to_pylist(), dtype=object), list(known)))
    asked = choose(rule, logits, pooled(trunk_features(stamps, sign, classifier)), count, seed, labelled)
    chosen = pool.take(pa.array(asked))
    told = {name: chosen[name].to_pylist() for name in ("candidate_id", "night", "exposure_id", "x", "y", "snr")}
    told |= {"score": mean_probability(logits)[asked], "information": bald(logits)[asked], "rule": [rule] * len(asked)}
    properties = {
        "mag": np.array([np.nan if one is None else one for one in pool["mag"].to_pylist()], dtype=np.float64),
        "snr": pool["snr"].to_numpy(),
        "change": np.where(sign < 0, "fading", "brightening"),
        "flags": np.where(pool["flags"].to_numpy() == 0, "clean", "flagged"),
        "field": np.array(pool["field"].to_pylist()),
    }
    shown = Stamps(stamps.data[asked], stamps.mask[asked])
    return table(told, QUESTIONS), bias_report(properties, asked), shown


def _wrong(unit: Unit, key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file=unit.file, table="model", key=key, what=what, advice=advice)
