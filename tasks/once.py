"""One exposure is reduced once, however many processes are told to: by its ledger row, and by a claim."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from nightsift.claims import UnderWayElsewhere, claimed
from nightsift.io.paths import Archive
from nightsift.units import Unit
from tasks.record import Work, recorded, work_left

PATIENCE = 240.0
"""Seconds to wait for another process: it ends, or its claim has become stale long before."""

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What an exposure is to be reduced with.

    Attributes
    ----------
    unit : Unit
        The telescope unit.
    model : str
        Identity of its model.
    archive : Archive
        Where to.
    redo : bool
        Whether to reduce it even if it is finished.
    wait : float
        Seconds to wait for another process that is at it.
    """

    unit: Unit
    model: str
    archive: Archive
    redo: bool = False
    wait: float = PATIENCE


def known_row(job: Job, row: dict[str, Any], stack: ExitStack) -> dict[str, Any] | None:
    """Claim an exposure, unless its fate is known already.

    Parameters
    ----------
    job : Job
        What it is to be reduced with.
    row : dict
        Its ledger row so far, with night, unit, exposure_id and checksum.
    stack : ExitStack
        Holds the claim, to be released when the new row is committed.

    Returns
    -------
    dict or None
        The row that says that nothing is left to do; one of the state ``"elsewhere"`` where another process has
        been at it for all the time that was waited; None when this process has the claim and shall do it.
    """
    began, deadline = recorded(job.archive, row), time.monotonic() + job.wait
    while True:
        if (found := _finished(job, row, began)) is not None:
            return found
        try:
            stack.enter_context(claimed(job.archive, row["exposure_id"]))
        except UnderWayElsewhere as error:
            if time.monotonic() >= deadline:
                told = {"state": "elsewhere", "reason": error.reason, "message": str(error)}
                return {**row, **told, "seconds": 0.0, "stage_seconds": "{}"}
            time.sleep(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0.0)))
            continue
        # between the look at the ledger and the claim another may have finished it
        found = _finished(job, row, began)
        if found is not None:
            stack.close()
        return found


def _finished(job: Job, row: dict[str, Any], began: dict[str, Any] | None) -> dict[str, Any] | None:
    """The row of the ledger where it is final and current; one to be redone counts if it is newer than at the start."""
    found = recorded(job.archive, row)
    if found is None or work_left(found, job.unit, job.model, job.archive) is not Work.NOTHING:
        return None
    if job.redo and began is not None and found["recorded_at"] == began["recorded_at"]:
        return None
    return found
