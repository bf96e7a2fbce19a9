"""Commands on a simulated survey whose archive is filled by hand: what is shown and scored can be counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.cli import app, compilation
from nightsift.cli.archive import angle
from nightsift.core import tables
from nightsift.core.errors import ConfigurationError
from nightsift.core.flags import Flag

FALSE_PLACE = (1.0, 1.0)


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command of these tests compiles."""
    monkeypatch.setattr(compilation, "is_compiled", lambda: True)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def ledger_row(exposure_id: str, url: str, **changes: Any) -> dict[str, Any]:
    named = {"exposure_id": exposure_id, "unit": "tiny-1", "night": "2026-11-20", "url": url}
    texts = {"reason": "", "message": "", "facts": "{}", "stage_seconds": "{}", "provenance": "p", "version": "0"}
    numbers = {"area": 0.02, "seconds": 1.5, "n_candidates": 2, "n_accepted": 1, "mjd": 61000.0}
    return {**named, **texts, **numbers, "state": "done", "checksum": "0" * 64, **changes}


def candidate(exposure_id: str, number: int, x: float, y: float, sign: int, **changes: Any) -> dict[str, Any]:
    return {
        "candidate_id": f"{exposure_id}-{number}", "exposure_id": exposure_id, "unit": "tiny-1", "night": "2026-11-20",
        "field": "f", "band": "r", "mjd": 61000.0, "x": x, "y": y, "ra": 12.345678, "dec": -1.0, "sign": sign,
        "snr": 9.0, "n_pixels": 5, "elongation": 1.0, "flux": 9.0 * sign, "flux_err": 1.0, "flux_aperture": 9.0,
        "flux_aperture_err": 1.0, "dipole": 0.0, "masked_fraction": 0.0, "flags": 0, "template_id": "t",
        "stamp_index": number, "score": 0.99, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny survey with one exposure done: its first two true objects found, and a false one; another refused."""
    out = tmp_path_factory.mktemp("survey") / "tiny"
    assert run("simulate", str(out), "--preset", "tiny", "--workers", "1")[0] == 0
    frames = sorted(out.glob("nights/*/tiny-1/*.fits"))
    archive = Archive(out / "archive")
    truth = pq.read_table(out / "truth.parquet").to_pylist()
    objects = [row for row in truth if row["exposure_file"] == frames[0].name][:2]
    found = [
        candidate("e0", i, row["x"], row["y"], 1 if row["flux"] >= row["reference_flux"] else -1)
        for i, row in enumerate(objects)
    ]
    found[1] |= {"flags": int(Flag.DIPOLE), "score": 0.01}
    found.append(candidate("e0", 2, *FALSE_PLACE, 1, score=0.2, ra=None, dec=None))
    write_candidates(archive, "2026-11-20", "tiny-1", "e0", tables.table(found, tables.CANDIDATES))
    ledger.record(archive, ledger_row("e0", str(frames[0]), n_candidates=3))
    refused = {"state": "refused", "reason": "TooFewStars", "message": "7 usable stars found", "area": None}
    ledger.record(archive, ledger_row("e1", str(frames[1]), **refused))
    return out / "nightsift.toml"


def test_simulating_twice_changes_nothing(survey: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in survey.parent.rglob("*.fits")}
    code, told = run("simulate", str(survey.parent), "--preset", "tiny")
    assert code == 0
    assert "already" in told
    assert before == {file: file.stat().st_mtime_ns for file in survey.parent.rglob("*.fits")}


def test_another_survey_in_the_same_folder_is_refused(survey: Path) -> None:
    with pytest.raises(ConfigurationError, match="another simulated survey"):
        run("simulate", str(survey.parent), "--preset", "tiny", "--seed", "2")


def test_show_counts_states_and_lists_the_best_first(survey: Path) -> None:
    code, told = run("show", str(survey))
    assert code == 0
    assert "| 2026-11-20 | tiny-1 | 2 | 1 | 1 | 0 | 0 | 5 | 2 |" in told
    assert "7 usable stars found" in told
    assert "Candidates (3 of 3, 2 without a flag)" in told
    assert told.index("| e0-0 |") < told.index("| e0-2 |") < told.index("| e0-1 |"), "flagged candidates come last"
    assert "12.34568" in told
    assert "DIPOLE" in told


def test_show_of_an_archive_folder_and_of_a_night_without_exposures(survey: Path) -> None:
    assert "TooFewStars" in run("show", str(survey.parent / "archive"))[1]
    with pytest.raises(ConfigurationError, match=r"nothing is recorded of night 1999-01-01.*2026-11-20 of tiny-1"):
        run("show", str(survey), "--night", "1999-01-01")
    with pytest.raises(ConfigurationError, match=r"nothing is recorded of unit tiny-7.*2026-11-20 of tiny-1"):
        run("show", str(survey), "--unit", "tiny-7")
    with pytest.raises(ConfigurationError, match="no archive"):
        run("show", str(survey.parent / "nights"))
    with pytest.raises(ConfigurationError, match="no such folder"):
        run("show", str(survey.parent / "nowhere"))


def test_score_counts_what_was_planted(survey: Path, tmp_path: Path) -> None:
    code, told = run("score", str(survey), "--json", str(tmp_path / "score.json"), "--by-unit")
    assert code == 0
    assert "Score, tiny-1" in told
    card = json.loads((tmp_path / "score.json").read_text())
    everything = next(row for row in card["false_rates"] if row["unit"] == "all")
    assert (everything["detected"], everything["unflagged"], everything["accepted"]) == (1, 1, 0)
    assert everything["per_deg2"]["detected"] == pytest.approx(1 / 0.02)
    parts = [row for row in card["recoveries"] if row["unit"] == "all" and row["group"] in ("snr", "obstructed")]
    assert sum(row["detected"] for row in parts) <= 2


def test_unit_check_tells_good_from_bad(survey: Path) -> None:
    frame = next(survey.parent.glob("nights/*/tiny-1/*.fits"))
    code, told = run("unit", "check", str(survey.parent / "units" / "tiny-1.toml"), str(frame))
    assert code == 0
    assert "all facts are good" in told
    from nightsift.unit.units import list_units

    code, told = run("unit", "check", str(next(iter(list_units().values()))), str(frame))
    assert code == 1
    assert "missing or wrong" in told


def test_unit_list_finds_the_folder_of_a_survey(survey: Path) -> None:
    code, told = run("unit", "list", "--folder", str(survey.parent / "units"))
    assert code == 0
    assert "| tiny-1 |" in told


@pytest.mark.parametrize("command", ["score", "report", "monitor"])
def test_a_night_without_exposures_is_no_success(command: str, survey: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing is recorded of night 1999-01-01.*2026-11-20"):
        run(command, str(survey), "--night", "1999-01-01")


def changed(survey: Path, name: str, **changes: str) -> Path:
    """The survey file with other places of its frames."""
    text = survey.read_text()
    for key, value in changes.items():
        text = re.sub(rf'^{key} = ".*"$', f'{key} = "{value}"', text, flags=re.M)
    path = survey.with_name(name)
    path.write_text(text)
    return path


def test_an_empty_folder_a_wrong_pattern_and_a_wrong_night_are_said(survey: Path) -> None:
    other = survey.parent / "camera"
    other.mkdir()
    empty = changed(survey, "empty.toml", frames="camera", templates="camera")
    code, told = run("night", str(empty), "--no-track")
    assert code == 1
    assert f"tiny-1: no file lies in {other}" in told
    for name in ("a.cr2", "b.cr2", "c.tar.gz"):
        (other / name).touch()
    code, told = run("night", str(empty), "--no-track")
    assert code == 1
    assert 'pattern = "*.fit*"; there are 2 .cr2, 1 .tar.gz' in told
    code, told = run("template", str(empty), "--no-track")
    assert code == 1
    assert "no template: tiny-1: no file in" in told
    code, told = run("night", str(survey), "--night", "1999-01-01", "--no-track")
    assert code == 1
    assert "is of night 1999-01-01; they are of 2026-11-20" in told
    code, told = run("night", str(survey), "--night", "1999-01-01", "--dry-run")
    assert "they are of 2026-11-20" in told
    missing = changed(survey, "missing.toml", frames="nowhere", templates="")
    code, told = run("night", str(missing), "--no-track")
    assert code == 1
    assert "nowhere cannot be reached" in told
    assert "name it under templates" in run("template", str(missing), "--no-track")[1]


def test_photometry_outside_every_frame_names_the_nearest_field(survey: Path) -> None:
    archive = Archive(survey.parent / "elsewhere")
    ledger.record(archive, ledger_row("e2", "gone.fits", field="M31", ra=10.0, dec=41.0))
    moved = changed(survey, "moved.toml", archive="elsewhere")
    code, told = run("photometry", str(moved), "--ra", "00:44:00", "--dec", "-12:00:00")
    assert code == 1
    assert "target (11.00000 -12.00000) lies on none of 1 exposures; the nearest field is M31 of tiny-1" in told
    assert "53.01 deg away" in told
    (survey.parent / "unreduced.toml").write_text(moved.read_text().replace("elsewhere", "not-yet"))
    with pytest.raises(ConfigurationError, match="reduce a night first"):
        run("photometry", str(survey.parent / "unreduced.toml"), "--ra", "11", "--dec", "-12")


@pytest.mark.parametrize(
    ("text", "option", "degrees"),
    [("150.1163", "--ra", 150.1163), ("10:00:27.9", "--ra", 150.11625), ("10h00m27.9s", "--ra", 150.11625),
     ("-00:30:00", "--dec", -0.5), ("+2d12m", "--dec", 2.2)],
)  # fmt: skip
def test_coordinates_as_people_write_them(text: str, option: str, degrees: float) -> None:
    assert angle(text, option) == pytest.approx(degrees)


@pytest.mark.parametrize(("text", "option"), [("north", "--dec"), ("10:99:00", "--ra"), ("", "--ra")])
def test_coordinates_that_are_none(text: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match="is no angle"):
        angle(text, option)


def test_why_a_difference_is_not_good_is_shown(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    for number in range(7):
        doubt = {"verdict": "suspect", "verdict_reasons": f"stars are shifted by 0.{number} px"}
        ledger.record(archive, ledger_row(f"e{number}", f"{number}.fits", **doubt))
    code, told = run("show", str(tmp_path / "archive"))
    assert code == 0
    assert told.count("is suspect: stars are shifted") == 5
    assert "2 more are; their candidates carry the flag SUSPECT_FRAME" in told


def test_status_says_where_planned_nights_are_seen(survey: Path) -> None:
    code, told = run("status", str(survey))
    assert code == 0
    assert "planned nights: in the pages of serve under Deployments > nightly > Upcoming" in told
