"""Training examples of one random unit, simulated and compared with the truth, or of one exposure of an archive."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.network.store import NO_MODEL
from models.training import examples
from models.training.examples import TrainingSet, empty, join
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Source, Survey, load_survey
from nightsift.context.orbits import Orbits, read_orbits
from nightsift.core.errors import FrameError, NoTemplate
from nightsift.core.provenance import code_version, key
from nightsift.core.random import generator
from nightsift.core.tables import TRUTH
from nightsift.io.sources import local_copy
from nightsift.refcats.catalogues import read_galaxies, read_positions
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from nightsift.simulate.unit_options import random_unit
from nightsift.unit.units import Unit, load_unit
from tasks.discover import find_exposures
from tasks.factory import CAREFUL, FactoryOptions, Known, changed, draw_guards, examples_of
from tasks.retry import run_logger
from tasks.steps import ingest
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
        Folder of the examples, see `models.training.examples.read`.
    """
    folder = Path(work) / f"seed-{seed}" / f"unit-{index:03d}"
    if not (folder / examples.TABLE).is_file():
        survey = load_survey(simulate(folder / "survey", survey_options(seed, index)))
        examples.write(folder, harvest(survey, f"{seed}-{index}"))
        if not keep_frames:
            shutil.rmtree(folder / "survey")
    return str(folder)


