"""Tonight as the operator sees it: from the ledger and what the watch writes down."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import skyalert_listener, watch
from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.claims import claimed
from nightsift.archive.night_status import Progress, Tonight, UnitProgress, read_progress, tonight, write_progress
from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import default_skyalert
from nightsift.archive.survey import NotifyOptions, Runner, WatchOptions
from nightsift.cli.night import status
from nightsift.cli.root import app
from nightsift.core.parallel import this_process
from nightsift.core.tables import CANDIDATES
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import unit_toml

SURVEY = """
name = "demo"
archive = "archive"
units = "units"
[[source]]
unit = "north"
frames = "nights"
[[source]]
unit = "south"
frames = "nights-south"
"""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    for number, state in enumerate(("done", "done", "refused", "failed")):
        row = {
            "exposure_id": f"north-{number}", "unit": "north", "night": "2026-11-20", "state": state, "reason": "",
            "message": "", "facts": "{}", "url": f"{number}.fits", "checksum": "", "seconds": 4.0,
            "stage_seconds": "{}", "provenance": "", "version": "0", "n_accepted": number,
        }  # fmt: skip
        ledger.record(archive, row | ({"limiting_mag": 20.0 + number} if state == "done" else {}))
    return archive


@pytest.fixture
def progress() -> Progress:
    units = {"north": UnitProgress(arrived=7, waiting=2, running=1), "south": UnitProgress(silent=True)}
    return Progress(
        "demo", "palma", "2026-11-20", "watching", asdict(this_process()), "2026-11-20T19:00:00Z",
        updated="2026-11-20T22:00:00Z", units=units, lag=33.0, latency_median=12.0, latency_worst=40.0,
        troubles=["south has delivered no frame"],
    )  # fmt: skip


def test_counts_by_unit(archive: Archive, progress: Progress) -> None:
    write_progress(archive, progress)
    now = tonight(archive, units=("north", "south"))
    north, south = now.units
    assert (north["done"], north["refused"], north["failed"], north["queued"], north["running"]) == (2, 1, 1, 2, 1)
    assert (north["depth"], north["seconds"], north["accepted"]) == (20.5, 4.0, 1)
    assert south["state"] == "silent"
    assert (now.watch, now.lag, now.latency_worst) == ("watching", 33.0, 40.0)
    assert now.troubles == ["south has delivered no frame"]
    json.dumps(asdict(now), default=str)


def test_a_watch_that_died_is_told(archive: Archive, progress: Progress) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_progress(archive, replace(progress, holder={**progress.holder, "pid": gone.pid, "started": "1"}))
    now = tonight(archive)
    assert now.watch == "died"
    assert now.lag is None
    assert now.units[0]["running"] is None, "what a dead watch was doing is not known"


def test_nobody_watches(archive: Archive) -> None:
    now = tonight(archive)
    assert (now.watch, now.night) == ("nobody", "2026-11-20")
    assert tonight(Archive(archive.root / "empty")).night == ""


def test_an_exposure_without_a_night_is_counted_and_is_not_tonight(archive: Archive, tmp_path: Path) -> None:
    row = ledger.read(archive).to_pylist()[0]
    ledger.record(archive, row | {"exposure_id": "torn", "night": "unknown", "state": "refused"})
    now = tonight(archive)
    assert now.night == "2026-11-20"
    assert now.without_night == 1
    assert tonight(archive, "unknown").units[0]["refused"] == 1, "whoever asks for them sees them"
    assert archive.nights() == ["2026-11-20"]
    assert archive.nights(undated=True) == ["unknown", "2026-11-20"]
    (tmp_path / "units").mkdir()
    options = SimulationOptions.preset("tiny")
    for unit in ("north", "south"):
        text = unit_toml(options, replace(options.units[0], name=unit))
        (tmp_path / "units" / f"{unit}.toml").write_text(text)
    survey = tmp_path / "survey.toml"
    survey.write_text(SURVEY)
    said = " ".join(CliRunner().invoke(app, ["status", str(survey)]).output.split())
    assert "demo, night 2026-11-20" in said
    assert "1 exposures without a night" in said
    shown = CliRunner().invoke(app, ["show", str(survey)]).output
    assert "without a night" in shown
    assert shown.index("without a night") < shown.index("2026-11-20"), "the latest night stands last"
    for number in range(2):
        write_candidates(archive, "2026-11-20", "north", f"north-{number}", CANDIDATES.empty_table())
    report = CliRunner().invoke(app, ["report", str(survey)]).output
    assert archive.report("2026-11-20").is_file()
    assert not archive.report("unknown").is_file()
    assert "1 exposures without a night" in " ".join(report.split())
    versions = CliRunner().invoke(app, ["catalog", "list", str(survey)], env={"COLUMNS": "300"}).output
    assert "2026-11-20 | 2026-11-20 | 1 | 5 | 1 | 2 |" in " ".join(versions.replace("│", "|").split())


def test_damaged_status_costs_nothing(archive: Archive, progress: Progress) -> None:
    write_progress(archive, progress)
    archive.status("2026-11-19 palma").write_text("{")
    archive.status("2026-11-18 palma").write_text('{"night": "2026-11-18"}')
    assert [one.night for one in read_progress(archive)] == ["2026-11-20"]


def test_two_sites_one_night(archive: Archive, progress: Progress) -> None:
    write_progress(archive, progress)
    write_progress(archive, replace(progress, site="spring", units={"east": UnitProgress(running=1)}, lag=5.0))
    now = tonight(archive, units=("north",))
    assert [one["unit"] for one in now.units] == ["north", "south", "east"]
    assert now.lag == 33.0


class Seen(Exception):
    """Ends what has shown enough."""


def test_only_exposures_are_shown_as_exposures_and_other_work_in_words(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The claims that the watch, the alert listener and a campaign really take, seen through the command."""
    from tasks import batch

    seen: dict[str, Tonight] = {}

    def look(*_: object, **__: object) -> Any:
        seen.setdefault("now", tonight(archive))
        raise Seen

    # each is stopped by the first thing that it does once it holds its claim
    survey = SimpleNamespace(name="demo", archive=archive.root, sites={}, watch=WatchOptions.model_validate({}))
    survey.load_units, survey.runner = dict, Runner(kind="in-process")
    survey.notify, survey.alert = NotifyOptions.model_validate({}), default_skyalert()
    monkeypatch.setattr("flows.watch._watch_state", look)
    with claimed(archive, "north-7"), pytest.raises(Seen):
        watch._watch(survey, "", {}, None, True, None, False)  # type: ignore[arg-type]
    (running,), (other,) = seen["now"].running, seen.pop("now").other_work
    assert running.startswith("north-7 on ")
    assert other.startswith("night watch (watch demo) on ")

    monkeypatch.setattr("flows.skyalert_listener.SkyAlertSession", lambda *_, **__: SimpleNamespace(archive=archive))
    monkeypatch.setattr("flows.skyalert_listener._workers", look)
    with pytest.raises(Seen):
        skyalert_listener.listen(survey, (), track=False)  # type: ignore[arg-type]
    assert (seen["now"].running, len(seen["now"].other_work)) == ([], 1)
    assert seen.pop("now").other_work[0].startswith("alert listener (alerts demo) on ")

    plan = SimpleNamespace(to_pylist=lambda: [{"unit": "north", "night": "2026-11-20"}])
    monkeypatch.setattr(
        "tasks.batch.campaigns", SimpleNamespace(read=lambda *_, **__: None, read_plan=lambda *_, **__: plan)
    )
    monkeypatch.setattr("tasks.batch._unit_of", lambda *_, **__: SimpleNamespace(name="north"))
    monkeypatch.setattr("tasks.batch.chunk_ledger", SimpleNamespace(opening=lambda *_, **__: {}, read_one=look))
    with pytest.raises(Seen):
        batch.reduce_batch.fn(str(archive.root), "archive-2026", 3)
    assert (seen["now"].running, len(seen["now"].other_work)) == ([], 1)
    assert seen["now"].other_work[0].startswith("campaign chunk (archive-2026 #3) on ")

    file = tmp_path / "survey.toml"
    file.write_text('name = "demo"\narchive = "archive"\n[[source]]\nunit = "huntsman"\nframes = "nights"\n')
    with claimed(archive, "huntsman-7"), claimed(archive, "alerts demo", "alert listener"):
        status(file, None, 10, False, False)
    lines = capsys.readouterr().out
    assert "reducing: huntsman-7 on" in lines
    assert "also running: alert listener (alerts demo) on" in lines
