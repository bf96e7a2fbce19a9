"""The resident process of alerts: it listens for notices, and has everything warm before one comes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

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
from tasks.steps import check_services, checked_units

TICK_SECONDS = 0.5
WRITE_SECONDS = 5.0
FRAME_SECONDS = 1.0
"""Longest pause between two looks at the frame sources: an alert waits for no frame longer than it must."""

RETRIES = 1
"""A request to a server that does not answer is sent again so often: an alert does not wait for its record."""

Progress = Callable[[str], None]
"""Called with a line on each event."""


def listen(
    survey: Survey,
    sources: Sequence[NoticeSource],
    track: bool = True,
    *,
    progress: Progress | None = None,
    over: Callable[[], bool] | None = None,
) -> None:
    """Listen for notices until asked to end; started again, it goes on with every alert that still runs.

    Parameters
    ----------
    survey : Survey
        The survey.
    sources : sequence of NoticeSource
        Where notices come from; they are closed at the end.
    track : bool, optional
        False to run without Prefect.
    progress : callable, optional
        Called with a line on each event.
    over : callable, optional
        Asked at every look whether to end.

    Raises
    ------
    ConfigurationError
        If the survey is wrong.
    UnderWayElsewhere
        If another process listens for this survey already.
    """
    tell = progress or (lambda line: run_logger().info("%s", line))
    with ExitStack() as stack:
        stack.callback(close_all, sources)
        units = checked_units(survey)
        check_services(survey)
        tracked = stack.enter_context(tracking(retries=RETRIES)) if track else False
        session = SkyAlertSession(survey, units)
        stack.enter_context(claimed(session.archive, f"alerts {survey.name}", "alert listener"))
        workers = stack.enter_context(_workers(survey, tracked))
        watchers = stack.enter_context(_source_watchers(session))
        receiver = _NoticeReceiver(session, sources, watchers, progress=tell)
        given: Any = {"tracked": tracked, "poll": receiver.poll}
        for event in _running(session):
            tell(f"{event} goes on")
            _attempt(session, event, tell, step=partial(run_alert, session, event, workers, **given))
        counts = f"{len(session.fields)} fields, {len(session.units)} units, {survey.alert.workers} warm processes"
        tell(f"listening; {counts}")
        while not (over is not None and over()):
            receiver.poll()
            for ended in workers.collect(0.0) if workers is not None else ():  # begun for an alert that is over now
                end_exposure(session, ended)
            for event in [*receiver.take_new(), *session.news()]:
                known = event in session.plans and not session.is_stale(event)
                run = follow_alert if known else run_alert
                _attempt(session, event, tell, step=partial(run, session, event, workers, **given))
            time.sleep(TICK_SECONDS)


def run_notice(
    survey: Survey, content: bytes, where: str, *, sky_map: Path | None, track: bool, progress: Progress
) -> str:
    """Receive one notice, reduce and rank the exposures that are there, and end.

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
    progress : callable
        Called with a line on each event.

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
        session = SkyAlertSession(survey, checked_units(survey))
        received = receive(session.archive, content, where)
        event = received.alert.event
        progress(f"{event}: {received.alert.kind} of {received.alert.sender}: {received.verdict}")
        if sky_map is not None:
            read_skymap(sky_map)
            with atomic(map_path(session.archive, event, received.stored)) as temporary:
                temporary.write_bytes(sky_map.read_bytes())
        tracked = stack.enter_context(tracking(retries=RETRIES)) if track else False
        for watcher in _every_source_watcher(session, 0.0):
            try:
                watcher.look()
                watcher.look()  # a file is taken once two looks found it the same
            except SourceError as error:
                progress(f"{watcher.source.unit}: {error}")  # fields are ranked all the same
            session.frames |= {one.exposure.url: one for one in watcher.take()}
        workers = stack.enter_context(_workers(survey, tracked)) if session.frames else None
        run_alert(session, event, workers, tracked=tracked)
        return event


