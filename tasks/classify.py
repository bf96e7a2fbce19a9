"""Scores of candidates: of stamps just cut, and anew of those that lie in the archive."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from models.network.store import predict
from models.network.unit_scoring import calibration_of, scoring_identity
from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.core.errors import BadTable, ConfigurationError, DiskFull, ModelMismatch
from nightsift.core.frames import Stamps
from nightsift.core.rows import LedgerRow
from nightsift.core.tables import CANDIDATES
from nightsift.io.parquet import read_stamps, read_table
from nightsift.unit.units import Unit
from tasks import measure
from tasks.record import Job, Work, recorded, scoring_of, verdict_on, work_left
from tasks.retry import Logger, patiently

SEED = 0
"""One seed for all exposures, so that their scores can be compared to the last digit."""

SCORES = ("score", "score_std", "confidence", "model_id")
"""Columns of candidates that a model fills."""


def score(stamps: Stamps, candidates: pa.Table, unit: Unit) -> pa.Table:
    """Fill the score columns; a table without rows needs no model and stays as it is.

    Parameters
    ----------
    stamps : Stamps
        One per candidate.
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
    scores = predict(
        stamps,
        candidates["sign"].to_numpy(),
        unit.model.name,
        samples=unit.model.samples,
        seed=SEED,
        calibration=calibration,
    )
    for name, values in scores.items():
        field = CANDIDATES.field(name)
        candidates = candidates.set_column(CANDIDATES.get_field_index(name), field, pa.array(values, field.type))
    return candidates


def model_of(unit: Unit) -> str:
    """Return the identity of the model that a unit names.

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


def rescore(job: Job, row: LedgerRow, logger: Logger, *, label: str) -> LedgerRow | None:
    """Score a recorded exposure again, where that is all it needs; its process must hold the claim.

    Candidates are written before the ledger row, each atomically: killed in between, it is done once more.

    Parameters
    ----------
    job : Job
        What it is to be scored with.
    row : dict
        With night, unit and exposure_id.
    logger : Logger
        Where to log.
    label : str
        Name of the exposure in logs.

    Returns
    -------
    dict or None
        Its new ledger row, all but scores, counts and time as it was. Where it cannot be written, a row of the state
        ``"failed"`` that is not recorded: the old scores stay with the old row, and the next run tries again. None
        where the exposure must be reduced; why its stored stamps do not do is logged.
    """
    found = recorded(job.archive, row)
    if job.redo or found is None or work_left(found, job.unit, job.model, archive=job.archive) is not Work.RESCORE:
        return None
    where = (found["night"], found["unit"], found["exposure_id"])
    try:
        candidates = scored_again(job, where)
    except (BadTable, ModelMismatch) as error:
        logger.warning("%s: its stored stamps cannot be scored again, it is reduced: %s", label, error)
        return None
    counts = measure.of_candidates(candidates, job.unit.model.threshold)
    scoring, now = scoring_of(job.unit, job.model), dt.datetime.now(dt.UTC)
    fresh: LedgerRow = {**found, **counts, "scoring": scoring, "recorded_at": now}
    try:
        patiently(lambda: write_candidates(job.archive, *where, candidates))
        patiently(lambda: ledger.record(job.archive, fresh))
    except (DiskFull, OSError) as error:
        logger.error("%s: its new scores cannot be written: %s", label, error)
        return {**found, **verdict_on(error)}
    logger.info("%s: scored again by %s", label, job.model)
    return fresh


def scored_again(job: Job, where: tuple[str, str, str]) -> pa.Table:
    """Return the candidates of an exposure with the scores that a reduction would give them now.

    Parameters
    ----------
    job : Job
        What they are to be scored with.
    where : tuple of str
        Night, unit and exposure_id.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`; all other columns are those stored.

    Raises
    ------
    BadTable
        If candidates or stamps are missing, damaged, or do not belong together.
    ModelMismatch
        If the stamps lack planes or pixels that the model needs.
    """
    candidates = read_table(job.archive.candidates(*where), CANDIDATES)
    for name in SCORES:
        field = CANDIDATES.field(name)
        empty = pa.nulls(candidates.num_rows, field.type)
        candidates = candidates.set_column(CANDIDATES.get_field_index(name), field, empty)
    scored = score(_stamps_of(job.archive, where, candidates), candidates, job.unit)
    return scored.replace_schema_metadata(CANDIDATES.metadata).cast(CANDIDATES)


def _stamps_of(archive: Archive, where: tuple[str, str, str], candidates: pa.Table) -> Stamps:
    path = archive.stamps(*where)
    ids, stamps = read_stamps(path)
    places = candidates["stamp_index"].to_pylist()
    if ids != candidates["candidate_id"].to_pylist() or places != list(range(len(ids))):
        raise BadTable(path=str(path), what=f"its {len(ids)} stamps are not those of the {len(places)} candidates")
    return stamps
