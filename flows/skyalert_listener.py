"""The resident process of alerts: it listens for notices, and has everything warm before one comes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from flows.pool import Workers
from flows.skyalert import end_exposure, follow_alert, run_alert
from flows.tracking import tracking
from nightsift.archive.claims import claimed
from nightsift.archive.survey import Survey, load_survey
from nightsift.core.errors import BadNotice, NightsiftError, SourceError
from nightsift.io.atomic import atomic
from nightsift.skyalerts.event_store.inbox import events, receive, refuse
from nightsift.skyalerts.event_store.targets import folder_of, read_target
from nightsift.skyalerts.notices.notice import notice_bytes
from nightsift.skyalerts.planning.planning import map_path
from nightsift.skyalerts.skyalert_session import SkyAlertSession, now
from nightsift.skyalerts.skymaps.skymap_file import read_skymap
from tasks.notify import notify_people
from tasks.reduce import reduce_exposure
from tasks.retry import run_logger
from tasks.skyalert import NoticeSource, close_all
from tasks.source_watcher import SourceWatcher

TICK_SECONDS = 0.5
WRITE_SECONDS = 5.0
FRAME_SECONDS = 1.0
"""Longest pause between two looks at the frame sources: an alert waits for no frame longer than it must."""

RETRIES = 1
"""A request to a server that does not answer is sent again so often: an alert does not wait for its record."""

Heard = Callable[[str], None]
"""Called with each thing that is worth a line."""


def listen(
    survey: Survey,
    sources: Sequence[NoticeSource],
    track: bool = True,
    *,
    heard: Heard | None = None,
    over: Callable[[], bool] | None = None,
) -> None:
    """Listen for notices until told to end; started again, it goes on with every alert that still runs.

    Parameters
    ----------
    survey : Survey
        The survey.
    sources : sequence of NoticeSource
        Where notices come from; they are closed at the end.
    track : bool, optional
        False to run without Prefect.
    heard : callable, optional
        Called with a line on each thing that happens.
    over : callable, optional
        Asked at every look whether to end.

    Raises
    ------
    ConfigurationError
        If the survey is wrong.
    UnderWayElsewhere
        If another process listens for this survey already.
    """
    tell = heard or (lambda line: run_logger().info("%s", line))
    with ExitStack() as stack:
        stack.callback(close_all, sources)
        tracked = stack.enter_context(tracking(retries=RETRIES)) if track else False
        desk = SkyAlertSession(survey, survey.load_units())
        stack.enter_context(claimed(desk.archive, f"alerts {survey.name}", "alert listener"))
        workers = stack.enter_context(_workers(survey, tracked))
        lookouts = stack.enter_context(_source_watchers(desk))
        ear = _Ear(desk, sources, lookouts, tell)
        for event in _running(desk):
            tell(f"{event} goes on")
            _attempt(desk, event, tell, step=lambda event=event: run_alert(desk, event, workers, tracked, ear.poll))  # type: ignore[misc]
        tell(f"listening; {len(desk.fields)} fields, {len(desk.units)} units, {survey.alert.workers} warm processes")
        while not (over is not None and over()):
            ear.poll()
            for ended in workers.collect(0.0) if workers is not None else ():  # begun for an alert that is over now
                end_exposure(desk, ended)
            for event in [*ear.take_new(), *desk.news()]:
                known = event in desk.plans and not desk.is_stale(event)
                run = follow_alert if known else run_alert
                _attempt(desk, event, tell, step=lambda e=event, r=run: r(desk, e, workers, tracked, ear.poll))  # type: ignore[misc]
            time.sleep(TICK_SECONDS)


def run_once(survey: Survey, content: bytes, where: str, *, sky_map: Path | None, track: bool, heard: Heard) -> str:
    """Take in one notice, reduce and rank what there is, and end.

    Parameters
    ----------
    survey : Survey
        The survey.
    content : bytes
        The notice.
    where : str
        Its name.
    sky_map : Path or None
        Sky map for a notice that brings none.
    track : bool
        False to run without Prefect.
    heard : callable
        Called with a line on each thing that happens.

    Returns
    -------
    str
        Name of the event.

    Raises
    ------
    NightsiftError
        If the notice is refused, or there is nothing to plan by.
    """
    with ExitStack() as stack:
        desk = SkyAlertSession(survey, survey.load_units())
        received = receive(desk.archive, content, where)
        event = received.alert.event
        heard(f"{event}: {received.alert.kind} of {received.alert.sender}: {received.verdict}")
        if sky_map is not None:
            read_skymap(sky_map)
            with atomic(map_path(desk.archive, event, received.stored)) as temporary:
                temporary.write_bytes(sky_map.read_bytes())
        tracked = stack.enter_context(tracking(retries=RETRIES)) if track else False
        for lookout in _every_source_watcher(desk, 0.0):
            try:
                lookout.look()
                lookout.look()  # a file is taken once two looks found it the same
            except SourceError as error:
                heard(f"{lookout.source.unit}: {error}")  # fields are ranked all the same
            desk.frames |= {one.exposure.url: one for one in lookout.take()}
        workers = stack.enter_context(_workers(survey, tracked)) if desk.frames else None
        run_alert(desk, event, workers, tracked)
        return event


class _Ear:
    """Takes in notices and frames."""

    def __init__(
        self, desk: SkyAlertSession, sources: Sequence[NoticeSource], lookouts: Sequence[SourceWatcher], tell: Heard
    ) -> None:
        self.desk, self.sources, self.lookouts, self.tell = desk, sources, lookouts, tell
        self._new: dict[str, None] = {}
        self._written = 0.0

    def take_new(self) -> list[str]:
        """Events whose newest notice has come since the last call."""
        new, self._new = list(self._new), {}
        return [event for event in new if event not in self.desk.plans]

    def poll(self) -> None:
        """Look at every source once."""
        for source in self.sources:
            for where, content in source.take():
                self._receive(where, content)
        for lookout in self.lookouts:
            self.desk.frames |= {one.exposure.url: one for one in lookout.take()}
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            _write_state(self.desk, self.sources, self.lookouts)

    def _receive(self, where: str, content: bytes) -> None:
        try:
            received = receive(self.desk.archive, content, where)
        except BadNotice as error:
            refuse(self.desk.archive, content, error)
            self.tell(f"refused: {error}")
            return
        alert = received.alert
        self.tell(f"{alert.event}: {alert.kind.replace('_', ' ')} of {alert.sender} ({alert.role}): {received.verdict}")
        if received.verdict in ("rules", "retracts"):
            self._new[alert.event] = None


def _attempt(desk: SkyAlertSession, event: str, tell: Heard, *, step: Callable[[], object]) -> None:
    """One event that cannot be planned costs no other; people are told, and it is tried again when something comes."""
    try:
        step()
        target = desk.plans[event].target
        tell(f"{event}: {target.state}, {len(target.fields)} fields; {folder_of(desk.archive, event) / 'alert.html'}")
    except NightsiftError as error:
        desk.give_up(event)
        tell(f"{event}: {error}")
        what = f"the alert {event} cannot be worked on: {error.problem.format(**error.facts)}"
        notify_people(desk.survey, desk.archive, f"{datetime.now(UTC):%F}", f"{event} {error.reason}", what, str(error))


def _running(desk: SkyAlertSession) -> list[str]:
    """Alerts of the archive that were not over when the last listener ended."""
    found = []
    for event in events(desk.archive):
        path = folder_of(desk.archive, event) / "targets.json"
        if not path.is_file():
            found.append(event)
            continue
        try:
            target = read_target(path)
        except NightsiftError:
            found.append(event)  # damaged: planned again
            continue
        if target.state in ("active", "waiting", "paused") and now() <= target.until:
            found.append(event)
    return found


@contextmanager
def _workers(survey: Survey, tracked: bool) -> Iterator[Workers | None]:
    if survey.alert.workers == 0:
        yield None
        return
    with Workers(reduce_exposure, survey.alert.workers, survey.watch.exposure_timeout, tracked) as workers:
        workers.start()
        yield workers


@contextmanager
def _source_watchers(desk: SkyAlertSession) -> Iterator[list[SourceWatcher]]:
    lookouts = _every_source_watcher(desk, desk.survey.watch.settle)
    for one in lookouts:
        one.start()
    try:
        yield lookouts
    finally:
        for one in lookouts:
            one.stop()


def _every_source_watcher(desk: SkyAlertSession, settle: float) -> list[SourceWatcher]:
    """One lookout a source, over frames as old as an alert may be."""
    survey = desk.survey
    since, poll = time.time() - survey.alert.hours * 3600.0, min(survey.watch.poll, FRAME_SECONDS)
    return [
        SourceWatcher(source, unit, poll, settle, since, lambda found: False)
        for source, unit in survey.sources_of(desk.units)
    ]


def _write_state(desk: SkyAlertSession, sources: Sequence[NoticeSource], lookouts: Sequence[SourceWatcher]) -> None:
    """Write how the listener does, for ``nightsift alert status``."""
    problems = [told for one in (*sources, *lookouts) if (told := str(getattr(one, "problem", "")))]
    state = {
        "pid": os.getpid(), "at": f"{datetime.now(UTC):%FT%TZ}", "frames": len(desk.frames), "problems": problems,
    }  # fmt: skip
    with atomic(desk.archive.root / "alerts" / "listener.json") as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")


@flow(name="alert-notice", flow_run_name="{notice}", persist_result=False)
def alert(survey: str, notice: str, sky_map: str = "") -> str:
    """Take in one notice from the Prefect UI or an automation: rank, reduce what there is, rank candidates.

    Parameters
    ----------
    survey : str
        Survey file.
    notice : str
        File of the notice.
    sky_map : str, optional
        Sky map for a notice that brings none.

    Returns
    -------
    str
        Name of the event.
    """
    pass  # REFACTOR-EMPTY  # it is built on this module

    content, given = notice_bytes(notice), Path(sky_map) if sky_map else None
    return run_once(load_survey(survey), content, notice, sky_map=given, track=True, heard=run_logger().info)