def survey_options(seed: int, index: int) -> SimulationOptions:
    """Return the survey of one random unit: preset ``training`` at a random galactic latitude, empty to crowded.

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

    The second reduction is bad on purpose (`tasks.factory`): a good pipeline leaves too few false candidates to learn
    from, and real frames hold faults that no simulation has thought of.

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
        build_templates(source, unit, archive, folders=[str(survey.units)])
        for exposure in find_exposures(source, unit, source.frames):
            here = pc.and_(pc.equal(truth["exposure_file"], exposure.name), pc.equal(truth["unit"], unit.name))
            known = Known(truth.filter(here), galaxies=galaxies.filter(pc.equal(galaxies["field"], exposure.field)))
            made, why = examples_of_file(
                exposure.url, unit, archive, known=known, survey=name, options=options, night=exposure.night
            )
            parts += made
            refused.update(why)
    made_of = join(parts) if parts else empty(options.size)
    return dataclasses.replace(made_of, card={**made_of.card, "refused": dict(refused)})


def build_templates(source: Source, unit: Unit, archive: Archive, *, folders: Sequence[str]) -> None:
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
    *,
    known: Known,
    survey: str,
    options: FactoryOptions,
    night: str | None = None,
) -> tuple[list[TrainingSet], list[str]]:
    """Make the examples of one exposure, reduced well and badly; where one reduction fails, the other still counts.

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
        One per reduction that went well.
    refused : list of str
        Why the others did not: class of the error.
    """
    parts, refused = [], []
    with local_copy(url) as path:
        try:
            frame = ingest(path, unit, night, url=url)
        except FrameError as error:
            return [], [type(error).__name__] * 2
        for care in (CAREFUL, draw_guards(options.seed, unit.name, frame.meta.exposure_id)):
            try:
                parts.append(examples_of(frame, unit, archive, known=known, survey=survey, care=care, options=options))
            except (FrameError, NoTemplate) as error:
                run_logger().warning("%s gave no %s examples: %s", url, care.name, error)
                refused.append(type(error).__name__)
    return parts, refused


@dataclass(frozen=True, slots=True)
class Catalogues:
    """Local files of what is known of the sky.

    Attributes
    ----------
    truth : str
        Truth of a simulated survey (schema `nightsift.core.tables.TRUTH`), empty without.
    orbits : str
        Orbits of minor planets in the format of ``MPCORB.DAT``, empty without.
    galaxies : str
        Galaxies with sizes (`nightsift.refcats.catalogues`), empty to take those of the templates.
    excluded : tuple of str
        Positions of variables, active galaxies and, where wanted, stars, in parquet or CSV.
    """

    truth: str = ""
    orbits: str = ""
    galaxies: str = ""
    excluded: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Return the files that were given, as plain values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


def exposure_calls(survey: Survey, catalogues: Catalogues, parts: Path, *, seed: int) -> list[dict[str, Any]]:
    """Build the templates of a survey and return one call of `make_exposure_examples` per exposure.

    Parameters
    ----------
    survey : Survey
        The survey.
    catalogues : Catalogues
        What is known of its sky.
    parts : Path
        Folder of the parts.
    seed : int
        Seed of the set.

    Returns
    -------
    list of dict
        Parameters, plain values.
    """
    calls: list[dict[str, Any]] = []
    for source, unit in survey.sources_of(survey.load_units()):
        options = survey.task_options(unit)
        build_templates(source, unit, Archive(Path(survey.archive)), folders=options["folders"])
        shared = {
            **options, "survey": survey.name, "parts": str(parts),
            "catalogues": dataclasses.asdict(catalogues), "seed": seed,
        }  # fmt: skip
        found = find_exposures(source, unit, source.frames)
        calls += [{"url": one.url, "night": one.night, "label": one.label, **shared} for one in found]
    return calls


@task(name="exposure examples", task_run_name="{label}", persist_result=False, cache_policy=NO_CACHE)
def make_exposure_examples(
    url: str,
    unit: str,
    archive: str,
    night: str | None,
    survey: str,
    catalogues: dict[str, Any],
    parts: str,
    seed: int,
    folders: list[str],
    label: str = "",
) -> str:
    """Make the examples of one exposure, unless they are on disk already.

    Parameters
    ----------
    url, unit, archive : str
        Place of the exposure, name of its unit, folder of the archive.
    night : str or None
        Night label.
    survey : str
        Name of the survey.
    catalogues : dict
        Fields of `Catalogues`.
    parts : str
        Folder of the parts.
    seed : int
        Seed of the set.
    folders : list of str
        Folders searched for the unit file.
    label : str, optional
        Name of the task run and in logs.

    Returns
    -------
    str
        Folder of the examples, see `models.training.examples.read`.
    """
    known_files = Catalogues(**{**catalogues, "excluded": tuple(catalogues["excluded"])})
    loaded = changed(load_unit(unit, folders), model={"name": NO_MODEL})
    options = FactoryOptions(seed=seed)
    identity = key({"url": url, "catalogues": known_files}, {"factory": options, "unit": loaded}, code_version())
    folder = Path(parts) / f"exposure-{identity[:16]}"
    if not (folder / examples.TABLE).is_file():
        known = known_of(known_files, loaded.name, Path(url).name)
        made, refused = examples_of_file(
            url, loaded, Archive(Path(archive)), known=known, survey=survey, options=options, night=night
        )
        whole = join(made) if made else empty(options.size)
        counts = {reason: refused.count(reason) for reason in set(refused)}
        examples.write(folder, examples.TrainingSet(whole.stamps, whole.table, {**whole.card, "refused": counts}))
    return str(folder)


def known_of(catalogues: Catalogues, unit: str, file: str) -> Known:
    """Return what the catalogues say of one exposure; files stay in memory for the next one.

    Parameters
    ----------
    catalogues : Catalogues
        The files.
    unit, file : str
        Unit and file name of the exposure, for the truth.

    Returns
    -------
    Known
        What is known of it.

    Raises
    ------
    BadTable
        If a file cannot be read or lacks columns.
    """
    truth = TRUTH.empty_table()
    if catalogues.truth:
        whole = _truth(catalogues.truth)
        truth = whole.filter(pc.and_(pc.equal(whole["exposure_file"], file), pc.equal(whole["unit"], unit)))
    return Known(
        truth=truth,
        orbits=_orbits(catalogues.orbits) if catalogues.orbits else None,
        excluded=_excluded(catalogues.excluded),
        galaxies=_galaxies(catalogues.galaxies) if catalogues.galaxies else None,
    )


@lru_cache(maxsize=1)
def _truth(path: str) -> pa.Table:
    return pq.read_table(path, schema=TRUTH)


@lru_cache(maxsize=1)
def _orbits(path: str) -> Orbits:
    return read_orbits(path)


@lru_cache(maxsize=1)
def _excluded(paths: tuple[str, ...]) -> npt.NDArray[np.float64]:
    found = [np.column_stack(read_positions(path)) for path in paths]
    return np.concatenate(found) if found else np.empty((0, 2))


@lru_cache(maxsize=1)
def _galaxies(path: str) -> pa.Table:
    return read_galaxies(path)
