"""Tries again after errors of network and disk that may pass, and the logger of the run that is going on."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

R = TypeVar("R")
Logger = logging.Logger | logging.LoggerAdapter[Any]

PAUSES = (1.0, 5.0)
"""Seconds to wait before the second and the third try, on average."""

SPREAD = 0.5
"""Pauses differ by up to this part: processes that failed together do not come back together."""

_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def patiently(step: Callable[[], R], pauses: Sequence[float] = PAUSES) -> R:
    """Call a step again after an error of input or output that may pass by itself.

    Parameters
    ----------
    step : callable
        What to do, without arguments.
    pauses : sequence of float
        Seconds to wait before each further try.

    Returns
    -------
    object
        What the step returns.

    Raises
    ------
    OSError
        The last one, when every try failed, or at once when waiting cannot help (disk full, no such file).
    """
    for pause in pauses:
        try:
            return step()
        except OSError as error:
            if error.errno in _HOPELESS or isinstance(error, FileNotFoundError):
                raise
            pause *= random.uniform(1.0 - SPREAD, 1.0 + SPREAD)
            logging.getLogger(__name__).warning("%s; trying again in %.1f s", error, pause)
            time.sleep(pause)
    return step()


def run_logger() -> Logger:
    """Return the logger of the task or flow run that is going on; ``nightsift`` outside of a run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("nightsift")
