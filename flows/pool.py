"""Calls of a task spread over processes: in this one, over worker processes that stay warm, or over Dask.

A pool of the standard library loses all that is under way when one process dies, and cannot stop a call that hangs in
C code, which no thread can. Here each process has a pipe of its own: the parent knows which call it works on and since
when, kills the one that has run over its time, and starts a fresh one. A call whose process died is tried once more,
with nothing beside it, so that the one that kills is found and given up, and all others are done.
"""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Protocol
from uuid import UUID

from httpx import HTTPError
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Failed

from flows.worker_process import job_of, one_thread_each, serve
from nightsift.archive.survey import Runner
from nightsift.core.errors import NightsiftError, ProcessDied, TimedOut

START_SECONDS = 300.0
"""A process may take so long to import what it needs."""

STOP_SECONDS = 10.0
"""An idle process may take so long to send its last logs and end; it is killed after that."""

Call = Mapping[str, Any]
"""Arguments of one task, plain values."""


class _Future(Protocol):
    def result(self) -> Any: ...
    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


Submit = Callable[[Call], _Future]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result or error of one call.

    Attributes
    ----------
    call : mapping
        Its arguments.
    result : object
        What the task returned; None if it raised or its process died.
    error : BaseException or None
        What it raised, `ProcessDied` or `TimedOut`.
    pid : int
        Process that worked on it last; 0 where that is unknown.
    """

    call: Call
    result: Any = None
    error: BaseException | None = None
    pid: int = 0


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    call: Call | None = None
    task_run_id: UUID | None = None
    deadline: float = float("inf")
    ready: bool = False


class Workers:
    """Processes for one task, for a `with` block.

    Parameters
    ----------
    task : Task
        What to run; it takes plain values and returns them.
    number : int
        Processes.
    timeout : float, optional
        Seconds after which a call's process is killed; None for no limit.
    tracked : bool, optional
        Whether a Prefect API is there: each call is a task run of the flow run that goes on here. The attribute
        of this name may be set anew where processes serve several flow runs: it holds for calls begun after that.
    """

    def __init__(
        self, task: Task[..., Any], number: int, *, timeout: float | None = None, tracked: bool = False
    ) -> None:
        self._task, self._number, self._timeout, self.tracked = task, number, timeout, tracked
        self._workers: list[_Worker] = []
        self._waiting: deque[Call] = deque()
        self._died: deque[Call] = deque()
        self._again: set[int] = set()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if worker.call is not None or not worker.ready:
                worker.process.kill()
            worker.pipe.close()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.process.join(max(deadline - time.monotonic(), 0.1))
            _kill(worker)
        self._workers.clear()

    def start(self) -> None:
        """Start all processes now, so that the first call finds them warm."""
        while len(self._workers) < self._number:
            self._start_one()

    def submit(self, call: Call) -> None:
        """Hand in a call of the task; it runs as soon as a process is free."""
        self._waiting.append(call)
        self._dispatch()

    def free(self) -> int:
        """Number of calls that would start at once."""
        return 0 if self._died or self._again else self._number - self.under_way()

    def under_way(self) -> int:
        """Number of calls handed in that have not ended."""
        return sum(one.call is not None for one in self._workers) + len(self._waiting) + len(self._died)

    def pids(self) -> list[int]:
        """Identities of the living processes."""
        return [one.process.pid or 0 for one in self._workers]

    def collect(self, seconds: float | None = None) -> list[Outcome]:
        """Wait until a call ends, or for some seconds.

        Parameters
        ----------
        seconds : float, optional
            The longest wait; None for as long as a call is under way.

        Returns
        -------
        list of Outcome
            Calls that have ended; empty where none did in time.
        """
        until = float("inf") if seconds is None else time.monotonic() + seconds
        ended: list[Outcome] = []
        while not ended and (self.under_way() or seconds is not None):
            self._dispatch()
            first = min([until, *(one.deadline for one in self._workers)])
            left = None if first == float("inf") else max(first - time.monotonic(), 0.0)
            pipes = {one.pipe: one for one in self._workers}
            for pipe in wait(list(pipes), left) if pipes else ():
                ended += self._receive(pipes[pipe])  # type: ignore[index]
            ended += self._out_of_time()
            if not pipes and left:
                time.sleep(left)
            if time.monotonic() >= until:
                break
        self._dispatch()
        return ended

    def _dispatch(self) -> None:
        busy = sum(one.call is not None for one in self._workers)
        if self._died:
            if busy == 0:
                call = self._died.popleft()
                self._again.add(id(call))
                self._give(call)
            return
        while self._waiting and not self._again and busy < self._number:
            self._give(self._waiting.popleft())
            busy += 1

    def _give(self, call: Call) -> None:
        worker = next((one for one in self._workers if one.call is None), None) or self._start_one()
        job, worker.task_run_id = job_of(self._task, call, self.tracked)
        worker.call = call
        worker.deadline = self._deadline(worker.ready)
        with suppress(BrokenPipeError, ConnectionResetError):  # it died while it was idle: its pipe will say so
            worker.pipe.send(job)

    def _deadline(self, ready: bool) -> float:
        if self._timeout is None:
            return float("inf")
        return time.monotonic() + (self._timeout if ready else max(self._timeout, START_SECONDS))

    def _start_one(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        with one_thread_each():
            process = context.Process(target=serve, args=(there, self._task.fn.__module__), name="reduces")
            process.start()
        there.close()
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> list[Outcome]:
        """Take one message of a process: it is ready, its call has ended, or it has died."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._handle_death(worker)
        call, pid = worker.call, worker.process.pid or 0
        if kind == "ready" or call is None:
            worker.ready = True
            if call is not None:
                worker.deadline = self._deadline(ready=True)
            return []
        worker.call, worker.deadline = None, float("inf")
        self._again.discard(id(call))
        return [Outcome(call, result=value, pid=pid) if kind == "result" else Outcome(call, error=value, pid=pid)]

    def _handle_death(self, worker: _Worker) -> list[Outcome]:
        self._remove(worker)
        call = worker.call
        if call is None:
            return []
        if id(call) not in self._again:
            self._died.append(call)
            _set_task_state(
                worker.task_run_id, Crashed(message="its process died; it is tried again in a process of its own")
            )
            return []
        self._again.discard(id(call))
        _set_task_state(worker.task_run_id, Crashed(message="its process died a second time, with nothing beside it"))
        error = ProcessDied(deaths=2)  # among others, and alone
        return [Outcome(call, error=error, pid=worker.process.pid or 0)]

    def _out_of_time(self) -> list[Outcome]:
        ended = []
        for worker in [one for one in self._workers if one.call is not None and one.deadline <= time.monotonic()]:
            call, pid = worker.call, worker.process.pid or 0
            assert call is not None
            self._remove(worker)
            self._again.discard(id(call))
            error = TimedOut(label=str(call.get("label", "this call")), seconds=self._timeout or 0.0)
            _set_task_state(worker.task_run_id, Failed(name="TimedOut", message=str(error)))
            ended.append(Outcome(call, error=error, pid=pid))
        return ended

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _kill(worker)
        worker.pipe.close()


