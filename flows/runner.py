"""How exposures are spread over processes: in this one, over a pool, or over Dask.

One loop serves all: at most a few calls are under way, and each that ends makes room for the next. When a process of
the pool dies (killed, out of memory), the whole pool is lost and with it what was under way. Each of those calls then
runs alone in a fresh process, so that the one that kills is found and given up, and all others are done.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol
from uuid import UUID

from httpx import HTTPError
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.task_runners import ProcessPoolTaskRunner

from nightsift.errors import NightsiftError
from nightsift.survey import Runner

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""Libraries in the processes of a pool keep to one thread each: the pool already fills the machine."""

Call = Mapping[str, Any]
"""Arguments of one task, plain values."""


class _Future(Protocol):
    def result(self) -> Any: ...
    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


Submit = Callable[[Call], _Future]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one call ended.

    Attributes
    ----------
    call : mapping
        Its arguments.
    result : object
        What the task returned; None if it raised or its process died.
    error : BaseException or None
        What it raised, or `ProcessDied`.
    """

    call: Call
    result: Any = None
    error: BaseException | None = None


class ProcessDied(Exception):
    """The process that ran a call died, twice: in the pool and alone."""


def run_all(task: Task[..., Any], calls: Iterable[Call], runner: Runner, tracked: bool) -> Iterator[Ended]:
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

    Yields
    ------
    Ended
        One a call, in the order in which they end.
    """
    if runner.kind == "in-process":
        for call in calls:
            yield _here(task, call, tracked)
        return
    waiting = iter(list(calls))
    more = True
    while more:
        with _opened(task, runner, runner.workers, tracked) as submit:
            lost: list[Call] = []
            more = False
            for ended in _windowed(submit, waiting, 2 * runner.workers):
                if isinstance(ended.error, BrokenProcessPool):
                    lost.append(ended.call)
                    more = True
                else:
                    yield ended
        yield from _one_by_one(task, lost, runner, tracked)


def _here(task: Task[..., Any], call: Call, tracked: bool) -> Ended:
    try:
        return Ended(call, task(**call) if tracked else task.fn(**call))
    except (NightsiftError, OSError) as error:  # not even the ledger row could be written
        return Ended(call, error=error)


def _one_by_one(task: Task[..., Any], calls: Sequence[Call], runner: Runner, tracked: bool) -> Iterator[Ended]:
    """Run calls alone in one process after the other; a process is new after one that died."""
    waiting = iter(calls)
    more = bool(calls)
    while more:
        more = False
        with _opened(task, runner, 1, tracked) as submit:
            for ended in _windowed(submit, waiting, 1):
                more = isinstance(ended.error, BrokenProcessPool)
                died = ProcessDied("the process that reduced it died twice: in the pool and alone")
                yield Ended(ended.call, error=died) if more else ended


def _windowed(submit: Submit, calls: Iterator[Call], width: int) -> Iterator[Ended]:
    """Keep a few calls under way; stop taking new ones once the pool is broken."""
    done: queue.SimpleQueue[tuple[int, _Future]] = queue.SimpleQueue()
    under_way: dict[int, Call] = {}
    number, broken = 0, False
    while True:
        while not broken and len(under_way) < width and (call := next(calls, None)) is not None:
            under_way[number] = call
            try:
                submit(call).add_done_callback(lambda future, n=number: done.put((n, future)))  # type: ignore[misc]
            except BrokenProcessPool as error:
                broken = True
                yield Ended(under_way.pop(number), error=error)
            number += 1
        if not under_way:
            return
        n, future = done.get()
        ended = _outcome(under_way.pop(n), future)
        broken = broken or isinstance(ended.error, BrokenProcessPool)
        yield ended


def _outcome(call: Call, future: _Future) -> Ended:
    try:
        return Ended(call, future.result())
    except BaseException as error:
        # Whatever a task has died of belongs to its exposure and is told there; the night goes on.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        if isinstance(error, BrokenProcessPool):
            _tell_crashed(getattr(future, "task_run_id", None))
        return Ended(call, error=error)


def _tell_crashed(task_run_id: UUID | None) -> None:
    """A killed process cannot tell the server that its task run is over, which would show as running for ever."""
    if task_run_id is None:
        return
    message = "its process died; the exposure is tried again in a process of its own"
    try:
        with get_client(sync_client=True) as client:
            client.set_task_run_state(task_run_id, Crashed(message=message), force=True)
    except (ObjectNotFound, HTTPError):  # it had not begun, or the server does not answer: the ledger knows anyway
        return


@contextmanager
def _opened(task: Task[..., Any], runner: Runner, workers: int, tracked: bool) -> Iterator[Submit]:
    with ExitStack() as stack:
        stack.enter_context(_one_thread_each())
        if not tracked:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent))
            yield lambda call: pool.submit(_plainly, task.fn.__module__, task.fn.__name__, dict(call))
            return
        opened = stack.enter_context(_task_runner(runner, workers))
        yield lambda call: opened.submit(task, parameters=dict(call))


def _task_runner(runner: Runner, workers: int) -> AbstractContextManager[Any]:
    if runner.kind == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        if runner.address:
            return DaskTaskRunner(address=runner.address)
        local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        return DaskTaskRunner(cluster_kwargs=local)
    return ProcessPoolTaskRunner(max_workers=workers, initializer=end_with_parent)


def _plainly(module: str, name: str, call: dict[str, Any]) -> Any:
    # A task is sent by its name: its function cannot be pickled, because the name in the module is the task's.
    return getattr(importlib.import_module(module), name).fn(**call)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside the block keep to one thread; the environment of this one is restored."""
    added = [name for name in ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def end_with_parent() -> None:
    """Let this process of a pool end when its parent dies, also by ``kill -9``, which leaves no time to tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True, name="end-with-parent").start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
