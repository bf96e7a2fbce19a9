"""One chunk of a campaign: a batch of exposures one after the other, as one tracked task, ending as one row."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.archive import ledger
from nightsift.archive.claims import UnderWayElsewhere, claimed
from nightsift.archive.night_status import DuringNight, nights_going_on
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.backfill import campaigns, chunk_ledger
from nightsift.backfill.campaigns import Campaign
from nightsift.core.errors import ConfigurationError, NightsiftError, ProcessDied
from nightsift.core.rows import ReducedRow
from nightsift.io.atomic import TEMPORARY
from nightsift.io.sources import checksum, exposure_identity
from nightsift.unit.units import Unit, load_unit
from tasks.classify import model_of
from tasks.record import closing_columns, opening_row, recipe_of, verdict_on
from tasks.reduce import reduce_file
from tasks.retry import run_logger

DEATHS = 2
"""An exposure whose process died so often is given up."""

LOOK_SECONDS = 20.0
"""How often a paused batch looks whether the night is over."""


@task(name="batch", task_run_name="{label}", persist_result=False, cache_policy=NO_CACHE)
def reduce_batch(
    archive: str,
    campaign: str,
    chunk: int,
    label: str = "",
    attempt: int = 0,
    during_night: DuringNight = "pause",
    workers: int = 1,
) -> dict[str, Any]:
    """Reduce the exposures of one chunk; those that are finished already are skipped.

    Parameters
    ----------
    archive : str
        Folder of the archive.
    campaign : str
        Identity of the campaign.
    chunk : int
        Number of the chunk.
    label : str, optional
        Name of the task run.
    attempt : int, optional
        How often the chunk had been begun when this was asked for: one that was ended since is left as it is.
    during_night : str, optional
        What to do while a night is going on: ``"pause"`` between two exposures, ``"narrow"`` down to one worker's
        share, or ``"go-on"``.
    workers : int, optional
        How many chunks are under way at the same time, for ``"narrow"``.

    Returns
    -------
    dict
        The row of the chunk, as it stands in the ledger of the campaign; of the state ``"elsewhere"`` where another
        process is at it.

    Raises
    ------
    ConfigurationError
        If code, options or model are not those that the campaign was planned with; the chunk stays as it was.
    DiskFull, OSError
        If not even the row can be written.
    """
    home = Archive(Path(archive))
    plan = campaigns.read(home, campaign)
    exposures = campaigns.read_plan(home, campaign, chunk).to_pylist()
    unit = _unit_of(plan, exposures[0]["unit"])
    first = chunk_ledger.opening(campaign, chunk, unit.name, night=exposures[0]["night"], exposures=len(exposures))
    try:
        with claimed(home, claim_name(campaign, chunk), "campaign chunk"):
            row = chunk_ledger.read_one(home, first)
            if row["attempt"] > attempt and row["ended_at"] is not None:
                return row
            row = chunk_ledger.begun(row)
            chunk_ledger.record(home, row)
            for one in exposures:
                began = time.monotonic()
                _count(row, _reduce_planned(home, plan, chunk, unit=unit, one=one))
                row["seconds"] += (took := time.monotonic() - began)
                make_room(home, during_night, (workers - 1) * took)
            row |= {"state": "failed" if row["failed"] else "done", "ended_at": datetime.now(UTC)}
            chunk_ledger.record(home, row)
            _under_way(home, campaign, chunk).unlink(missing_ok=True)
            return row
    except UnderWayElsewhere as error:
        return {**chunk_ledger.read_one(home, first), "state": "elsewhere", "message": str(error)}


def claim_name(campaign: str, chunk: int) -> str:
    """Return the name of the claim of whoever reduces a chunk."""
    return f"{campaign} #{chunk}"


def _reduce_planned(home: Archive, plan: Campaign, chunk: int, *, unit: Unit, one: Mapping[str, Any]) -> ReducedRow:
    """Reduce one exposure of a plan, unless its process has died of it again and again; return its row."""
    archive, night = Archive(Path(plan.archive)), None if one["night"] == WITHOUT_NIGHT else one["night"]
    marker = _under_way(home, plan.name, chunk)
    known = _read(marker)
    deaths = known.get("deaths", {})
    if deaths.get(one["url"], 0) >= DEATHS:
        return _given_up(archive, unit, night, url=one["url"], error=ProcessDied(deaths=deaths[one["url"]]))
    _write(marker, {"url": one["url"], "deaths": deaths})
    try:
        reduction = reduce_file(one["url"], unit, archive, night=night, label=one["label"], logger=run_logger())
    except (NightsiftError, OSError) as error:  # not even its ledger row could be written
        return _given_up(archive, unit, night, url=one["url"], error=error)
    return {**reduction.row, "skipped": reduction.skipped, "rescored": reduction.rescored}


def note_death(home: Archive, campaign: str, chunk: int, *, times: int = 1) -> str:
    """Record that the process of a chunk died, and which exposure it was at.

    Called by a process that has outlived it, so that an exposure is not blamed when everything was killed.

    Parameters
    ----------
    home : Archive
        The archive of the campaign.
    campaign : str
        Identity of the campaign.
    chunk : int
        Number of the chunk.
    times : int, optional
        How often it died there.

    Returns
    -------
    str
        Where the exposure lies; empty when it had not begun any.
    """
    marker = _under_way(home, campaign, chunk)
    known = _read(marker)
    url = str(known.get("url", ""))
    if url:
        deaths = known.get("deaths", {})
        _write(marker, {"url": url, "deaths": {**deaths, url: deaths.get(url, 0) + times}})
    return url


def _unit_of(plan: Campaign, name: str) -> Unit:
    unit = load_unit(plan.units[name], plan.folders)
    if recipe_of(unit, model_of(unit)) != plan.recipes[name]:
        raise ConfigurationError(
            file=unit.file, table="campaign", key=plan.name,
            what=f"code, options or model of {name} are not those that the campaign was planned with",
            advice="start nightsift backfill again: it plans anew (and restart the workers after an update)",
        )  # fmt: skip
    return unit


def _count(row: dict[str, Any], ended: ReducedRow) -> None:
    state = ended["state"] if ended["state"] in chunk_ledger.COUNTS else "failed"
    row[state] += 1
    row["skipped"] += bool(ended.get("skipped"))
    row["candidates"] += ended.get("n_candidates") or 0
    if state == "failed" and not row["message"]:
        row["message"] = f"{Path(ended['url']).name}: {ended['message']}"


def _given_up(archive: Archive, unit: Unit, night: str | None, *, url: str, error: Exception) -> ReducedRow:
    """Write the row of an exposure whose reduction could not; where even that fails, the row of the chunk says so."""
    row = opening_row(unit.name, night, url)
    try:
        row["checksum"] = checksum(url)
        row["exposure_id"] = exposure_identity(unit.name, row["checksum"])
    except NightsiftError as unread:
        run_logger().debug("%s", unread)
    row = closing_columns({**row, **verdict_on(error)}, {}, 0.0, provenance_key="")
    try:
        ledger.record(archive, row)
    except (NightsiftError, OSError) as unwritten:
        run_logger().error("%s: %s", url, unwritten)
    return {**row, "skipped": False, "rescored": False}


def make_room(
    home: Archive, during_night: DuringNight, rest: float, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait while a night is going on: until it is over, or `rest` seconds at most to leave one worker's share."""
    if during_night == "go-on":
        return
    deadline = time.monotonic() + rest
    while nights_going_on(home) and (during_night == "pause" or time.monotonic() < deadline):
        sleep(LOOK_SECONDS if during_night == "pause" else min(LOOK_SECONDS, deadline - time.monotonic()))


def _under_way(home: Archive, campaign: str, chunk: int) -> Path:
    return home.campaign(campaign) / "underway" / f"{chunk:07d}.json"


def _read(marker: Path) -> dict[str, Any]:
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(marker: Path, content: Mapping[str, Any]) -> None:
    # it outlives processes, not machines: no need to wait for the disk
    marker.parent.mkdir(parents=True, exist_ok=True)
    temporary = marker.with_name(f"{TEMPORARY}{os.getpid()}-{marker.name}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, marker)
