"""Unit files: every one shipped loads, and every mistake is told by file, table, key and hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightsift.core.errors import ConfigurationError
from nightsift.unit.units import SHIPPED, list_units, load_unit

MINIMAL = """
[facts]
gain = { card = "GAIN" }
read_noise = { constant = 8.0 }
saturation = { constant = 60000 }
pixel_scale = { constant = 1.2 }
band = { card = "FILTER" }
exposure = { card = "EXPTIME" }
time = { card = "DATE-OBS", position = "start" }
field = { card = "OBJECT" }

[site]
longitude = 10.0
"""


def written(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def refused(path: Path | str, **options: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_unit(path, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("[!_]*.toml")), ids=lambda path: path.stem)
def test_every_shipped_unit_loads(path: Path) -> None:
    unit = load_unit(path.stem)
    assert unit.name == path.stem
    assert unit.file == str(path)
    assert unit.description
    assert unit.stamps.size % 2 == 1


def test_units_are_shipped() -> None:
    assert len(list_units()) >= 5


def test_what_is_not_said_comes_from_the_defaults(tmp_path: Path) -> None:
    unit = load_unit(written(tmp_path, MINIMAL + "[detection]\nthreshold = 6.5\n"))
    assert unit.name == "mine"
    assert unit.detection.threshold == 6.5
    assert unit.detection.min_pixels == load_unit("decam").detection.min_pixels
    assert unit.subtraction.method


def test_own_folders_come_first(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL + "[stamps]\nsize = 21\n", "decam")
    assert load_unit("decam", [tmp_path]).stamps.size == 21
    assert list_units([tmp_path])["decam"] == tmp_path / "decam.toml"
    assert load_unit("decam").stamps.size != 21


def test_a_unit_extends_another(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL + "[stamps]\nsize = 21\n", "north-1")
    child = written(tmp_path, 'extends = "north-1"\n[facts]\ngain = { constant = 2.5 }\n', "north-2")
    unit = load_unit(child)
    assert (unit.name, unit.stamps.size) == ("north-2", 21)
    assert unit.facts.gain.constant == 2.5
    assert unit.facts.gain.cards == ()
    assert unit.facts.read_noise.constant == 8.0


def test_units_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, 'extends = "b"\n', "a")
    written(tmp_path, 'extends = "a"\n', "b")
    assert "circle" in str(refused("a", folders=[tmp_path]))


@pytest.mark.parametrize(
    ("change", "table", "key", "told"),
    [
        ("[detection]\ntreshold = 6", "detection", "treshold", "did you mean 'threshold'"),
        ("[detektion]\nthreshold = 6", "top level", "detektion", "did you mean 'detection'"),
        ("[psf]\nsize = 25", "psf", "size", "known here: order"),
        ("[stamps]\nsize = 30", "stamps", "size", "must be odd"),
        ("[stamps]\norientation = 'up'", "stamps", "orientation", "flip_x"),
        ("[detection]\nthreshold = -1", "detection", "threshold", "greater than 0"),
        ("[detection]\nthreshold = 'five'", "detection", "threshold", "'five'"),
        ("[image]\nbayer = 'RGBG'", "image", "bayer", "RGGB"),
        ("[image]\ntrim = '1:5'", "image", "trim", "x1:x2"),
    ],
)
def test_mistakes_in_options(tmp_path: Path, change: str, table: str, key: str, told: str) -> None:
    path = written(tmp_path, MINIMAL + change)
    error = refused(path)
    assert (error.facts["file"], error.facts["table"], error.facts["key"]) == (str(path), table, key)
    assert told in str(error)


def test_the_clock_of_a_site_is_no_fact_of_a_unit(tmp_path: Path) -> None:
    error = refused(written(tmp_path, MINIMAL.replace("[site]", '[site]\ntimezone = "UTC"')))
    assert (error.facts["table"], error.facts["key"]) == ("site", "timezone")
    assert "known here: height, latitude, longitude" in str(error)


@pytest.mark.parametrize(
    ("old", "new", "key", "told"),
    [
        ('gain = { card = "GAIN" }\n', "", "gain", "electrons per ADU"),
        ('gain = { card = "GAIN" }', 'gain = { crad = "GAIN" }', "crad", "did you mean 'card'"),
        ('gain = { card = "GAIN" }', 'gain = { card = "GAIN", constant = 1.0 }', "gain", "exactly one source"),
        ('gain = { card = "GAIN" }', "gain = { scale = 2.0 }", "gain", "exactly one source"),
        ('gain = { card = "GAIN" }', 'gain = { card = "GAIN", unit = "arcsec" }', "gain", "cannot be converted"),
        ('gain = { card = "GAIN" }', 'gain = { card = "GAIN", unit = "furlongs" }', "gain", "no physical unit"),
        ('gain = { card = "GAIN" }', 'gain = { constant = "1.5" }', "gain", "without quotes"),
        ('band = { card = "FILTER" }', 'band = { card = "FILTER", pattern = "(" }', "band", "regular expression"),
        ('band = { card = "FILTER" }', 'band = { card = "FILTER", pattern = "x" }', "band", "one group"),
        (', position = "start"', "", "position", "start, mid or end"),
        (', position = "start"', ', position = "begin"', "position", "'start'"),
        ('field = { card = "OBJECT" }', "field = { pointing_grid_deg = 1.0 }", "facts", "ra and dec"),
        ("longitude = 10.0", "longitude = 1000.0", "longitude", "360"),
    ],
)
def test_mistakes_in_facts(tmp_path: Path, old: str, new: str, key: str, told: str) -> None:
    assert old in MINIMAL
    error = refused(written(tmp_path, MINIMAL.replace(old, new)))
    assert error.facts["key"] == key
    assert told in str(error)


def test_a_fact_replaces_that_of_the_unit_it_extends(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL, "base")
    child = written(tmp_path, 'extends = "base"\n[facts]\nband = { constant = "r" }\n', "child")
    assert load_unit(child).facts.band.constant == "r"


def test_an_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    assert "did you mean 'huntsman'" in str(refused("huntsmen"))
    assert "No such file" in str(refused(tmp_path / "none.toml"))


@pytest.mark.parametrize("content", [b"[facts\n", b"a = 1\na = 2\n", b"\xff\xfe\x00", b"name = unquoted\n"])
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    assert refused(path).facts["file"] == str(path)


def test_a_name_must_be_fit_for_paths(tmp_path: Path) -> None:
    assert refused(written(tmp_path, 'name = "../up"\n' + MINIMAL)).facts["key"] == "name"
