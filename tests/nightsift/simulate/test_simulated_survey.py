"""A simulated survey on disk is complete and can be read by the doors of the project."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from nightsift.archive.survey import load_survey
from nightsift.core import tables
from nightsift.core.errors import ConfigurationError
from nightsift.io.exposures import load_exposure
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from nightsift.unit.units import load_unit

OPTIONS = SimulationOptions.preset("tiny", seed=6)


@pytest.fixture(scope="module")
def survey_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("survey"), OPTIONS)


def test_every_exposure_is_there(survey_file: Path) -> None:
    root = survey_file.parent
    assert len(list(root.glob("templates/tiny-1/*.fits"))) == OPTIONS.template_frames
    files = {path.name for path in root.glob("nights/2026-11-20/tiny-1/*.fits")}
    assert len(files) == OPTIONS.visits
    truth = pq.read_table(root / "truth.parquet")
    assert truth.schema.equals(tables.TRUTH)
    assert set(truth["exposure_file"].to_pylist()) == files
    assert len(truth) > 10
    exposures = pq.read_table(root / "exposures.parquet")
    assert len(exposures) == OPTIONS.template_frames + OPTIONS.visits
    sky = pq.read_table(root / "sky.parquet")
    assert set(sky["kind"].to_pylist()) == {"star", "galaxy"}
    hosts = set(truth.filter(pc.is_valid(truth["host_id"]))["host_id"].to_pylist())
    assert hosts <= set(sky["object_id"].to_pylist())


def test_files_are_sixteen_bit_integers(survey_file: Path) -> None:
    path = next(survey_file.parent.glob("nights/*/tiny-1/*.fits"))
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        assert hdus[0].header["BITPIX"] == 16
        assert hdus[0].header["BZERO"] == 32768
    with fits.open(path) as hdus:
        assert hdus[0].data.dtype == np.dtype("uint16")


def test_the_doors_read_it(survey_file: Path) -> None:
    survey = load_survey(survey_file)
    assert [source.unit for source in survey.sources] == ["tiny-1"]
    unit = load_unit("tiny-1", folders=[survey_file.parent / "units"])
    path = next(survey_file.parent.glob("nights/*/tiny-1/*.fits"))
    frame = load_exposure(str(path), unit)
    assert frame.meta.night == "2026-11-20"
    assert frame.meta.gain == OPTIONS.units[0].detector.gain
    assert frame.wcs is not None
    row = next(
        r
        for r in pq.read_table(survey_file.parent / "exposures.parquet").to_pylist()
        if r["exposure_file"] == path.name
    )
    assert frame.meta.mjd == pytest.approx(row["mjd"], abs=1e-6)
    assert np.median(frame.data) == pytest.approx(row["sky"], rel=0.1)


def test_processes_and_compression_change_nothing(survey_file: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, fields=2, visits=1, template_frames=1)
    simulate(tmp_path / "one", options)
    simulate(tmp_path / "two", dataclasses.replace(options, compress=True), workers=2)
    plain = sorted((tmp_path / "one" / "nights").rglob("*.fits"))
    packed = sorted((tmp_path / "two" / "nights").rglob("*.fits.fz"))
    assert len(plain) == len(packed) == 2
    for a, b in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(fits.getdata(a), fits.getdata(b, 1))


def test_unknown_preset_and_option_are_named() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'tiny'"):
        SimulationOptions.preset("tinny")
    with pytest.raises(ConfigurationError, match="did you mean 'visits'"):
        SimulationOptions.preset("tiny", visit=3)
