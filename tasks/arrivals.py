"""Frames as they arrive: each is waited for until it is whole, and none is forgotten."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nightsift.io.paths import Found
from nightsift.nights.complete import completeness

QUICK_SECONDS = 1.0
"""A file that is whole by its own header must have stayed the same for so long."""

Look = Callable[[str], str]
"""Says by the place of a file what `nightsift.nights.complete.completeness` says of it."""


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
        """Take in a listing of the source.

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
        """Remember a file that needs no work, so that it is handed out only if it changes.

        Parameters
        ----------
        found : Found
            The file.
        now : float, optional
            Monotonic seconds.
        """
        self.files[found.url] = Arrival(found, now, now, ready=True)

    def settling(self) -> list[Arrival]:
        """Files that are still waited for."""
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
