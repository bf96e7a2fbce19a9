"""Steps of a reduction that several products share, the stopwatch that times them, and what is checked before any."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from models.network.unit_scoring import check_stamps
from nightsift.archive.survey import Survey
from nightsift.core.errors import BadTable, ConfigurationError
from nightsift.core.frames import Difference, Frame, Pair, Stamps, StarTable
from nightsift.images.stamps import cut
from nightsift.io.exposures import check_masters, load_exposure
from nightsift.refcats.catalogues import read_positions
from nightsift.unit.units import Unit
from subtraction.api.pairs import check_options
from subtraction.psf.fit import fit_psf
from tasks.classify import model_of
from tasks.retry import Logger


def checked_units(survey: Survey, only: Sequence[str] = ()) -> dict[str, Unit]:
    """Read the units of a survey and check all that would otherwise stop every exposure, one after the other.

    Parameters
    ----------
    survey : Survey
        The survey.
    only : sequence of str, optional
        Only these units; all when empty.

    Returns
    -------
    dict of str to Unit
        Units by name.

    Raises
    ------
    ConfigurationError
        If the survey file or a unit file is wrong, or names what is not there.
    """
    units = {name: check_unit(unit) for name, unit in survey.load_units(only).items()}
    place = survey.archive
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        what = f"{place} {'cannot be written to' if place.is_dir() else 'is no folder'}"
        raise _wrong(
            survey.file, "top level", "archive", what=what, advice="name another folder, or correct its rights"
        )
    if survey.runner.kind == "dask" and importlib.util.find_spec("prefect_dask") is None:
        advice = "pip install 'nightsift[dask]', or kind = \"processes\""
        raise _wrong(survey.file, "runner", "kind", what="prefect-dask is not installed", advice=advice)
    return units


def check_unit(unit: Unit) -> Unit:
    """Check that a unit's file names only what is there: method and its options, masters, catalogue, model.

    Parameters
    ----------
    unit : Unit
        The unit.

    Returns
    -------
    Unit
        The same.

    Raises
    ------
    ConfigurationError
        With table and key of what is wrong.
    """
    check_options(unit.subtraction.method, unit.subtraction.options, unit.file)
    check_masters(unit)
    if unit.template.catalogue:
        try:
            read_positions(unit.template.catalogue)
        except BadTable as error:
            advice = "name a parquet or CSV file with right ascension and declination in degrees, or leave it empty"
            raise _wrong(unit.file, "template", "catalogue", what=str(error), advice=advice) from error
    model_of(unit)
    check_stamps(unit)
    return unit


def check_services(survey: Survey) -> None:
    """Check what a night that runs by itself will want: ways to notify people, files of sky alerts.

    Parameters
    ----------
    survey : Survey
        The survey.

    Raises
    ------
    ConfigurationError
        With table and key of what is not there.
    """
    notify, alert = survey.notify, survey.alert
    if notify.command and shutil.which(notify.command[0]) is None:
        what = f"there is no program {notify.command[0]}"
        raise _wrong(survey.file, "notify", "command", what=what, advice="give its whole path")
    for name in notify.urls_env:
        if not os.environ.get(name):
            advice = f"export {name}='...' before the start, or remove it from the list"
            raise _wrong(survey.file, "notify", "urls_env", what=f"${name} is not set", advice=advice)
    named = {"notify.urls_file": (notify.urls_file,), "alert.galaxies": (alert.galaxies,), "alert.stars": alert.stars,
             "alert.nuclei": alert.nuclei, "alert.orbits": (alert.orbits,),
             "alert.tiling.file": tuple(one.file for one in alert.tilings)}  # fmt: skip
    for place, files in named.items():
        for file in files:
            if file and not Path(os.path.expandvars(file)).expanduser().is_file():
                table, _, key = place.rpartition(".")
                advice = "correct the path, which starts from the folder of this file"
                raise _wrong(survey.file, table, key, what=f"there is no file {file}", advice=advice)


def _wrong(file: str, table: str, key: str, *, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file=file, table=table, key=key, what=what, advice=advice)


def ingest(path: Path, unit: Unit, night: str | None = None, *, sha256: str = "", url: str = "") -> Frame:
    """Read one exposure: ADU with sky, variance, mask and facts; `url` is the place that people are shown."""
    frame = load_exposure(path, unit, night, sha256=sha256)
    return frame.replace(meta=dataclasses.replace(frame.meta, path=url or str(path)))


def with_psf(frame: Frame, stars: StarTable, unit: Unit) -> Frame:
    """Return a background-subtracted frame with the PSF fitted to its stars; a negative order leaves it to the fit."""
    order = None if unit.psf.order < 0 else unit.psf.order
    return frame.replace(psf=fit_psf(frame, stars, order=order))


def cut_stamps(pair: Pair, difference: Difference, candidates: pa.Table, *, unit: Unit) -> Stamps:
    """Cut science, template and difference around every candidate: one stamp per candidate, in their order."""
    x, y = candidates["x"].to_numpy(), candidates["y"].to_numpy()
    return cut(pair, difference, x, y=y, size=unit.stamps.size, orientation=unit.stamps.orientation)


class Stopwatch:
    """Wall and processor seconds by stage.

    Attributes
    ----------
    seconds : dict of str to float
        Wall seconds spent in each stage so far, in the order in which the stages began.
    cpu : dict of str to float
        Processor seconds of the whole process in each stage.
    stage : str
        Stage that runs now, or the one that ran last; empty before the first.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.stage = ""
        self._started = time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the `with` block to a stage, whether it succeeds or raises."""
        self.stage = stage
        began, busy = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - busy

    @property
    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._started

    def log(self, logger: Logger, label: str) -> None:
        """Write the seconds of all stages as one line, headed by what was timed."""
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())
        logger.info("%s: %.2f s (%s)", label, self.total, parts)
