"""Where a step tells what it did: the log of its task run, or a plain logger when nothing is tracked."""

from __future__ import annotations

import logging
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

Logger = logging.Logger | logging.LoggerAdapter[Any]


def run_logger() -> Logger:
    """Logger of the run that is going on.

    Returns
    -------
    Logger or LoggerAdapter
        The one of the task or flow run, which also goes to the Prefect server; ``nightsift`` outside of a run.
    """
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("nightsift")
