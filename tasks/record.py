"""The ledger row and the products of one exposure: opened, claimed, filled by stages, published, withdrawn.

The row grows by stages, so that a refusal keeps what was known. Products are written first, the ledger row last: that
row is the commit point. One exposure is reduced once, however many processes try: by its row, and by a claim.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from nightsift import __version__
from nightsift.archive.candidates import write_candidates
from nightsift.archive.claims import UnderWayElsewhere, claimed
from nightsift.archive.ledger import FINAL
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.core import provenance
from nightsift.core.errors import FrameError, NightsiftError, NoTemplate
from nightsift.core.frames import Stamps
from nightsift.core.rows import LedgerRow
from nightsift.core.tables import CANDIDATES, LEDGER
from nightsift.io.parquet import read_table, write_stamps
from nightsift.io.sources import exposure_identity
from nightsift.unit.units import Unit

NOT_IN_PIXELS: dict[str, Any] = {
    **dict.fromkeys(("description", "file", "extends", "model"), True),
    "site": {"latitude", "height"},
    "template": {"max_frames", "max_seeing", "catalogue"},
}
"""Parts of a unit file that change nothing that is found in an exposure. The model scores what was found; its threshold
drops nothing: what it accepts is counted when a night is finished (`tasks.finish`). The longitude gives the night of an
exposure; the rest of the site is for sky alerts and minor planets. How a template is made shows in its identity, which
is an input of its own."""

PATIENCE = 240.0
"""Seconds to wait for another process: it ends, or its claim has become stale long before."""

LOOK_SECONDS = 0.5


def opening_row(unit: str, night: str | None, url: str) -> LedgerRow:
    """Return the row of an exposure of which nothing is known but its place.

    Parameters
    ----------
    unit : str
        Telescope unit.
    night : str or None
        Night label; `nightsift.archive.paths.WITHOUT_NIGHT` where it is unknown.
    url : str
        Where the exposure lies.

    Returns
    -------
    dict
        The columns that every ledger row must have. The identity is made from the place until the content is known.
    """
    return {
        "exposure_id": exposure_identity(unit, hashlib.sha256(url.encode()).hexdigest()),
        "unit": unit,
        "night": night or WITHOUT_NIGHT,
        "state": "failed",
        "reason": "",
        "message": "",
        "facts": "{}",
        "url": url,
        "checksum": "",
        "version": __version__,
    }


class Work(StrEnum):
    """What an exposure needs: all is as it is now, only its scores are of another model, or it must be reduced."""

    NOTHING = "nothing"
    RESCORE = "rescore"
    REDUCE = "reduce"


def key_of(checksum: str, template_id: str, unit: Unit, *, code: str = "") -> str:
    """Return the provenance of what is found in an exposure: same key, same candidates and stamps.

    Parameters
    ----------
    checksum : str
        SHA-256 of the file.
    template_id : str
        Identity of the template, empty when the exposure did not get that far.
    unit : Unit
        The unit, with every option that changes results.
    code : str, optional
        Version of the code (`nightsift.core.provenance.code_of`); that of the reduction if not given.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    options = unit.model_dump(mode="json", exclude=NOT_IN_PIXELS)
    return provenance.key({"checksum": checksum, "template": template_id}, options, code)


def scoring_of(unit: Unit, model_id: str) -> str:
    """Return the provenance (SHA-256) of scores: same key, same scores of the same stamps."""
    return provenance.key({"model": model_id}, {"samples": unit.model.samples}, provenance.scoring_code())


def recipe_of(unit: Unit, model_id: str) -> str:
    """Return the hash of all that makes results of a unit but frames and templates: code, options and model."""
    return provenance.key({"pixels": key_of("", "", unit), "scores": scoring_of(unit, model_id)}, {})


def verdict_on(error: Exception) -> LedgerRow:
    """Return state, reason, message and facts of an exposure that ended with an error.

    "refused" is the frame's fault, "waiting" asks for a template, all else is the machine's fault and "failed".
    """
    state = "waiting" if isinstance(error, NoTemplate) else "refused" if isinstance(error, FrameError) else "failed"
    facts = error.facts if isinstance(error, NightsiftError) else {}
    reason = type(error).__name__
    return {"state": state, "reason": reason, "message": str(error) or reason, "facts": json.dumps(facts, default=str)}


