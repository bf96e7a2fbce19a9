"""A small simulated survey with its templates, made once; every test gets a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.templates import build_templates
from nightsift.archive.survey import Runner
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tests.forked import Forks

IN_PROCESS = Runner(kind="in-process", workers=1, address="")


@pytest.fixture(scope="session")
def made_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    file = simulate(folder, SimulationOptions.preset("tiny", seed=5, visits=5))
    for unit in (folder / "units").glob("*.toml"):
        text = unit.read_text()
        assert 'name = "base"' in text
        unit.write_text(text.replace('name = "base"', 'name = "none"'))  # the faults of frames need no classifier
    assert build_templates(file, runner=IN_PROCESS, track=False).states == {"done": 1}
    return folder


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Starts processes that have imported all that reduces a night or a campaign."""
    with Forks(tmp_path_factory.mktemp("forks"), "flows.night", "flows.backfill", "tasks.reduce") as one:
        yield one


@pytest.fixture
def survey(made_survey: Path, tmp_path: Path) -> Path:
    """Survey file of a fresh copy."""
    shutil.copytree(made_survey, tmp_path / "survey")
    return tmp_path / "survey" / "nightsift.toml"


@pytest.fixture
def frames(survey: Path) -> list[Path]:
    """Exposures of its night, in order of time."""
    return sorted((survey.parent / "nights").rglob("*.fits"))
