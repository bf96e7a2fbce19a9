"""A lookout over one source: it lists and reads headers in a thread of its own, so that a dead disk holds up nobody."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nightsift.errors import FrameError, SourceError
from nightsift.io.paths import Found, discover, local_copy
from nightsift.survey import Source
from nightsift.units import Unit
from tasks.arrivals import Arrivals
from tasks.discover import Exposure, facts_of

_logger = logging.getLogger("nightsift.watch")

Known = Callable[[Found], bool]
"""Says whether the ledger knows a file as it lies there, so that it needs no work."""


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


class Lookout:
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
        Files older than this (s since 1970) when the lookout begins are not of this night; what appears later is
        taken whatever its time stamp says.
    known : callable
        Whether a file that lies there at the beginning needs no work.
    """

    def __init__(self, source: Source, unit: Unit, poll: float, settle: float, since: float, known: Known) -> None:
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
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"lookout {source.unit}")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a listing that hangs is left behind."""
        self._stop.set()

    def take(self) -> list[Frame]:
        """Frames that have settled since the last call."""
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
        """An empty listing is good news only where the place is there and nothing has vanished from it."""
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
