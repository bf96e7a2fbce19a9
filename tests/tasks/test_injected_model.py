"""Sources injected under another model: they do not count, and are injected anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nightsift import ledger
from nightsift.io.parquet import write_table
from nightsift.io.paths import Archive
from nightsift.tables import INJECTIONS, table
from tasks.monitor import injected_by, rows_to_inject

NIGHT = "2026-11-20"


def injected(archive: Archive, exposure: str, model: str | None) -> None:
    """An exposure that is done, with one source injected under a model; None where no depth was known."""
    texts = {"reason": "", "message": "", "facts": "{}", "stage_seconds": "{}", "provenance": "p", "version": "0"}
    row: dict[str, Any] = {"exposure_id": exposure, "unit": "u", "night": NIGHT, "state": "done", "url": exposure}
    ledger.record(archive, {**row, **texts, "checksum": exposure, "seconds": 1.0, "mjd": 61000.0})
    source = {
        "exposure_id": exposure, "unit": "u", "night": NIGHT, "model_id": model, "threshold": 0.5, "x": 1.0, "y": 1.0,
        "flux": 1.0, "mag": 18.0, "snr": 9.0, "searched": True, "detected": True, "accepted": True, "score": 0.9,
    }  # fmt: skip
    rows = table([source], INJECTIONS) if model else INJECTIONS.empty_table()
    write_table(archive.injections(NIGHT, "u", exposure), rows)


def test_only_the_present_model_counts(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for exposure, model in (("a", "old"), ("b", "new"), ("c", None)):
        injected(archive, exposure, model)
    assert injected_by(archive, "u", [NIGHT], "new")["exposure_id"].to_pylist() == ["b"]
    assert [row["exposure_id"] for row in rows_to_inject(archive, "u", NIGHT, 3, "new")] == ["a"]
    assert [row["exposure_id"] for row in rows_to_inject(archive, "u", NIGHT, 3, "old")] == ["b"]
