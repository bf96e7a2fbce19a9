"""Sources that another pipeline recovered: they do not count, and are injected anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.core import provenance
from nightsift.core.monitoring_tables import INJECTIONS
from nightsift.core.tables import table
from nightsift.io.parquet import read_table, write_table
from nightsift.unit.units import load_unit
from tasks.monitor import injected_by, pipeline_of, rows_to_inject, scored_above
from tasks.references import COMPLETENESS, write_completeness

NIGHT = "2026-11-20"


def injected(archive: Archive, exposure: str, pipeline: str) -> None:
    """An exposure that is done, with one source that a pipeline recovered; empty where no depth was known."""
    texts = {"reason": "", "message": "", "facts": "{}", "stage_seconds": "{}", "provenance": "p", "version": "0"}
    row: dict[str, Any] = {"exposure_id": exposure, "unit": "u", "night": NIGHT, "state": "done", "url": exposure}
    ledger.record(archive, {**row, **texts, "checksum": exposure, "seconds": 1.0, "mjd": 61000.0})
    source = {
        "exposure_id": exposure, "unit": "u", "night": NIGHT, "model_id": "m", "provenance": pipeline, "threshold": 0.5,
        "x": 1.0, "y": 1.0, "flux": 1.0, "mag": 18.0, "snr": 9.0, "searched": True, "detected": True,
        "accepted": True, "score": 0.9,
    }  # fmt: skip
    rows = table([source], INJECTIONS) if pipeline else INJECTIONS.empty_table()
    write_table(archive.injections(NIGHT, "u", exposure), rows)


def test_only_the_present_pipeline_counts(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for exposure, pipeline in (("a", "old"), ("b", "new"), ("c", "")):
        injected(archive, exposure, pipeline)
    assert injected_by(archive, "u", [NIGHT], pipeline="new")["exposure_id"].to_pylist() == ["b"]
    assert [row["exposure_id"] for row in rows_to_inject(archive, "u", NIGHT, exposures=3, pipeline="new")] == ["a"]
    assert [row["exposure_id"] for row in rows_to_inject(archive, "u", NIGHT, exposures=3, pipeline="old")] == ["b"]


def test_recoveries_of_versions_that_told_no_pipeline_do_not_count(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    injected(archive, "a", "new")
    path = archive.injections(NIGHT, "u", "a")
    pq.write_table(pq.read_table(path).drop_columns(["provenance"]), path)
    assert injected_by(archive, "u", [NIGHT], pipeline="new").num_rows == 0
    assert [row["exposure_id"] for row in rows_to_inject(archive, "u", NIGHT, exposures=3, pipeline="new")] == ["a"]


def test_a_pipeline_is_code_options_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = load_unit("decam")
    first = pipeline_of(unit, "m")
    other = unit.model_copy(update={"detection": unit.detection.model_copy(update={"threshold": 6.0})})
    stricter = unit.model_copy(update={"model": unit.model.model_copy(update={"threshold": 0.9})})
    samples = unit.model_copy(update={"model": unit.model.model_copy(update={"samples": unit.model.samples + 1})})
    assert pipeline_of(stricter, "m") == first, "a threshold is applied to the scores at any time"
    changed = [pipeline_of(other, "m"), pipeline_of(samples, "m"), pipeline_of(unit, "n")]
    monkeypatch.setattr(provenance, "code_of", lambda product: f"another {product}")
    assert len({first, *changed, pipeline_of(unit, "m")}) == 5


def test_the_completeness_of_a_model_is_that_of_the_present_pipeline(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.archived_model("m").mkdir(parents=True)
    for exposure, pipeline in (("a", "old"), ("b", "new"), ("d", "new")):
        injected(archive, exposure, pipeline)
    path = write_completeness(archive, "u", "m", pipeline="new")
    assert path is not None
    assert sum(read_table(path, COMPLETENESS)["injected"].to_pylist()) == 2
    assert write_completeness(archive, "u", "m", pipeline="another") is None


def test_one_threshold_for_all_nights(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    injected(archive, "a", "new")
    rows = injected_by(archive, "u", [NIGHT], pipeline="new")
    assert [scored_above(rows, threshold).tolist() for threshold in (0.5, 0.95)] == [[True], [False]]
