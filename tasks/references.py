"""The calibration set of a unit by name: which nights it was calibrated on, and the model that served, preserved.

A survey's selection function is that of the model that chose its candidates. So a model that has served is copied into
the archive before anything can replace it, with what it recovered of injected sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.network.store import NO_MODEL, find
from nightsift import __version__
from nightsift.archive.paths import Archive
from nightsift.core.errors import BadTable
from nightsift.core.monitoring_tables import INJECTIONS
from nightsift.core.tables import Column, schema, table
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_tables, write_table
from nightsift.unit.units import Unit

_R = "tasks.references"
COMPLETENESS = schema(
    (
        Column("unit", pa.string(), "", "telescope unit", _R),
        Column("model_id", pa.string(), "", "identity of model and calibration", _R),
        Column("threshold", pa.float64(), "", "score from which a candidate counted as accepted", _R),
        Column("mag", pa.float32(), "mag", "lower edge of the bin of magnitude", _R),
        Column("mag_width", pa.float32(), "mag", "its width", _R),
        Column("injected", pa.int32(), "", "sources injected", _R),
        Column("searched", pa.int32(), "", "those where the difference was good", _R),
        Column("detected", pa.int32(), "", "those found", _R),
        Column("accepted", pa.int32(), "", "those accepted", _R),
    ),
    "completeness",
)
WIDTH = 0.25
"""Width of a bin of magnitude in the completeness (mag)."""


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Nights that new nights of a unit are compared with.

    Attributes
    ----------
    reference_id : str
        Its identity: unit, and hash of model and nights.
    unit : str
        The unit.
    model_id : str
        Identity of model and calibration that gave the scores.
    nights : tuple of str
        The nights.
    learnt_at : str
        When it was named (UTC).
    version : str
        Version of nightsift.
    """

    reference_id: str
    unit: str
    model_id: str
    nights: tuple[str, ...]
    learnt_at: str
    version: str


def name_reference(archive: Archive, unit: Unit, model: str, *, nights: Sequence[str]) -> CalibrationSet:
    """Name the calibration set of a unit; earlier ones stay where they are.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : Unit
        The unit.
    model : str
        Identity of model and calibration.
    nights : sequence of str
        The nights.

    Returns
    -------
    CalibrationSet
        What was written.
    """
    key = hashlib.sha256(json.dumps([unit.name, model, *sorted(nights)]).encode()).hexdigest()[:10]
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    made = CalibrationSet(f"{unit.name}-{key}", unit.name, model, tuple(sorted(nights)), now, __version__)
    with atomic(archive.references(unit.name) / f"{key}.json") as temporary:
        temporary.write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    keep_model(archive, unit, model)
    return made


def current_reference(archive: Archive, unit: str, model: str) -> CalibrationSet | None:
    """Return the calibration set that was named last for a unit under a model.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : str
        The unit.
    model : str
        Identity of model and calibration; sets of other models do not count.

    Returns
    -------
    CalibrationSet or None
        None where there is none yet.

    Raises
    ------
    BadTable
        If a file cannot be read as one.
    """
    found = []
    for path in sorted(archive.references(unit).glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found.append(CalibrationSet(**{**values, "nights": tuple(values["nights"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadTable(path=str(path), what=f"no calibration set: {error}") from error
    fitting = [one for one in found if one.model_id == model]
    return max(fitting, key=lambda one: one.learnt_at) if fitting else None


def keep_model(archive: Archive, unit: Unit, model: str) -> Path | None:
    """Copy the model that serves a unit, and the unit's calibration, into the archive, unless they are there.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : Unit
        The unit.
    model : str
        Identity of model and calibration.

    Returns
    -------
    Path or None
        The folder; None for a unit without a model.
    """
    if unit.model.name == NO_MODEL:
        return None
    target = archive.archived_model(model)
    if not target.is_dir():
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(find(unit.model.name), partial)
        if unit.model.calibration:
            shutil.copy(Path(unit.file).parent / unit.model.calibration, partial / "calibration.json")
        try:
            os.replace(partial, target)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            if not target.is_dir():  # else another process was first
                raise
    return target


def write_completeness(archive: Archive, unit: str, model: str, *, pipeline: str) -> Path | None:
    """Write what a pipeline recovered of the sources injected into a unit's exposures beside the kept model.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : str
        The unit.
    model : str
        Identity of model and calibration.
    pipeline : str
        From `tasks.monitor.pipeline_of`; what others recovered does not count.

    Returns
    -------
    Path or None
        The table; None where nothing was injected or no model is kept.
    """
    injected = read_tables(archive.tables("injections", unit=unit), INJECTIONS)
    injected = injected.filter(pc.equal(injected["provenance"], pipeline))
    if not injected.num_rows or not archive.archived_model(model).is_dir():
        return None
    path = archive.archived_model(model) / f"completeness-{unit}.parquet"
    write_table(path, completeness(injected, unit, model))
    return path


def completeness(injected: pa.Table, unit: str, model: str, *, width: float = WIDTH) -> pa.Table:
    """Count injected sources by magnitude.

    Parameters
    ----------
    injected : pyarrow.Table
        Schema `nightsift.core.monitoring_tables.INJECTIONS`, of one unit and pipeline.
    unit, model : str
        Which.
    width : float, optional
        Width of a bin (mag).

    Returns
    -------
    pyarrow.Table
        Schema `COMPLETENESS`: one row per bin of magnitude and threshold that was in use.
    """
    edges = np.floor(injected["mag"].to_numpy() / width)
    thresholds = injected["threshold"].to_numpy()
    rows = []
    for threshold in np.unique(thresholds):
        for edge in np.unique(edges[thresholds == threshold]):
            inside = (edges == edge) & (thresholds == threshold)
            counts = {
                name: int(np.count_nonzero(injected[name].to_numpy(zero_copy_only=False)[inside]))
                for name in ("searched", "detected", "accepted")
            }
            bin_ = {"mag": float(edge * width), "mag_width": width, "injected": int(inside.sum())}
            rows.append({"unit": unit, "model_id": model, "threshold": float(threshold), **bin_, **counts})
    return table(rows, COMPLETENESS) if rows else COMPLETENESS.empty_table()
