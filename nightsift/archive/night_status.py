"""The state of a night, for operators: what waits, runs and is done by unit, the lag, and the best candidates.

The watch writes its progress every few seconds to ``archive/status/<night> <site>.json``; the ledger, not this file,
says what is done. Everything is read from files of the archive: no server is asked.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow.compute as pc

from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.claims import Claim, claims_held
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.core.parallel import Holder
from nightsift.core.rows import LedgerRow
from nightsift.io.atomic import atomic

DuringNight = Literal["pause", "narrow", "go-on"]
FRESH_SECONDS = 600.0
"""A night without news for so long is not going on: its process was killed, or the machine is off."""

ENDED = {"closed", "stopped", "done", "ended", "idle", "failed"}
SHOWN = ("candidate_id", "unit", "field", "ra", "dec", "sign", "mag", "snr", "score")


@dataclass(slots=True)
class UnitProgress:
    """One unit tonight.

    Attributes
    ----------
    arrived, settling, waiting, running : int
        Frames that have settled since the beginning; still being written; ready but not begun; under way.
    ended : dict of str to int
        Frames that ended, by state.
    last_arrival : str
        When the last one was seen, UTC; empty for none.
    silent : bool
        Whether it delivers nothing although it is dark.
    source : str
        ``"ok"``, or what is wrong with its source.
    older : int
        Files that lay there before the night and are not looked at.
    """

    arrived: int = 0
    settling: int = 0
    waiting: int = 0
    running: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    last_arrival: str = ""
    silent: bool = False
    source: str = "ok"
    older: int = 0


@dataclass(slots=True)
class Progress:
    """A night that is watched.

    Attributes
    ----------
    survey, site, night : str
        What is watched.
    state : str
        ``watching``, ``closing``, ``closed`` or ``stopped``.
    holder : dict
        Process that watches (`nightsift.core.parallel.Holder`).
    started, updated, dusk, dawn : str
        Times, UTC; empty where there is none.
    units : dict of str to UnitProgress
        Each unit.
    lag : float
        Seconds that the oldest settled frame has been waiting or under way.
    latency_median, latency_worst : float or None
        Seconds from a frame on disk to its ledger row, over the night.
    running : list of dict
        What is being reduced: label, seconds, pid.
    troubles : list of str
        Notifications that were sent tonight.
    memory : float
        Memory of the watch and its workers (MB).
    """

    survey: str
    site: str
    night: str
    state: str
    holder: dict[str, Any]
    started: str
    updated: str = ""
    dusk: str = ""
    dawn: str = ""
    units: dict[str, UnitProgress] = field(default_factory=dict)
    lag: float = 0.0
    latency_median: float | None = None
    latency_worst: float | None = None
    running: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    memory: float = 0.0

    def is_alive(self) -> bool:
        """Whether the process that wrote it is not known to have ended."""
        return not Holder(**self.holder).is_dead()


def write_progress(archive: Archive, progress: Progress) -> None:
    """Write the progress of a night to its status file, atomically."""
    with atomic(archive.status(f"{progress.night} {progress.site}".strip())) as temporary:
        temporary.write_text(json.dumps(asdict(progress), indent=1))


def read_progress(archive: Archive) -> list[Progress]:
    """Return the progress of all nights that were watched, newest last; a damaged file is left out.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of Progress
        Sorted by night and site.
    """
    found = []
    for path in sorted(archive.status("any").parent.glob("[0-9]*.json")):
        try:
            found.append(_progress(json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def _progress(content: Mapping[str, Any]) -> Progress:
    units = {name: UnitProgress(**one) for name, one in content["units"].items()}
    return Progress(**{**content, "units": units})


def nights_going_on(archive: Archive) -> list[str]:
    """Return the nights that are being observed and reduced, as their watch writes under ``ARCHIVE/status``.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of str
        Night labels, sorted; a status that cannot be read or has not changed for a while names none.
    """
    nights = set()
    for path in (archive.home / "status").rglob("[!.]*.json"):
        try:
            if time.time() - path.stat().st_mtime > FRESH_SECONDS:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("night") and content.get("state") not in ENDED:
            nights.add(str(content["night"]))
    return sorted(nights)


@dataclass(frozen=True, slots=True)
class Tonight:
    """The state of a night.

    Attributes
    ----------
    night : str
        Its name; empty where there is none yet.
    without_night : int
        Exposures in the ledger of which no time could be read: of no night, so not of this one.
    watch : str
        ``watching``, ``closing``, ``closed``, ``stopped``, ``died`` or ``nobody`` watches it.
    units : list of dict
        One row per unit.
    lag : float or None
        Seconds that the oldest settled frame waits; None where nobody watches.
    latency_median, latency_worst : float or None
        Seconds from a frame on disk to its ledger row.
    updated, dusk, dawn : str
        Times, UTC.
    running : list of str
        Exposures being reduced, by whatever process.
    other_work : list of str
        What else is under way, in words: night watches, alert listeners, chunks of campaigns.
    troubles : list of str
        Notifications that were sent.
    best : list of dict
        Best candidates without a flag.
    """

    night: str
    without_night: int
    watch: str
    units: list[dict[str, Any]]
    lag: float | None
    latency_median: float | None
    latency_worst: float | None
    updated: str
    dusk: str
    dawn: str
    running: list[str]
    other_work: list[str]
    troubles: list[str]
    best: list[dict[str, Any]]


def tonight(archive: Archive, night: str | None = None, units: Sequence[str] = (), *, best: int = 10) -> Tonight:
    """Read the state of a night.

    Parameters
    ----------
    archive : Archive
        The archive.
    night : str, optional
        The night; when None the one that is watched or was last, else the last of the ledger.
    units : sequence of str, optional
        Units of the survey: those without a frame are shown too.
    best : int, optional
        Candidates to list.

    Returns
    -------
    Tonight
        Its state.
    """
    watched = [one for one in read_progress(archive) if night is None or one.night == night]
    latest = max(watched, key=lambda one: (one.night, one.updated), default=None)
    known = archive.nights()
    name = night or (latest.night if latest is not None else known[-1] if known else "")
    of_night = [one for one in watched if one.night == name]
    rows = ledger.read(archive, name).to_pylist() if name in (*known, WITHOUT_NIGHT) else []
    progress = {unit: (one, state) for one in of_night for unit, state in one.units.items()}
    names = list(dict.fromkeys([*units, *progress, *(row["unit"] for row in rows)]))
    latencies = [one.latency_worst for one in of_night if one.latency_worst is not None]
    held = claims_held(archive)
    medians = [one.latency_median for one in of_night if one.latency_median is not None]
    return Tonight(
        night=name,
        without_night=len(archive.tables("ledger", WITHOUT_NIGHT)),
        watch=", ".join(sorted({_watch(one) for one in of_night})) or "nobody",
        units=[_unit_row(unit, [row for row in rows if row["unit"] == unit], progress.get(unit)) for unit in names],
        lag=max((one.lag for one in of_night if _watch(one) == "watching"), default=None),
        latency_median=statistics.median(medians) if medians else None,
        latency_worst=max(latencies, default=None),
        updated=max((one.updated for one in of_night), default=""),
        dusk=min((one.dusk for one in of_night if one.dusk), default=""),
        dawn=max((one.dawn for one in of_night if one.dawn), default=""),
        running=[_in_words(one) for one in held if one.kind == "exposure"],
        other_work=[_in_words(one) for one in held if one.kind != "exposure"],
        troubles=[message for one in of_night for message in one.troubles],
        best=_best(archive, name, best) if name in archive.nights("candidates") else [],
    )


def _watch(progress: Progress) -> str:
    ended = progress.state in ("closed", "stopped")
    return progress.state if ended or progress.is_alive() else "died"


def _in_words(claim: Claim) -> str:
    name = claim.exposure_id if claim.kind == "exposure" else f"{claim.kind} ({claim.exposure_id})"
    return f"{name} on {claim.holder.host} since {claim.since}"


def _unit_row(unit: str, rows: Sequence[LedgerRow], progress: tuple[Progress, Any] | None) -> dict[str, Any]:
    states = Counter(row["state"] for row in rows)
    row: dict[str, Any] = {"unit": unit, "settling": None, "queued": None, "running": None}
    row |= {state: states[state] for state in ("done", "refused", "waiting", "failed")}
    done = [one for one in rows if one["state"] == "done"]
    row |= {
        "seconds": _median(done, "seconds"),
        "depth": _median(done, "limiting_mag"),
        "seeing": _median(done, "seeing"),
        "accepted": sum(one["n_accepted"] or 0 for one in done),
        "last_frame": "",
        "state": "",
    }
    if progress is not None and _watch(progress[0]) == "watching":
        one = progress[1]
        row |= {"settling": one.settling, "queued": one.waiting, "running": one.running}
        row["last_frame"] = one.last_arrival
        row["state"] = "silent" if one.silent else "" if one.source == "ok" else "source away"
    return row


def _median(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None and row[column] == row[column]]
    return round(float(statistics.median(values)), 2) if values else None


def _best(archive: Archive, night: str, number: int) -> list[dict[str, Any]]:
    table = read_candidates(archive, night).select([*SHOWN, "flags"])
    table = table.filter(pc.and_(pc.equal(table["flags"], 0), pc.is_valid(table["score"])))
    order = [("score", "descending"), ("snr", "descending")]
    return list(table.sort_by(order).slice(0, number).select(SHOWN).to_pylist())