class _NoticeReceiver:
    """Receives notices and frames from all sources of a session."""

    def __init__(
        self,
        session: SkyAlertSession,
        sources: Sequence[NoticeSource],
        watchers: Sequence[SourceWatcher],
        *,
        progress: Progress,
    ) -> None:
        self.session, self.sources, self.watchers, self.progress = session, sources, watchers, progress
        self._new: dict[str, None] = {}
        self._written = 0.0

    def take_new(self) -> list[str]:
        """Events whose newest notice has come since the last call."""
        new, self._new = list(self._new), {}
        return [event for event in new if event not in self.session.plans]

    def poll(self) -> None:
        """Look at every source once."""
        for source in self.sources:
            for where, content in source.take():
                self._receive(where, content)
        for watcher in self.watchers:
            self.session.frames |= {one.exposure.url: one for one in watcher.take()}
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            _write_state(self.session, self.sources, self.watchers)

    def _receive(self, where: str, content: bytes) -> None:
        try:
            received = receive(self.session.archive, content, where)
        except BadNotice as error:
            refuse(self.session.archive, content, error)
            self.progress(f"refused: {error}")
            return
        alert = received.alert
        kind = alert.kind.replace("_", " ")
        self.progress(f"{alert.event}: {kind} of {alert.sender} ({alert.role}): {received.verdict}")
        if received.verdict in ("rules", "retracts"):
            self._new[alert.event] = None


def _attempt(session: SkyAlertSession, event: str, tell: Progress, *, step: Callable[[], object]) -> None:
    """Run a step of one event; where it fails, notify people and leave the event until something new comes."""
    try:
        step()
        target = session.plans[event].target
        page = folder_of(session.archive, event) / "alert.html"
        tell(f"{event}: {target.state}, {len(target.fields)} fields; {page}")
    except NightsiftError as error:
        session.give_up(event)
        tell(f"{event}: {error}")
        what = f"the alert {event} cannot be worked on: {error.problem.format(**error.facts)}"
        key, today = f"{event} {error.reason}", f"{datetime.now(UTC):%F}"
        notify_people(session.survey, session.archive, today, key=key, what=what, advice=str(error))


def _running(session: SkyAlertSession) -> list[str]:
    """Return the alerts of the archive that were not over when the last listener ended."""
    found = []
    for event in events(session.archive):
        path = folder_of(session.archive, event) / "targets.json"
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
    with Workers(
        reduce_exposure, survey.alert.workers, timeout=survey.watch.exposure_timeout, tracked=tracked
    ) as workers:
        workers.start()
        yield workers


@contextmanager
def _source_watchers(session: SkyAlertSession) -> Iterator[list[SourceWatcher]]:
    watchers = _every_source_watcher(session, session.survey.watch.settle)
    for one in watchers:
        one.start()
    try:
        yield watchers
    finally:
        for one in watchers:
            one.stop()


def _every_source_watcher(session: SkyAlertSession, settle: float) -> list[SourceWatcher]:
    """Return one watcher per source, over frames as old as an alert may be."""
    survey = session.survey
    since, poll = time.time() - survey.alert.hours * 3600.0, min(survey.watch.poll, FRAME_SECONDS)
    return [
        SourceWatcher(source, unit, poll=poll, settle=settle, since=since, known=lambda found: False)
        for source, unit in survey.sources_of(session.units)
    ]


def _write_state(session: SkyAlertSession, sources: Sequence[NoticeSource], watchers: Sequence[SourceWatcher]) -> None:
    """Write the state of the listener, for ``nightsift alert status``."""
    problems = [problem for one in (*sources, *watchers) if (problem := str(getattr(one, "problem", "")))]
    state = {
        "pid": os.getpid(), "at": f"{datetime.now(UTC):%FT%TZ}", "frames": len(session.frames), "problems": problems,
    }  # fmt: skip
    with atomic(session.archive.root / "alerts" / "listener.json") as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")


@flow(name="alert-notice", flow_run_name="{notice}", persist_result=False)
def alert(survey: str, notice: str, sky_map: str = "") -> str:
    """Receive one notice from the Prefect UI or an automation, reduce and rank the exposures that are there.

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
    content, given = notice_bytes(notice), Path(sky_map) if sky_map else None
    return run_notice(load_survey(survey), content, notice, sky_map=given, track=True, progress=run_logger().info)
