"""An exposure that hangs for ever ends as one row that says so, and costs no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.night import night
from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey

POOL = Runner(kind="processes", workers=2, address="")
HANG = """
import ctypes, os
from prefect import task
from tasks import reduce

plain = reduce.run_steps

def run_steps(reduction, path, unit, *, archive):
    if path.name == os.environ.get("HANGS"):
        ctypes.CDLL(None).sleep(900)  # in C, where neither signals of Python nor threads get in
    plain(reduction, path, unit, archive=archive)

reduce.run_steps = run_steps

@task
def reduce_exposure(**call):
    return reduce.reduce_exposure.fn(**call)
"""


def test_hang_in_c_code(survey: Path, frames: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "reduces_and_hangs.py").write_text(HANG)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("HANGS", frames[1].name)
    import reduces_and_hangs

    monkeypatch.setattr("flows.night.reduce_exposure", reduces_and_hangs.reduce_exposure)
    text = survey.read_text()
    survey.write_text(f"{text}\n[watch]\nexposure_timeout = 25.0\n")
    summary = night(survey, runner=POOL, track=False)
    archive = Archive(load_survey(survey).archive)
    rows = {Path(row["url"]).name: row for row in ledger.read(archive).to_pylist()}
    assert summary.states == {"done": 4, "failed": 1}
    hung = rows[frames[1].name]
    assert (hung["state"], hung["reason"]) == ("failed", "TimedOut")
    assert "exposure_timeout" in hung["message"]
    assert not list((archive.root / "claims").glob("*.[0-9]*"))
    monkeypatch.delenv("HANGS")
    again = night(survey, runner=POOL, track=False)
    assert (again.skipped, again.states) == (4, {"done": 1})
    assert ledger.read(archive).num_rows == 5, "the row of the hang has given way to that of the exposure"
