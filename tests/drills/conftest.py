"""A small simulated survey, its undisturbed catalogue, and a real engine: PostgreSQL, Prefect server, work pool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.night import night
from flows.templates import build_templates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tests.drills.catalogue import candidate_rows, same_catalogue
from tests.drills.engine import Engine, binaries, engine_on
from tests.drills.runs import Runs

IN_PROCESS = Runner(kind="in-process", workers=1, address="")
VISITS = 8
NIGHT = "2026-11-20"


@pytest.fixture(scope="session")
def made_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a survey with its templates, whose night was not reduced."""
    folder = tmp_path_factory.mktemp("drilled")
    file = simulate(folder, SimulationOptions.preset("tiny", seed=5, visits=VISITS))
    for unit in (folder / "units").glob("*.toml"):
        unit.write_text(unit.read_text().replace('name = "base"', 'name = "none"'))  # TensorFlow has no part in this
    assert build_templates(file, runner=IN_PROCESS, track=False).states == {"done": 1}
    return folder


@pytest.fixture(scope="session")
def undisturbed(made_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive of a night that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "survey"
    shutil.copytree(made_survey, folder)
    file = folder / "nightsift.toml"
    assert night(file, runner=IN_PROCESS, track=False).states == {"done": VISITS}
    archive = load_survey(file).archive
    assert candidate_rows(Archive(archive)), "without candidates these drills would show nothing"
    return archive


@pytest.fixture
def survey(made_survey: Path, tmp_path: Path) -> Path:
    """Survey file of a fresh copy."""
    shutil.copytree(made_survey, tmp_path / "survey")
    return tmp_path / "survey" / "nightsift.toml"


@pytest.fixture
def rows(survey: Path) -> Callable[[], int]:
    """How many exposures have their row."""
    return lambda: len(Archive(load_survey(survey).archive).tables("ledger"))


@pytest.fixture
def nothing_lost(survey: Path, undisturbed: Path) -> Callable[[], None]:
    """Check that the catalogue equals that of the undisturbed night, and that no claim is left."""

    def check() -> None:
        archive = load_survey(survey).archive
        same_catalogue(archive, undisturbed)
        assert not list((archive / "claims").glob("*.[0-9]*"))

    return check


@pytest.fixture
def nightsift(survey: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start commands of nightsift on the survey."""
    begun: list[subprocess.Popen[str]] = []

    def begin(command: str, *options: str, settings: dict[str, str] | None = None) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", "from nightsift.cli import main; main()", command, str(survey), *options]
        environment = {**os.environ, **(settings or {})}
        one = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
        )
        begun.append(one)
        return one

    yield begin
    for one in begun:
        if one.poll() is None:
            os.killpg(one.pid, 9)
        one.communicate()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Prefect server on PostgreSQL."""
    if binaries() is None:
        pytest.skip("no PostgreSQL here: postgres and initdb are not on the path")
    with engine_on("postgresql", tmp_path_factory.mktemp("engine")) as one:
        yield one


@pytest.fixture
def runs(engine: Engine) -> Iterator[Runs]:
    """Deployment of the night in a work pool, and its runs; workers are gone at the end."""
    yield Runs(engine)
    engine.stop_workers()
