"""Which exposures there are, which night each belongs to, and which of them still need work."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Source, Survey
from nightsift.core.errors import FrameError, SourceError
from nightsift.core.rows import LedgerRow
from nightsift.io.fits import read_header
from nightsift.io.sources import Found, checksum, discover, exposure_identity, local_copy
from nightsift.unit.facts import Facts, read_facts
from nightsift.unit.units import Unit
from tasks.record import Work, work_left
from tasks.retry import run_logger

READERS = 4
"""Files looked at together: disks answer several at once, and hashing leaves Python's lock."""

_logger = logging.getLogger("nightsift")


@dataclass(frozen=True, slots=True)
class Exposure:
    """An exposure that was found, before anything is done with it.

    Attributes
    ----------
    url, name : str
        Place and file name.
    unit : str
        Unit that took it.
    night : str or None
        Night label; None where the header could not be looked at.
    field, band : str
        Sky field and filter, empty where the header could not be looked at.
    """

    url: str
    name: str
    unit: str
    night: str | None = None
    field: str = ""
    band: str = ""

    @property
    def label(self) -> str:
        """Name in task runs and logs."""
        return " ".join(part for part in (self.unit, self.name, self.field, self.band) if part)


def facts_of(path: Path, unit: Unit, url: str = "") -> Facts:
    """Return the facts of a file from its header alone; FrameError where it cannot be read or lacks a fact."""
    return read_facts(unit, read_header(path, unit.image.hdu), url or str(path))


def find_exposures(
    source: Source, unit: Unit, place: str, *, night: str | None = None, fetch: bool = False
) -> list[Exposure]:
    """Find the exposures of one source.

    A local file whose header cannot be read belongs to the night of its nearest readable neighbour in the same folder,
    so that it is refused in the report of that night and not lost.

    Parameters
    ----------
    source : Source
        With the pattern of file names.
    unit : Unit
        Its unit.
    place : str
        Folder, glob or URL to look in.
    night : str, optional
        Only this night; exposures without a known night stay.
    fetch : bool, optional
        Fetch remote files to look at their headers, which a night filter does anyway.

    Returns
    -------
    list of Exposure
        Sorted by place.

    Raises
    ------
    SourceError
        If the place cannot be listed.
    """
    found = discover(place, source.pattern)
    with ThreadPoolExecutor(READERS) as readers:
        exposures = list(readers.map(lambda one: _look(one, unit, fetch or night is not None), found))
    exposures = _with_neighbours_night(exposures)
    return [one for one in exposures if night is None or one.night in (None, night)]


def find_in_sources(
    survey: Survey, units: Mapping[str, Unit], night: str | None = None, *, fetch: bool = False
) -> tuple[list[Exposure], list[str]]:
    """Find the exposures of units in all their sources; a place that cannot be reached costs only its own exposures.

    Parameters
    ----------
    survey : Survey
        The survey.
    units : mapping of str to Unit
        The units.
    night : str, optional
        Only this night; exposures without a known night stay.
    fetch : bool, optional
        Fetch remote files to look at their headers, which a night filter does anyway.

    Returns
    -------
    exposures : list of Exposure
        Each place once, in the order of the sources.
    problems : list of str
        Sources that could not be looked into, which are logged too.
    """
    found: dict[str, Exposure] = {}
    problems = []
    for source, unit in survey.sources_of(units):
        try:
            found |= {one.url: one for one in find_exposures(source, unit, source.frames, night=night, fetch=fetch)}
        except SourceError as error:
            run_logger().error("%s: %s", source.unit, error)
            problems.append(f"{source.unit}: {error}")
    return list(found.values()), problems


def explain_absence(
    survey: Survey, units: Mapping[str, Unit], night: str | None = None, *, templates: bool = False
) -> list[str]:
    """Say of each source of some units why nothing was found in it: where was looked, and what lies there instead.

    Parameters
    ----------
    survey : Survey
        The survey.
    units : mapping of str to Unit
        The units.
    night : str, optional
        The night that was asked for.
    templates : bool, optional
        Look at the frames for templates instead of those of nights.

    Returns
    -------
    list of str
        A line for each place; none for those that cannot be reached, of which an error speaks.
    """
    lines = []
    for source, unit in survey.sources_of(units):
        place = source.templates if templates else source.frames
        if not place:
            lines.append(f"{unit.name}: no folder of frames for templates: name it under templates in [[source]]")
            continue
        try:
            found = find_exposures(source, unit, place, fetch=night is not None)
            others = [] if found else discover(place, "*")
        except SourceError:
            continue
        if found and night is None:
            continue
        lines.append(f"{unit.name}: {_absence(place, source.pattern, night, found=found, others=others)}")
    return lines


