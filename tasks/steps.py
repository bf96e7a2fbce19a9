"""Frame to pair: background, stars, PSF, alignment with the template, resampling.

File to calibrated frame with its artefacts masked.

Pair to difference.

Difference to candidates.

Candidates to stamps.

How a stage is timed: seconds by name, kept for the ledger and written to the run's log.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.core.frames import Difference, Frame, Pair, Stamps, StarTable, Template
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.detection.extract import extract
from nightsift.images.photometry.photometry import ZeroPoint, zero_point
from nightsift.images.registration.align import Alignment, align
from nightsift.images.resampling.warp import make_pair
from nightsift.images.stamps import cut
from nightsift.images.stars.stars import find_stars
from nightsift.io.exposures import load_exposure
from nightsift.unit.units import Unit
from subtraction.api import subtract
from subtraction.psf.fit import fit_psf
from tasks.retry import Logger


@task(name="background", persist_result=False, cache_policy=NO_CACHE)
def background(frame: Frame, unit: Unit) -> Frame:
    """Subtract the sky.

    Parameters
    ----------
    frame : Frame
        Frame with sky.
    unit : Unit
        With its mesh.

    Returns
    -------
    Frame
        Frame without sky.
    """
    return subtract_background(frame, unit.background.mesh)


@task(name="stars", persist_result=False, cache_policy=NO_CACHE)
def stars(frame: Frame) -> StarTable:
    """Find the stars of a background-subtracted frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted.

    Returns
    -------
    ndarray of STAR_DTYPE
        The stars.
    """
    return find_stars(frame)


@task(name="psf", persist_result=False, cache_policy=NO_CACHE)
def psf(frame: Frame, found: StarTable, unit: Unit) -> Frame:
    """Give the frame its point-spread function.

    Parameters
    ----------
    frame : Frame
        Background-subtracted.
    found : ndarray of STAR_DTYPE
        Its stars.
    unit : Unit
        With its table ``[psf]``.

    Returns
    -------
    Frame
        The frame with its PSF.
    """
    order = None if unit.psf.order < 0 else unit.psf.order
    return frame.replace(psf=fit_psf(frame, found, order=order))


@task(name="align", persist_result=False, cache_policy=NO_CACHE)
def align_to(frame: Frame, found: StarTable, template: Template, unit: Unit) -> Alignment:
    """Match the stars of the frame with those of its template.

    Parameters
    ----------
    frame : Frame
        The science frame.
    found : ndarray of STAR_DTYPE
        Its stars.
    template : Template
        Its template.
    unit : Unit
        With its table ``[alignment]``.

    Returns
    -------
    Alignment
        The mapping from science to template pixels.
    """
    return align(frame, found, template, options=unit.alignment)


@task(name="warp", persist_result=False, cache_policy=NO_CACHE)
def warp(frame: Frame, template: Template, alignment: Alignment) -> Pair:
    """Resample the template to the grid of the frame.

    Parameters
    ----------
    frame : Frame
        The science frame.
    template : Template
        Its template.
    alignment : Alignment
        The mapping between them.

    Returns
    -------
    Pair
        Both on one grid.
    """
    return make_pair(frame, template, alignment)


@task(name="ingest", persist_result=False, cache_policy=NO_CACHE)
def ingest(path: Path, unit: Unit, night: str | None = None, sha256: str = "", url: str = "") -> Frame:
    """Read one exposure.

    Parameters
    ----------
    path : Path
        Local file.
    unit : Unit
        The telescope unit.
    night : str, optional
        Night label; from the header when not given.
    sha256 : str, optional
        Checksum where it is known.
    url : str, optional
        Where the file came from, for people.

    Returns
    -------
    Frame
        ADU with sky; variance, mask and facts.
    """
    frame = load_exposure(path, unit, night, sha256=sha256)
    return frame.replace(meta=dataclasses.replace(frame.meta, path=url or str(path)))


@task(name="artefacts", persist_result=False, cache_policy=NO_CACHE)
def artefacts(frame: Frame, unit: Unit) -> Frame:
    """Mask what is neither sky nor source.

    Parameters
    ----------
    frame : Frame
        Frame with sky.
    unit : Unit
        With its table ``[artefacts]``.

    Returns
    -------
    Frame
        The frame with a larger mask.
    """
    return mask_artefacts(frame, unit)


@task(name="subtract", persist_result=False, cache_policy=NO_CACHE)
def subtract_pair(pair: Pair, unit: Unit) -> Difference:
    """Subtract the template by the method that the unit names.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.
    unit : Unit
        With its table ``[subtraction]``.

    Returns
    -------
    Difference
        The difference.
    """
    return subtract(pair, unit.subtraction.method, unit.subtraction.options)


@task(name="zero-point", persist_result=False, cache_policy=NO_CACHE)
def calibrate(found: StarTable, template: Template, alignment: Alignment) -> ZeroPoint:
    """Zero point of a frame against its template's stars.

    Parameters
    ----------
    found : ndarray of STAR_DTYPE
        Stars of the science frame.
    template : Template
        Its template.
    alignment : Alignment
        The mapping between them.

    Returns
    -------
    ZeroPoint
        The zero point.
    """
    return zero_point(found, template, alignment)


@task(name="extract", persist_result=False, cache_policy=NO_CACHE)
def find_candidates(difference: Difference, pair: Pair, unit: Unit, zero: ZeroPoint, template_id: str) -> pa.Table:
    """Candidates of both signs, measured and flagged; scores still null.

    Parameters
    ----------
    difference : Difference
        The difference.
    pair : Pair
        What it was made of.
    unit : Unit
        With its table ``[detection]``.
    zero : ZeroPoint
        Zero point of the frame.
    template_id : str
        Identity of the template.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    """
    return extract(difference, pair, unit, zero_point=zero, template_id=template_id)


@task(name="stamp", persist_result=False, cache_policy=NO_CACHE)
def cut_stamps(pair: Pair, difference: Difference, candidates: pa.Table, unit: Unit) -> Stamps:
    """Cut science, template and difference around every candidate.

    Parameters
    ----------
    pair : Pair
        Science and template.
    difference : Difference
        Their difference.
    candidates : pyarrow.Table
        Where to cut.
    unit : Unit
        With its table ``[stamps]``.

    Returns
    -------
    Stamps
        One a candidate, in their order.
    """
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
        self._born = time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the `with` block to a stage, whether it succeeds or raises.

        Parameters
        ----------
        stage : str
            Name of the stage.
        """
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
        return time.perf_counter() - self._born

    def log(self, logger: Logger, label: str) -> None:
        """Write the seconds of all stages as one line.

        Parameters
        ----------
        logger : Logger or LoggerAdapter
            Where to write.
        label : str
            What was timed.
        """
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())
        logger.info("%s: %.2f s (%s)", label, self.total, parts)
