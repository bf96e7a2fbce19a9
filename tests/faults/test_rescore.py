"""Another model, calibration or code of scoring: stored stamps are scored again, and nothing else changes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.night import look, night
from models.calibration.calibrate import Calibration
from models.network.store import model_id
from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.claims import claimed
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, Survey, load_survey
from nightsift.cli import app
from nightsift.core import provenance
from nightsift.core.errors import BadTable, DiskFull
from nightsift.io.parquet import read_stamps, write_stamps
from nightsift.unit.units import Unit
from tasks import classify
from tasks.classify import model_of
from tasks.record import Work, work_left
from tasks.reduce import Reduction, reduce_file

IN_PROCESS = Runner(kind="in-process", workers=1, address="")
SCORES = ["score", "score_std", "confidence", "model_id"]
OF_SCORES = {"scoring", "recorded_at", "n_accepted"}


@pytest.fixture(scope="module")
def scored(made_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Two exposures, reduced once with the base model and no calibration."""
    folder = tmp_path_factory.mktemp("scored") / "survey"
    shutil.copytree(made_survey, folder)
    for extra in sorted((folder / "nights").rglob("*.fits"))[2:]:
        extra.unlink()
    (unit,) = (folder / "units").glob("*.toml")
    unit.write_text(unit.read_text().replace('name = "none"', 'name = "base"\ncalibration = "mild.json"'))
    survey = load_survey(folder / "nightsift.toml")
    temperature(survey, 1.0)
    summary = night(survey, runner=IN_PROCESS, track=False)
    assert (summary.states, summary.rescored) == ({"done": 2}, 0)
    return survey


def unit_of(survey: Survey) -> Unit:
    return survey.load_unit(survey.sources[0].unit)


def temperature(survey: Survey, value: float) -> None:
    calibration = Calibration("temperature", (value,), model_id("base"), unit_of(survey).name)
    (Path(unit_of(survey).file).parent / "mild.json").write_text(calibration.to_json())


def first(survey: Survey, **more: float | bool) -> Reduction:
    row = rows(survey)[0]
    return reduce_file(row["url"], unit_of(survey), Archive(survey.archive), wait=0.0, redo=bool(more.get("redo")))


def rows(survey: Survey) -> list[dict[str, Any]]:
    return ledger.read(Archive(survey.archive)).to_pylist()


def files(survey: Survey, kind: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Archive(survey.archive).tables(kind)}


