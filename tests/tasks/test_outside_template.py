"""An image of another camera becomes the template of a simulated field, and a night runs on it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from typer.testing import CliRunner

from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.archive.templates import newest_template, read_template
from nightsift.cli import app
from nightsift.core.errors import ConfigurationError, PoorCoverage
from nightsift.core.random import generator
from nightsift.io.outside_files import ImportOptions
from nightsift.simulate.detector import make_detector
from nightsift.simulate.field import make_sky
from nightsift.simulate.frame import make_frame
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import plan_exposures, plan_fields
from nightsift.simulate.survey import simulate
from tasks.outside_template import import_images

UNIT, FIELD, BAND = "tiny-1", "tiny-1-f01", "L"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def seen_by_another(options: SimulationOptions, path: Path) -> None:
    """Draw the first field as a finer, deeper, turned and mirrored camera shows it, without what comes and goes."""
    unit = options.units[0]
    field = plan_fields(options, unit)[0]
    sky = make_sky(options, unit, field)
    scale = 0.45
    flawless = {"hot_pixels": 0, "dead_pixels": 0, "hot_columns": 0, "vignetting": 0.0, "flat_error": 0.0}
    other = dataclasses.replace(
        unit, name="elsewhere", shape=tuple(int(1.7 * side / scale) for side in unit.shape), rotation=37.0,
        pixel_scale=scale * unit.pixel_scale, parity=1, exposure=12.0 * unit.exposure,
        detector=dataclasses.replace(unit.detector, gain=2.2, full_well=2e6, saturation_bits=20, **flawless),
        optics=dataclasses.replace(unit.optics, seeing=0.8 * unit.optics.seeing, defocus=0.0),
    )  # fmt: skip
    quiet = dataclasses.replace(options.artefacts, cosmic_rays=0.0, ghost_flux=0.0, streak_probability=0.0)
    options = dataclasses.replace(options, artefacts=quiet)
    detector = make_detector(generator(1, "elsewhere"), other.shape, other.detector)
    exposure = next(one for one in plan_exposures(options, other, field) if one.role == "template")
    frame = make_frame(options, dataclasses.replace(sky, detector=detector), exposure)
    fits.PrimaryHDU(frame.data.astype(np.float32), frame.header).writeto(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("outside") / "tiny"
    options = SimulationOptions.preset("tiny", 1)
    simulate(out, options)
    seen_by_another(options, out / "elsewhere.fits")
    return out


@pytest.fixture
def survey(drawn, tmp_path) -> Path:
    shutil.copytree(drawn, tmp_path / "tiny")
    return tmp_path / "tiny" / "nightsift.toml"


def imported(survey: Path, *options: str) -> tuple[int, str]:
    where = ("--unit", UNIT, "--field", FIELD, "--band", BAND)
    return run("template", "import", str(survey), str(survey.parent / "elsewhere.fits"), *where, *options)


def newest(survey: Path):
    path = newest_template(Archive(survey.parent / "archive"), UNIT, FIELD, band=BAND)
    return None if path is None else read_template(path)


def test_building_leaves_an_imported_template_alone_unless_asked(survey):
    code, output = imported(survey)
    assert code == 0
    assert re.search(r"flux scale \| 0\.\d+ from \d+ stars", output)
    assert "grid | exposure tiny-1-f01" in output
    first = newest(survey)
    assert "arcsec off" in first.imported
    assert first.sources[0].startswith("elsewhere.fits sha256:")
    code, output = run("template", str(survey), "--no-track", "--runner", "in-process")
    assert code == 0
    assert "kept: imported from other images" in output
    assert newest(survey).template_id == first.template_id
    code, output = run("template", "--redo", str(survey), "--no-track", "--runner", "in-process")
    assert code == 0
    built = newest(survey)
    assert not built.imported
    assert len(built.sources) == 3
    # now the grid and flux scale are those of the template built from frames
    assert "grid | template tiny-1-" in imported(survey)[1]
    again = newest(survey)
    assert again.frame.shape == built.frame.shape
    assert again.template_id != first.template_id


def test_the_same_content_has_the_same_identity(survey):
    loaded = load_survey(survey)
    unit = loaded.load_unit(UNIT)
    frame = str(next((survey.parent / "templates" / UNIT).glob("*.fits")))

    def identity(**options) -> str:
        chosen = ImportOptions(**options)
        place = [str(survey.parent / "elsewhere.fits")]
        made = import_images(loaded, place, unit, field=FIELD, band=BAND, options=chosen, like=frame)
        return made.template.template_id

    assert identity() == identity()
    assert identity() != identity(gain=1.0)


def test_a_night_on_an_imported_template(survey):
    """What a finer camera saw serves like a template of the unit's own frames: objects are found, nothing false."""
    assert imported(survey)[0] == 0
    assert run("night", str(survey), "--no-track", "--runner", "in-process")[0] == 0
    run("score", str(survey), "--json", str(survey.parent / "score.json"))
    card = json.loads((survey.parent / "score.json").read_text())
    rows = [row for row in card["recoveries"] if row["unit"] == "all" and row["group"] == "snr"]
    bright = [row for row in rows if row["label"] in ("8 to 12", "12 to 20", "20 to 40", "over 40")]
    assert sum(row["expected"] for row in bright) >= 10
    assert sum(row["detected"] for row in bright) >= 0.9 * sum(row["expected"] for row in bright)
    false = next(row for row in card["false_rates"] if row["unit"] == "all")
    assert false["unflagged"] <= 2
    best = read_candidates(Archive(survey.parent / "archive")).column("candidate_id").to_pylist()[0]
    chart = survey.parent / "chart.png"
    assert run("show", str(survey), "--chart", best, "--width", "3", "--out", str(chart))[0] == 0
    with Image.open(chart) as image:
        assert image.size[0] > 2 * 480
    with pytest.raises(ConfigurationError, match="is not among them"):
        run("show", str(survey), "--chart", f"{best.rpartition('-')[0]}-99999")


def test_what_is_refused(survey, tmp_path):
    with fits.open(survey.parent / "elsewhere.fits") as hdus:
        hdus[0].header["CRVAL2"] += 3.0
        hdus.writeto(tmp_path / "far.fits")
    where = ("--unit", UNIT, "--field", FIELD, "--band", BAND)
    with pytest.raises(PoorCoverage, match=r"far\.fits.*3 deg apart"):
        run("template", "import", str(survey), str(tmp_path / "far.fits"), *where)
    with pytest.raises(ConfigurationError, match=r"nothing says where the field 'nowhere'.*--like"):
        imported(survey, "--field", "nowhere")
    with pytest.raises(ConfigurationError, match="2 files for 1 images"):
        imported(survey, "--noise", "a.fits", "--noise", "b.fits")
    with pytest.raises(ConfigurationError, match="'weights' is unknown"):
        imported(survey, "--noise-kind", "weights")
    assert newest(survey) is None
