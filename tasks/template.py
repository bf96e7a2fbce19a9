"""One template: its frames prepared, combined, written; one tracked task per field, unit and band."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.archive.paths import Archive
from nightsift.archive.templates import find_template, newest_template, write_template
from nightsift.core.errors import AlignmentFailed, FrameError, NightsiftError
from nightsift.core.frames import Frame, StarTable, Template
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.registration.align import align
from nightsift.images.stars.stars import find_stars
from nightsift.images.templates import build_template, solved, template_identity
from nightsift.io.fits import open_fits
from nightsift.io.sources import checksum, exposure_identity, local_copy
from nightsift.refcats.catalogues import read_positions
from nightsift.unit.units import Unit, load_unit
from tasks.discover import facts_of
from tasks.retry import run_logger
from tasks.steps import Stopwatch, ingest

MEMORY = 3_000_000_000
"""Bytes of prepared frames kept in memory while a template is built; frames beyond are read again when needed."""


IMPORTED = "imported from other images: --redo builds it from the frames"
"""Why frames do not take the place of a template."""


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """Result of building one template.

    Attributes
    ----------
    unit, field, band : str
        Whose it is.
    state : str
        "done", "kept" (it was up to date), "refused" (the frames) or "failed" (the machine).
    message : str
        What is wrong and what to do, or why it stays; empty when done.
    template_id : str
        Its identity, empty when there is none.
    used, offered : int
        Frames averaged, frames found.
    left_out : tuple of (str, str)
        Frames not used, by place or identity, and why.
    seconds : float
        Wall seconds.
    """

    unit: str
    field: str
    band: str
    state: str
    message: str = ""
    template_id: str = ""
    used: int = 0
    offered: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


@task(name="template", task_run_name="template {label}", persist_result=False, cache_policy=NO_CACHE)
def make_template(
    unit: str,
    field: str,
    band: str,
    urls: Sequence[str],
    archive: str,
    folders: Sequence[str] = (),
    redo: bool = False,
    label: str = "",
) -> TemplateRow:
    """Build one template from its frames and write it, unless it is up to date.

    Parameters
    ----------
    unit, field, band : str
        Whose template it is.
    urls : sequence of str
        Places of the frames.
    archive : str
        Folder of the archive.
    folders : sequence of str, optional
        Folders searched for the unit before those shipped.
    redo : bool, optional
        Build it even if it is up to date.
    label : str, optional
        Name of the task run and in logs.

    Returns
    -------
    TemplateRow
        What has become of it.
    """
    clock, logger = Stopwatch(), run_logger()
    loaded = load_unit(unit, folders)
    row = TemplateRow(loaded.name, field, band, "failed", offered=len(urls))
    try:
        row = build(row, urls, loaded, archive=Archive(Path(archive)), clock=clock, redo=redo)
    except FrameError as error:
        row = dataclasses.replace(row, state="refused", message=str(error))
    except (NightsiftError, OSError, MemoryError) as error:
        logger.error("template %s failed", label, exc_info=error)
        row = dataclasses.replace(row, message=str(error) or type(error).__name__)
    clock.log(logger, f"template {label}: {row.state}")
    return dataclasses.replace(row, seconds=clock.total)


def build(
    row: TemplateRow, urls: Sequence[str], unit: Unit, *, archive: Archive, clock: Stopwatch, redo: bool = False
) -> TemplateRow:
    """Build one template and write it.

    Parameters
    ----------
    row : TemplateRow
        Field and band.
    urls : sequence of str
        Places of the frames.
    unit : Unit
        The telescope unit.
    archive : Archive
        Where to.
    clock : Stopwatch
        Seconds by stage.
    redo : bool, optional
        Build it even if it is up to date.

    Returns
    -------
    TemplateRow
        With the state "done", "kept" or "refused".

    Raises
    ------
    FrameError
        If the frames cannot be combined.
    """
    with clock.timed("identify"):
        ids = {url: _identity_of(url, unit) for url in urls}
        if not redo and (current := _up_to_date(archive, row, unit, ids=set(ids.values()))):
            return current
    with clock.timed("prepare"):
        frames, stars, zero_points, left_out = _prepare_all(urls, ids, unit)
    if not frames:
        what = f"none of {len(urls)} frames can be used, such as {left_out[0][1] if left_out else 'none found'}"
        return dataclasses.replace(row, state="refused", message=what, left_out=tuple(left_out))
    with clock.timed("combine"):
        template = build_template(frames, stars, unit, zero_points=zero_points)
        template = dataclasses.replace(template, refused=(*template.refused, *left_out))
    with clock.timed("solve"):
        template = _with_coordinates(template, unit)
    with clock.timed("write"):
        write_template(archive, template)
    used = len(template.sources)
    return dataclasses.replace(
        row, state="done", template_id=template.template_id, used=used, left_out=template.refused
    )


def _with_coordinates(template: Template, unit: Unit) -> Template:
    """A WCS from the unit's catalogue where the frames have none; without one candidates have no sky positions."""
    meta = template.frame.meta
    if template.frame.wcs is not None or not unit.template.catalogue or not math.isfinite(meta.ra + meta.dec):
        return template
    try:
        return solved(template, read_positions(unit.template.catalogue))
    except AlignmentFailed as error:
        run_logger().warning("template %s has no coordinates: %s", template.template_id, error)
        return template


