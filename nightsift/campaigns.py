"""A campaign of backfill on disk: its plan, and the row of each of its chunks, which is the truth about it.

``ARCHIVE/campaigns/ID/`` holds ``plan/*.parquet`` (one row an exposure), ``campaign.json`` (written last: without it
there is no campaign) and ``chunks/*.parquet`` (one file of one row a chunk that was begun). Every file is put in place
whole, so that a campaign can be killed at any moment and read at any moment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nightsift import tables
from nightsift.campaign_tables import PLAN
from nightsift.chunks import Order, Planned
from nightsift.errors import BadTable, NightsiftError
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_tables
from nightsift.io.paths import Archive

ROWS_A_GROUP = 5000
"""A chunk is read from one or two groups of rows, however long the plan is."""


class NoCampaign(NightsiftError):
    """There is no campaign of that name."""

    problem = "there is no campaign {campaign} in {archive}"
    hint = "known here: {known}"


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign is to do; it does not change once it is written.

    Attributes
    ----------
    name : str
        Its identity: the same request to the same code gives the same.
    survey : str
        Name of the survey.
    archive : str
        Folder that is written to: the archive, or one of its versions.
    version : str
        Version of the catalogue that is made; empty where the served one is filled up.
    first, last : str
        First and last night (``YYYY-MM-DD``), empty where there is no limit.
    units : dict of str to str
        File of each unit by its name.
    folders : tuple of str
        Folders searched for unit files.
    recipes : dict of str to str
        Hash of code, options and model of each unit: one campaign is made by one recipe.
    batch : int
        Most exposures in a chunk.
    order : str
        What comes first.
    created : str
        When it was planned, UTC.
    """

    name: str
    survey: str
    archive: str
    version: str
    first: str
    last: str
    units: dict[str, str]
    folders: tuple[str, ...]
    recipes: dict[str, str]
    batch: int
    order: Order
    created: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


def identity(first: str, last: str, **facts: Any) -> str:
    """Identity of a campaign, which tells its nights and depends on nothing but what is asked for.

    Parameters
    ----------
    first, last : str
        First and last night, empty where there is no limit.
    **facts
        All else that makes it another campaign.

    Returns
    -------
    str
        Such as ``"2023-01-01_2024-12-31_3f9a0c12"``.
    """
    text = json.dumps({"first": first, "last": last, **facts}, sort_keys=True, separators=(",", ":"))
    return f"{first or 'begin'}_{last or 'end'}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write(archive: Archive, campaign: Campaign, chunks: Sequence[Sequence[Planned]]) -> None:
    """Write the plan of a new campaign, and then the campaign itself.

    Parameters
    ----------
    archive : Archive
        The archive.
    campaign : Campaign
        What is to be done.
    chunks : sequence of sequence of Planned
        Exposures of each chunk.
    """
    folder = archive.campaign(campaign.name)
    _write_plan(folder / "plan" / "000.parquet", chunks, 0)
    text = json.dumps(asdict(campaign), indent=1)
    with atomic(folder / "campaign.json") as temporary:
        temporary.write_text(text, encoding="utf-8")


def extend(archive: Archive, campaign: Campaign, chunks: Sequence[Sequence[Planned]]) -> None:
    """Append chunks to the plan of a campaign.

    Parameters
    ----------
    archive : Archive
        The archive.
    campaign : Campaign
        The campaign.
    chunks : sequence of sequence of Planned
        Exposures that are not in its plan yet.
    """
    parts = _plan_files(archive, campaign.name)
    plan = read_plan(archive, campaign.name)
    start = (pc.max(plan["chunk"]).as_py() + 1) if plan.num_rows else 0
    _write_plan(archive.campaign(campaign.name) / "plan" / f"{len(parts):03d}.parquet", chunks, start)


def read(archive: Archive, name: str) -> Campaign:
    """Read a campaign.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        Its identity.

    Returns
    -------
    Campaign
        The campaign.

    Raises
    ------
    NoCampaign
        If there is none of that name.
    BadTable
        If its file is damaged.
    """
    path = archive.campaign(name) / "campaign.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Campaign(**{**content, "folders": tuple(content["folders"])})
    except FileNotFoundError:
        known = ", ".join(names(archive)) or "none"
        raise NoCampaign(campaign=name, archive=str(archive.home), known=known) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadTable(path=str(path), what=str(error)) from error


def names(archive: Archive) -> list[str]:
    """Identities of the campaigns of an archive.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of str
        Sorted; plans that were not finished being written are left out.
    """
    return sorted(path.parent.name for path in archive.campaign("any").parent.glob("*/campaign.json"))


def read_plan(archive: Archive, name: str, chunk: int | None = None) -> pa.Table:
    """Read the plan of a campaign.

    Parameters
    ----------
    archive : Archive
        The archive.
    name : str
        Identity of the campaign.
    chunk : int, optional
        Only this chunk.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.campaign_tables.PLAN`, in the order of the chunks.
    """
    files = _plan_files(archive, name)
    if chunk is None:
        return read_tables(files, PLAN)
    parts = [pq.read_table(file, filters=[("chunk", "=", chunk)]).cast(PLAN) for file in files]
    return pa.concat_tables([PLAN.empty_table(), *parts])


def _plan_files(archive: Archive, name: str) -> list[Path]:
    return sorted((archive.campaign(name) / "plan").glob("[!.]*.parquet"))


def _write_plan(path: Path, chunks: Iterable[Sequence[Planned]], start: int) -> None:
    rows = [{"chunk": start + i, **asdict(one)} for i, chunk in enumerate(chunks) for one in chunk]
    table = tables.table(rows, PLAN) if rows else PLAN.empty_table()
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_A_GROUP)
