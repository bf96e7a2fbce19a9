"""Labelled stamps of one random telescope unit, from nothing: simulated, reduced, compared with the truth."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models import examples
from models.dataset import collect
from models.examples import TrainingSet
from models.store import NO_MODEL
from nightsift.io.paths import Archive
from nightsift.simulate import SimulationOptions, random_unit, simulate
from nightsift.simulate.seeds import generator
from nightsift.survey import Survey, load_survey
from nightsift.tables import TRUTH
from nightsift.units import Unit
from tasks.discover import find_exposures
from tasks.reduce import reduce_file
from tasks.template import make_template

FIELDS, VISITS = 2, 2  # many units with few frames teach more than few units with many


@task(name="examples", task_run_name="unit {index} of seed {seed}", persist_result=False, cache_policy=NO_CACHE)
def make_examples(work: str, seed: int, index: int, keep_frames: bool = False) -> str:
    """Make the examples of one random unit, unless they are on disk already.

    Parameters
    ----------
    work : str
        Folder of the whole training run.
    seed, index : int
        Seed of the run and number of the unit.
    keep_frames : bool, optional
        Keep frames and archive of the unit, which are otherwise removed once their examples are written.

    Returns
    -------
    str
        Folder of the examples, see `models.examples.read`.
    """
    folder = Path(work) / f"seed-{seed}" / f"unit-{index:03d}"
    if not (folder / examples.TABLE).is_file():
        survey = load_survey(simulate(folder / "survey", survey_options(seed, index)))
        examples.write(folder, harvest(survey, f"{seed}-{index}"))
        if not keep_frames:
            shutil.rmtree(folder / "survey")
    return str(folder)


def survey_options(seed: int, index: int) -> SimulationOptions:
    """Survey of one random unit: preset ``training`` at a random galactic latitude, for fields from empty to crowded.

    Parameters
    ----------
    seed, index : int
        Seed of the run and number of the unit.

    Returns
    -------
    SimulationOptions
        Its survey.
    """
    options = SimulationOptions.preset(
        "training", seed, units=(random_unit(seed, index),), fields=FIELDS, visits=VISITS
    )
    latitude = float(generator(seed, "latitude", index).uniform(10.0, 70.0))
    return dataclasses.replace(options, sky=dataclasses.replace(options.sky, galactic_latitude=latitude))


def harvest(survey: Survey, name: str) -> TrainingSet:
    """Build the templates of a simulated survey, reduce its nights twice without a classifier, label what was found.

    The second reduction is careless (`careless`): a good pipeline leaves too few false candidates to learn from, and
    real frames hold faults that no simulation has thought of.

    Parameters
    ----------
    survey : Survey
        The survey; ``truth.parquet`` lies beside its archive.
    name : str
        Name that keeps its units and objects apart from those of other surveys.

    Returns
    -------
    TrainingSet
        Its examples.
    """
    standard = Archive(Path(survey.archive))
    second = Archive(Path(survey.archive).with_name("careless"))
    for source in survey.sources:
        unit = _changed(survey.load_unit(source.unit), model={"name": NO_MODEL})
        groups: dict[tuple[str, str], list[str]] = {}
        for exposure in find_exposures(source, unit, source.templates):
            groups.setdefault((exposure.field, exposure.band), []).append(exposure.url)
        for (field, band), urls in groups.items():
            make_template.fn(unit.name, field, band, urls, str(standard.root), [str(survey.units)])
        if standard.root.joinpath("templates").is_dir():
            shutil.copytree(standard.root / "templates", second.root / "templates", dirs_exist_ok=True)
        for exposure in find_exposures(source, unit, source.frames):
            reduce_file(exposure.url, unit, standard, exposure.night, exposure.label)
            reduce_file(exposure.url, careless(unit), second, exposure.night, exposure.label)
    truth = pq.read_table(Path(survey.archive).parent / "truth.parquet", schema=TRUTH)
    return examples.join([collect(standard, truth, name, "standard"), collect(second, truth, name, "careless")])


def careless(unit: Unit) -> Unit:
    """The unit with its guards lowered: artefacts unmasked, alignment and kernel too stiff, a lower threshold.

    Parameters
    ----------
    unit : Unit
        A unit.

    Returns
    -------
    Unit
        The same telescope, reduced badly on purpose.
    """
    return _changed(
        unit,
        artefacts={
            "cosmic_rays": False,
            "streaks": False,
            "bleed": False,
            "saturation_grow": 0,
            "bright_star_radius": 0.0,
        },
        alignment={"order": 1, "max_residual": 3.0},
        subtraction={"options": {**unit.subtraction.options, "kernel_order": 0, "flux_order": 0}},
        detection={"threshold": 4.0},
    )


def _changed(unit: Unit, **sections: dict[str, Any]) -> Unit:
    """The unit with some keys of some sections replaced, checked as if they had been read."""
    values = unit.model_dump()
    for section, changes in sections.items():
        values[section] |= changes
    return Unit.model_validate(values)
