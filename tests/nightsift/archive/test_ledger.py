"""The ledger: one row an exposure, whatever happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.core.tables import LEDGER


def row(**changes: Any) -> dict[str, Any]:
    texts = ("reason", "message", "facts", "url", "checksum", "stage_seconds", "version")
    plain = {
        "exposure_id": "u-1",
        "unit": "u",
        "night": "2026-11-20",
        "state": "done",
        "seconds": 1.5,
        "provenance": "p1",
    }
    return plain | dict.fromkeys(texts, "") | changes


def test_rows_are_read_back_in_order_of_time(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for i, mjd in enumerate((3.0, 1.0, None, 2.0)):
        ledger.record(archive, row(exposure_id=f"u-{i}", mjd=mjd))
    table = ledger.read(archive, "2026-11-20")
    assert table["exposure_id"].to_pylist() == ["u-1", "u-3", "u-0", "u-2"]
    assert table.schema.equals(LEDGER, check_metadata=True)
    assert table["recorded_at"].null_count == 0


def test_an_empty_ledger_is_typed(tmp_path: Path) -> None:
    assert ledger.read(Archive(tmp_path)).schema.equals(LEDGER)
    assert ledger.finished(Archive(tmp_path)) == {}


def test_what_is_finished(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for state in ledger.STATES:
        ledger.record(archive, row(exposure_id=state, state=state, provenance=f"p-{state}"))
    ledger.record(archive, row(exposure_id="other", night="2026-11-21"))
    assert ledger.finished(archive, "2026-11-20") == {"done": "p-done", "refused": "p-refused"}
    assert set(ledger.finished(archive)) == {"done", "refused", "other"}


def test_rows_of_an_earlier_schema_are_read(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    path = ledger.record(archive, row(seeing=2.5))
    since = ["core_width", "ellipticity", "width_gradient"]
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(since), path)
    (old,) = ledger.read(archive).to_pylist()
    assert old["seeing"] == 2.5
    assert [old[name] for name in since] == [None] * 3


def test_recording_again_replaces(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    ledger.record(archive, row(state="failed"))
    ledger.record(archive, row(state="done"))
    assert ledger.read(archive)["state"].to_pylist() == ["done"]


@pytest.mark.parametrize(
    ("change", "told"),
    [({"state": "finished"}, "'finished'"), ({"exposure": "x"}, r"\['exposure'\]"), ({"url": None}, "'url'")],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ledger.record(Archive(tmp_path), row(**change))
    assert ledger.read(Archive(tmp_path)).num_rows == 0


def test_two_processes_write_the_same_exposure(tmp_path: Path) -> None:
    """Whoever comes last wins; there is one whole row at any time."""
    archive = Archive(tmp_path)
    ledger.record(archive, row())
    code = f"""
import sys
from pathlib import Path
from nightsift.archive import ledger
from nightsift.archive.paths import Archive
for i in range(20):
    ledger.record(Archive(Path({str(tmp_path)!r})), {row()!r} | {{"message": sys.argv[1] + str(i)}})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        assert ledger.read(archive).num_rows == 1
        seen += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen > 0
    assert ledger.read(archive)["message"].to_pylist()[0] in ("a19", "b19")
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