def without(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def test_scores_are_those_of_a_reduction_and_all_else_is_as_it_was(scored: Survey) -> None:
    archive = Archive(scored.archive)
    before, before_rows, stamps = read_candidates(archive), rows(scored), files(scored, "stamps")
    assert before.num_rows > 5
    temperature(scored, 1.7)
    assert look(scored)[0] == "2 exposures found, 0 to reduce, 2 to score again"
    told = CliRunner().invoke(app, ["night", str(scored.file), "--dry-run"])
    assert (told.exit_code, told.output) == (0, look(scored)[0] + "\n")
    assert read_candidates(archive).equals(before)

    summary = night(scored, runner=IN_PROCESS, track=False)
    assert (summary.states, summary.rescored, summary.exit_code) == ({}, 2, 0)
    after, after_rows = read_candidates(archive), rows(scored)
    assert after.drop_columns(SCORES).equals(before.drop_columns(SCORES))
    assert set(after["model_id"].to_pylist()) == {model_of(unit_of(scored))}
    assert not after["score"].equals(before["score"])
    assert files(scored, "stamps") == stamps
    assert [without(row, OF_SCORES) for row in after_rows] == [without(row, OF_SCORES) for row in before_rows]

    assert night(scored, runner=IN_PROCESS, track=False).skipped == 2
    assert night(scored, runner=IN_PROCESS, redo=True, track=False).states == {"done": 2}
    assert read_candidates(archive).equals(after), "bit for bit what a reduction gives"
    times = {"seconds", "stage_seconds", "recorded_at"}
    assert [without(row, times) for row in rows(scored)] == [without(row, times) for row in after_rows]


def test_without_a_model_the_old_scores_go(scored: Survey) -> None:
    unit = unit_of(scored)
    none = unit.model_copy(update={"model": unit.model.model_copy(update={"name": "none"})})
    row = rows(scored)[0]
    ended = reduce_file(str(row["url"]), none, Archive(scored.archive))
    assert ended.rescored
    table = pq.read_table(Archive(scored.archive).candidates(row["night"], row["unit"], row["exposure_id"]))
    assert table.num_rows
    assert all(table[name].null_count == table.num_rows for name in SCORES)


def test_killed_between_candidates_and_row_it_is_done_once_more(
    scored: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    temperature(scored, 0.8)
    known = rows(scored)[0]
    with monkeypatch.context() as patch:
        patch.setattr(classify.ledger, "record", dies)
        with pytest.raises(Killed):
            first(scored)
    assert rows(scored)[0] == known
    assert first(scored).rescored
    assert first(scored).skipped


def test_a_full_disk_leaves_the_old_scores_and_says_so(scored: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskFull(path="candidates", free=0)

    temperature(scored, 2.2)
    known, candidates = rows(scored)[0], files(scored, "candidates")
    with monkeypatch.context() as patch:
        patch.setattr(classify, "write_candidates", full)
        ended = first(scored)
    assert (ended.row["state"], ended.row["reason"]) == ("failed", "DiskFull")
    assert (rows(scored)[0], files(scored, "candidates")) == (known, candidates)
    assert first(scored).rescored


def test_another_process_at_it_is_left_alone(scored: Survey) -> None:
    temperature(scored, 2.6)
    known = rows(scored)[0]
    with claimed(Archive(scored.archive), str(known["exposure_id"])):
        assert first(scored).row["state"] == "elsewhere"
    assert rows(scored)[0] == known
    assert first(scored).rescored


def test_stamps_that_are_gone_or_too_small_mean_a_reduction(scored: Survey, caplog: pytest.LogCaptureFixture) -> None:
    archive, row = Archive(scored.archive), rows(scored)[0]
    path = archive.stamps(row["night"], row["unit"], row["exposure_id"])
    ids, stamps = read_stamps(path)
    temperature(scored, 3.0)
    job = classify.Job(unit_of(scored), model_of(unit_of(scored)), archive)
    small = type(stamps)(stamps.data[:, 12:19, 12:19], stamps.mask[:, 12:19, 12:19])
    others = type(stamps)(stamps.data[1:], stamps.mask[1:])
    logger = logging.getLogger("nightsift.test")
    for stored, names, why in (
        (small, ids, "7 px wide"),
        (others, ids[1:], "are not those of"),
        (None, [], "no stamp file"),
    ):
        path.unlink()
        if stored is not None:
            write_stamps(path, names, stored)
        caplog.clear()
        assert classify.rescore(job, row, logger, label="frame") is None
        assert "it is reduced" in caplog.text
        assert why in caplog.text
    with pytest.raises(BadTable):
        classify.scored_again(job, (str(row["night"]), str(row["unit"]), str(row["exposure_id"])))
    ended = first(scored)
    assert (ended.row["state"], ended.rescored, ended.skipped) == ("done", False, False)
    assert path.is_file()


def test_rows_of_earlier_versions_are_never_stale(scored: Survey) -> None:
    archive, row, unit = Archive(scored.archive), rows(scored)[0], unit_of(scored)
    first(scored)
    path = archive.ledger(row["night"], row["unit"], row["exposure_id"])
    old: pa.Table = pq.read_table(path).drop_columns(["scoring"])
    pq.write_table(old, path)
    read = rows(scored)[0]
    assert read["scoring"] is None
    assert work_left(read, unit, model_of(unit), archive=archive) is Work.RESCORE, "its pixels are of this very code"
    assert work_left({**read, "provenance": "old"}, unit, model_of(unit), archive=archive) is Work.REDUCE
    assert work_left({**read, "state": "refused"}, unit, model_of(unit), archive=archive) is Work.NOTHING
    assert work_left(None, unit, model_of(unit), archive=archive) is Work.REDUCE
    assert first(scored).rescored


def test_code_of_scores_scores_again(scored: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    first(scored)
    monkeypatch.setattr(provenance, "scoring_code", lambda: "another")
    unit, archive = unit_of(scored), Archive(scored.archive)
    assert work_left(rows(scored)[0], unit, model_of(unit), archive=archive) is Work.RESCORE
