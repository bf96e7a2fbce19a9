"""Nights of an archive judged: calibration set, alarms, pages, what is kept. The archive is drawn, not reduced."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows import monitoring, night
from flows.monitoring import NIGHTS, monitor
from models.network.store import load, model_id
from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.cli.root import app
from nightsift.core import tables
from nightsift.core.errors import TooFewNights
from nightsift.core.frames import Stamps
from nightsift.core.monitoring_tables import INJECTIONS, MONITORING
from nightsift.core.provenance import closure_of
from nightsift.core.tables import CANDIDATES
from nightsift.io.parquet import write_stamps, write_table
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import unit_toml
from nightsift.unit.units import load_unit
from tasks import watched_units
from tasks.monitor import pipeline_of
from tasks.references import COMPLETENESS

UNITS = ("north", "south")
CANDIDATES_AN_EXPOSURE = 20


def columns(of: pa.Schema, n: int, given: dict[str, Any]) -> pa.Table:
    """A table of a schema: what is given, and something that fits elsewhere."""
    filled = dict(given)
    for field in of:
        if field.name not in filled and not field.nullable:
            filled[field.name] = [""] * n if field.type == pa.string() else [0] * n
    return tables.table(filled, of)


def write_night(
    archive: Archive,
    unit: str,
    night: str,
    seed: int,
    gain: float = 1.0,
    score_shift: float = 0.0,
    units: str = "../units",
) -> None:
    """Two exposures in changing moonlight, with candidates, stamps and injected sources."""
    rng = np.random.default_rng([seed, UNITS.index(unit)])
    model = load("base").model_id
    moon = np.exp(rng.uniform(0, 1))
    for exposure in range(2):
        key = f"{unit}-{night}-{exposure}"
        n = CANDIDATES_AN_EXPOSURE
        sky = 300.0 * moon
        row = {
            "exposure_id": key, "unit": unit, "night": night, "state": "done", "reason": "", "message": "",
            "facts": "{}", "url": f"{key}.fits", "checksum": key, "field": "f1", "band": "L", "mjd": 60000.0 + exposure,
            "seeing": 3.0 * np.exp(rng.normal(0, 0.08)), "sky": sky,
            "sky_rms": float(np.sqrt((sky / gain + 40) * np.exp(rng.normal(0, 0.01)))),
            "n_stars": int(rng.poisson(300)), "zero_point": 25.0 + rng.normal(0, 0.02),
            "limiting_mag": 19.5 + rng.normal(0, 0.05), "area": 0.1,
            "star_residual": float(np.exp(rng.normal(0.1, 0.05))), "align_residual": 0.05, "n_candidates": n,
            "n_unflagged": n, "n_accepted": int(rng.binomial(n, 0.5)), "seconds": 1.0, "stage_seconds": "{}",
            "provenance": "p", "version": "0",
        }  # fmt: skip
        ledger.record(archive, row)
        z = np.where(rng.random(n) < 0.5, 3.0, -3.0) + rng.normal(score_shift, 1.0, n)
        table = columns(
            CANDIDATES, n,
            {
                "candidate_id": [f"{key}-{i}" for i in range(n)], "exposure_id": [key] * n, "unit": [unit] * n,
                "night": [night] * n, "sign": [1] * n, "stamp_index": list(range(n)), "score": 1 / (1 + np.exp(-z)),
                "score_std": [0.0] * n, "confidence": [1.0] * n, "model_id": [model] * n,
            },
        )  # fmt: skip
        write_candidates(archive, night, unit, key, table)
        data = rng.normal(0, 5, (n, 31, 31, 3)).astype(np.float32)
        write_stamps(
            archive.stamps(night, unit, key), table["candidate_id"].to_pylist(), Stamps(data, data[..., 0] > 99)
        )
    found = rng.random(40) < 0.8
    injected = {
        "exposure_id": [key] * 40, "unit": [unit] * 40, "night": [night] * 40, "model_id": [model] * 40,
        "threshold": [0.5] * 40, "mag": rng.uniform(17, 19, 40), "snr": np.linspace(5, 49, 40),
        "searched": [True] * 40, "detected": found, "accepted": found,
        "provenance": [pipeline_of(load_unit(archive.root / units / f"{unit}.toml"), model)] * 40,
    }  # fmt: skip
    write_table(archive.injections(night, unit, key), columns(INJECTIONS, 40, injected))


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two units over fourteen nights; the gain of one changes in the thirteenth."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "units").mkdir()
    options = SimulationOptions.preset("tiny")
    for unit in UNITS:
        text = unit_toml(options, dataclasses.replace(options.units[0], name=unit))
        (folder / "units" / f"{unit}.toml").write_text(text)
    sources = "".join(f'\n[[source]]\nunit = "{unit}"\nframes = "frames/{unit}"\n' for unit in UNITS)
    (folder / "s.toml").write_text(f'name = "s"\narchive = "archive"\nunits = "units"\n{sources}')
    archive = Archive(folder / "archive")
    for place in range(14):
        for unit in UNITS:
            broken = unit == "south" and place >= 12
            write_night(archive, unit, f"2026-10-{place + 1:02d}", place, 0.5 if broken else 1.0)
    return folder / "s.toml"


def test_the_broken_unit_is_told_and_the_other_is_not(survey: Path) -> None:
    summary = monitor(survey, inject=0, track=False)
    archive = Archive(load_survey(survey).archive)
    states = {(row["unit"], row["night"]): row["state"] for row in summary.rows}
    assert len(states) == 2 * (14 - NIGHTS)
    assert {unit for (unit, night), state in states.items() if state == "drifted"} == {"south"}
    assert states["south", "2026-10-13"] == "drifted"
    assert summary.exit_code == 1
    written = pq.read_table(archive.monitoring("2026-10-13", "south"))
    assert written.schema.equals(MONITORING)
    noise = next(row for row in written.to_pylist() if row["channel"] == "noise")
    assert noise["state"] == "drifted"
    assert noise["departure"] > 5
    first = pq.read_table(archive.monitoring("2026-10-01", "south")).to_pylist()
    assert {row["state"] for row in first} == {"reference"}
    page = summary.pages["2026-10-13"].read_text()
    assert "south: drifted" in page
    assert "nightsift calibrate s.toml" in page
    assert page.count("<svg") >= 5


def test_the_model_that_served_is_kept_with_its_completeness(survey: Path) -> None:
    monitor(survey, "2026-10-11", inject=0, track=False)
    archive = Archive(load_survey(survey).archive)
    kept = archive.archived_model(load("base").model_id)
    assert (kept / "model.keras").is_file()
    table = pq.read_table(kept / "completeness-north.parquet")
    assert table.schema.equals(COMPLETENESS)
    assert sum(table["injected"].to_pylist()) == 14 * 40
    assert 0.7 < sum(table["accepted"].to_pylist()) / (14 * 40) < 0.9


def test_a_night_keeps_the_model_that_scored_it_and_goes_on_where_it_cannot(
    survey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, problems = Archive(load_survey(survey).archive), []
    shutil.rmtree(archive.home / "models", ignore_errors=True)
    units = list(load_survey(survey).load_units().values())
    night._keep_models(archive, units, problems)
    night._keep_models(archive, units, problems)
    kept = archive.archived_model(load("base").model_id)
    assert model_id(kept) == load("base").model_id, "named in a unit file it gives the same scores again"
    assert [one.name for one in kept.parent.iterdir()] == [kept.name]

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(night, "keep_model", full)
    night._keep_models(archive, units[:1], problems)
    assert problems == [f"the model of {units[0].name} could not be kept: no space left on device"]


def test_a_new_calibration_set_forgives_and_the_old_one_stays(survey: Path) -> None:
    archive = Archive(load_survey(survey).archive)
    before = sorted(archive.references("south").glob("*.json"))
    with pytest.raises(TooFewNights):
        monitor(survey, units=["south"], reference=("2026-10-13", "2026-10-14"), inject=0, track=False)
    summary = monitor(survey, units=["south"], reference=("2026-10-05", "2026-10-14"), inject=0, track=False)
    assert not summary.drifted
    after = sorted(archive.references("south").glob("*.json"))
    assert set(before) < set(after)
    nights = [json.loads(path.read_text())["nights"] for path in after]
    assert sorted(map(len, nights)) == [10, 10]


def test_too_few_nights_are_told(survey: Path, tmp_path: Path) -> None:
    young = load_survey(survey).model_copy(update={"archive": tmp_path})
    for place in range(2):
        write_night(Archive(tmp_path), "north", f"2026-10-{place + 1:02d}", place, units=f"{survey.parent}/units")
    summary = monitor(young, inject=0, track=False)
    assert {row["state"] for row in summary.rows} == {"unjudged"}
    assert "2 nights scored by" in summary.rows[0]["message"]
    assert summary.exit_code == 0
    file = survey.with_name("young.toml")
    file.write_text(survey.read_text().replace('archive = "archive"', f'archive = "{tmp_path}"'))
    told = CliRunner().invoke(app, ["monitor", str(file), "--inject", "0", "--no-track"])
    assert "0 unit-nights judged" in told.output
    assert "not judged: north, no calibration set yet: 2 nights scored by" in told.output


@pytest.fixture(scope="module")
def first_verdicts(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the survey whose nights were all judged."""
    folder = tmp_path_factory.mktemp("judged") / "survey"
    shutil.copytree(survey.parent, folder, ignore=shutil.ignore_patterns("monitoring", "references", "reports"))
    monitor(folder / "s.toml", inject=0, track=False)
    return folder


