"""Tonight, for the operator: what waits, runs and is done by unit, the lag, depth, silent units and best candidates.

Everything is read from files of the archive: the ledger, and what the watch writes down. No server is asked.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from nightsift import ledger
from nightsift.claims import Claim, claims_held
from nightsift.io.parquet import read_candidates
from nightsift.io.paths import WITHOUT_NIGHT, Archive
from nightsift.nights.progress import Progress, read_progress

SHOWN = ("candidate_id", "unit", "field", "ra", "dec", "sign", "mag", "snr", "score")


@dataclass(frozen=True, slots=True)
class Tonight:
    """A night as it stands.

    Attributes
    ----------
    night : str
        Its name; empty where there is none yet.
    without_night : int
        Exposures in the ledger of which no time could be read: of no night, so not of this one.
    watch : str
        ``watching``, ``closing``, ``closed``, ``stopped``, ``died`` or ``nobody`` watches it.
    units : list of dict
        One row a unit.
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
        What people were told.
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


def tonight(archive: Archive, night: str | None = None, units: Sequence[str] = (), best: int = 10) -> Tonight:
    """Read how a night stands.

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
        How it stands.
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
        troubles=[trouble for one in of_night for trouble in one.troubles],
        best=_best(archive, name, best) if name in archive.nights("candidates") else [],
    )


def _watch(progress: Progress) -> str:
    ended = progress.state in ("closed", "stopped")
    return progress.state if ended or progress.is_alive() else "died"


def _in_words(claim: Claim) -> str:
    name = claim.exposure_id if claim.kind == "exposure" else f"{claim.kind} ({claim.exposure_id})"
    return f"{name} on {claim.holder.host} since {claim.since}"


def _unit_row(unit: str, rows: Sequence[dict[str, Any]], progress: tuple[Progress, Any] | None) -> dict[str, Any]:
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


def _median(rows: Sequence[dict[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None and row[column] == row[column]]
    return round(float(statistics.median(values)), 2) if values else None


def _best(archive: Archive, night: str, number: int) -> list[dict[str, Any]]:
    table = read_candidates(archive, night).select([*SHOWN, "flags"])
    table = table.filter(pc.and_(pc.equal(table["flags"], 0), pc.is_valid(table["score"])))
    order = [("score", "descending"), ("snr", "descending")]
    return list(table.sort_by(order).slice(0, number).select(SHOWN).to_pylist())
