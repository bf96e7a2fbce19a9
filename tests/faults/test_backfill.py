"""Campaigns of backfill: killed and resumed, started twice, with frames that are no good. Real reductions."""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.backfill import BackfillSummary, backfill
from flows.campaign_launch import RunOptions
from flows.campaign_plan import Request, begin, draft
from nightsift.archive import ledger, versions
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from nightsift.backfill import campaigns, chunk_ledger
from nightsift.cli.root import app
from nightsift.core.errors import ConfigurationError
from tasks.batch import note_death, reduce_batch
from tests.faults.test_kills import children_of, wait_for
from tests.forked import Forks

IN_PROCESS = RunOptions(Runner(kind="in-process", workers=1, address=""))
REQUEST = Request("2026-11-20", "2026-11-20", batch=2)
RUN = """
import sys
from flows.backfill import backfill
from flows.campaign_plan import Request
from flows.campaign_launch import RunOptions
from nightsift.archive.survey import Runner
if __name__ == "__main__":
    options = RunOptions(Runner(kind=sys.argv[2], workers=2, address=""))
    summary = backfill(sys.argv[1], Request("2026-11-20", "2026-11-20", batch=2), options, track=False)
    sys.exit(summary.exit_code)
"""
CHANGING = {"seconds", "stage_seconds", "recorded_at"}
CHANGING_OF_CHUNKS = {"seconds", "started_at", "ended_at", "host", "attempt", "skipped"}


def run(survey: Path, request: Request = REQUEST, options: RunOptions = IN_PROCESS, **given: Any) -> BackfillSummary:
    return backfill(survey, request, options, track=False, **given)


