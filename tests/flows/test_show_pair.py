"""``nightsift show --exposure``: the picture holds what was subtracted, and the archive is left alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
from typer.testing import CliRunner

from flows.night import night
from flows.templates import build_templates
from nightsift.archive.survey import Runner
from nightsift.cli import app
from nightsift.core.errors import ConfigurationError
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate

IN_PROCESS = Runner(kind="in-process", workers=1, address="")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny survey whose night has been reduced without a classifier."""
    folder = tmp_path_factory.mktemp("survey")
    file = simulate(folder, SimulationOptions.preset("tiny", seed=5))
    for unit in (folder / "units").glob("*.toml"):
        unit.write_text(unit.read_text().replace('name = "base"', 'name = "none"'))
    assert build_templates(file, runner=IN_PROCESS, track=False).states == {"done": 1}
    assert night(file, runner=IN_PROCESS, track=False).states == {"done": 2}
    return file


def show(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["show", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def test_an_exposure_is_drawn_and_nothing_else_happens(survey: Path, tmp_path: Path) -> None:
    archive = survey.parent / "archive"
    before = {file: file.stat().st_mtime_ns for file in archive.rglob("*") if file.is_file()}
    name = min(survey.parent.glob("nights/*/*/*.fits")).name
    whole, part = tmp_path / "whole.png", tmp_path / "part.png"
    assert f"drawn: {whole}" in show(str(survey), "--exposure", name, "--out", str(whole))
    assert "hotpants: " in show(str(survey), "--exposure", name, "--out", str(part), "--at", "100,120", "--size", "64")
    pictures = [matplotlib.image.imread(file) for file in (whole, part)]
    assert pictures[0].std() > 0.1
    assert pictures[0].shape != pictures[1].shape, "a square part of a frame that is wider than high"
    assert before == {file: file.stat().st_mtime_ns for file in archive.rglob("*") if file.is_file()}


def test_what_cannot_be_drawn_is_told(survey: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "none.png")
    with pytest.raises(ConfigurationError, match=r"no exposure 'other\.fits'"):
        show(str(survey), "--exposure", "other.fits", "--out", out)
    name = min(survey.parent.glob("nights/*/*/*.fits")).name
    with pytest.raises(ConfigurationError, match="is no position"):
        show(str(survey), "--exposure", name, "--at", "100", "--out", out)
    with pytest.raises(ConfigurationError, match="did you mean 'hotpants'"):
        show(str(survey), "--exposure", name, "--method", "hotpant", "--out", out)
