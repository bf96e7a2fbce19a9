"""What we use of Prefect beside its documented interface, each with its reason: an upgrade has one file to look at.

`tests/house/test_prefect_names.py` holds all other modules to the documented names.
"""

from __future__ import annotations

import logging
import queue
from contextlib import suppress
from typing import Any

from prefect import Flow
from prefect.context import hydrated_context, refresh_global_settings_context, serialize_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker, PrefectConsoleHandler
from prefect.task_engine import run_task_sync
from prefect.utilities.callables import cloudpickle_wrapped_call, parameter_schema

__all__ = [
    "cloudpickle_wrapped_call",  # packs a task for another process as Prefect's own task runners do
    "hydrated_context",  # the flow run that a task run in another process belongs to
    "refresh_global_settings_context",  # settings are read on import: those that we give later would stay unread
    "run_task_sync",  # runs a task under the identity that its parent gave it, so that the parent can report its death
    "serialize_context",  # the same flow run, as it can be sent there
]


def console_handlers() -> set[logging.Handler]:
    """Return the handlers by which Prefect writes to the terminal, which it sets up on import."""
    loggers = [logging.getLogger(name) for name in ("", "prefect", "prefect.extra")]
    return {one for logger in loggers for one in logger.handlers if isinstance(one, PrefectConsoleHandler)}


def send_what_is_left(seconds: float) -> None:
    """Wait until logs and events have left, `seconds` at most for each.

    They go in batches from threads, and a server that stops loses the last.
    """
    EventsWorker.drain_all(timeout=seconds)
    APILogWorker.drain_all(timeout=seconds)


def forget_what_is_left() -> None:
    """Drop logs and events of a server that is gone: at its end a process waits seconds for each of them to fail."""
    kinds: tuple[Any, ...] = (EventsWorker, APILogWorker)
    for service in {one for kind in kinds for one in kind._instances.values()}:
        with suppress(queue.Empty):
            while True:
                service._queue.get_nowait()


def server_app(ephemeral: bool) -> Any:
    """Return the FastAPI application of the Prefect server, for a web server of our own that dies with its parent.

    An ephemeral one is without the services that a single run does not need.
    """
    from prefect.server.api.server import create_app

    return create_app(ephemeral=ephemeral, final=True)


def command_line() -> None:
    """Run the command ``prefect`` in this process, by `sys.argv`: a worker that ends with its parent."""
    from prefect.cli import app

    app()


def parameters_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """Return the schema of the parameters of a flow, as its page in the browser asks for them."""
    return parameter_schema(flow).model_dump_for_openapi()
