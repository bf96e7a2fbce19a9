"""Stored stamps scored again, without any reduction: what changes, what stays, and what cannot be scored."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates, write_candidates
from nightsift.archive.paths import Archive
from nightsift.core import tables
from nightsift.core.frames import Stamps
from nightsift.io.parquet import write_stamps
from nightsift.unit.units import Unit, load_unit
from tasks.classify import model_of, rescore, score
from tasks.measure import of_candidates
from tasks.record import Job, Work, key_of, scoring_of, work_left

NIGHT, N = "2026-11-20", 6
LOGGER = logging.getLogger("nightsift.test")


def unit_with(model: str, samples: int = 4) -> Unit:
    unit = load_unit("panoptes")
    return unit.model_copy(update={"model": unit.model.model_copy(update={"name": model, "samples": samples})})


def drawn() -> Stamps:
    rng = np.random.default_rng(3)
    data = rng.normal(0.0, 9.0, (N, 31, 31, 3)).astype(np.float32)
    y, x = np.mgrid[-15:16, -15:16]
    data[::2, :, :, [0, 2]] += (300 * np.exp(-(x**2 + y**2) / 6.0)).astype(np.float32)[..., None]
    return Stamps(data, rng.random((N, 31, 31)) < 0.01)


def recorded(archive: Archive, unit: Unit) -> tuple[dict[str, Any], pa.Table]:
    """An exposure that is done, scored by nothing, and its candidates."""
    texts = {"reason": "", "message": "", "facts": "{}", "stage_seconds": '{"warp": 1.0}', "version": "0"}
    row = {
        "exposure_id": "e", "unit": unit.name, "night": NIGHT, "state": "done", "url": "e.fits", "checksum": "c",
        "seconds": 9.0, "mjd": 61000.0, "provenance": key_of("c", "", unit), **texts,
    }  # fmt: skip
    ids = [f"e-{k}" for k in range(N)]
    found = [
        {"candidate_id": one, "exposure_id": "e", "unit": unit.name, "night": NIGHT, "field": "f", "band": "r",
         "template_id": "t", "mjd": 61000.0, "x": 1.0, "y": 1.0, "sign": (-1) ** (k // 3), "snr": 9.0, "n_pixels": 5,
         "elongation": 1.0, "flux": 9.0, "flux_err": 1.0, "flux_aperture": 9.0, "flux_aperture_err": 1.0,
         "dipole": 0.0, "masked_fraction": 0.0, "flags": int(k == 4), "stamp_index": k}
        for k, one in enumerate(ids)
    ]  # fmt: skip
    candidates = tables.table(found, tables.CANDIDATES)
    ledger.record(archive, {**row, **of_candidates(candidates, unit.model.threshold)})
    write_candidates(archive, NIGHT, unit.name, "e", candidates)
    write_stamps(archive.stamps(NIGHT, unit.name, "e"), ids, drawn())
    return ledger.read(archive).to_pylist()[0], candidates


def test_scores_and_counts_change_and_nothing_else(tmp_path: Path) -> None:
    archive, unit = Archive(tmp_path), unit_with("base")
    before, candidates = recorded(archive, unit)
    job = Job(unit, model_of(unit), archive)
    assert work_left(before, unit, job.model, archive=archive) is Work.RESCORE
    after = rescore(job, before, LOGGER, label="frame")
    assert after is not None
    assert read_candidates(archive).equals(score(drawn(), candidates, unit))
    assert read_candidates(archive)["score"].null_count == 0
    (stored,) = ledger.read(archive).to_pylist()
    assert stored == after
    assert {name for name in stored if stored[name] != before[name]} <= {"scoring", "recorded_at", "n_accepted"}
    assert stored["scoring"] == scoring_of(unit, job.model)
    assert rescore(job, before, LOGGER, label="frame") is None, "nothing is left to do"
    again = unit_with("base", samples=5)
    assert work_left(stored, again, job.model, archive=archive) is Work.RESCORE
    none = unit_with("none")
    assert rescore(Job(none, model_of(none), archive), before, LOGGER, label="frame") is not None
    assert read_candidates(archive).equals(candidates), "no model, no scores"


@pytest.mark.parametrize(
    ("width", "first", "why"), [(7, 0, "7 px wide"), (31, 1, "are not those of the"), (0, 0, "no stamp file")]
)
def test_stamps_that_do_not_do_mean_a_reduction(
    width: int, first: int, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, unit = Archive(tmp_path), unit_with("base")
    row, candidates = recorded(archive, unit)
    path = archive.stamps(NIGHT, unit.name, "e")
    path.unlink()
    if width:
        low = (31 - width) // 2
        inner = (slice(first, None), slice(low, low + width), slice(low, low + width))
        write_stamps(
            path, candidates["candidate_id"].to_pylist()[first:], Stamps(drawn().data[inner], drawn().mask[inner])
        )
    assert rescore(Job(unit, model_of(unit), archive), row, LOGGER, label="frame") is None
    assert "it is reduced" in caplog.text
    assert why in caplog.text
    assert read_candidates(archive).equals(candidates)
    assert ledger.read(archive).to_pylist() == [row]
