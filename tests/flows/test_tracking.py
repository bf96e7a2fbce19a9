"""One contract for every flow: it runs untracked, tracked, and to its end where the Prefect server dies in the middle.

The commands run as they are; only what a flow does inside is made small.
"""

from __future__ import annotations

import contextvars
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

import flows.backfill
import flows.monitoring
import flows.night
import flows.photometry
import flows.skyalert
import flows.skyalert_listener
import flows.templates
import flows.tracking
import flows.training
import flows.watch
from flows.campaign_plan import Request
from nightsift.archive.survey import load_survey
from nightsift.core.errors import NoExamples
from nightsift.skyalerts.event_store.inbox import receive
from nightsift.skyalerts.skyalert_session import SkyAlertSession
from tasks.photometry import Position
from tests.nightsift.skyalerts.conftest import blob, notice  # noqa: F401
from tests.nightsift.skyalerts.small_survey import EVENT, survey  # noqa: F401


@dataclass
class Work:
    """What a flow does, made small: it counts how it was run, and does something to the server meanwhile."""

    result: Any = "done"
    act: Callable[[], None] = lambda: None
    runs: list[bool] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def __call__(self, tracked: bool) -> Any:
        self.runs.append(tracked)
        context = FlowRunContext.get()
        assert tracked is (context is not None), "it is told the truth of whether it stands in a flow run"
        if context is not None and context.flow_run is not None:
            self.names.append(context.flow_run.name)
            self.act()
        return self.result


@dataclass(frozen=True)
class Place:
    """What the commands work on."""

    survey: Any
    content: bytes
    folder: Path


@dataclass(frozen=True)
class Case:
    """A command with its flow, and where the work of the flow stands."""

    module: Any
    flow: str
    inner: str
    run: Callable[[Place, bool], Any]


def _light_curves(place: Place, track: bool) -> Any:
    return flows.photometry.light_curves(place.survey, [Position("here", 150.0, 2.0)], track=track)


def _watch(place: Place, track: bool) -> Any:
    return flows.watch.watch(place.survey, until_idle=True, track=track)


def _one_alert(place: Place, track: bool) -> Any:
    return flows.skyalert_listener.run_notice(
        place.survey, place.content, "n", sky_map=None, track=track, progress=lambda line: None
    )


def _listener(place: Place, track: bool) -> Any:
    """The listener goes on with an alert that runs, and ends."""
    receive(SkyAlertSession(place.survey, {}).archive, place.content)
    lines: list[str] = []
    flows.skyalert_listener.listen(place.survey, [], track, progress=lines.append, over=lambda: True)
    assert any(line.startswith(f"{EVENT}: active") for line in lines), lines
    return EVENT


CASES = {
    "night": Case(flows.night, "nightly", "_night", lambda at, t: flows.night.night(at.survey, track=t)),
    "watch": Case(flows.watch, "watching", "_watch", _watch),
    "templates": Case(
        flows.templates, "templates", "_build", lambda at, t: flows.templates.build_templates(at.survey, track=t)
    ),
    "backfill": Case(
        flows.backfill, "campaign_flow", "_run", lambda at, t: flows.backfill.backfill(at.survey, Request(), track=t)
    ),
    "training": Case(
        flows.training, "training", "_train", lambda at, t: flows.training.train_model(at.folder / "model", track=t)
    ),
    "dataset": Case(
        flows.training, "dataset", "_make", lambda at, t: flows.training.make_dataset(at.folder / "set", track=t)
    ),
    "monitoring": Case(
        flows.monitoring, "monitoring", "_monitor", lambda at, t: flows.monitoring.monitor(at.survey, track=t)
    ),
    "photometry": Case(flows.photometry, "photometry", "_measure", _light_curves),
    "alert": Case(flows.skyalert, "", "_alert", _one_alert),
    "listener": Case(flows.skyalert, "", "_alert", _listener),
}
every_flow = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def place(survey: Any, notice: Callable[..., bytes], tmp_path: Path) -> Place:  # noqa: F811
    """A survey without frames and without a model, and a notice for it."""
    file = Path(survey.file)
    (tmp_path / "nights").mkdir(exist_ok=True)
    return Place(load_survey(file), notice(), tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Case, Work]]:
    """Make the work of a flow small."""

    def shrink(name: str) -> tuple[Case, Work]:
        case = CASES[name]
        if not case.flow:  # the steps of an alert without its exposures are small enough
            steps, work = flows.skyalert._alert, Work(EVENT)

            def body(desk: Any, event: str, workers: Any, tracked: bool, poll: Any) -> Any:
                work(tracked)
                return steps(desk, event, workers, False, None)

            monkeypatch.setattr(flows.skyalert, "_alert", body)
            return case, work
        work = Work()

        def inner(*plan: Any, tracked: bool) -> Any:
            return work(tracked)

        made = flow(name=case.flow, persist_result=False, validate_parameters=False)(inner)
        monkeypatch.setattr(case.module, case.inner, inner)
        monkeypatch.setattr(case.module, case.flow, made)
        return case, work

    return shrink


