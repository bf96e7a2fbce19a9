"""The state of the watch of a night: frames that wait, run and ended, by unit, their priority, and problems."""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nightsift.archive.night_status import Progress, UnitProgress
from nightsift.archive.paths import Archive
from nightsift.archive.survey import WatchOptions
from nightsift.core.rows import LedgerRow
from nightsift.site.clock import Night
from tasks.source_watcher import Frame, SourceWatcher

Priority = Callable[[str, float, float, float], float]
"""How much a running alert wants a frame, by unit, right ascension, declination (deg) and MJD: 0 for not at all."""

AGAIN_SECONDS = 20.0
"""A frame that another process is at is looked at again after so long."""
ELSEWHERE_MARGIN = 60.0
"""Seconds beyond `exposure_timeout` for which the end of a night waits for another process that is at a frame."""

TARGETS = "nightsift.skyalerts.event_store.targets"
"""Module of the targets of alerts, loaded where it is installed."""


@dataclass(slots=True)
class Waiting:
    """A frame that waits for a worker.

    Attributes
    ----------
    frame : Frame
        The frame.
    not_before : float
        Monotonic seconds before which it is not begun.
    """

    frame: Frame
    not_before: float = 0.0


@dataclass(slots=True)
class HeldElsewhere:
    """A frame that another process is at.

    Attributes
    ----------
    frame, message : Frame, str
        The frame; which process is at it, and since when.
    since : float
        When that was first seen (monotonic s).
    """

    frame: Frame
    since: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class NightProblem:
    """A problem of which people are notified, at most once a night.

    Attributes
    ----------
    key : str
        Identity of the problem.
    what, advice : str
        What is wrong, and what to do.
    """

    key: str
    what: str
    advice: str


