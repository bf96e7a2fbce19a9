"""How exposures are spread over processes: in this one, over warm ones beside it, or over Dask.

One loop serves all: at most a few calls are under way, and each that ends makes room for the next. A process that
dies (killed, out of memory) costs only its own call, which is tried once more alone; a call that takes too long is
stopped with its process (`flows.workers`).
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from prefect import Task

from flows.workers import Call, Ended, Workers
from nightsift.errors import NightsiftError, ProcessDied
from nightsift.survey import Runner

__all__ = ["Call", "Ended", "ProcessDied", "run_all"]


class _Future(Protocol):
    def result(self) -> Any: ...
    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


Submit = Callable[[Call], _Future]


def run_all(
    task: Task[..., Any], calls: Iterable[Call], runner: Runner, tracked: bool, timeout: float | None = None
) -> Iterator[Ended]:
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
    Ended
        One a call, in the order in which they end.
    """
    waiting: Iterator[Call] = iter(calls)
    if runner.kind == "in-process":
        for one in waiting:
            yield _here(task, one, tracked)
    elif runner.kind == "dask":
        yield from _on_dask(task, waiting, runner, tracked)
    else:
        with Workers(task, runner.workers, timeout, tracked) as workers:
            while True:
                while workers.free() and (call := next(waiting, None)) is not None:
                    workers.submit(call)
                if not workers.under_way():
                    return
                yield from workers.collect()


def _here(task: Task[..., Any], call: Call, tracked: bool) -> Ended:
    try:
        return Ended(call, task(**call) if tracked else task.fn(**call))
    except (NightsiftError, OSError) as error:  # not even the ledger row could be written
        return Ended(call, error=error)


def _on_dask(task: Task[..., Any], calls: Iterator[Call], runner: Runner, tracked: bool) -> Iterator[Ended]:
    """Dask moves a call whose worker died to another one, and gives it up after three deaths (``KilledWorker``)."""
    if not tracked:
        # the runner of prefect-dask asks for a Prefect API, which an untracked run has not got
        yield from run_all(task, calls, runner.model_copy(update={"kind": "processes"}), tracked=False)
        return
    from prefect_dask.task_runners import DaskTaskRunner

    local = {"n_workers": runner.workers, "threads_per_worker": 1, "dashboard_address": None}
    opened = DaskTaskRunner(address=runner.address) if runner.address else DaskTaskRunner(cluster_kwargs=local)
    with opened as cluster:
        yield from _windowed(lambda call: cluster.submit(task, parameters=dict(call)), calls, 2 * runner.workers)


def _windowed(submit: Submit, calls: Iterator[Call], width: int) -> Iterator[Ended]:
    """Keep a few calls under way."""
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


def _outcome(call: Call, future: _Future) -> Ended:
    try:
        return Ended(call, future.result())
    except BaseException as error:
        # Whatever a task has died of belongs to its exposure and is told there; the night goes on.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return Ended(call, error=error)
