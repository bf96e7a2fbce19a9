"""What the watch knows: order of frames, lag, silent units, and what people are problems."""

from __future__ import annotations

import mmap
import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.watch_state import ELSEWHERE_MARGIN, Waiting, WatchState, memory_of
from nightsift.archive.night_status import Progress
from nightsift.archive.survey import WatchOptions
from nightsift.io.sources import Found
from nightsift.site.clock import night_named
from nightsift.site.site import Site
from tasks.discover import Exposure
from tasks.source_watcher import Frame, SourceWatcher

NIGHT = night_named(Site(latitude=28.76, longitude=-17.88), "2026-11-20")
assert NIGHT.dusk is not None
DARK = NIGHT.dusk + timedelta(hours=3)


def frame(name: str, ra: float = 10.0, age: float = 0.0, unit: str = "north") -> Frame:
    exposure = Exposure(f"/in/{name}", name, unit, "2026-11-20", "f1", "r")
    return Frame(exposure, ra, 0.0, 61000.0, Found(f"/in/{name}", name, 1, 1.0), time.monotonic() - age)


def watcher(unit: str = "north", silent_for: float = 0.0, problem: str = "", older: int = 0) -> Any:
    """A watcher that says what the test gives it; the real one is tested with real files."""
    return SimpleNamespace(
        unit=SimpleNamespace(name=unit), source=SimpleNamespace(frames="/in"), problem=problem, older=older,
        silent_for=lambda: silent_for, arrivals=SimpleNamespace(settling=list), take=list, is_idle=lambda: True,
    )  # fmt: skip


def watch_state(*watchers: Any, **options: float) -> WatchState:
    return WatchState(WatchOptions.model_validate(options), NIGHT, list(watchers) or [watcher()])


def no_alert(unit: str, ra: float, dec: float, mjd: float) -> float:
    return 0.0


def test_an_alert_jumps_the_queue_else_first_come_first_served() -> None:
    one = watch_state()
    one.waiting += [Waiting(frame("b", age=5)), Waiting(frame("a", age=9)), Waiting(frame("wanted", ra=200.0))]
    priority = lambda unit, ra, dec, mjd: 0.7 if ra > 100 else 0.0  # noqa: E731
    order = [begun.exposure.name for _ in range(3) if (begun := one.next(priority)) is not None]
    assert order == ["wanted", "a", "b"]
    assert one.next(priority) is None
    assert one.lag() == pytest.approx(9.0, abs=0.5)


def test_a_frame_under_way_elsewhere_is_looked_at_again_later() -> None:
    one = watch_state()
    one.waiting.append(Waiting(frame("a")))
    begun = one.next(no_alert)
    assert begun is not None
    one.end({"state": "elsewhere"}, begun.exposure.url)
    assert one.next(no_alert) is None, "not at once"
    assert len(one.waiting) == 1
    assert not one.is_idle()
    one.waiting[0].not_before = 0.0
    assert one.next(no_alert) is not None
    one.end({"state": "done"}, begun.exposure.url)
    assert one.is_idle()
    assert one.ended["north"] == {"done": 1}


def test_the_end_of_a_night_waits_for_another_process_no_longer_than_an_exposure_may_take() -> None:
    one = watch_state(exposure_timeout=100.0)
    one.waiting.append(Waiting(frame("a")))
    row = {"state": "elsewhere", "message": "process 7 on far"}

    def look() -> None:
        one.waiting[0].not_before = 0.0
        begun = one.next(no_alert)
        assert begun is not None
        assert one.has_work()
        one.end(row, begun.exposure.url)

    look()
    since = one.elsewhere["/in/a"].since
    look()
    assert one.elsewhere["/in/a"].since == since, "counted from the first look"
    assert one.has_work()
    assert list(one.problems(DARK)) == []
    one.elsewhere["/in/a"].since -= 100.0 + ELSEWHERE_MARGIN
    assert not one.has_work()
    assert one.is_idle()
    assert len(one.waiting) == 1, "it is still looked at while the night goes on"
    (problem,) = one.problems(DARK)
    assert "process 7 on far" in problem.what
    one.waiting.append(Waiting(frame("b")))
    assert one.has_work(), "another frame is not given up with it"
    one.waiting.pop()
    one.waiting[0].not_before = 0.0
    assert one.next(no_alert) is not None
    one.end({"state": "done"}, "/in/a")
    assert list(one.problems(DARK)) == []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc")
def test_memory_is_counted_in_pages_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def resident() -> float:
        """By another count of the system, in kilobytes whatever the size of a page."""
        (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
        return int(line.split()[1]) * 1024 / 1e6

    assert memory_of([os.getpid()]) == pytest.approx(resident(), rel=0.05)
    monkeypatch.setattr("mmap.PAGESIZE", 4 * mmap.PAGESIZE)  # as on many ARM machines: the same number of pages
    assert memory_of([os.getpid()]) == pytest.approx(4 * resident(), rel=0.05)


def test_silent_units_are_told_in_the_dark_only() -> None:
    one = watch_state(watcher("north"), watcher("south", older=12), silent_after=10.0)
    one.started -= 3600.0
    one.last["north"] = time.monotonic()
    assert one.silent_units(DARK) == ["south"]
    assert NIGHT.dusk is not None
    assert one.silent_units(NIGHT.dusk + timedelta(minutes=5)) == [], "dark for too short a time"
    assert one.silent_units(NIGHT.dusk - timedelta(hours=2)) == []
    (problem,) = one.problems(DARK)
    assert problem.key == "silent south"
    assert "12 files there are older than tonight" in problem.advice


def test_source_away_lag_and_failures_are_told() -> None:
    one = watch_state(watcher(silent_for=120.0, problem="cannot be reached"), lag_limit=1.0, silent_after=600.0)
    one.waiting.append(Waiting(frame("a", age=100.0)))
    one.ended = {"north": Counter(done=4, failed=3)}
    problems = {problem.key: problem for problem in one.problems(DARK)}
    assert set(problems) == {"source north", "lag", "failing north"}
    assert "3 of 7 exposures of north failed" in problems["failing north"].what
    assert all(problem.advice for problem in problems.values())
    hung = watch_state(watcher(silent_for=300.0), silent_after=600.0)
    (problem,) = hung.problems(DARK)
    assert "has hung for 300 s" in problem.what


def test_described_for_the_status() -> None:
    one = watch_state(watcher("north"), watcher("south"))
    one.waiting += [Waiting(frame("a", age=4.0)), Waiting(frame("b", unit="south"))]
    one.next(no_alert)
    problems = one.describe(Progress("s", "", "2026-11-20", "watching", {}, ""), datetime.now(UTC))
    assert (problems.units["north"].running, problems.units["south"].waiting) == (1, 1)
    assert problems.lag == pytest.approx(4.0, abs=0.5)


def test_lookout_finds_remote_frames(tmp_path: Path) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe_file("/incoming/a.fits", b"x" * 10)
    source, unit = (
        SimpleNamespace(frames="memory://incoming", pattern="*.fit*", unit="north"),
        SimpleNamespace(name="north"),
    )
    one = SourceWatcher(source, unit, poll=1.0, settle=0.0, since=0.0, known=lambda found: False)  # type: ignore[arg-type]
    one.look()
    assert [frame.exposure.url for frame in one.take()] == ["memory:///incoming/a.fits"]
    one.look()
    assert one.take() == [], "once"
    files.rm("/incoming", recursive=True)
    with pytest.raises(Exception, match="incoming"):
        one.look()