def server_process() -> int:
    """Process of the temporary server of this one."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            command = (entry.parent / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and b"flows.tracking" in command:
            return int(entry.parent.name)
    raise AssertionError("there is no server")


@contextmanager
def cut_off(work: Work, noticed: bool) -> Iterator[None]:
    """From the moment when the work is under way no request gets through, as where the server is gone."""

    def refuse(self: Any, request: httpx.Request, **options: Any) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused", request=request)

    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):

        def die() -> None:
            patch.setattr(httpx.Client, "send", refuse)
            if noticed:
                with get_client(sync_client=True) as client:
                    client.read_flow_runs()

        patch.setattr(work, "act", die)
        yield


@every_flow
def test_untracked_nothing_is_started_or_asked(
    name: str, small: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, work = small(name)

    def never(*given: Any, **named: Any) -> Any:
        raise AssertionError("Prefect has no part in this")

    monkeypatch.setattr(flows.tracking, "_start", never)
    monkeypatch.setattr(httpx.Client, "send", never)
    assert case.run(place, False) == work.result
    assert work.runs == [False]


@every_flow
@pytest.mark.usefixtures("prefect_harness")
def test_tracked_the_run_stands_on_the_server(name: str, small: Any, place: Place) -> None:
    case, work = small(name)
    assert case.run(place, True) == work.result
    assert work.runs == [True]
    with get_client(sync_client=True) as client:
        states = {run.name: run.state_name for run in client.read_flow_runs()}
    assert states[work.names[0]] == "Completed"


@every_flow
@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("noticed", [True, False], ids=["the work asks it", "the work does not ask it"])
def test_the_server_dies_in_the_middle(name: str, noticed: bool, small: Any, place: Place) -> None:
    case, work = small(name)
    with cut_off(work, noticed):
        assert case.run(place, True) == work.result
    assert work.runs == ([True, False] if noticed else [True]), "what is done is not done again, the rest untracked"


@pytest.mark.parametrize("name", ["training", "listener", pytest.param("backfill", marks=pytest.mark.slow)])
def test_the_server_is_killed_in_the_middle(
    name: str, small: Any, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    case, work = small(name)
    work.act = lambda: os.kill(server_process(), signal.SIGKILL)
    # in a context of its own, where the server of the harness is not configured, so that one of ours is started
    assert contextvars.Context().run(case.run, place, True) == work.result
    assert work.runs == [True]
    assert "its record is not complete" in caplog.text


@pytest.mark.usefixtures("prefect_harness")
def test_an_error_of_the_work_is_its_own_whatever_the_server_does(small: Any, place: Place) -> None:
    case, work = small("dataset")

    def act() -> None:
        raise NoExamples(survey="small", exposures=0)

    work.act = act
    with pytest.raises(NoExamples):
        case.run(place, True)
    assert work.runs == [True]
    with cut_off(work, noticed=False):
        die = work.act

        def both() -> None:
            die()
            act()

        work.act = both
        with pytest.raises(NoExamples):
            case.run(place, True)
    assert work.runs == [True, True], "hours of work that failed are not done a second time"


@pytest.mark.usefixtures("prefect_harness")
def test_a_process_that_lives_on_tracks_again(small: Any, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bool] = []

    def work(number: int, tracked: bool) -> int:
        seen.append(tracked)
        return number

    made = flow(name="one of many", persist_result=False, validate_parameters=False)(work)
    with flows.tracking.tracking() as tracked:
        assert flows.tracking.run_recorded(made, "first", 1, tracked=tracked) == 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flows.tracking, "answers", lambda url, seconds: False)
            assert flows.tracking.run_recorded(made, "second", 2, tracked=tracked) == 2
        assert flows.tracking.run_recorded(made, "third", 3, tracked=tracked) == 3
    assert seen == [True, False, True]
    assert "'second' is not tracked" in caplog.text
