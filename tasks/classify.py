"""Stamps to scores."""

from __future__ import annotations

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.predict import predict
from models.unit_scoring import calibration_of, scoring_identity
from nightsift.errors import ConfigurationError, ModelMismatch
from nightsift.frames import Stamps
from nightsift.tables import CANDIDATES
from nightsift.units import Unit

SEED = 0
"""One seed for all exposures, so that their scores can be compared to the last digit."""


@task(name="classify", persist_result=False, cache_policy=NO_CACHE)
def score(stamps: Stamps, candidates: pa.Table, unit: Unit) -> pa.Table:
    """Fill the score columns; a table without rows needs no model and stays as it is.

    Parameters
    ----------
    stamps : Stamps
        One a candidate.
    candidates : pyarrow.Table
        The candidates, without scores.
    unit : Unit
        With its table ``[model]``.

    Returns
    -------
    pyarrow.Table
        The same rows with their scores.
    """
    if candidates.num_rows == 0:
        return candidates
    calibration = calibration_of(unit)
    scores = predict(stamps, candidates["sign"].to_numpy(), unit.model.name, unit.model.samples, SEED, calibration)
    for name, values in scores.items():
        field = CANDIDATES.field(name)
        candidates = candidates.set_column(CANDIDATES.get_field_index(name), field, pa.array(values, field.type))
    return candidates


def model_of(unit: Unit) -> str:
    """Identity of the model that a unit names.

    Parameters
    ----------
    unit : Unit
        The unit.

    Returns
    -------
    str
        Identity of the model.

    Raises
    ------
    ConfigurationError
        If there is no such model.
    """
    try:
        return scoring_identity(unit)
    except ModelMismatch as error:
        raise ConfigurationError(
            file=unit.file, table="model", key="name", what=str(error), advice='name = "none" scores nothing'
        ) from error
