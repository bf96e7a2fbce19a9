"""Watching one source: listed and read in a thread of its own, so that a dead disk holds up nobody.

Each frame is waited for until it is whole, and none is forgotten.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nightsift.archive.survey import Source
from nightsift.core.errors import FrameError, SourceError
from nightsift.io.sources import Found, completeness, discover, local_copy
from nightsift.unit.units import Unit
from tasks.discover import Exposure, facts_of

QUICK_SECONDS = 1.0
"""A file that is whole by its own header must have stayed the same for so long."""

Look = Callable[[str], str]
"""Says by the place of a file what `nightsift.io.sources.completeness` says of it."""

Known = Callable[[Found], bool]
"""Says whether the ledger knows a file as it lies there, so that it needs no work."""

_logger = logging.getLogger("nightsift.watch")


@dataclass(slots=True)
class Arrival:
    """A file that was seen.

    Attributes
    ----------
    found : Found
        The file as it was seen last.
    first_seen, changed : float
        When it was first seen, and when it was first seen as it is (monotonic s).
    ready : bool
        Whether it has settled and was handed out.
    """

    found: Found
    first_seen: float
    changed: float
    ready: bool = False


@dataclass(slots=True)
class Arrivals:
    """All files of a source, by their place.

    Attributes
    ----------
    settle : float
        Seconds that size and time of a file must stay the same.
    look : callable
        Judges the length of a local file by its own headers.
    files : dict of str to Arrival
        What was seen.
    """

    settle: float
    look: Look = completeness
    files: dict[str, Arrival] = field(default_factory=dict)

    def see(self, listing: Iterable[Found], now: float | None = None) -> list[Arrival]:
        """Compare a listing of the source with the files seen before.

        A file that changes after it was handed out has settled too early, or was replaced: it is waited for again.

        Parameters
        ----------
        listing : iterable of Found
            All files that lie there now.
        now : float, optional
            Monotonic seconds; the clock when None.

        Returns
        -------
        list of Arrival
            Those that have settled since the last listing.
        """
        now = time.monotonic() if now is None else now
        settled = []
        for found in listing:
            known = self.files.get(found.url)
            if known is None:
                known = self.files[found.url] = Arrival(found, now, now)
            elif not _same(known.found, found):
                known.found, known.changed, known.ready = found, now, False
            if not known.ready and self._is_settled(known, now):
                known.ready = True
                settled.append(known)
        return settled

    def take_as_done(self, found: Found, now: float = 0.0) -> None:
        """Remember a file that needs no work, so that it is handed out only if it changes."""
        self.files[found.url] = Arrival(found, now, now, ready=True)

    def settling(self) -> list[Arrival]:
        """Return the files that are still waited for."""
        return [one for one in self.files.values() if not one.ready]

    def _is_settled(self, arrival: Arrival, now: float) -> bool:
        still = now - arrival.changed
        if still < min(QUICK_SECONDS, self.settle):
            return False
        if "://" in arrival.found.url:
            return still >= self.settle and arrival.found.size != 0
        try:
            state = self.look(arrival.found.url)
        except OSError:
            return False  # gone again, or not readable yet
        if state == "partial":
            return False  # however long its writer pauses; what is never completed is refused when the night is closed
        return state == "whole" or still >= self.settle


def _same(one: Found, other: Found) -> bool:
    times = one.modified == other.modified or (math.isnan(one.modified) and math.isnan(other.modified))
    return times and one.size == other.size


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that has settled.

    Attributes
    ----------
    exposure : Exposure
        What its header says.
    ra, dec, mjd : float
        Pointing (deg, ICRS) and time (MJD UTC); NaN where its header was not read.
    found : Found
        The file.
    seen : float
        When it was first seen (monotonic s).
    """

    exposure: Exposure
    ra: float
    dec: float
    mjd: float
    found: Found
    seen: float


class SourceWatcher:
    """Watches one source from a thread.

    Parameters
    ----------
    source : Source
        The source.
    unit : Unit
        Its unit.
    poll, settle : float
        Seconds between two listings, and that a file must stay the same.
    since : float
        Files older than this (s since 1970) when the watcher begins are not of this night; what appears later is
        taken whatever its time stamp says.
    known : callable
        Whether a file that lies there at the beginning needs no work.
    """

    def __init__(self, source: Source, unit: Unit, *, poll: float, settle: float, since: float, known: Known) -> None:
        self.source, self.unit = source, unit
        self.arrivals = Arrivals(settle)
        self.listed_at = 0.0
        self.problem = ""
        self.older = 0
        self.is_reading = False
        self._poll, self._since, self._known = poll, since, known
        self._ready: list[Frame] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"watcher {source.unit}")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; a listing that hangs is left behind."""
        self._stop.set()

    def take(self) -> list[Frame]:
        """Return the frames that have settled since the last call."""
        with self._lock:
            ready, self._ready = self._ready, []
        return ready

    def is_idle(self) -> bool:
        """Whether all that lies there has settled and was taken."""
        with self._lock:
            return bool(self.listed_at) and not self.is_reading and not self._ready and not self.arrivals.settling()

    def silent_for(self) -> float:
        """Seconds since the source was last listed, or since the beginning."""
        return time.monotonic() - (self.listed_at or self._began)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except (SourceError, OSError) as error:
                self.problem = str(error)
                _logger.debug("%s", error)
            self._stop.wait(self._poll)

    def look(self) -> None:
        """List the source once and hand over what has settled.

        Raises
        ------
        SourceError
            If it cannot be listed.
        """
        listing = discover(self.source.frames, self.source.pattern)
        if not listing:
            self._require_place()
        if not self.listed_at:
            self._begin(listing)
        self.is_reading = True
        settled = self.arrivals.see(listing)
        for arrival in settled:
            frame = self._frame(arrival.found, arrival.first_seen)
            with self._lock:
                self._ready.append(frame)
        self.listed_at, self.problem, self.is_reading = time.monotonic(), "", False

    def _require_place(self) -> None:
        """Refuse an empty listing where the place is not there or files have vanished from it."""
        place = self.source.frames
        fixed = place if "://" in place else re.split(r"[*?\[]", place)[0].rpartition("/")[0] or "."
        what = (
            "there is no such folder: is the disk mounted?" if "://" not in place and not Path(fixed).exists() else ""
        )
        if self.arrivals.files and not what:
            what = f"all its {len(self.arrivals.files)} files have vanished: is the disk mounted?"
        if what:
            raise SourceError(url=place, what=what)

    def _begin(self, listing: Sequence[Found]) -> None:
        for found in listing:
            if found.modified < self._since:
                self.older += 1
                self.arrivals.take_as_done(found)
            elif self._known(found):
                self.arrivals.take_as_done(found)

    def _frame(self, found: Found, seen: float) -> Frame:
        exposure = Exposure(found.url, found.name, self.unit.name)
        if "://" in found.url:  # fetched once, where it is reduced
            return Frame(exposure, float("nan"), float("nan"), float("nan"), found, seen)
        try:
            with local_copy(found.url) as path:
                facts = facts_of(path, self.unit, found.url)
        except (FrameError, SourceError) as error:
            _logger.debug("%s", error)
            return Frame(exposure, float("nan"), float("nan"), float("nan"), found, seen)
        exposure = Exposure(found.url, found.name, self.unit.name, facts.night, facts.field, facts.band)
        return Frame(exposure, facts.ra, facts.dec, facts.mjd, found, seen)
