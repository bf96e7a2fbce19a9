"""One exposure, from its file to candidate rows: one tracked task, its steps called directly, arrays in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.templates import find_template
from nightsift.core.errors import ConfigurationError, FrameError
from nightsift.core.frames import Difference, Frame, Pair, Stamps
from nightsift.core.parallel import keep_freed_memory
from nightsift.core.rows import LedgerRow, ReducedRow
from nightsift.core.tables import CANDIDATES
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.detection.extract import extract
from nightsift.images.photometry.difference_photometry import ZeroPoint, zero_point
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.registration.align import align
from nightsift.images.resampling.warp import make_pair
from nightsift.images.stars.stars import find_stars
from nightsift.io.sources import checksum, exposure_identity, local_copy
from nightsift.unit.units import Unit, load_unit
from subtraction.api.pairs import subtract_pair
from tasks import measure
from tasks.classify import model_of, rescore, score
from tasks.discover import facts_of
from tasks.record import (
    PATIENCE,
    Job,
    closing_columns,
    key_of,
    known_row,
    opening_row,
    publish,
    scoring_of,
    verdict_on,
    withdraw,
)
from tasks.retry import Logger, patiently, run_logger
from tasks.steps import Stopwatch, cut_stamps, ingest, with_psf


@dataclass(slots=True)
class Reduction:
    """The state of one exposure while it is reduced.

    Attributes
    ----------
    row : dict
        Its ledger row, which grows stage by stage.
    clock : Stopwatch
        Seconds by stage.
    pair, difference : Pair, Difference or None
        Images, for those who want to look at them; they never leave the process.
    candidates : pyarrow.Table
        Candidates with their scores.
    stamps : Stamps or None
        Their stamps.
    skipped : bool
        Whether the ledger said that nothing was left to do.
    rescored : bool
        Whether only scores were left to do: the stored stamps were scored again.
    """

    row: LedgerRow
    clock: Stopwatch = field(default_factory=Stopwatch)
    pair: Pair | None = None
    difference: Difference | None = None
    candidates: pa.Table = field(default_factory=CANDIDATES.empty_table)
    stamps: Stamps | None = None
    skipped: bool = False
    rescored: bool = False


@task(name="reduce", task_run_name="{label}", persist_result=False, cache_policy=NO_CACHE)
def reduce_exposure(
    url: str,
    unit: str,
    archive: str,
    night: str | None = None,
    folders: Sequence[str] = (),
    label: str = "exposure",
    redo: bool = False,
    wait: float = PATIENCE,
) -> ReducedRow:
    """Reduce one exposure and commit its products (see `reduce_file`): plain values in, its ledger row out.

    From then on its process keeps the memory that it frees for the next exposure (`nightsift.core.parallel`).

    Parameters
    ----------
    url, unit, archive : str
        Place of the exposure, name or file of its unit, folder of the archive.
    night : str, optional
        Night label; worked out from the header when not given.
    folders : sequence of str, optional
        Folders searched for the unit before those shipped.
    label : str, optional
        Name of the task run and in logs.
    redo : bool, optional
        Reduce it even if the ledger says that it is finished.
    wait : float, optional
        Seconds to wait for another process that is reducing it.

    Returns
    -------
    ReducedRow
        The ledger row; its state is ``"elsewhere"``, and it is not recorded, where another process is at it.
    """
    keep_freed_memory()
    loaded = load_unit(unit, folders)
    reduction = reduce_file(
        url, loaded, Archive(Path(archive)), night=night, label=label, redo=redo, logger=run_logger(), wait=wait
    )
    return {**reduction.row, "skipped": reduction.skipped, "rescored": reduction.rescored}


def reduce_file(
    url: str,
    unit: Unit,
    archive: Archive,
    *,
    night: str | None = None,
    label: str = "",
    redo: bool = False,
    logger: Logger | None = None,
    wait: float = PATIENCE,
) -> Reduction:
    """Reduce one exposure and commit its products: whatever happens, it ends as one ledger row.

    Where only its scores are of another model, calibration or code, its stored stamps are scored again instead.

    Parameters
    ----------
    url : str
        Where the exposure lies.
    unit : Unit
        The telescope unit that took it.
    archive : Archive
        Where templates are read and products are written.
    night : str, optional
        Night label; worked out from the header when not given.
    label : str, optional
        Name of the exposure in logs.
    redo : bool, optional
        Reduce it even if the ledger says that it is finished.
    logger : Logger, optional
        Where to log.
    wait : float, optional
        Seconds to wait for another process that is reducing it.

    Returns
    -------
    Reduction
        The ledger row, and the arrays for those who want to look at them.

    Raises
    ------
    ConfigurationError
        If the model that the unit names is not there.
    DiskFull, OSError
        If not even the ledger row can be written.
    """
    logger, label = logger or run_logger(), label or Path(url).name
    reduction, job = Reduction(opening_row(unit.name, night, url)), Job(unit, model_of(unit), archive, redo, wait)
    with ExitStack() as stack:
        try:
            with local_copy(url) as path:
                _identify(reduction.row, unit, path, night=night)
                known = known_row(job, reduction.row, stack)
                if known is not None:
                    return Reduction(known, skipped=True)
                rescored = rescore(job, reduction.row, logger, label=label)
                if rescored is not None:
                    return Reduction(rescored, rescored=True)
                run_steps(reduction, path, unit, archive=archive)
            with reduction.clock.timed("publish"):
                patiently(lambda: publish(archive, reduction.row, reduction.candidates, stamps=reduction.stamps))
            reduction.row |= {"state": "done"}
        except Exception as error:  # noqa: BLE001
            # The border of an exposure: the only place that catches everything, so that one frame never costs another.
            reduction.row |= verdict_on(error)
            _log_error(logger, label, reduction, error=error)
            withdraw(archive, reduction.row)
        content, template_id = reduction.row["checksum"], reduction.row.get("template_id") or ""
        key = key_of(content, template_id, unit) if content else ""
        scoring = scoring_of(unit, job.model) if reduction.row["state"] == "done" else None
        reduction.row = closing_columns(
            reduction.row, reduction.clock.seconds, reduction.clock.total, provenance_key=key, scoring=scoring
        )
        patiently(lambda: ledger.record(archive, reduction.row))
    reduction.clock.log(logger, f"{label}: {reduction.row['state']}")
    return reduction


def run_steps(reduction: Reduction, path: Path, unit: Unit, *, archive: Archive) -> None:
    """Take one exposure from its file to scored candidates, filling the reduction stage by stage.

    Parameters
    ----------
    reduction : Reduction
        What to fill; checksum and night stand in its row.
    path : Path
        Local file.
    unit : Unit
        The telescope unit.
    archive : Archive
        Where templates are read.

    Raises
    ------
    FrameError
        If the frame is no good for the stage reached.
    NoTemplate
        If no template exists yet.
    """
    template_id, zero = to_difference(reduction, path, unit, archive=archive)
    pair, difference = reduction.pair, reduction.difference
    assert pair is not None
    assert difference is not None
    row, timed = reduction.row, reduction.clock.timed
    with timed("extract"):
        candidates = extract(difference, pair, unit, zero_point=zero, template_id=template_id)
    with timed("stamp"):
        stamps = cut_stamps(pair, difference, candidates, unit=unit)
    with timed("classify"):
        candidates = score(stamps, candidates, unit)
    reduction.candidates, reduction.stamps = candidates, stamps
    row |= measure.of_candidates(candidates, unit.model.threshold)


def to_difference(
    reduction: Reduction, path: Path, unit: Unit, *, archive: Archive, change: Callable[[Frame], Frame] | None = None
) -> tuple[str, ZeroPoint]:
    """Take one exposure from its file to its calibrated difference, the first part of `run_steps`.

    Parameters
    ----------
    reduction : Reduction
        What to fill: row, pair and difference; checksum and night stand in its row.
    path : Path
        Local file.
    unit : Unit
        The telescope unit.
    archive : Archive
        Where templates are read.
    change : callable, optional
        Changes the frame once its PSF is known, before it meets its template: injects sources.

    Returns
    -------
    template_id : str
        Identity of the template that was subtracted.
    zero : ZeroPoint
        Zero point of the frame.

    Raises
    ------
    FrameError
        If the frame is no good for the stage reached.
    NoTemplate
        If no template exists yet.
    """
    row, timed = reduction.row, reduction.clock.timed
    with timed("ingest"):
        frame = ingest(path, unit, row["night"], sha256=row["checksum"], url=row["url"])
        row |= measure.of_frame(frame)
    with timed("artefacts"):
        frame = mask_artefacts(frame, unit)
    with timed("background"):
        frame = subtract_background(frame, unit.background.mesh)
        row |= measure.of_sky(frame)
    with timed("stars"):
        stars = find_stars(frame)
        row |= measure.of_stars(frame, stars)
    with timed("psf"):
        frame = with_psf(frame, stars, unit)
    if change is not None:
        frame = change(frame)
    with timed("template"):
        template = find_template(archive, frame.meta)
        row["template_id"] = template.template_id
    with timed("align"):
        alignment = align(frame, stars, template, options=unit.alignment)
    with timed("warp"):
        reduction.pair = pair = make_pair(frame, template, alignment)
        row |= measure.of_pair(pair, alignment)
        measure.require_coverage(pair, unit)
    with timed("photometry"):
        growth = aperture_correction(frame, stars)
        if growth.reason:
            run_logger().info("%s: zero point without aperture correction: %s", row["exposure_id"], growth.reason)
        zero = zero_point(stars, template, alignment, growth=growth)
    template_id = template.template_id
    del frame, template  # the pair holds what is still needed of them: subtraction wants the memory
    with timed("subtract"):
        reduction.difference = difference = subtract_pair(pair, unit.subtraction.method, unit.subtraction.options)
        row |= measure.of_difference(difference, pair)
    with timed("photometry"):
        row |= measure.of_calibration(zero, difference)
    return template_id, zero


def _identify(row: LedgerRow, unit: Unit, path: Path, *, night: str | None) -> None:
    """Identity by content; the night by the header, unless it was given."""
    row["checksum"] = patiently(lambda: checksum(path))
    row["exposure_id"] = exposure_identity(unit.name, row["checksum"])
    if night is None:
        try:
            row["night"] = facts_of(path, unit, row["url"]).night
        except FrameError as error:
            # The ingest that follows refuses the frame with this very error; here only its night stays unknown.
            logging.getLogger(__name__).debug("%s", error)


def _log_error(logger: Logger, label: str, reduction: Reduction, *, error: Exception) -> None:
    where, row = reduction.clock.stage or "opening", reduction.row
    if row["state"] == "failed":
        trace = None if isinstance(error, ConfigurationError) else error
        logger.error("%s failed at %s: %s", label, where, row["message"], exc_info=trace)
    else:
        logger.warning("%s %s at %s: %s", label, row["state"], where, row["message"])
