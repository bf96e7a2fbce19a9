"""Running a flow so that its record never costs its work: the ledger is the truth, Prefect the window.

Every flow goes through here: without Prefect where that is asked for, tracked where a server answers, and to its end
untracked where the server dies in the middle.
"""

from __future__ import annotations

import logging
from functools import wraps
from inspect import signature
from typing import Any, Generic, TypeVar

from httpx import HTTPError
from prefect import Flow
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from flows.server import answers, tracking

R = TypeVar("R")

ANSWER_SECONDS = 2.0
"""A server may take so long to say that it is well, before a run begins that a long-lived process tracks."""

_logger = logging.getLogger("nightsift.server")


def recorded(flow: Flow[..., R], name: str, *plan: Any, track: bool = True) -> R:
    """Run a flow, tracked by Prefect where a server answers or can be started.

    Parameters
    ----------
    flow : Flow
        The flow; its function takes the plan and ``tracked``, and goes on where it was when it is begun again.
    name : str
        Name of the run.
    *plan
        Its arguments.
    track : bool, optional
        False to run without Prefect: nothing is started or asked.

    Returns
    -------
    object
        What the function returned.
    """
    if not track:
        return flow.fn(*plan, tracked=False)
    with tracking() as tracked:
        return run_recorded(flow, name, *plan, tracked=tracked)


def run_recorded(flow: Flow[..., R], name: str, *plan: Any, tracked: bool) -> R:
    """Run a flow inside a `flows.server.tracking` block, to its end whatever becomes of the server.

    A process that lives for long opens the block and runs many flows in it, each tracked if the server answers then.

    Parameters
    ----------
    flow : Flow
        The flow, as for `recorded`.
    name : str
        Name of the run.
    *plan
        Its arguments.
    tracked : bool
        What the block said.

    Returns
    -------
    object
        What the function returned.
    """
    if not tracked:
        return flow.fn(*plan, tracked=False)
    if not answers(PREFECT_API_URL.value() or "", ANSWER_SECONDS):
        _logger.warning("the Prefect server does not answer: '%s' is not tracked", name)
        return flow.fn(*plan, tracked=False)
    return _Attempt(flow, name).run(plan)


class _Attempt(Generic[R]):
    """A tracked run: what its function came to is known here, whatever the engine of Prefect makes of it."""

    def __init__(self, flow: Flow[..., R], name: str) -> None:
        self._flow, self._name = flow, name
        self._results: list[R] = []
        self._error: Exception | None = None

    def run(self, plan: tuple[Any, ...]) -> R:
        @wraps(self._flow.fn)
        def work(*given: Any, **named: Any) -> R:
            try:
                self._results.append(self._flow.fn(*given, **named, tracked=True))
            except Exception as error:
                self._error = error
                raise
            return self._results[0]

        shown = signature(self._flow.fn)
        parameters = [one for name, one in shown.parameters.items() if name != "tracked"]
        work.__signature__ = shown.replace(parameters=parameters)  # type: ignore[attr-defined]
        run: Flow[..., R] = Flow(
            work, name=self._flow.name, flow_run_name=self._name, persist_result=False, validate_parameters=False
        )
        try:
            return run(*plan)
        except Exception as error:  # noqa: BLE001
            # Prefect fails in many ways where its server is gone. The work's own error is raised again by `_end`.
            return self._end(plan, error)

    def _end(self, plan: tuple[Any, ...], error: Exception) -> R:
        """What the run comes to although Prefect failed, or the error of the work itself."""
        line = f"the Prefect server fails ({type(error).__name__}: {str(error).partition(chr(10))[0] or 'no answer'})"
        if self._results:
            _logger.error("%s: the run is done, but its record is not complete", line)
            return self._results[0]
        if self._error is not None and not isinstance(self._error, HTTPError | PrefectException):
            raise self._error
        _logger.error("%s: from here on this run is not tracked", line)
        return self._flow.fn(*plan, tracked=False)
