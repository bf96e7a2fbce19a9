"""What would stop every exposure is found before any begins: method, options, masters, catalogue, model, services."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from nightsift.archive.survey import load_survey
from nightsift.cli import app
from nightsift.core.errors import ConfigurationError
from subtraction.api.pairs import make_options, method_names
from tasks.steps import check_services, check_unit, checked_units

FACTS = """
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
SURVEY = """
name = "mine"
archive = "archive"
units = "units"
{top}
[[source]]
unit = "mine"
frames = "frames"
templates = "frames"
{more}
"""


def written(folder: Path, unit: str = "", top: str = "", more: str = "") -> Path:
    """A survey of one unit, whose file ends in some lines."""
    (folder / "units").mkdir(exist_ok=True)
    (folder / "frames").mkdir(exist_ok=True)
    (folder / "units" / "mine.toml").write_text(FACTS + unit)
    survey = folder / "survey.toml"
    survey.write_text(SURVEY.format(top=top, more=more))
    return survey


WRONG_UNITS = {
    '[subtraction]\nmethod = "zogi"': ("subtraction", "method", "did you mean 'zogy'?"),
    "[subtraction]\noptions = { kernel_ordre = 2 }": ("subtraction", "kernel_ordre", "did you mean 'kernel_order'?"),
    "[subtraction]\noptions = { kernel_order = 2.5 }": ("subtraction", "kernel_order", "type int"),
    "[subtraction]\noptions = { kernel_order = -1 }": ("subtraction", "kernel_order", "outside 0 to 6"),
    '[subtraction]\noptions = { convolve = "templat" }': ("subtraction", "convolve", "auto, template, science"),
    '[subtraction]\nmethod = "auto"\noptions = { threads = 1 }': ("subtraction", "threads", "picked for each pair"),
    '[model]\nname = "bas"': ("model", "name", "no model.keras"),
    '[model]\ncalibration = "mine.json"': ("model", "calibration", "mine.json"),
    "[stamps]\nsize = 21": ("stamps", "size", "needs 31"),
    '[calibration]\nfolder = "masters"\nbias = "bias.fits"': ("calibration", "bias", "there is no master"),
    '[calibration]\nfolder = "masters"\nflat = "flat_{band}.fits"': ("calibration", "flat", "flat_{band}.fits"),
    '[calibration]\ntrim = "[9:3,1:5]"': ("calibration", "trim", "smaller number first"),
    '[template]\ncatalogue = "stars.csv"': ("template", "catalogue", "stars.csv"),
}


@pytest.mark.parametrize("lines", WRONG_UNITS, ids=lambda lines: re.sub(r"\W+", "-", lines))
def test_a_wrong_unit_file_is_found_by_its_check_and_by_every_run(lines: str, tmp_path: Path) -> None:
    survey = written(tmp_path, lines)
    unit, archive = str(tmp_path / "units" / "mine.toml"), str(tmp_path / "archive")
    frame = tmp_path / "frames" / "a.fits"
    fits.PrimaryHDU(np.zeros((8, 8), np.float32)).writeto(frame)
    (tmp_path / "archive").mkdir()
    table, key, said = WRONG_UNITS[lines]
    runs = [
        ("unit", "check", unit), ("night", str(survey), "--no-track"), ("template", str(survey), "--no-track"),
        ("frame", str(frame), "--unit", unit, "--archive", archive), ("watch", str(survey), "--once", "--no-track"),
        ("backfill", str(survey), "--dry-run"), ("serve", str(survey)), ("deploy", str(survey)),
        ("monitor", str(survey), "--no-track"), ("photometry", str(survey), "--ra", "1", "--dec", "1"),
        ("dataset", str(tmp_path / "set"), "--survey", str(survey), "--no-track"),
    ]  # fmt: skip
    for arguments in runs:
        error = CliRunner().invoke(app, list(arguments)).exception
        assert isinstance(error, ConfigurationError), f"{arguments}: {error!r}"
        assert unit in error.facts["file"]
        assert table in error.facts["table"]
        assert key in error.facts["key"]
        assert said in str(error)
    assert not list((tmp_path / "archive").iterdir()), "nothing was begun"


def test_a_good_unit_file_passes_and_says_what_it_uses(tmp_path: Path) -> None:
    written(tmp_path, '[subtraction]\nmethod = "zogy"\noptions = { flux_order = 2 }')
    done = CliRunner().invoke(app, ["unit", "check", str(tmp_path / "units" / "mine.toml")])
    assert done.exit_code == 0
    assert "method zogy (flux_order = 2), model base" in done.output


def test_masters_that_are_there_are_found_by_band_and_in_hdus(tmp_path: Path) -> None:
    text = '[calibration]\nfolder = "masters"\nbias = "bias.fits[BIAS]"\nflat = "{unit}_{band}.fits"'
    written(tmp_path, text)
    masters = tmp_path / "units" / "masters"
    masters.mkdir()
    (masters / "bias.fits").touch()
    (masters / "mine_r.fits").touch()
    from nightsift.unit.units import load_unit

    assert check_unit(load_unit(tmp_path / "units" / "mine.toml")).calibration.flat


@pytest.mark.parametrize("method", method_names())
def test_defaults_of_every_method_lie_within_their_limits(method: str) -> None:
    assert make_options(method)


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ('runner = { kind = "processes", address = "tcp://head:8786" }', "uses no address"),
        ('runner = { kind = "process" }', "[runner] kind"),
    ],
)
def test_a_wrong_survey_file(top: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_survey(written(tmp_path, top=top))


def test_a_folder_of_units_that_is_not_there(tmp_path: Path) -> None:
    survey = written(tmp_path)
    survey.write_text(survey.read_text().replace('units = "units"', 'units = "unit"'))
    with pytest.raises(ConfigurationError, match=r"\[top level\] units: there is no folder .*unit\."):
        load_survey(survey).load_units()


def test_an_archive_that_is_a_file(tmp_path: Path) -> None:
    survey = load_survey(written(tmp_path))
    assert list(checked_units(survey)) == ["mine"]
    (tmp_path / "archive").touch()
    with pytest.raises(ConfigurationError, match="archive is no folder"):
        checked_units(survey)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[notify]\ncommand = ["/no/such/pager", "operator"]', "command"),
        ('[notify]\nurls_env = ["NIGHTSIFT_TEST_NOT_SET"]', "urls_env"),
        ('[notify]\nurls_file = "people.txt"', "urls_file"),
        ('[alert]\ngalaxies = "glade.parquet"', "galaxies"),
        ('[alert]\nstars = ["stars.csv"]', "stars"),
        ('[[alert.tiling]]\nname = "grid"\nfile = "grid.csv"', "file"),
    ],
)
def test_what_a_night_by_itself_will_want_is_looked_for_at_its_start(more: str, key: str, tmp_path: Path) -> None:
    survey = load_survey(written(tmp_path, more=more))
    with pytest.raises(ConfigurationError) as caught:
        check_services(survey)
    assert caught.value.facts["key"] == key
