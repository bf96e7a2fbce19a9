"""The end of a night: detector pixels that fire again and again are flagged, and its report is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.claims import UnderWayElsewhere, claimed
from nightsift.archive.paths import Archive
from nightsift.core.errors import BadTable
from nightsift.core.frames import Stamps
from nightsift.core.rows import CandidateRow, LedgerRow
from nightsift.core.tables import CANDIDATES
from nightsift.images.photometry.candidate_flags import flag_repeated_pixels
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_stamps, read_tables
from nightsift.report.night import Choice, choose_candidates, render_night
from nightsift.unit.units import Unit
from tasks.measure import of_candidates
from tasks.record import recorded
from tasks.retry import run_logger

MOST = 200
"""Candidates shown in a report."""


@task(name="finish", task_run_name="finish {night}", persist_result=False, cache_policy=NO_CACHE)
def finish_night(archive: Archive, night: str, units: Mapping[str, Unit]) -> dict[str, int]:
    """Flag repeated detector pixels over a night of each unit; return the number of exposures rewritten by unit."""
    return {name: _flag_unit(archive, night, unit) for name, unit in units.items()}


def committed(archive: Archive, rows: Sequence[LedgerRow]) -> pa.Table:
    """Return the candidates of the exposures that are done; what was never committed does not count.

    Parameters
    ----------
    archive : Archive
        The archive.
    rows : list of dict
        Ledger rows.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    """
    places = [(row["night"], row["unit"], row["exposure_id"]) for row in rows if row["state"] == "done"]
    return read_tables([archive.candidates(*place) for place in places], CANDIDATES)


def _flag_unit(archive: Archive, night: str, unit: Unit) -> int:
    """Flag repeated detector pixels over a night of one unit; return how many exposures were rewritten."""
    rows = ledger.read(archive, night, unit.name).to_pylist()
    before = committed(archive, rows)
    after = flag_repeated_pixels(before)
    touched = after.filter(pc.not_equal(before["flags"], after["flags"]))["exposure_id"]
    changed = set(touched.to_pylist())
    for row in rows:
        if row["exposure_id"] in changed or (row["state"] == "done" and _is_behind(row, after, unit)):
            of_exposure = after.filter(pc.equal(after["exposure_id"], row["exposure_id"]))
            of_exposure = of_exposure.replace_schema_metadata(CANDIDATES.metadata).cast(CANDIDATES)
            _rewrite(archive, row, of_exposure, unit=unit)
    return len(changed)


def _rewrite(archive: Archive, row: LedgerRow, candidates: pa.Table, *, unit: Unit) -> None:
    """Write candidates and row, unless another process is at the exposure or was since they were read.

    What that one has made is not replaced by what was read before; the next run that finishes the night takes it up.
    """
    try:
        with claimed(archive, row["exposure_id"]):
            now = recorded(archive, row)
            if now is not None and now["recorded_at"] == row["recorded_at"]:
                write_candidates(archive, row["night"], unit.name, row["exposure_id"], candidates)
                ledger.record(archive, {**row, **of_candidates(candidates, unit.model.threshold)})
    except UnderWayElsewhere as error:
        run_logger().info("%s is finished another time: %s", row["exposure_id"], error)


def _is_behind(row: LedgerRow, candidates: pa.Table, unit: Unit) -> bool:
    """Whether a ledger row counts other candidates than there are: a run was killed between both."""
    of_exposure = candidates.filter(pc.equal(candidates["exposure_id"], row["exposure_id"]))
    return any(row.get(name) != value for name, value in of_candidates(of_exposure, unit.model.threshold).items())


@task(name="report", task_run_name="report {night}", persist_result=False, cache_policy=NO_CACHE)
def write_report(archive: Archive, night: str, thresholds: Mapping[str, float], problems: tuple[str, ...] = ()) -> Path:
    """Write the report of a night from what the archive holds.

    Parameters
    ----------
    archive : Archive
        The archive.
    night : str
        Night label.
    thresholds : mapping of str to float
        Score from which a candidate counts as accepted, by unit name.
    problems : tuple of str, optional
        What went wrong outside of any exposure.

    Returns
    -------
    Path
        The file.
    """
    rows = ledger.read(archive, night)
    candidates = committed(archive, rows.to_pylist())
    choice = choose_candidates(candidates, thresholds, MOST)
    stamps = _stamps_of(archive, choice, night)
    path = archive.report(night)
    with atomic(path) as temporary:
        temporary.write_text(
            render_night(
                night, rows, candidates, choice=choice, stamps=stamps, thresholds=thresholds, problems=problems
            ),
            encoding="utf-8",
        )
    return path


def _stamps_of(archive: Archive, choice: Choice, night: str) -> dict[str, Stamps]:
    """Return one stamp per chosen candidate, by its identity, read file by file; unreadable ones are left out."""
    files: dict[tuple[str, str], list[CandidateRow]] = {}
    for row in pa.concat_tables([choice.best, choice.flagged]).to_pylist():
        files.setdefault((row["unit"], row["exposure_id"]), []).append(row)
    stamps: dict[str, Stamps] = {}
    for (unit, exposure_id), rows in files.items():
        try:
            ids, found = read_stamps(archive.stamps(night, unit, exposure_id), [row["stamp_index"] for row in rows])
        except BadTable:
            continue
        stamps |= {one: Stamps(found.data[i : i + 1], found.mask[i : i + 1]) for i, one in enumerate(ids)}
    return stamps
