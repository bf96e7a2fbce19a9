"""A night of a unit as it is watched: read from the archive, judged against its calibration set, written back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.exposure_inputs import COLUMNS
from models.judgement import NightVerdict
from models.night_channels import NightData
from models.scoring_rules import TINY
from nightsift import __version__, ledger
from nightsift.io.parquet import read_table, read_tables, write_table
from nightsift.io.paths import Archive
from nightsift.tables import INJECTIONS, MONITORING, table
from nightsift.units import Unit
from tasks.classify import model_of
from tasks.embeddings import embed_night
from tasks.injection import pipeline_of
from tasks.references import CalibrationSet

JUDGED = ("done", "refused")
"""States of exposures that say something of the unit; failed is the machine's, waiting the template's."""


@task(name="watch", task_run_name="watch {unit.name} {night}", persist_result=False, cache_policy=NO_CACHE)
def read_night(archive: Archive, unit: Unit, night: str) -> NightData:
    """Read what is watched of a night of one unit.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : Unit
        The unit, with its model.
    night : str
        Night label.

    Returns
    -------
    NightData
        Inputs of its exposures, scores and features of its candidates, what was recovered of injected sources.

    Raises
    ------
    ModelMismatch
        If the model cannot be loaded.
    BadTable
        If tables or stamps are damaged.
    """
    rows = [row for row in ledger.read(archive, night, unit.name).to_pylist() if row["state"] in JUDGED]
    inputs: dict[str, Any] = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
        for name in COLUMNS
    }
    inputs["refused"] = np.array([row["state"] == "refused" for row in rows], dtype=np.float64)
    inputs["good"] = np.array([row["verdict"] == "good" for row in rows], dtype=np.float64)
    inputs["field"] = np.array([f"{row['field']}/{row['band']}" for row in rows], dtype=np.str_)
    candidates, features = embed_night.fn(archive, unit, night)
    score = np.array([np.nan if one is None else one for one in candidates["score"].to_pylist()], dtype=np.float64)
    scored = np.isfinite(score)
    p = np.clip(score[scored], TINY, 1.0 - TINY)
    injected = injected_by(archive, unit.name, [night], pipeline_of(unit, model_of(unit)))
    searched = injected["searched"].to_numpy(zero_copy_only=False).astype(bool)
    recovered = searched & scored_above(injected, unit.model.threshold)
    return NightData(
        unit.name, night, inputs, np.log(p) - np.log1p(-p),
        features[scored].astype(np.float64), np.asarray(candidates["exposure_id"].to_pylist(), dtype=np.str_)[scored],
        int(searched.sum()), int(recovered.sum()),
    )  # fmt: skip


def scored_above(injected: pa.Table, threshold: float) -> npt.NDArray[np.bool_]:
    """Injected sources that were found and scored above the threshold, whatever their flags: these have a channel too.

    Parameters
    ----------
    injected : pyarrow.Table
        Schema `nightsift.tables.INJECTIONS`.
    threshold : float
        The threshold, one for all nights, whatever it was when they were injected.

    Returns
    -------
    ndarray of bool, shape (n,)
        Without scores, all that were found.
    """
    score = np.array([np.inf if one is None else one for one in injected["score"].to_pylist()], dtype=np.float64)
    return np.asarray((score >= threshold) & injected["detected"].to_numpy(zero_copy_only=False).astype(bool))


def injected_by(archive: Archive, unit: str, nights: Sequence[str], pipeline: str) -> pa.Table:
    """What became of the sources that were injected into nights of a unit, by its present pipeline.

    What a pipeline of other code, options or model recovered does not count, and is injected anew (`rows_to_inject`):
    the difference between two pipelines is no drift.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : str
        The unit.
    nights : sequence of str
        The nights.
    pipeline : str
        From `tasks.injection.pipeline_of`.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.tables.INJECTIONS`.
    """
    paths = [path for night in nights for path in archive.tables("injections", night, unit)]
    injected = read_tables(paths, INJECTIONS)
    return injected.filter(pc.equal(injected["provenance"], pipeline))


def rows_to_inject(archive: Archive, unit: str, night: str, exposures: int, pipeline: str) -> list[dict[str, Any]]:
    """Exposures of a night that sources are to be injected into.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit, night : str
        Which night.
    exposures : int
        How many of them, spread evenly over the night.
    pipeline : str
        From `tasks.injection.pipeline_of`.

    Returns
    -------
    list of dict
        Ledger rows of those where that was not done yet, or another pipeline recovered what was injected.
    """
    if exposures < 1:
        return []
    rows = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
    chosen = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, exposures).astype(int))] if rows else []
    return [row for row in chosen if not _is_injected(archive, row, pipeline)]


def _is_injected(archive: Archive, row: Mapping[str, Any], pipeline: str) -> bool:
    path = archive.injections(row["night"], row["unit"], row["exposure_id"])
    return path.is_file() and set(read_table(path, INJECTIONS)["provenance"].to_pylist()) <= {pipeline}


def scored_by(archive: Archive, unit: str, night: str) -> set[str]:
    """Identities of the models that gave the scores of a night.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit, night : str
        Which night.

    Returns
    -------
    set of str
        Identities; empty where no candidate has a score.
    """
    column = read_tables(archive.tables("candidates", night, unit), pa.schema([pa.field("model_id", pa.string())]))
    return {one for one in column["model_id"].unique().to_pylist() if one is not None}


def verdict_rows(
    night: NightData,
    verdict: NightVerdict | None,
    state: str,
    message: str,
    reference: CalibrationSet | None,
    model: str,
) -> list[dict[str, Any]]:
    """Rows of the table of monitoring.

    Parameters
    ----------
    night : NightData
        The night.
    verdict : NightVerdict or None
        What is said of it; None for a night that was not judged.
    state, message : str
        State of the night as a whole, and why.
    reference : CalibrationSet or None
        What it was compared with.
    model : str
        Identity of model and calibration.

    Returns
    -------
    list of dict
        Columns of `nightsift.tables.MONITORING`: first the night as a whole, then its channels.
    """
    base = {
        "unit": night.unit, "night": night.night, "exposures": len(night.inputs["refused"]),
        "candidates": len(night.logits), "reference_nights": len(reference.nights) if reference else 0,
        "reference_id": reference.reference_id if reference else "", "model_id": model, "version": __version__,
        "recorded_at": datetime.now(UTC),
    }  # fmt: skip
    whole = {**base, "channel": "all", "state": state, "message": message}
    if verdict is None:
        return [whole]
    rows = [{**whole, "p_value": _known(verdict.p), "q_value": _known(verdict.q)}]
    for one in verdict.channels:
        told = "unjudged" if not np.isfinite(one.p) else "drifted" if one.named else "steady"
        numbers = {
            "value": one.value, "reference_mean": one.mean, "reference_std": one.deviation, "departure": one.t,
            "p_value": one.p,
        }  # fmt: skip
        row = {name: _known(value) for name, value in numbers.items()}
        state_of = state if state == "reference" else told
        rows.append(
            {**base, **row, "channel": one.channel, "state": state_of, "message": "", "window": one.window or None}
        )
    return rows


def write_verdict(archive: Archive, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write what is said of a night of one unit.

    Parameters
    ----------
    archive : Archive
        The archive.
    rows : sequence of mapping
        What `verdict_rows` gave.

    Returns
    -------
    Path
        The file; a second verdict on the same night replaces the first.
    """
    path = archive.monitoring(rows[0]["night"], rows[0]["unit"])
    write_table(path, table([dict(row) for row in rows], MONITORING))
    return path


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
