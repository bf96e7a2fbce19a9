"""Labelled stamps of one random telescope unit, from nothing: simulated, reduced, compared with the truth."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models import examples
from models.examples import TrainingSet, empty, join
from models.store import NO_MODEL
from nightsift.core.random import generator
from nightsift.errors import FrameError, NoTemplate
from nightsift.io.paths import Archive, local_copy
from nightsift.simulate import SimulationOptions, random_unit, simulate
from nightsift.survey import Source, Survey, load_survey
from nightsift.tables import TRUTH
from nightsift.units import Unit
from tasks.careless import CAREFUL, changed, draw_carelessness
from tasks.discover import find_exposures
from tasks.factory import FactoryOptions, Known, examples_of
from tasks.ingest import ingest
from tasks.logs import run_logger
from tasks.template import make_template

FIELDS, VISITS = 2, 2  # many units with few frames teach more than few units with many
GALAXIES = 4.0  # times the density of the sky: most of them are hosts of synthetic transients
TRANSIENTS = {"supernova": 40.0, "hostless": 20.0, "nuclear": 12.0}  # by the simulator, with the true PSF


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
    return dataclasses.replace(
        options,
        sky=dataclasses.replace(options.sky, galactic_latitude=latitude, galaxy_density=GALAXIES),
        transients=dataclasses.replace(options.transients, **TRANSIENTS),
    )


def harvest(survey: Survey, name: str, options: FactoryOptions | None = None) -> TrainingSet:
    """Build the templates of a simulated survey, and make examples of its exposures, each reduced twice.

    The second reduction is careless (`tasks.careless`): a good pipeline leaves too few false candidates to learn from,
    and real frames hold faults that no simulation has thought of.

    Parameters
    ----------
    survey : Survey
        The survey; ``truth.parquet`` and ``sky.parquet`` lie beside its archive.
    name : str
        Name that keeps its units and objects apart from those of other surveys.
    options : FactoryOptions, optional
        How examples are made; the defaults when not given.

    Returns
    -------
    TrainingSet
        Its examples; the card counts the exposures that gave none, by reason.
    """
    options, archive = options or FactoryOptions(), Archive(Path(survey.archive))
    folder = Path(survey.archive).parent
    truth = pq.read_table(folder / "truth.parquet", schema=TRUTH)
    sky = pq.read_table(folder / "sky.parquet")
    galaxies = sky.filter(pc.equal(sky["kind"], "galaxy"))
    parts: list[TrainingSet] = []
    refused: Counter[str] = Counter()
    for source, loaded in survey.sources_of(survey.load_units()):
        unit = changed(loaded, model={"name": NO_MODEL})
        build_templates(source, unit, archive, [str(survey.units)])
        for exposure in find_exposures(source, unit, source.frames):
            here = pc.and_(pc.equal(truth["exposure_file"], exposure.name), pc.equal(truth["unit"], unit.name))
            known = Known(truth.filter(here), galaxies=galaxies.filter(pc.equal(galaxies["field"], exposure.field)))
            made, why = examples_of_file(exposure.url, unit, archive, known, name, options, exposure.night)
            parts += made
            refused.update(why)
    made_of = join(parts) if parts else empty(options.size)
    return dataclasses.replace(made_of, card={**made_of.card, "refused": dict(refused)})


def build_templates(source: Source, unit: Unit, archive: Archive, folders: Sequence[str]) -> None:
    """Build the templates of one source, unless they are up to date.

    Parameters
    ----------
    source : Source
        With the place of the frames for templates; nothing is done without one.
    unit : Unit
        Its unit.
    archive : Archive
        Where to.
    folders : sequence of str
        Folders searched for the unit file.
    """
    if not source.templates:
        return
    groups: dict[tuple[str, str], list[str]] = {}
    for exposure in find_exposures(source, unit, source.templates):
        groups.setdefault((exposure.field, exposure.band), []).append(exposure.url)
    for (field, band), urls in groups.items():
        make_template.fn(unit.name, field, band, urls, str(archive.root), folders)


def examples_of_file(
    url: str,
    unit: Unit,
    archive: Archive,
    known: Known,
    survey: str,
    options: FactoryOptions,
    night: str | None = None,
) -> tuple[list[TrainingSet], list[str]]:
    """Examples of one exposure, reduced as it should be and carelessly; one bad reduction does not cost the other.

    Parameters
    ----------
    url : str
        Where the exposure lies.
    unit : Unit
        The telescope unit.
    archive : Archive
        Where its template lies.
    known : Known
        What is known of its sky.
    survey : str
        Name of the survey.
    options : FactoryOptions
        How examples are made.
    night : str, optional
        Night label; from the header when not given.

    Returns
    -------
    parts : list of TrainingSet
        One a reduction that went well.
    refused : list of str
        Why the others did not: class of the error.
    """
    parts, refused = [], []
    with local_copy(url) as path:
        try:
            frame = ingest.fn(path, unit, night, url=url)
        except FrameError as error:
            return [], [type(error).__name__] * 2
        for care in (CAREFUL, draw_carelessness(options.seed, unit.name, frame.meta.exposure_id)):
            try:
                parts.append(examples_of(frame, unit, archive, known, survey, care, options))
            except (FrameError, NoTemplate) as error:
                run_logger().warning("%s gave no %s examples: %s", url, care.name, error)
                refused.append(type(error).__name__)
    return parts, refused
