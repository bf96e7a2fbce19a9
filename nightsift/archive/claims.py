"""Claims: one exposure is reduced, one night watched, one chunk worked on by one process at a time.

A claim is a file in the archive that exactly one process can create. While it is held its time stamp changes every few
seconds. It is stale when its holder is known to be dead (same machine) or when the stamp has not changed for a while,
**as watched by the one who wants it, on its own monotonic clock**: no clocks are compared, so none can mislead.

A stale claim is never moved or removed by others. It is superseded: whoever wants it creates the file of the next
generation, which again only one can. The former holder, should it wake up, sees the newer file. Products are atomic
and the same whoever makes them, so that even then nothing is lost or doubled.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from nightsift.archive.paths import Archive
from nightsift.core.errors import NightsiftError
from nightsift.core.parallel import Holder, this_process
from nightsift.io.atomic import create_exclusively

RENEW_SECONDS = 10.0
"""A holder touches its claims this often."""

STALE_SECONDS = 60.0
"""A claim untouched for so long, as watched by another, is stale; network file systems may lag by 30 s."""

TRIES = 500
"""Looks at a claim that changes between looking and creating, each 0.02 s apart."""

Kind = Literal["exposure", "night watch", "alert listener", "campaign chunk"]
"""What is claimed: an exposure, or work of another kind that only one process may do."""

_logger = logging.getLogger("nightsift.archive.claims")


class UnderWayElsewhere(NightsiftError):
    """Another process holds the claim: it reduces the exposure, or does the work."""

    problem = "{kind} {exposure_id} is under way in process {pid} on {host} since {since}"
    hint = "wait for its end; when that process dies the claim is free by itself, there is nothing to clear"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that a process holds.

    Attributes
    ----------
    exposure_id : str
        Name of what is claimed: of an exposure its identity.
    holder : Holder
        Who holds it.
    since : str
        When it was claimed, UTC, for people.
    path : Path
        Its file.
    generation : int
        How often it was taken over.
    kind : str
        What kind of thing is claimed.
    """

    exposure_id: str
    holder: Holder
    since: str
    path: Path
    generation: int = 0
    kind: Kind = "exposure"

    def is_held(self) -> bool:
        """Whether it still counts: its file is there, and nobody has superseded it."""
        latest = _latest(self.path.with_suffix(""))
        return latest is not None and latest[0] == self.generation


@contextmanager
def claimed(archive: Archive, exposure_id: str, kind: Kind = "exposure") -> Iterator[Claim]:
    """Hold a claim for the `with` block and release it at its end.

    Parameters
    ----------
    archive : Archive
        The archive.
    exposure_id : str
        Name of what to claim; no two kinds have one in common.
    kind : str, optional
        What kind of thing that is.

    Yields
    ------
    Claim
        The claim, renewed in the background.

    Raises
    ------
    UnderWayElsewhere
        If another process holds it, or has not been watched for long enough to know that it is stale.
    DiskFull, OSError
        If it cannot be written.
    """
    claim = take(archive, exposure_id, kind=kind)
    _keeper.add(claim)
    try:
        yield claim
    finally:
        _keeper.remove(claim)
        _release(claim)


def take(archive: Archive, exposure_id: str, stale_seconds: float = STALE_SECONDS, *, kind: Kind = "exposure") -> Claim:
    """Take a claim, or take over a stale one; `claimed` also renews and releases it.

    Parameters
    ----------
    archive : Archive
        The archive.
    exposure_id : str
        Name of what to claim.
    stale_seconds : float, optional
        How long a claim must be seen untouched to count as stale.
    kind : str, optional
        What kind of thing that is.

    Returns
    -------
    Claim
        The claim.

    Raises
    ------
    UnderWayElsewhere
        If another process holds it.
    DiskFull, OSError
        If it cannot be written.
    """
    path = archive.claim(exposure_id)
    for _ in range(TRIES):
        latest = _latest(path)
        if latest is not None and not _is_stale(latest[1], stale_seconds):
            if latest[1].exists():
                raise _busy(exposure_id, kind, latest[1])
            continue  # released just now
        generation = 0 if latest is None else latest[0] + 1
        since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        claim = Claim(exposure_id, this_process(), since, _file(path, generation), generation, kind)
        content = {"kind": kind, "exposure_id": exposure_id, **asdict(claim.holder), "since": claim.since}
        if create_exclusively(claim.path, json.dumps(content).encode()):
            if claim.is_held():
                if latest is not None:
                    _logger.warning("%s: the claim of a process that is gone was taken over", exposure_id)
                return claim
            claim.path.unlink(missing_ok=True)  # this process slept since it looked, and others went on
        time.sleep(0.02)
    raise _busy(exposure_id, kind, _file(path, 0))