def _up_to_date(archive: Archive, row: TemplateRow, unit: Unit, *, ids: set[str]) -> TemplateRow | None:
    """Return the row of the newest template if it was imported, or made of these frames with these options."""
    path = newest_template(archive, row.unit, row.field, band=row.band)
    if path is None:
        return None
    try:
        with open_fits(path) as hdus:
            header, rows = hdus["SCI"].header, hdus["SOURCES"].data
            identity, imported = str(header["TEMPLATE"]), "IMPORTED" in header
            used = [str(one) for one, yes in zip(rows["exposure_id"], rows["used"], strict=True) if yes]
            offered = {str(one) for one in rows["exposure_id"]}
    except (FrameError, KeyError):
        return None
    if imported:
        return dataclasses.replace(row, state="kept", template_id=identity, message=IMPORTED)
    same = offered == ids and identity == template_identity(unit, used)
    return dataclasses.replace(row, state="kept", template_id=identity) if same else None


class _PreparedFrames(Sequence[Frame]):
    """Frames without sky and with artefacts masked, prepared when asked for and held as long as memory allows.

    Parameters
    ----------
    prepare : sequence of callable
        Each makes one frame.
    memory : int, optional
        Bytes to keep.
    """

    def __init__(self, prepare: Sequence[Callable[[], Frame]], memory: int = MEMORY) -> None:
        self._prepare, self._memory = prepare, memory
        self._held: OrderedDict[int, Frame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prepare)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Prepare a frame, or take it from memory."""
        if isinstance(index, slice):
            return _PreparedFrames(self._prepare[index], self._memory)
        if index not in self._held:
            self._held[index] = self._prepare[index]()
            while len(self._held) > 1 and sum(_size(one) for one in self._held.values()) > self._memory:
                self._held.popitem(last=False)
        self._held.move_to_end(index)
        return self._held[index]


def _size(frame: Frame) -> int:
    return frame.data.nbytes + frame.variance.nbytes + frame.mask.nbytes


def _identity_of(url: str, unit: Unit) -> str:
    with local_copy(url) as path:
        return exposure_identity(unit.name, checksum(path))


def prepared(url: str, unit: Unit) -> Frame:
    """Return an exposure without sky and with artefacts masked; FrameError where it is no good."""
    with local_copy(url) as path:
        frame = ingest(path, unit, url=url)
    return subtract_background(mask_artefacts(frame, unit), unit.background.mesh)


def aligned(url: str, unit: Unit, archive: Archive) -> tuple[Frame, Template]:
    """Return an exposure with the coordinates that its template gives it, and the template; FrameError if it fails."""
    frame = prepared(url, unit)
    template = find_template(archive, frame.meta)
    alignment = align(frame, find_stars(frame), template, options=unit.alignment)
    return frame.replace(wcs=alignment.wcs), template


def _prepare_all(
    urls: Sequence[str], ids: dict[str, str], unit: Unit
) -> tuple[_PreparedFrames, list[StarTable], list[float], list[tuple[str, str]]]:
    """All frames with their stars and zero points; those that are no good, with the reason."""
    candidates = _PreparedFrames([lambda url=url: prepared(url, unit) for url in urls])  # type: ignore[misc]
    good, stars, zero_points, left_out = [], [], [], []
    for i, url in enumerate(urls):
        try:
            found = find_stars(candidates[i])
            with local_copy(url) as path:
                zero = facts_of(path, unit, url).zero_point
        except FrameError as error:
            left_out.append((ids[url], str(error)))
            continue
        good.append(lambda i=i: candidates[i])  # type: ignore[misc]
        stars.append(found)
        zero_points.append(zero)
    return _PreparedFrames(good, memory=0), stars, zero_points, left_out
