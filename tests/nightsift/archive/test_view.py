"""An archive as tables and arrays of astropy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.table import Table

import nightsift
from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.templates import write_template
from nightsift.core.errors import ConfigurationError, NotInArchive
from nightsift.core.frames import Stamps, Template
from nightsift.core.tables import CANDIDATES
from nightsift.images.stars.stars import find_stars
from nightsift.io.parquet import write_stamps
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import unit_toml
from tests.nightsift.archive.drawn_archive import filled

RA, DEC = 150.0, 2.0
NIGHTS = ("2026-11-19", "2026-11-20")
SURVEY = 'name = "s"\narchive = "archive"\nunits = "units"\n[[source]]\nunit = "north"\nframes = "nights"\n'


def candidates_of(night: str, number: int) -> Any:
    """A real one at RA, DEC, a flagged one there too, and a bogus one 40 arcsec off."""
    return filled(
        CANDIDATES, 3, candidate_id=[f"north-{number}-{k:05d}" for k in range(3)], exposure_id=[f"north-{number}"] * 3,
        unit=["north"] * 3, night=[night] * 3, mjd=[61000.0 + number] * 3, ra=[RA, RA + 1.2 / 3600, RA],
        dec=[DEC, DEC, DEC + 40.0 / 3600], sign=[1, 1, -1], mag=[18.5, None, 19.0], score=[0.99, 0.999, 0.1],
        flags=[0, 2, 0], stamp_index=[0, 1, 2],
    )  # fmt: skip


@pytest.fixture
def survey(tmp_path: Path, make_frame: Any, star_list: Any) -> Path:
    archive = Archive(tmp_path / "archive")
    for number, (night, state) in enumerate(
        ((NIGHTS[0], "done"), (NIGHTS[1], "done"), (NIGHTS[1], "done"), (NIGHTS[1], "refused"))
    ):
        table = candidates_of(night, number)
        if number == 1:
            table = table.slice(0, 0)
        if state == "done":
            write_candidates(archive, night, "north", f"north-{number}", table)
            data = np.arange(3 * 31 * 31 * 3, dtype=np.float32).reshape(3, 31, 31, 3) + 1000 * number
            stamps = Stamps(data[: len(table)], np.zeros((len(table), 31, 31), dtype=bool))
            write_stamps(archive.stamps(night, "north", f"north-{number}"), table["candidate_id"].to_pylist(), stamps)
        row = {
            "exposure_id": f"north-{number}", "unit": "north", "night": night, "state": state, "reason": "",
            "message": "", "facts": "{}", "url": f"{number}.fits", "checksum": "", "seconds": 4.0,
            "stage_seconds": "{}", "provenance": "", "version": "0", "mjd": 61000.0 + number, "ra": RA, "dec": DEC,
            "area": 0.01, "limiting_mag": 20.0, "seeing": 3.0, "field": "f1", "band": "r",
        }  # fmt: skip
        ledger.record(archive, row)
    frame = make_frame(*star_list(20, (200, 200), faint=4.0), (200, 200), unit="north", field="f1", band="r")
    write_template(archive, Template(frame, find_stars(frame), np.ones(frame.shape, np.float32), "t-1", 24.5, ("a",)))
    options = SimulationOptions.preset("tiny")
    (tmp_path / "units").mkdir()
    unit = unit_toml(options, options.units[0]).replace('name = "tiny-1"', 'name = "north"')
    (tmp_path / "units" / "north.toml").write_text(unit)
    (tmp_path / "nightsift.toml").write_text(SURVEY)
    return tmp_path / "nightsift.toml"


def test_names_and_tables(survey: Path) -> None:
    view = nightsift.open(survey)
    assert view.nights() == list(NIGHTS)
    assert view.units() == ["north"]
    assert len(view.exposures()) == 4
    assert view.exposures(NIGHTS[1], state="refused")["exposure_id"].tolist() == ["north-3"]
    found = view.candidates(night=NIGHTS[1])
    assert isinstance(found, Table)
    assert found["candidate_id"].tolist() == [f"north-2-0000{k}" for k in range(3)]
    assert found["ra"].unit == u.deg
    assert found["flux"].unit == u.adu
    assert found["snr"].description == "peak of the signal-to-noise map, positive for both signs"
    assert found["mag"].mask.tolist() == [False, True, False]
    assert "2 nights, 2026-11-19 to 2026-11-20" in repr(view)
    assert nightsift.open(survey.parent / "archive").nights() == view.nights()


def test_accepted_by_the_threshold_of_the_unit(survey: Path) -> None:
    view = nightsift.open(survey)
    assert view.candidates(accepted=True)["candidate_id"].tolist() == ["north-0-00000", "north-2-00000"]
    assert len(view.candidates(accepted=False)) == 4
    with pytest.raises(ConfigurationError, match="open the survey file"):
        nightsift.open(survey.parent / "archive").candidates(accepted=True)


def test_nothing_is_a_table_with_columns(survey: Path) -> None:
    view = nightsift.open(survey)
    none = view.exposures(NIGHTS[0], state="failed")
    assert len(none) == 0
    assert "limiting_mag" in none.colnames
    far = view.light_curve(10.0, -40.0)
    assert len(far) == 0
    assert {"mjd", "mag", "separation"} <= set(far.colnames)
    assert view.stamps([]).science.shape[0] == 0


def test_stamps_come_in_the_order_asked_for(survey: Path) -> None:
    view = nightsift.open(survey)
    stamps = view.stamps(["north-2-00001", "north-0-00002", "north-2-00001"])
    assert stamps.science.shape == stamps.mask.shape == (3, 31, 31)
    assert stamps.science[:, 0, 0].tolist() == [2000.0 + 31 * 31 * 3, 2 * 31 * 31 * 3.0, 2000.0 + 31 * 31 * 3]
    assert (stamps.difference - stamps.science == 2).all()
    assert (stamps.template - stamps.science == 1).all()
    assert len(view.stamps("north-0-00000")) == 1
    assert len(view.stamps(view.candidates()["candidate_id"])) == 6


def test_light_curve_has_a_row_for_each_exposure_that_shows_the_place(survey: Path) -> None:
    curve = nightsift.open(survey).light_curve(RA + 0.3 / 3600, DEC)
    assert curve["exposure_id"].tolist() == ["north-0", "north-1", "north-2"]
    assert curve["mag"].mask.tolist() == [False, True, False]
    assert curve["limiting_mag"].tolist() == [20.0, 20.0, 20.0]
    assert curve["candidate_id"][0] == "north-0-00000"
    assert curve["separation"][0] == pytest.approx(0.3, abs=0.01)
    assert curve["separation"].unit == u.arcsec
    wide = nightsift.open(survey).light_curve(RA, DEC + 39.0 / 3600, radius=3.0)
    assert wide["candidate_id"][0] == "north-0-00002"
    assert nightsift.open(survey).light_curve(RA, DEC + 20.0 / 3600)["mag"].mask.all()


def test_template_is_an_image(survey: Path) -> None:
    view = nightsift.open(survey)
    (row,) = view.templates()
    image = view.template(row["unit"], row["field"], row["band"])
    assert isinstance(image, CCDData)
    assert image.shape == (200, 200)
    assert image.unit == u.adu
    assert image.meta["MAGZERO"] == 24.5
    assert image.meta["GAIN"] == 1.5


def test_wrong_names_name_the_right_ones(survey: Path) -> None:
    view = nightsift.open(survey)
    for call, message in (
        (lambda: view.candidates(night="2026-11-21"), "has no night '2026-11-21'.*2026-11-19, 2026-11-20"),
        (lambda: view.exposures(unit="nord"), "has no unit 'nord'. did you mean 'north'"),
        (lambda: view.exposures(state="don"), "has no state 'don'. did you mean 'done'"),
        (lambda: view.stamps("north-2-00009"), "has no candidate 'north-2-00009'"),
        (lambda: view.stamps("south-7-00001"), "has no candidate 'south-7-00001'"),
        (lambda: view.template("north", "f2", "r"), "has no template 'north f2 r'. did you mean 'north f1 r'"),
        (lambda: nightsift.open(survey.parent), r"open .*nightsift\.toml"),
        (lambda: nightsift.open(survey.parent / "nothing"), "has no folder 'ledger'"),
    ):
        with pytest.raises(NotInArchive, match=message):
            call()


def test_the_package_stays_light() -> None:
    heavy = ("pyarrow", "pydantic", "keras", "scipy")
    code = f"import sys, nightsift, models; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