@pytest.fixture
def judged(first_verdicts: Path, tmp_path: Path) -> Path:
    """The same, to change something in it; the times of files and folders are copied too."""
    shutil.copytree(first_verdicts, tmp_path / "survey")
    return tmp_path / "survey" / "s.toml"


def changed_times(archive: Archive) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in archive.home.rglob("*") if path.is_file()}


def judged_nights(summary: monitoring.MonitorSummary) -> list[str]:
    """Nights that were judged, each of both units."""
    nights = sorted({night for _, night in summary.judged})
    assert sorted(summary.judged) == [(unit, night) for unit in UNITS for night in nights]
    return nights


def test_verdicts_stand_while_nothing_has_changed(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(load_survey(judged).archive)
    before, rows = changed_times(archive), monitor(judged, inject=0, track=False).rows

    def refuse(*_: object) -> None:
        raise AssertionError("a night was read")

    monkeypatch.setattr(watched_units, "read_night", refuse)
    again = monitor(judged, inject=0, track=False)
    assert changed_times(archive) == before
    assert again.judged == []
    assert again.rows == rows
    assert again.exit_code == 1, "an alarm stays one"
    assert monitor(judged, units=["north"], inject=0, track=False).judged == [], "nor does it matter who asks"
    told = CliRunner().invoke(app, ["monitor", str(judged), "--inject", "0", "--no-track"])
    assert f"0 unit-nights judged, {2 * (14 - NIGHTS)} stand as they were" in told.output


def test_a_changed_night_is_judged_again_with_what_depends_on_it(judged: Path) -> None:
    archive = Archive(load_survey(judged).archive)
    before = changed_times(archive)
    write_night(archive, "north", "2026-10-14", 99)
    assert judged_nights(monitor(judged, inject=0, track=False)) == ["2026-10-14"]
    pages = [path for path, when in changed_times(archive).items() if path.suffix == ".html" and when != before[path]]
    assert [path.parent.name for path in pages] == ["night=2026-10-14"]
    write_night(archive, "north", "2026-10-12", 98)  # the nights after it are judged together with it
    assert judged_nights(monitor(judged, inject=0, track=False)) == ["2026-10-12", "2026-10-13", "2026-10-14"]
    write_night(archive, "south", "2026-10-03", 97)  # of its calibration set, which lends its scatter to the other
    summary = monitor(judged, inject=0, track=False)
    assert len(judged_nights(summary)) == 14 - NIGHTS

    def verdicts(of: monitoring.MonitorSummary) -> list[tuple[Any, ...]]:
        return [tuple(row.get(name) for name in ("unit", "night", "state", "p_value", "q_value")) for row in of.rows]

    partly = verdicts(monitor(judged, inject=0, track=False))
    shutil.rmtree(archive.home / "monitoring")
    assert verdicts(monitor(judged, inject=0, track=False)) == partly, "what stands is what a first run says"


def test_rate_code_and_a_lost_page_make_verdicts_due(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(load_survey(judged).archive)
    archive.report("2026-10-12", "drift").unlink()
    assert judged_nights(monitor(judged, inject=0, track=False)) == ["2026-10-12"]
    assert len(judged_nights(monitor(judged, inject=0, rate=0.01, track=False))) == 14 - NIGHTS
    assert judged_nights(monitor(judged, inject=0, rate=0.01, track=False)) == []
    monkeypatch.setattr(watched_units, "code_of", lambda product: "another")
    assert len(judged_nights(monitor(judged, inject=0, rate=0.01, track=False))) == 14 - NIGHTS


def test_the_code_that_judges_is_all_that_judges() -> None:
    judging = {name.rpartition(".")[0] for name in closure_of("monitoring")}
    for module in (
        "models.drift.control_tests",
        "models.drift.exposure_inputs",
        "models.drift.alarm",
        "models.drift.night_channels",
    ):
        assert any(name.startswith(module) for name in judging), module
    assert not any(name.startswith("models.training.train") for name in judging)


def test_exposures_without_a_night_are_counted_and_raise_no_alarm(judged: Path) -> None:
    archive = Archive(load_survey(judged).archive)
    row = ledger.read(archive, "2026-10-12", "north").to_pylist()[0]
    numbers = {name: None for name in row if isinstance(row[name], float) and name not in ("seconds", "mjd")}
    for number in range(4):
        torn = {"exposure_id": f"torn{number}", "night": "unknown", "state": "refused", "reason": "UnreadableFits"}
        ledger.record(archive, row | numbers | torn | {"mjd": None})
    summary = monitor(judged, units=["north"], inject=0, track=False)
    assert not summary.drifted
    assert "unknown" not in {row["night"] for row in summary.rows}
    assert summary.undated == 4
    assert not archive.monitoring("unknown", "north").exists()
    assert not archive.report("unknown", "drift").exists()
    told = CliRunner().invoke(app, ["monitor", str(judged), "--inject", "0", "--no-track"])
    assert "4 exposures without a night" in told.output


def test_command(survey: Path) -> None:
    told = CliRunner().invoke(
        app, ["monitor", str(survey), "--unit", "north", "--night", "2026-10-12", "--inject", "0", "--no-track"]
    )
    assert told.exit_code == 0, told.output
    assert "2026-10-12 north: steady" in told.output
    wrong = CliRunner().invoke(app, ["monitor", str(survey), "--reference", "2026-10-12"])
    assert wrong.exit_code != 0
