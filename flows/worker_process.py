"""A worker process: it imports its task at the start, then takes one call after the other."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any
from uuid import UUID, uuid4

from prefect import Task

from flows.prefect_internals import (
    cloudpickle_wrapped_call,
    hydrated_context,
    run_task_sync,
    send_what_is_left,
    serialize_context,
)

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""Libraries in these processes keep to one thread each: together they already fill the machine."""

DRAIN_SECONDS = 5.0
"""How long to wait at the end for the last events and logs to leave."""

Job = Callable[[], Any]


def job_of(task: Task[..., Any], call: Mapping[str, Any], tracked: bool) -> tuple[Job, UUID | None]:
    """Pack a call of a task for another process.

    Parameters
    ----------
    task : Task
        The task.
    call : mapping
        Its arguments.
    tracked : bool
        Whether it is to be a task run of the flow run that goes on here.

    Returns
    -------
    job : callable
        To be called in the other process.
    task_run_id : UUID or None
        Identity of the task run, where it is one.
    """
    module, name = task.fn.__module__, task.fn.__name__
    if not tracked:
        return partial(_plainly, module, name, dict(call)), None
    task_run_id, settings = uuid4(), dict(os.environ)
    packed = cloudpickle_wrapped_call(_tracked, task, task_run_id, dict(call), serialize_context(), settings)
    return partial(_unpacked, packed), task_run_id


def serve(pipe: Connection, module: str) -> None:
    """Take one call after the other from a pipe until it ends.

    Parameters
    ----------
    pipe : Connection
        Jobs come in; ``("ready", None)``, ``("result", value)`` and ``("error", exception)`` go out.
    module : str
        Module of the task, imported before the first call comes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    end_with_parent()
    importlib.import_module(module)
    try:
        pipe.send(("ready", None))
        while True:
            pipe.send(_outcome(pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent wants no more
        send_what_is_left(DRAIN_SECONDS)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started inside the block keep to one thread; the environment of this one is restored."""
    added = [name for name in ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def end_with_parent() -> None:
    """Let this process end when its parent dies, also by ``kill -9``, of which a parent cannot warn it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True, name="end-with-parent").start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _outcome(job: Job) -> tuple[str, Any]:
    try:
        return "result", job()
    except BaseException as error:  # noqa: BLE001
        # Whatever ends a call becomes the row of its exposure; the process takes the next call.
        return "error", _portable(error)


def _portable(error: BaseException) -> BaseException:
    """An error as it can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, ImportError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _plainly(module: str, name: str, call: dict[str, Any]) -> Any:
    # A task is sent by its name: its function cannot be pickled, because the name in the module is the task's.
    return getattr(importlib.import_module(module), name).fn(**call)


def _unpacked(packed: Callable[[], bytes]) -> Any:
    # what Prefect packs for another process gives its result packed as well
    return pickle.loads(packed())


def _tracked(
    task: Task[..., Any], task_run_id: UUID, call: dict[str, Any], context: dict[str, Any], settings: dict[str, str]
) -> Any:
    os.environ.update(settings)
    with hydrated_context(context):
        return run_task_sync(task=task, task_run_id=task_run_id, parameters=call)
