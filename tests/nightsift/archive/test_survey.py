"""The survey file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightsift.archive.survey import Survey, load_survey
from nightsift.core.errors import ConfigurationError
from nightsift.unit.units import load_unit

TEXT = """
name = "demo"
archive = "archive"
units = "units"

[runner]
kind = "dask"
workers = 4

[[source]]
unit = "north-1"
frames = "nights/*/north-1"
templates = "s3://bucket/templates"

[[source]]
unit = "north-2"
frames = "/data/north-2"
pattern = "*.fz"
"""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "nightsift.toml"
    path.write_text(text)
    return path


def test_paths_start_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    for given in (path, Path("nightsift.toml")):
        monkeypatch.chdir(tmp_path)
        survey = load_survey(given)
        assert survey.archive == tmp_path / "archive"
        assert survey.unit_folders == (tmp_path / "units",)
        assert [one.frames for one in survey.sources] == [str(tmp_path / "nights/*/north-1"), "/data/north-2"]
        assert [one.templates for one in survey.sources] == ["s3://bucket/templates", ""]
        assert [one.pattern for one in survey.sources] == ["*.fit*", "*.fz"]
        assert (survey.runner.kind, survey.runner.workers, survey.runner.address) == ("dask", 4, "")


@pytest.mark.parametrize(
    ("old", "new", "table", "key", "told"),
    [
        ("workers = 4", "worker = 4", "runner", "worker", "did you mean 'workers'"),
        ("workers = 4", "workers = 0", "runner", "workers", "greater than or equal to 1"),
        ('kind = "dask"', 'kind = "slurm"', "runner", "kind", "'processes'"),
        ('archive = "archive"', "", "top level", "archive", "missing"),
        ('frames = "/data/north-2"', 'frame = "/data"', "source.1", "frame", "did you mean 'frames'"),
        (
            'unit = "north-2"\nframes = "/data/north-2"',
            'unit = "north-1"\nframes = "nights/*/north-1"',
            "top level",
            "file",
            "twice",
        ),
        ("[[source]]", "[[sources]]", "top level", "sources", "did you mean 'source'"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, table: str, key: str, told: str) -> None:
    path = write(tmp_path, TEXT.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        load_survey(path)
    assert (caught.value.facts["table"], caught.value.facts["key"]) == (table, key)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


def test_units_of_the_survey_come_first(tmp_path: Path) -> None:
    survey = load_survey(write(tmp_path))
    (tmp_path / "units").mkdir()
    (tmp_path / "units/decam.toml").write_text(
        f'extends = "{Path(__file__).parents[3] / "units/decam.toml"}"\n[stamps]\nsize = 21\n'
    )
    assert survey.load_unit("decam").stamps.size == 21
    assert survey.load_unit("huntsman").name == "huntsman"
    with pytest.raises(ConfigurationError, match="did you mean 'decam'"):
        survey.load_unit("decan")


def test_a_site_of_a_survey_needs_its_latitude(tmp_path: Path) -> None:
    text = TEXT.replace('pattern = "*.fz"', 'pattern = "*.fz"\nsite = "here"') + "\n[site.here]\nlongitude = -17.88\n"
    with pytest.raises(ConfigurationError, match=r"\[site\.here\] latitude: .*missing"):
        load_survey(write(tmp_path, text))
    survey = load_survey(write(tmp_path, text + "latitude = 28.76\n"))
    assert (survey.sites["here"].latitude, survey.sites["here"].height) == (28.76, 0.0)


def test_a_night_without_a_survey_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    survey = Survey.for_folder("frames", "decam", "out")
    assert survey.archive == tmp_path / "out"
    assert survey.sources[0].frames == str(tmp_path / "frames")
    assert survey.sources[0].templates == ""
    assert survey.runner.kind == "in-process"
    assert survey.load_unit("decam").name == "decam"
    assert Survey.for_folder("s3://b/n1", "decam", tmp_path).sources[0].frames == "s3://b/n1"


def survey_of_three_sources(folder: Path) -> Survey:
    (folder / "units").mkdir()
    for name in ("north-1", "north-2"):
        text = f'extends = "{Path(__file__).parents[3] / "units/decam.toml"}"\nname = "{name}"\n'
        (folder / f"units/{name}.toml").write_text(text)
    by_file = TEXT.replace('unit = "north-2"', f'unit = "{folder / "units/north-2.toml"}"')
    return load_survey(write(folder, by_file + '\n[[source]]\nunit = "north-1"\nframes = "/data/more"\n'))


def test_each_source_has_its_unit_whether_it_names_the_unit_or_its_file(tmp_path: Path) -> None:
    survey = survey_of_three_sources(tmp_path)
    units = survey.load_units()
    assert list(units) == ["north-1", "north-2"]
    pairs = [(Path(source.frames).name, unit.name) for source, unit in survey.sources_of(units)]
    assert pairs == [("north-1", "north-1"), ("north-2", "north-2"), ("more", "north-1")]
    second = {"north-2": units["north-2"]}
    assert [unit.name for _, unit in survey.sources_of(second)] == ["north-2"], "sources of other units are left out"


def test_only_units_of_the_survey_are_loaded(tmp_path: Path) -> None:
    survey = survey_of_three_sources(tmp_path)
    assert list(survey.load_units(["north-1"])) == ["north-1"]
    with pytest.raises(ConfigurationError, match="there is no unit 'south'") as caught:
        survey.load_units(["north-1", "south"])
    assert "north-1" in str(caught.value), "the error says which there are"


def test_options_of_tasks_are_plain_and_load_the_same_unit(tmp_path: Path) -> None:
    survey = survey_of_three_sources(tmp_path)
    unit = survey.load_units()["north-1"]
    options = survey.task_options(unit)
    assert options == {
        "unit": str(tmp_path / "units/north-1.toml"),
        "archive": str(tmp_path / "archive"),
        "folders": [str(tmp_path / "units")],
    }
    assert load_unit(options["unit"], options["folders"]) == unit