def claims_held(archive: Archive) -> list[Claim]:
    """Return the claims of an archive whose holders are not known to be dead, sorted by name.

    Reading them also starts the watch over claims of other machines.
    """
    return [claim for claim in _all(archive) if not _is_stale(claim.path, STALE_SECONDS)]


def claims_of(archive: Archive, pid: int) -> list[Claim]:
    """Return the claims of a process of this machine, which may have died, sorted by name."""
    here = this_process().machine
    return [claim for claim in _all(archive) if (claim.holder.machine, claim.holder.pid) == (here, pid)]


def _all(archive: Archive) -> list[Claim]:
    """Newest generation of each claim, sorted by name."""
    newest: dict[str, Path] = {}
    for path in sorted(archive.claim("any").parent.glob("*.*"), key=_generation):
        if _generation(path) >= 0:
            newest[path.stem] = path
    claims = [claim for path in newest.values() if (claim := _read(path)) is not None]
    return sorted(claims, key=lambda claim: claim.exposure_id)


class _Keeper:
    """Renews the claims of this process from a thread of its own."""

    def __init__(self) -> None:
        self._held: dict[Path, Claim] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def add(self, claim: Claim) -> None:
        with self._lock:
            self._held[claim.path] = claim
            if self._thread is None or not self._thread.is_alive() or self._pid != os.getpid():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._renew, daemon=True, name="claims")
                self._thread.start()

    def remove(self, claim: Claim) -> None:
        with self._lock:
            self._held.pop(claim.path, None)

    def _renew(self) -> None:
        while True:
            time.sleep(RENEW_SECONDS)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
                held = list(self._held)
            for path in held:
                with suppress(OSError):  # superseded and gone, or the disk is away: tried again the next time
                    now = time.time_ns()
                    os.utime(path, ns=(now, now))


_keeper = _Keeper()
_watched: dict[Path, tuple[tuple[int, int], float]] = {}
"""Claims of others as they were seen: stamp of the file, and since when it has been the same (monotonic s)."""


def _file(path: Path, generation: int) -> Path:
    return path.parent / f"{path.name}.{generation}"


def _generation(path: Path) -> int:
    """Generation by the name of a file; -1 for a file that is no claim."""
    digits = path.suffix[1:]
    return int(digits) if digits.isdecimal() and not path.name.startswith(".") else -1


def _latest(path: Path) -> tuple[int, Path] | None:
    """Newest generation of a claim that is there."""
    try:
        with os.scandir(path.parent) as entries:
            found = [Path(one.path) for one in entries if one.name.rpartition(".")[0] == path.name]
    except FileNotFoundError:
        return None
    for one in sorted(found, key=_generation, reverse=True):
        if _generation(one) >= 0 and one.exists():
            return _generation(one), one
    return None


def _is_stale(path: Path, seconds: float) -> bool:
    claim = _read(path)
    if claim is not None and claim.holder.is_dead():
        return True
    try:
        with path.open("rb") as file:  # opening asks a file server for what it knows now
            state = os.fstat(file.fileno())
    except FileNotFoundError:
        _watched.pop(path, None)
        return False  # released meanwhile: look again
    stamp, now = (state.st_ino, state.st_mtime_ns), time.monotonic()
    before, since = _watched.setdefault(path, (stamp, now))
    if before != stamp:
        _watched[path] = (stamp, now)
        return False
    return now - since >= seconds


def _read(path: Path) -> Claim | None:
    """Read a claim; None where it is gone, or its writer has not come to writing it."""
    try:
        content = json.loads(path.read_bytes())
        holder = Holder(*(content[key] for key in ("host", "machine", "pid", "started")))
        kind = content.get("kind", "exposure")
        return Claim(content["exposure_id"], holder, content["since"], path, _generation(path) or 0, kind)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _busy(exposure_id: str, kind: Kind, path: Path) -> UnderWayElsewhere:
    claim = _read(path)
    if claim is None:
        return UnderWayElsewhere(kind=kind, exposure_id=exposure_id, host="?", pid=0, since="just now")
    holder = claim.holder
    return UnderWayElsewhere(kind=kind, exposure_id=exposure_id, host=holder.host, pid=holder.pid, since=claim.since)


def _release(claim: Claim) -> None:
    """Remove a claim with all that it superseded, the newest last; one that was taken over is left to its holder."""
    if not claim.is_held():
        _logger.warning("%s: this claim was taken over while it was held", claim.exposure_id)
        return
    for generation in range(claim.generation + 1):
        path = _file(claim.path.with_suffix(""), generation)
        path.unlink(missing_ok=True)
        _watched.pop(path, None)