def content(survey: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Ledger, candidates and chunks, row by row, without clocks and without what tells how they came about."""
    archive = Archive(load_survey(survey).archive)
    rows = [{k: v for k, v in row.items() if k not in CHANGING} for row in ledger.read(archive).to_pylist()]
    candidates = read_candidates(archive).to_pylist()
    (name,) = campaigns.names(archive)
    chunks = chunk_ledger.read(archive, name).to_pylist()
    return rows, candidates, [{k: v for k, v in row.items() if k not in CHANGING_OF_CHUNKS} for row in chunks]


@pytest.fixture(scope="module")
def undisturbed(made_survey: Path) -> Any:
    """What a campaign makes that nobody disturbs; its products are gone again."""
    survey = made_survey / "nightsift.toml"
    told = []
    summary = run(survey, progress=lambda row, advance: told.append(advance))
    assert summary.exit_code == 0
    assert (summary.count("done"), summary.count("exposures")) == (5, 5)
    assert [(one.ended, one.total) for one in told] == [(1, 5), (3, 5), (5, 5)]
    assert told[-1].seconds_left == 0.0
    made = content(survey)
    for kind in ("ledger", "candidates", "stamps", "reports", "campaigns", "claims"):
        shutil.rmtree(load_survey(survey).archive / kind)
    assert made[1], "without candidates these tests would show nothing"
    return made


def same_but_places(survey: Path, made: Any, undisturbed: Any) -> bool:
    """Whether all rows agree; the copy of a survey lies in another folder."""
    text = repr(made).replace(str(survey.parent), "HERE")
    return text == re.sub(r"'url': '[^']*/nights", "'url': 'HERE/nights", repr(undisturbed))


@pytest.mark.parametrize("kind", ["in-process", pytest.param("processes", marks=pytest.mark.slow)])
def test_killed_campaign_is_resumed(kind: str, survey: Path, undisturbed: Any, forks: Forks) -> None:
    process = forks(RUN, str(survey), kind)
    archive = Archive(load_survey(survey).archive)
    wait_for(lambda: archive.tables("ledger"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not children_of(process.pid))
    before = len(archive.tables("ledger"))
    states = {row["state"] for row in chunk_ledger.read(archive, campaigns.names(archive)[0]).to_pylist()}
    assert states & {"planned", "running"}
    summary = run(survey)
    assert summary.exit_code == 0
    assert summary.count("skipped") <= before
    assert same_but_places(survey, content(survey), undisturbed)
    rows = archive.tables("ledger")
    stamps = {path: path.stat().st_mtime_ns for path in rows}
    assert run(survey).exit_code == 0, "a campaign that has ended has nothing to do"
    assert stamps == {path: path.stat().st_mtime_ns for path in rows}


@pytest.mark.slow
def test_same_campaign_started_twice(survey: Path, undisturbed: Any, forks: Forks) -> None:
    both = [forks(RUN, str(survey), "in-process") for _ in range(2)]
    assert [process.wait(240) for process in both] == [0, 0]
    assert same_but_places(survey, content(survey), undisturbed)


def test_bad_exposures_do_not_lose_a_chunk(survey: Path, frames: list[Path]) -> None:
    frames[0].write_bytes(frames[0].read_bytes()[:5000])
    frames[2].unlink()
    frames[2].symlink_to("nowhere.fits")  # not even found, as a frame that was moved away
    plan = draft(load_survey(survey), REQUEST)
    frames[1].rename(frames[1].with_suffix(".away"))  # gone between plan and reduction
    summary = run(survey, plan=plan)
    assert summary.exit_code == 1
    assert [summary.count(name) for name in ("exposures", "done", "refused", "failed")] == [4, 2, 1, 1]
    failed = next(row for row in summary.rows if row["state"] == "failed")
    assert "there is no such file" in failed["message"]
    frames[1].with_suffix(".away").rename(frames[1])
    assert run(survey).count("failed") == 1, "failed chunks wait until somebody has mended the cause"
    again = run(survey, options=replace(IN_PROCESS, retry_failed=True))
    assert [again.count(name) for name in ("done", "refused", "failed")] == [3, 1, 0]


def test_an_exposure_that_kills_its_process_is_given_up_alone(survey: Path, frames: list[Path]) -> None:
    loaded = load_survey(survey)
    home = Archive(loaded.archive)
    plan = draft(loaded, replace(REQUEST, batch=5))
    begin(loaded, plan)
    name = plan.campaign.name
    marker = home.campaign(name) / "underway" / "0000000.json"
    marker.parent.mkdir()
    marker.write_text(f'{{"url": "{frames[1]}"}}')
    assert note_death(home, name, 0, times=2) == str(frames[1])
    row = reduce_batch.fn(str(home.home), name, 0)
    assert (row["done"], row["failed"], row["state"]) == (4, 1, "failed")
    assert "died 2 times" in row["message"]
    assert not marker.exists(), "a retry begins without blame"


def test_new_version_beside_the_old_one(survey: Path) -> None:
    run(survey)
    home = Archive(load_survey(survey).archive)
    old = read_candidates(home).to_pylist()
    unit = next((survey.parent / "units").glob("*.toml"))
    unit.write_text(unit.read_text() + "\n[detection]\nthreshold = 12.0\n")
    with pytest.raises(ConfigurationError, match="5 exposures were reduced by other code"):
        run(survey)
    summary = run(survey, replace(REQUEST, version="v2"))
    assert summary.exit_code == 0
    assert read_candidates(home).to_pylist() == old, "nothing is seen before it is promoted"
    versions.promote(home, "v2")
    fewer = read_candidates(Archive(home.home)).to_pylist()
    assert 0 < len(fewer) < len(old)
    assert run(survey, REQUEST).count("exposures") == 0, "what is served was made by today's recipe"


def test_dry_run_writes_nothing(survey: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in survey.parent.rglob("*"))
    told = CliRunner().invoke(app, ["backfill", str(survey), "--from", "2026-11-20", "--dry-run", "--batch", "2"])
    assert told.exit_code == 0, told.output
    assert "5 exposures to do in 3 chunks" in told.output
    assert "a guess" in told.output
    assert sorted((path, path.stat().st_mtime_ns) for path in survey.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--from", "2023-02-30"], "2023-02-30: no date of a night"),
        (["--to", "yesterday"], "yesterday: no date of a night"),
        (["--from", "2024-01-01", "--to", "2023-01-01"], "lies after"),
        (["--unit", "nope"], "there is no unit 'nope'"),
        (["--batch", "0"], "one exposure or more"),
        (["--version", "../x"], "cannot be the name"),
        (["--version", "x", "--in-place"], "exclude each other"),
    ],
)
def test_wrong_requests_are_told(given: list[str], told: str, made_survey: Path) -> None:
    error = CliRunner().invoke(app, ["backfill", str(made_survey / "nightsift.toml"), *given]).exception
    assert isinstance(error, ConfigurationError)
    assert told in str(error)
    assert error.facts["advice"]