@dataclass(slots=True)
class WatchState:
    """The state of a watch.

    Attributes
    ----------
    options : WatchOptions
        Table ``[watch]``.
    night : Night or None
        The night; None without a site.
    watchers : list of SourceWatcher
        One per source.
    waiting : list of Waiting
        Frames that have settled.
    running : dict of str to Frame
        Frames under way, by place.
    begun : dict of str to float
        When each was begun (monotonic s).
    elsewhere : dict of str to HeldElsewhere
        Frames that another process was at when they were last looked at, by place.
    ended : dict of str to Counter
        Frames that ended, by unit and state.
    arrived : Counter
        Frames that settled, by unit.
    last : dict of str to float
        When a frame of each unit was seen last (monotonic s).
    latencies : list of float
        Seconds from the first sight of each frame to its row.
    started : float
        Monotonic seconds.
    """

    options: WatchOptions
    night: Night | None
    watchers: list[SourceWatcher]
    waiting: list[Waiting] = field(default_factory=list)
    running: dict[str, Frame] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    elsewhere: dict[str, HeldElsewhere] = field(default_factory=dict)
    ended: dict[str, Counter[str]] = field(default_factory=dict)
    arrived: Counter[str] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def take_in(self) -> list[Frame]:
        """Take the frames that the watchers have found."""
        new = [frame for watcher in self.watchers for frame in watcher.take()]
        for frame in new:
            self.waiting.append(Waiting(frame))
            self.arrived[frame.exposure.unit] += 1
            self.last[frame.exposure.unit] = time.monotonic()
        return new

    def next(self, priority: Priority) -> Frame | None:
        """Take the frame to begin now: the one an alert wants most, then the one that has waited longest.

        Parameters
        ----------
        priority : callable
            How much a running alert wants a frame.

        Returns
        -------
        Frame or None
            The frame, moved from those that wait to those that run.
        """
        now = time.monotonic()
        able = [one for one in self.waiting if one.not_before <= now and one.frame.exposure.url not in self.running]
        if not able:
            return None

        def urgency(one: Waiting) -> tuple[float, float]:
            frame = one.frame
            return priority(frame.exposure.unit, frame.ra, frame.dec, frame.mjd), -frame.seen

        first = max(able, key=urgency)
        self.waiting.remove(first)
        url = first.frame.exposure.url
        self.running[url], self.begun[url] = first.frame, now
        return first.frame

    def end(self, row: LedgerRow, url: str) -> None:
        """Record how a frame ended; one that is under way elsewhere waits and is looked at again.

        Parameters
        ----------
        row : mapping of str to object
            Its ledger row.
        url : str
            Its place.
        """
        frame = self.running.pop(url)
        self.begun.pop(url)
        now = time.monotonic()
        if row["state"] == "elsewhere":
            self.elsewhere.setdefault(url, HeldElsewhere(frame, now)).message = str(row.get("message", ""))
            self.waiting.append(Waiting(frame, now + AGAIN_SECONDS))
            return
        self.elsewhere.pop(url, None)
        self.ended.setdefault(frame.exposure.unit, Counter())[row["state"]] += 1
        self.latencies.append(now - frame.seen)

    def lag(self) -> float:
        """Seconds that the oldest settled frame has been waiting or under way."""
        frames = [one.frame for one in self.waiting] + list(self.running.values())
        return max((time.monotonic() - frame.seen for frame in frames), default=0.0)

    def held_too_long(self) -> list[HeldElsewhere]:
        """Frames that another process has been at for longer than an exposure may take: it probably hangs."""
        limit = self.options.exposure_timeout + ELSEWHERE_MARGIN
        return [one for one in self.elsewhere.values() if time.monotonic() - one.since > limit]

    def has_work(self) -> bool:
        """Whether a frame runs, or waits that another process has not been at for too long."""
        left = {one.frame.exposure.url for one in self.held_too_long()}
        return bool(self.running) or any(one.frame.exposure.url not in left for one in self.waiting)

    def is_idle(self) -> bool:
        """Whether there is no work, and no frame is still being written."""
        return not self.has_work() and all(one.is_idle() for one in self.watchers)

    def silent_units(self, now: datetime) -> list[str]:
        """Units that deliver nothing although it is dark."""
        limit = self.options.silent_after * 60.0
        if self.night is None or self.night.dusk is None or not self.night.is_dark(now):
            return []
        dark_for = (now - self.night.dusk).total_seconds()
        units = {one.unit.name for one in self.watchers}
        quiet = {unit: time.monotonic() - self.last.get(unit, self.started) for unit in units}
        return sorted(unit for unit, seconds in quiet.items() if min(seconds, dark_for) > limit)

    def problems(self, now: datetime) -> Iterable[NightProblem]:
        """Return the problems of which people should be notified now.

        Parameters
        ----------
        now : datetime
            With its time zone.

        Yields
        ------
        NightProblem
            Each problem that there is.
        """
        for one in self.watchers:
            away = one.silent_for()
            if (one.problem or away > 60.0) and away > 3 * self.options.poll:
                what = one.problem or f"listing {one.source.frames} has hung for {away:.0f} s"
                advice = "check disk, mount and network; what arrives meanwhile is found when the source is back"
                yield NightProblem(f"source {one.unit.name}", f"{one.unit.name}: {what}", advice)
        for unit in self.silent_units(now):
            minutes = self.options.silent_after
            older = sum(one.older for one in self.watchers if one.unit.name == unit)
            hint = f" ({older} files there are older than tonight: is the clock of the camera right?)" if older else ""
            advice = f"check camera, dome and transfer of this unit{hint}"
            yield NightProblem(f"silent {unit}", f"{unit} has delivered no frame for {minutes:.0f} minutes", advice)
        if self.lag() > 60.0 * self.options.lag_limit:
            what = f"the night lags behind by {self.lag() / 60:.0f} minutes, {len(self.waiting)} frames wait"
            yield NightProblem("lag", what, "raise workers under [runner] if cores are idle; see nightsift status")
        for unit in sorted({one.frame.exposure.unit for one in self.held_too_long()}):
            frames = [one for one in self.held_too_long() if one.frame.exposure.unit == unit]
            names = ", ".join(one.frame.exposure.name for one in frames)
            what = f"another process has been at {names} of {unit} for too long: {frames[0].message}"
            advice = (
                "end that process if it hangs: the exposure is free then, and the watch or nightsift night takes it"
            )
            yield NightProblem(f"elsewhere {unit}", what, advice)
        for unit, states in self.ended.items():
            failed, all_of_them = states["failed"], sum(states.values())
            if failed >= 3 and failed > 0.2 * all_of_them:
                what = f"{failed} of {all_of_them} exposures of {unit} failed"
                yield NightProblem(f"failing {unit}", what, "nightsift show survey.toml tells why; is the disk full?")

    def describe(self, progress: Progress, now: datetime) -> Progress:
        """Fill in the progress of the night.

        Parameters
        ----------
        progress : Progress
            What to fill.
        now : datetime
            With its time zone.

        Returns
        -------
        Progress
            The same.
        """
        silent = set(self.silent_units(now))
        for one in self.watchers:
            name = one.unit.name
            unit = progress.units[name] = UnitProgress(arrived=self.arrived[name], silent=name in silent)
            unit.ended = dict(self.ended.get(name, {}))
        for one in self.watchers:
            unit = progress.units[one.unit.name]
            unit.settling += len(one.arrivals.settling())
            unit.older += one.older
            if one.problem and one.silent_for() > 3 * self.options.poll:
                unit.source = one.problem
        for waiting in self.waiting:
            progress.units[waiting.frame.exposure.unit].waiting += 1
        for frame in self.running.values():
            progress.units[frame.exposure.unit].running += 1
        for name, seen in self.last.items():
            progress.units[name].last_arrival = _utc(now.timestamp() - (time.monotonic() - seen))
        progress.running = [
            {"label": frame.exposure.label, "seconds": round(time.monotonic() - self.begun[url], 1)}
            for url, frame in self.running.items()
        ]
        progress.lag, progress.updated = round(self.lag(), 1), _utc(now.timestamp())
        if self.latencies:
            progress.latency_median = round(statistics.median(self.latencies), 1)
            progress.latency_worst = round(max(self.latencies), 1)
        return progress


def memory_of(pids: Iterable[int]) -> float:
    """Resident memory of processes.

    Parameters
    ----------
    pids : iterable of int
        Their numbers.

    Returns
    -------
    float
        Memory in all (MB); 0 where the system does not say.
    """
    total = 0.0
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
        total += pages * mmap.PAGESIZE / 1e6
    return round(total, 1)


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def priority_of(archive: Archive) -> Priority:
    """Return the priority that the running alerts of an archive give to frames.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    callable
        How much a frame is wanted, by unit, right ascension, declination (deg) and MJD.
    """
    if importlib.util.find_spec("nightsift.skyalerts") is None:
        return _equal_priority
    known = importlib.import_module(TARGETS)
    targets = known.active_targets(archive)
    if not targets:
        return _equal_priority
    return lambda unit, ra, dec, mjd: float(known.wants(targets, unit, ra, dec=dec, mjd=mjd)) if ra == ra else 0.0


def _equal_priority(unit: str, ra: float, dec: float, mjd: float) -> float:
    """No alert runs: frames are begun in the order in which they came."""
    return 0.0