def closing_columns(
    row: LedgerRow, seconds: dict[str, float], total: float, *, provenance_key: str, scoring: str | None = None
) -> LedgerRow:
    """Return a row completed by the columns that are known when its reduction has ended.

    Parameters
    ----------
    row : dict
        The row so far.
    seconds : dict of str to float
        Seconds by stage.
    total : float
        Seconds in all.
    provenance_key : str
        From `key_of`; empty where the content is unknown.
    scoring : str, optional
        From `scoring_of`, where candidates were scored.

    Returns
    -------
    dict
        The complete row.
    """
    stages = json.dumps({stage: round(value, 3) for stage, value in seconds.items()})
    return {
        **row,
        "seconds": total,
        "stage_seconds": stages,
        "provenance": provenance_key,
        "scoring": scoring,
        "recorded_at": dt.datetime.now(dt.UTC),
    }


def recorded(archive: Archive, row: LedgerRow) -> LedgerRow | None:
    """Return the row that the ledger holds already for the exposure of a row, None without one."""
    path = archive.ledger(row["night"], row["unit"], row["exposure_id"])
    rows = read_table(path, LEDGER).to_pylist() if path.is_file() else []
    return rows[0] if rows else None


def work_left(row: LedgerRow | None, unit: Unit, model_id: str, *, archive: Archive) -> Work:
    """Return what an exposure needs.

    Parameters
    ----------
    row : dict or None
        Its ledger row, where it has one.
    unit : Unit
        The unit as it is now.
    model_id : str
        Identity of the model as it is now.
    archive : Archive
        The archive, with the templates as they are now.

    Returns
    -------
    Work
        Nothing for the states done and refused while options, code, model and template are the same; for those done
        by another model, calibration or code of scoring: to score their stored stamps again. Rows of earlier
        versions, without a provenance of their scores, are reduced again.
    """
    if row is None or row["state"] not in FINAL:
        return Work.REDUCE
    used = row["template_id"] or ""
    if row["provenance"] != key_of(row["checksum"], used, unit):
        return Work.REDUCE
    newest = _newest_template(archive, row) if used else None
    if (
        newest is not None
        and newest != archive.template(row["unit"], row["field"] or "", row["band"] or "", template_id=used).name
    ):
        return Work.REDUCE
    is_scored = row["state"] == "refused" or row["scoring"] == scoring_of(unit, model_id)
    return Work.NOTHING if is_scored else Work.RESCORE


def _newest_template(archive: Archive, row: LedgerRow) -> str | None:
    folder = archive.templates(row["unit"], row["field"] or "", row["band"] or "")
    files = [one for one in folder.glob("*.fits") if not one.name.startswith(".")]
    return max(files, key=lambda one: (one.stat().st_mtime_ns, one.name)).name if files else None


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


def known_row(job: Job, row: LedgerRow, stack: ExitStack) -> LedgerRow | None:
    """Claim an exposure, unless it is finished or another process is at it.

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
                columns: LedgerRow = {"state": "elsewhere", "reason": error.reason, "message": str(error)}
                return {**row, **columns, "seconds": 0.0, "stage_seconds": "{}"}
            time.sleep(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0.0)))
            continue
        # between the look at the ledger and the claim another may have finished it
        found = _finished(job, row, began)
        if found is not None:
            stack.close()
        return found


def _finished(job: Job, row: LedgerRow, began: LedgerRow | None) -> LedgerRow | None:
    """The row of the ledger where it is final and current; one to be redone counts if it is newer than at the start."""
    found = recorded(job.archive, row)
    if found is None or work_left(found, job.unit, job.model, archive=job.archive) is not Work.NOTHING:
        return None
    if job.redo and began is not None and found["recorded_at"] == began["recorded_at"]:
        return None
    return found


def publish(archive: Archive, row: LedgerRow, candidates: pa.Table, *, stamps: Stamps | None) -> None:
    """Write stamps and candidates of one exposure; a table without rows is written too, typed and empty."""
    where = (row["night"], row["unit"], row["exposure_id"])
    if stamps is not None:
        write_stamps(archive.stamps(*where), candidates["candidate_id"].to_pylist(), stamps)
    write_candidates(archive, *where, candidates)


def withdraw(archive: Archive, row: LedgerRow) -> None:
    """Empty the candidates of an exposure that failed now but had some from an earlier run or a half-written one."""
    where = (row["night"], row["unit"], row["exposure_id"])
    if archive.candidates(*where).exists():
        write_candidates(archive, *where, CANDIDATES.empty_table())
    archive.stamps(*where).unlink(missing_ok=True)
