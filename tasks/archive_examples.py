"""Examples of the exposures of an archive: reduced again with synthetic transients, labelled by catalogues."""

from __future__ import annotations

import dataclasses
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

from models import examples
from models.examples import empty, join
from models.store import NO_MODEL
from nightsift.context.orbits import Orbits, read_orbits
from nightsift.io.catalogue import read_positions
from nightsift.io.galaxy_catalogue import read_galaxies
from nightsift.io.paths import Archive
from nightsift.provenance import code_version, key
from nightsift.survey import Survey
from nightsift.tables import TRUTH
from nightsift.units import load_unit
from tasks.careless import changed
from tasks.discover import find_exposures
from tasks.examples import build_templates, examples_of_file
from tasks.factory import FactoryOptions, Known


@dataclass(frozen=True, slots=True)
class Catalogues:
    """Local files that tell what is known of the sky.

    Attributes
    ----------
    truth : str
        Truth of a simulated survey (schema `nightsift.tables.TRUTH`), empty without.
    orbits : str
        Orbits of minor planets in the format of ``MPCORB.DAT``, empty without.
    galaxies : str
        Galaxies with sizes (`nightsift.io.galaxy_catalogue`), empty to take those of the templates.
    excluded : tuple of str
        Positions of variables, active galaxies and, where wished, stars, in parquet or CSV.
    """

    truth: str = ""
    orbits: str = ""
    galaxies: str = ""
    excluded: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """What was given, as plain values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


def exposure_calls(survey: Survey, catalogues: Catalogues, parts: Path, seed: int) -> list[dict[str, Any]]:
    """One call of `make_exposure_examples` for each exposure of a survey, its templates built.

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
        build_templates(source, unit, Archive(Path(survey.archive)), options["folders"])
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
        Folder of the examples, see `models.examples.read`.
    """
    known_files = Catalogues(**{**catalogues, "excluded": tuple(catalogues["excluded"])})
    loaded = changed(load_unit(unit, folders), model={"name": NO_MODEL})
    options = FactoryOptions(seed=seed)
    identity = key({"url": url, "catalogues": known_files}, {"factory": options, "unit": loaded}, code_version())
    folder = Path(parts) / f"exposure-{identity[:16]}"
    if not (folder / examples.TABLE).is_file():
        known = known_of(known_files, loaded.name, Path(url).name)
        made, refused = examples_of_file(url, loaded, Archive(Path(archive)), known, survey, options, night)
        whole = join(made) if made else empty(options.size)
        counts = {reason: refused.count(reason) for reason in set(refused)}
        examples.write(folder, examples.TrainingSet(whole.stamps, whole.table, {**whole.card, "refused": counts}))
    return str(folder)


def known_of(catalogues: Catalogues, unit: str, file: str) -> Known:
    """What the catalogues tell of one exposure; files stay in memory for the next one.

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
