"""Running a flow so that its record never costs its work: the ledger is the truth, Prefect the window."""

from __future__ import annotations

import logging
from functools import wraps
from typing import Any, TypeVar

from httpx import HTTPError
from prefect import Flow
from prefect.exceptions import PrefectException

from flows.server import tracking

R = TypeVar("R")

_logger = logging.getLogger("nightsift.server")


def recorded(flow: Flow[..., R], name: str, *plan: Any) -> R:
    """Run a flow, tracked by Prefect where a server answers, and to its end whatever becomes of the server.

    Parameters
    ----------
    flow : Flow
        The flow; its function takes the plan and ``tracked``, and goes on where it was when it is begun again.
    name : str
        Name of the run.
    *plan
        Its arguments.

    Returns
    -------
    object
        What the function returned.
    """
    with tracking() as tracked:
        return _tracked(flow, name, plan) if tracked else flow.fn(*plan, tracked=False)


def _tracked(flow: Flow[..., R], name: str, plan: tuple[Any, ...]) -> R:
    reached: list[R] = []

    @wraps(flow.fn)
    def work(*given: Any, **named: Any) -> R:
        reached.append(flow.fn(*given, **named))
        return reached[0]

    run: Flow[..., R] = Flow(work, name=flow.name, flow_run_name=name, persist_result=False, validate_parameters=False)
    try:
        return run(*plan, tracked=True)
    except (HTTPError, PrefectException) as error:
        told = f"the Prefect server fails ({type(error).__name__}: {_line(error)})"
        if reached:
            _logger.error("%s: the run is done, but its record is not complete", told)
            return reached[0]
        _logger.error("%s: from here on this run is not tracked", told)
        return flow.fn(*plan, tracked=False)


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or "no answer"