def _absence(place: str, pattern: str, night: str | None, *, found: Sequence[Exposure], others: Sequence[Found]) -> str:
    if found:
        nights = sorted({one.night for one in found if one.night})
        least, unread = f"{nights[0]} to {nights[-1]}" if len(nights) > 6 else ", ".join(nights), ""
        if undated := sum(one.night is None for one in found):
            unread = f"; of {undated} the header tells no time: nightsift unit check UNIT FILE"
        return f"none of {len(found)} frames in {place} is of night {night}; they are of {least or 'no night'}{unread}"
    if not others:
        return f"no file lies in {place}"
    kinds = Counter("".join(Path(one.name).suffixes[-2:]) or "without ending" for one in others).most_common(4)
    there = ", ".join(f"{number} {kind}" for kind, number in kinds)
    advice = "give their pattern in [[source]] if these are frames in FITS"
    return f'no file in {place} matches pattern = "{pattern}"; there are {there}: {advice}'


def reduction_call(exposure: Exposure, unit: Unit, survey: Survey, **options: Any) -> dict[str, Any]:
    """Return the arguments of `tasks.reduce.reduce_exposure` for an exposure: plain values, which cross processes."""
    plain = {"url": exposure.url, "night": exposure.night, "label": exposure.label}
    return {**plain, **survey.task_options(unit), **options}


def pending(
    exposures: Sequence[Exposure], units: dict[str, Unit], models: dict[str, str], *, archive: Archive
) -> dict[Exposure, Work]:
    """Return the exposures that are not finished with these options, code, templates and models.

    Parameters
    ----------
    exposures : sequence of Exposure
        What was found.
    units : dict of str to Unit
        Units by name.
    models : dict of str to str
        Identity of each unit's model by unit name.
    archive : Archive
        The archive.

    Returns
    -------
    dict of Exposure to Work
        What each needs, in their order; remote ones are to be reduced, they are checked where they are fetched.
    """
    nights = {one.night for one in exposures if one.night}
    rows: dict[str, LedgerRow] = {}
    for night in nights & set(archive.nights()):
        rows |= {row["exposure_id"]: row for row in ledger.read(archive, night).to_pylist()}
    seen = {row["url"] for row in rows.values()}

    def needed(one: Exposure) -> Work:
        if one.url not in seen or not one.night:
            return Work.REDUCE
        try:
            row = rows.get(exposure_identity(one.unit, checksum(one.url)))
        except SourceError:
            return Work.REDUCE
        return work_left(row, units[one.unit], models[one.unit], archive=archive)

    with ThreadPoolExecutor(READERS) as readers:
        found = dict(zip(exposures, readers.map(needed, exposures), strict=True))
    return {one: work for one, work in found.items() if work is not Work.NOTHING}


def _look(found: Found, unit: Unit, fetch: bool) -> Exposure:
    exposure = Exposure(found.url, found.name, unit.name)
    if "://" in found.url and not fetch:
        return exposure
    try:
        with local_copy(found.url) as path:
            facts = facts_of(path, unit, found.url)
    except (FrameError, SourceError) as error:
        _logger.debug("%s", error)
        return exposure
    return replace(exposure, night=facts.night, field=facts.field, band=facts.band)


def _with_neighbours_night(exposures: Iterable[Exposure]) -> list[Exposure]:
    folders: dict[str, list[Exposure]] = {}
    for one in exposures:
        folders.setdefault(one.url.rpartition("/")[0], []).append(one)
    labelled: list[Exposure] = []
    for members in folders.values():
        known = [i for i, one in enumerate(members) if one.night]
        for i, one in enumerate(members):
            nearest = min(known, key=lambda k: abs(k - i), default=None)
            local = "://" not in one.url
            labelled.append(replace(one, night=members[nearest].night) if nearest is not None and local else one)
    return labelled
