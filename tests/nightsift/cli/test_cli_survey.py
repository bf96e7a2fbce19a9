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
from nightsift.cli import app
from nightsift.core import tables
from nightsift.core.errors import ConfigurationError
from nightsift.core.flags import Flag

FALSE_PLACE = (1.0, 1.0)


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
    assert "nothing is recorded" in run("show", str(survey), "--night", "1999-01-01")[1]
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