def _kill(worker: _Worker) -> None:
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join(STOP_SECONDS)  # one that hangs in the kernel (a dead file server) is left to it


def _set_task_state(task_run_id: UUID | None, state: State[Any]) -> None:
    """End a task run on the server: a killed process cannot, and its run would show as running for ever."""
    if task_run_id is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_task_run_state(task_run_id, state, force=True)
    except (ObjectNotFound, HTTPError):  # it had not begun, or the server does not answer: the ledger knows anyway
        return


def run_all(
    task: Task[..., Any], calls: Iterable[Call], runner: Runner, *, tracked: bool, timeout: float | None = None
) -> Iterator[Outcome]:
    """Run a task for every call and yield them as they end.

    Parameters
    ----------
    task : Task
        What to run; it takes plain values and returns them.
    calls : iterable of mapping
        Its arguments.
    runner : Runner
        How to spread them.
    tracked : bool
        Whether a Prefect API is there: each call is a task run, otherwise a plain call.
    timeout : float, optional
        Seconds after which the process of a call is killed and the call ends as `TimedOut`. Only processes can be
        killed: in this process and on Dask there is no limit.

    Yields
    ------
    Outcome
        One per call, in the order in which they end.
    """
    waiting: Iterator[Call] = iter(calls)
    if runner.kind == "in-process":
        for one in waiting:
            yield _here(task, one, tracked)
    elif runner.kind == "dask":
        yield from _on_dask(task, waiting, runner, tracked=tracked)
    else:
        with Workers(task, runner.workers, timeout=timeout, tracked=tracked) as workers:
            while True:
                while workers.free() and (call := next(waiting, None)) is not None:
                    workers.submit(call)
                if not workers.under_way():
                    return
                yield from workers.collect()


def _here(task: Task[..., Any], call: Call, tracked: bool) -> Outcome:
    try:
        return Outcome(call, task(**call) if tracked else task.fn(**call))
    except (NightsiftError, OSError) as error:  # not even the ledger row could be written
        return Outcome(call, error=error)


def _on_dask(task: Task[..., Any], calls: Iterator[Call], runner: Runner, *, tracked: bool) -> Iterator[Outcome]:
    """Run calls on Dask: it moves a call whose worker died, and gives it up after three deaths (``KilledWorker``)."""
    if not tracked:
        # the runner of prefect-dask asks for a Prefect API, which an untracked run has not got
        yield from run_all(task, calls, runner.model_copy(update={"kind": "processes"}), tracked=False)
        return
    from prefect_dask.task_runners import DaskTaskRunner

    local = {"n_workers": runner.workers, "threads_per_worker": 1, "dashboard_address": None}
    opened = DaskTaskRunner(address=runner.address) if runner.address else DaskTaskRunner(cluster_kwargs=local)
    with opened as cluster:
        yield from _windowed(lambda call: cluster.submit(task, parameters=dict(call)), calls, 2 * runner.workers)


def _windowed(submit: Submit, calls: Iterator[Call], width: int) -> Iterator[Outcome]:
    """Yield the outcomes of calls, never more than `width` under way at the same time."""
    done: queue.SimpleQueue[tuple[int, _Future]] = queue.SimpleQueue()
    under_way: dict[int, Call] = {}
    number = 0
    while True:
        while len(under_way) < width and (call := next(calls, None)) is not None:
            under_way[number] = call
            submit(call).add_done_callback(lambda future, n=number: done.put((n, future)))  # type: ignore[misc]
            number += 1
        if not under_way:
            return
        n, future = done.get()
        yield _outcome(under_way.pop(n), future)


def _outcome(call: Call, future: _Future) -> Outcome:
    try:
        return Outcome(call, future.result())
    except BaseException as error:
        # Whatever a task has died of becomes the row of its exposure; the night goes on.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return Outcome(call, error=error)
