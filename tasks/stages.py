"""How a stage is timed: seconds by name, kept for the ledger and written to the run's log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.logs import Logger


class Stopwatch:
    """Wall and processor seconds by stage.

    Attributes
    ----------
    seconds : dict of str to float
        Wall seconds spent in each stage so far, in the order in which the stages began.
    cpu : dict of str to float
        Processor seconds of the whole process in each stage.
    stage : str
        Stage that runs now, or the one that ran last; empty before the first.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.stage = ""
        self._born = time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the `with` block to a stage, whether it succeeds or raises.

        Parameters
        ----------
        stage : str
            Name of the stage.
        """
        self.stage = stage
        began, busy = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - busy

    @property
    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._born

    def log(self, logger: Logger, label: str) -> None:
        """Write the seconds of all stages as one line.

        Parameters
        ----------
        logger : Logger or LoggerAdapter
            Where to write.
        label : str
            What was timed.
        """
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())
        logger.info("%s: %.2f s (%s)", label, self.total, parts)
