"""Facts from headers: sources, physical units, times of every kind, and what is told when they fail."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from astropy.time import Time

from nightsift.core.errors import BadFact, FrameError, MissingFact
from nightsift.core.times import mjd_of, night_of, read_time
from nightsift.io.fits import read_header
from nightsift.sky.fields import grid_field
from nightsift.unit.fact_sources import TimeFact
from nightsift.unit.facts import check_header, read_facts
from nightsift.unit.units import Unit, load_unit

HEADER: dict[str, Any] = {
    "GAIN": 1.5,
    "RON": 9.0,
    "SATUR": 60000,
    "SCALE": 1.2,
    "FILTER": " r ",
    "EXPTIME": 60.0,
    "DATE-OBS": "2026-11-20T20:00:00",
    "OBJECT": "F1",
    "RA": 150.0,
    "DEC": -20.0,
}
FACTS = {
    "gain": '{ card = "GAIN" }',
    "read_noise": '{ card = "RON" }',
    "saturation": '{ card = "SATUR" }',
    "pixel_scale": '{ card = "SCALE" }',
    "band": '{ card = "FILTER" }',
    "exposure": '{ card = "EXPTIME" }',
    "time": '{ card = "DATE-OBS", position = "start" }',
    "field": '{ card = "OBJECT" }',
    "ra": '{ card = "RA" }',
    "dec": '{ card = "DEC" }',
}


@pytest.fixture
def unit_with(tmp_path: Path) -> Any:
    """Return a function that makes a unit with some facts changed."""

    def make(longitude: float = 0.0, **changes: str) -> Unit:
        lines = [f"{name} = {text}" for name, text in (FACTS | changes).items()]
        path = tmp_path / "test.toml"
        path.write_text("\n".join(["[facts]", *lines, "[site]", f"longitude = {longitude}"]))
        return load_unit(path)

    return make


def test_plain_facts(unit_with: Any) -> None:
    facts = read_facts(unit_with(), HEADER, "x.fits")
    assert (facts.gain, facts.read_noise, facts.saturation, facts.pixel_scale) == (1.5, 9.0, 60000.0, 1.2)
    assert (facts.band, facts.field, facts.ra, facts.dec) == ("r", "F1", 150.0, -20.0)
    assert facts.mjd == pytest.approx(61364 + (20 * 3600 + 30) / 86400, abs=1e-9)
    assert facts.night == "2026-11-20"
    assert math.isnan(facts.zero_point)
    assert facts.sky == 0.0


@pytest.mark.parametrize(
    ("fact", "source", "value"),
    [
        ("gain", '{ card = "GAIN", unit = "e-/ADU" }', 1.5),
        ("gain", '{ card = "GAIN", unit = "adu/electron" }', 1 / 1.5),
        ("gain", '{ card = "GAIN", scale = 4.0 }', 6.0),
        ("read_noise", '{ card = "RON", unit = "ADU" }', 13.5),
        ("saturation", '{ card = "SATUR", unit = "electron" }', 40000.0),
        ("pixel_scale", '{ constant = 0.0005, unit = "deg/pixel" }', 1.8),
        ("pixel_scale", '{ card = ["NONE", "SCALE"], unit = "arcsec/pix" }', 1.2),
        ("exposure_s", '{ constant = 2.0, unit = "min" }', 120.0),
        ("exposure_s", '{ card = "EXPTIME", unit = "ms" }', 0.06),
        ("ra", '{ constant = "10:00:00", unit = "hourangle" }', 150.0),
        ("ra", "{ constant = -10.0 }", 350.0),
        ("dec", '{ constant = "-00 30 36", unit = "deg" }', -0.51),
        ("zero_point", "{ constant = 22.5 }", 22.5),
        ("band", '{ card = "FILTER", choices = { r = "sdss_r" } }', "sdss_r"),
        ("field", '{ filename = "^x_(.*)_1" }', "M31"),
        ("field", '{ card = "OBJECT", pattern = "(F)" }', "F"),
        ("field", "{ pointing_grid_deg = 1.0 }", grid_field(150.0, -20.0, 1.0)),
    ],
)
def test_sources_and_units(unit_with: Any, fact: str, source: str, value: Any) -> None:
    unit = unit_with(**{{"exposure_s": "exposure"}.get(fact, fact): source})
    found = getattr(read_facts(unit, HEADER, "/a/x_M31_1.fits"), fact)
    assert found == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12))


@pytest.mark.parametrize(
    ("change", "header", "kind", "told"),
    [
        ({}, {"GAIN": None}, MissingFact, "'gain' of unit 'test' was looked for in card GAIN"),
        ({"gain": '{ card = ["A", "B"] }'}, {}, MissingFact, "card A or B"),
        ({}, {"GAIN": 0.0}, BadFact, "positive"),
        ({}, {"GAIN": "high"}, BadFact, "'high'"),
        ({}, {"GAIN": True}, BadFact, "a number"),
        ({}, {"GAIN": float("nan")}, BadFact, "a number"),
        ({}, {"RON": -1.0}, BadFact, "zero or positive"),
        ({}, {"EXPTIME": 0}, BadFact, "positive"),
        ({}, {"FILTER": "   "}, MissingFact, "FILTER"),
        ({}, {"DEC": 91.0}, BadFact, "-90 and 90"),
        ({}, {"RA": "10:00:00"}, BadFact, "hourangle"),
        ({}, {"DATE-OBS": "yesterday"}, BadFact, "a time"),
        ({}, {"DATE-OBS": "1858-11-17T00:00:00"}, BadFact, "between 1950 and 2100"),
        ({"band": '{ card = "FILTER", choices = { g = "g" } }'}, {}, BadFact, "one of"),
        ({"field": '{ filename = "^y_(.*)" }'}, {}, MissingFact, "file name 'x.fits'"),
    ],
)
def test_what_is_missing_or_bad(
    unit_with: Any, change: dict[str, str], header: dict[str, Any], kind: type[FrameError], told: str
) -> None:
    unit = unit_with(**change)
    with pytest.raises(kind) as caught:
        read_facts(unit, HEADER | header, "night/x.fits")
    assert told in str(caught.value)
    assert unit.file in str(caught.value)
    assert "night/x.fits" in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "options", "utc"),
    [
        ("2017-12-19T18:33:43.317-0700", {}, "2017-12-20T01:33:43.317"),
        ("2017-12-20T01:33:43.317Z", {}, "2017-12-20T01:33:43.317"),
        ("2017-12-20T01:33:43.3171234567", {}, "2017-12-20T01:33:43.317123"),
        ("2017-12-20 01:33:43 UTC", {}, "2017-12-20T01:33:43"),
        ("2017-12-20T01:33", {}, "2017-12-20T01:33:00"),
        ("20/12/97", {}, "1997-12-20T00:00:00"),
        ("2017-12-19T18:33:43", {"offset_hours": -7.0}, "2017-12-20T01:33:43"),
        ("171220_013343", {"format": "%y%m%d_%H%M%S"}, "2017-12-20T01:33:43"),
        (58107.5, {"format": "mjd"}, "2017-12-20T12:00:00"),
        ("2458108.0", {"format": "jd"}, "2017-12-20T12:00:00"),
        (1513771200, {"format": "unix"}, "2017-12-20T12:00:00"),
        ("2017-12-20T12:00:37", {"timescale": "tai"}, "2017-12-20T12:00:00"),
        ("2017-12-20T12:01:09.184", {"timescale": "tt"}, "2017-12-20T12:00:00"),
        ("2017-12-20T12:00:18", {"timescale": "gps"}, "2017-12-20T12:00:00"),
    ],
)
def test_times(raw: Any, options: dict[str, Any], utc: str) -> None:
    fact = TimeFact(card="T", position="mid", **options)
    assert read_time(raw, fact.format, scale=fact.timescale, offset_hours=fact.offset_hours) == pytest.approx(
        Time(utc, scale="utc").mjd, abs=2e-8
    )


@pytest.mark.parametrize(("position", "shift"), [("start", 30.0), ("mid", 0.0), ("end", -30.0)])
def test_mid_exposure(unit_with: Any, position: str, shift: float) -> None:
    unit = unit_with(time=f'{{ card = "DATE-OBS", position = "{position}" }}')
    assert (read_facts(unit, HEADER).mjd - 61364 - 20 / 24) * 86400 == pytest.approx(shift, abs=1e-3)


def test_date_and_clock_in_two_cards(unit_with: Any) -> None:
    unit = unit_with(time='{ card = "DATE", clock = "UT", position = "mid" }')
    facts = read_facts(unit, HEADER | {"DATE": "2026-11-20", "UT": "20:00:00.0"})
    assert facts.mjd == pytest.approx(61364 + 20 / 24, abs=1e-9)


@pytest.mark.parametrize(
    ("utc", "longitude", "night"),
    [
        ("2026-11-21T05:00", -70.0, "2026-11-20"),
        ("2026-11-20T23:00", -70.0, "2026-11-20"),
        ("2026-11-21T16:30", -70.0, "2026-11-20"),
        ("2026-11-21T17:00", -70.0, "2026-11-21"),
        ("2026-11-20T11:26", 149.0, "2026-11-20"),
        ("2026-11-20T18:00", 149.0, "2026-11-20"),
        ("2026-11-20T08:00", 204.42, "2026-11-19"),
        ("2026-11-20T08:00", -155.58, "2026-11-19"),
    ],
)
def test_a_night_goes_from_noon_to_noon(utc: str, longitude: float, night: str) -> None:
    assert night_of(mjd_of(datetime.fromisoformat(utc).replace(tzinfo=UTC)), longitude) == night


def test_check_reports_everything_and_helps(unit_with: Any) -> None:
    reports = {
        one.fact: one
        for one in check_header(
            unit_with(read_noise='{ card = "RDNOISE" }'), HEADER | {"EGAIN": 2.0, "GAIN": None}, "x.fits"
        )
    }
    assert len(reports) >= 12
    assert not reports["gain"].ok
    assert "EGAIN = 2.0" in reports["gain"].hint
    assert "RON = 9.0" in reports["read_noise"].hint
    assert (reports["band"].value, reports["band"].source, reports["band"].ok) == ("r", "card FILTER", True)
    assert (reports["pixel_scale"].value, reports["pixel_scale"].unit) == (1.2, "arcsec")
    assert reports["zero_point"].ok


@pytest.mark.parametrize(
    ("unit", "file", "expected"),
    [
        (
            "decam",
            "decam_sfft/DEC-OBS04b.mini.fits.gz",
            {"band": "i", "night": "2018-08-03", "sky": 3097.75, "gain": 3.984},
        ),
        ("decam", "decam_sfft/DEC-OBS18a.mini.fits.gz", {"band": "i", "night": "2016-08-17", "sky": 11222.8}),
        ("goto_zip", "goto_zip/3.fits.gz", {"pixel_scale": 1.24, "field": "zip"}),
        ("microobservatory", "microobs_hatp32/HATP-32171220013343.FITS.gz", {"mjd": 58107.065432, "field": "HATP-32"}),
        ("panoptes", "panoptes/solved.fits.fz", {"night": "2016-09-08", "field": "KIC 8462852", "exposure_s": 120.4}),
        ("panoptes", "panoptes/unsolved.fits.gz", {"night": "2016-09-08", "ra": 301.56439}),
        ("huntsman", "huntsman/science_0.fits.gz", {"band": "g", "gain": 1.144744, "night": "2021-01-18"}),
    ],
)
def test_real_headers(data_dir: Path, unit: str, file: str, expected: dict[str, Any]) -> None:
    path = data_dir / "images" / file
    loaded, header = load_unit(unit), read_header(path)
    facts = read_facts(loaded, header, str(path))
    assert all(one.ok for one in check_header(loaded, header, str(path)))
    for name, value in expected.items():
        found = getattr(facts, name)
        assert found == (
            value if isinstance(value, str) else pytest.approx(value, rel=1e-4 if name != "mjd" else 1e-10)
        )


def test_all_frames_of_a_field_share_its_name(data_dir: Path) -> None:
    unit = load_unit("decam")
    paths = sorted((data_dir / "images/decam_sfft").glob("*.mini.fits.gz"))
    assert len({read_facts(unit, read_header(path), str(path)).field for path in paths}) == 1
    assert len({round(read_facts(unit, read_header(path), str(path)).mjd, 4) for path in paths}) == len(paths)
