"""Campaigns of backfill: exposures dealt into chunks, and the plan of a campaign on disk.

``ARCHIVE/campaigns/ID/`` holds ``plan/*.parquet`` (one row per exposure), ``campaign.json`` (written last: without it
there is no campaign) and ``chunks/*.parquet`` (one file of one row per chunk that was begun). Every file is put in
place whole, so that a campaign can be killed at any moment and read at any moment. A chunk is of one unit and one
night.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.core import tables
from nightsift.core.errors import BadTable, NightsiftError
from nightsift.core.tables import Column, schema
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_tables

Order = Literal["oldest", "newest", "unit"]
ORDERS: tuple[Order, ...] = ("oldest", "newest", "unit")
_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()
_T = pa.timestamp("us", "UTC")
_P, _B = "nightsift.backfill.campaigns", "tasks.batch"
PLAN_COLUMNS = (
    Column("chunk", _I, "", "chunk that the exposure belongs to", _P),
    Column("unit", _S, "", "telescope unit", _P),
    Column("night", _S, "", "local date of the evening; unknown where the header cannot be read", _P),
    Column("url", _S, "", "where the exposure lies", _P),
    Column("label", _S, "", "how it is called in logs", _P),
)

PLAN = schema(PLAN_COLUMNS, "plan")
CHUNK_COLUMNS = (
    Column("campaign", _S, "", "identity of the campaign", _B),
    Column("chunk", _I, "", "number of the chunk, in the order in which they are begun", _B),
    Column("kind", _S, "", "reduce, or finish: what can be known only when all of a night is there", _B),
    Column("unit", _S, "", "telescope unit; empty for a whole night", _B),
    Column("night", _S, "", "local date of the evening", _B),
    Column("state", _S, "", "planned, running, done or failed (an exposure failed, or the chunk itself)", _B),
    Column("exposures", _I, "", "exposures planned", _B),
    Column("done", _I, "", "of these reduced, now or before", _B),
    Column("refused", _I, "", "refused: the frame is no good", _B),
    Column("failed", _I, "", "failed: the machine is to blame", _B),
    Column("waiting", _I, "", "without a template", _B),
    Column("skipped", _I, "", "of all these, finished before this attempt", _B),
    Column("candidates", _I, "", "candidates written, flagged ones included", _B),
    Column("seconds", _D, "s", "wall time of the last attempt, pauses left out", _B),
    Column("attempt", _I, "", "how often it was begun", _B),
    Column("message", _S, "", "what went wrong first", _B),
    Column("host", _S, "", "machine and process of the last attempt", _B),
    Column("started_at", _T, "", "when the last attempt began", _B, True),
    Column("ended_at", _T, "", "when it ended", _B, True),
)

CHUNKS = schema(CHUNK_COLUMNS, "chunks")
ROWS_A_GROUP = 5000
"""A chunk is read from one or two groups of rows, however long the plan is."""


class NoCampaign(NightsiftError):
    """There is no campaign of that name."""

    problem = "there is no campaign {campaign} in {archive}"
    hint = "known here: {known}"


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """An exposure of a plan.

    Attributes
    ----------
    night, unit : str
        Night label and telescope unit.
    url : str
        Where it lies.
    label : str
        How it is called in logs.
    """

    night: str
    unit: str
    url: str
    label: str = ""


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


def deal(exposures: Iterable[Planned], batch: int, order: Order = "oldest") -> list[tuple[Planned, ...]]:
    """Deal exposures into chunks.

    Parameters
    ----------
    exposures : iterable of Planned
        The exposures, in any order; one that is given twice counts once.
    batch : int
        Most exposures in a chunk.
    order : str, optional
        What comes first: ``"oldest"`` or ``"newest"`` nights, or all nights of one ``"unit"``.

    Returns
    -------
    list of tuple of Planned
        Chunks in the order in which they are to be begun; the same for every order of the exposures. Those of one
        night and unit are about as long as each other.

    Raises
    ------
    ValueError
        If a chunk may hold less than one exposure.
    """
    if batch < 1:
        raise ValueError(f"a chunk holds one exposure or more, got {batch}")
    unique = sorted({(one.unit, one.url): one for one in sorted(exposures)}.values())
    groups: dict[tuple[str, str], list[Planned]] = {}
    for one in unique:
        groups.setdefault((one.night, one.unit), []).append(one)
    return [chunk for key in _ordered(list(groups), order) for chunk in _pieces(groups[key], batch)]


def _ordered(keys: Sequence[tuple[str, str]], order: Order) -> list[tuple[str, str]]:
    by: dict[str, Callable[[tuple[str, str]], tuple[str, str]]] = {
        "oldest": lambda key: key,
        "newest": lambda key: key,
        "unit": lambda key: (key[1], key[0]),
    }
    units_in_order = sorted(keys, key=by[order])
    # stable passes turn the nights round and leave the units of a night as they are; no exposure without a night is new
    if order == "newest":
        units_in_order = sorted(units_in_order, key=lambda key: key[0], reverse=True)
        return sorted(units_in_order, key=lambda key: key[0] == WITHOUT_NIGHT)
    return units_in_order


def _pieces(group: Sequence[Planned], batch: int) -> list[tuple[Planned, ...]]:
    """Cut a group into as few pieces as possible, about equally long: no last piece of one exposure."""
    number = -(-len(group) // batch)
    edges = [len(group) * i // number for i in range(number + 1)]
    return [tuple(group[a:b]) for a, b in pairwise(edges)]


def identity(first: str, last: str, **facts: Any) -> str:
    """Return the identity of a campaign: nights and a hash of all facts, as ``"2023-01-01_2024-12-31_3f9a0c12"``."""
    text = json.dumps({"first": first, "last": last, **facts}, sort_keys=True, separators=(",", ":"))
    return f"{first or 'begin'}_{last or 'end'}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write(archive: Archive, campaign: Campaign, chunks: Sequence[Sequence[Planned]]) -> None:
    """Write the plan of a new campaign, exposures by chunk, and then the campaign itself."""
    folder = archive.campaign(campaign.name)
    _write_plan(folder / "plan" / "000.parquet", chunks, 0)
    text = json.dumps(asdict(campaign), indent=1)
    with atomic(folder / "campaign.json") as temporary:
        temporary.write_text(text, encoding="utf-8")


def extend(archive: Archive, campaign: Campaign, chunks: Sequence[Sequence[Planned]]) -> None:
    """Append chunks of exposures that are not in it yet to the plan of a campaign."""
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
    """Return the sorted identities of the campaigns of an archive; plans still being written are left out."""
    return sorted(path.parent.name for path in archive.campaign("any").parent.glob("*/campaign.json"))


def read_plan(archive: Archive, name: str, chunk: int | None = None) -> pa.Table:
    """Return the plan of a campaign, or of one chunk, schema `PLAN`, in the order of the chunks."""
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
