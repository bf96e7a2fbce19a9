"""Rows of exposures whose task could not write one itself: its process died or was killed, or the disk is full."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from flows.workers import Ended
from nightsift import ledger
from nightsift.claims import UnderWayElsewhere, claimed, claims_of
from nightsift.errors import NightsiftError, ProcessDied, TimedOut
from nightsift.io.paths import Archive, checksum, exposure_identity
from nightsift.units import Unit
from tasks.logs import run_logger
from tasks.record import closing_columns, opening_row, verdict_on


def record_lost(archive: Archive, ended: Ended, units: Mapping[str, Unit], problems: list[str]) -> dict[str, Any]:
    """Write the row of a lost exposure; where even that fails, the run says so and the next run tries it again.

    Parameters
    ----------
    archive : Archive
        The archive.
    ended : Ended
        A call of `tasks.reduce.reduce_exposure` that ended with an error.
    units : mapping of str to Unit
        Units by name.
    problems : list of str
        What went wrong outside of any exposure; added to.

    Returns
    -------
    dict
        The row.
    """
    row = _row(archive, ended, units)
    with ExitStack() as stack:
        try:
            # the claim of the process that is no more is taken over, so that nobody begins between its end and its row
            stack.enter_context(claimed(archive, row["exposure_id"]))
            ledger.record(archive, row)
        except UnderWayElsewhere as error:
            run_logger().warning("%s: %s", row["url"], error)
        except (NightsiftError, OSError) as error:
            run_logger().error("%s: %s", row["url"], error)
            problems.append(f"{row['url']} failed and could not be recorded: {error}")
    return row


def _row(archive: Archive, ended: Ended, units: Mapping[str, Unit]) -> dict[str, Any]:
    assert isinstance(ended.error, Exception)
    unit = next(one.name for one in units.values() if ended.call["unit"] in (one.name, one.file))
    row = opening_row(unit, ended.call["night"], ended.call["url"])
    # What hung its reader or killed it is not read again here: its claim tells which exposure it is.
    left = [one.exposure_id for one in claims_of(archive, ended.pid) if one.kind == "exposure"] if ended.pid else []
    if left:
        row["exposure_id"] = left[0]
    elif not isinstance(ended.error, TimedOut | ProcessDied):
        try:
            row["checksum"] = checksum(row["url"])
            row["exposure_id"] = exposure_identity(unit, row["checksum"])
        except NightsiftError as error:
            run_logger().debug("%s", error)
    return closing_columns({**row, **verdict_on(ended.error)}, {}, 0.0, "")
