"""Processes that are kept alive: started again when they die, stopped in order, gone when their keeper is killed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_PAUSE = 60.0
"""Seconds before a process that dies again and again is started once more."""

STEADY_SECONDS = 120.0
"""A process that lived so long was well: the next pause is short again."""

_logger = logging.getLogger("nightsift.serve")


@dataclass(slots=True)
class Kept:
    """A process that is kept alive.

    Attributes
    ----------
    name : str
        For people and for the name of its log.
    command : sequence of str
        Module and arguments, run by this Python.
    environment : mapping of str to str
        Its environment.
    log : Path
        Where its output goes.
    stop_seconds : float
        How long it may take to end when it is asked to.
    process : subprocess.Popen or None
        The process; None while there is none.
    starts : int
        How often it was started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    stop_seconds: float = 15.0
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    _started: float = 0.0
    _pause: float = 0.5
    _not_before: float = 0.0
    _asked: bool = False

    def look(self) -> None:
        """Start it, or start it again where it has died, after a pause that grows."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self._pause = 0.5 if now - self._started > STEADY_SECONDS else min(2 * self._pause, LONGEST_PAUSE)
            self._not_before = now + self._pause
            _logger.warning(
                "%s has ended (%s), started again in %.0f s; see %s", self.name, code, self._pause, self.log
            )
            self._close()
        if now >= self._not_before:
            self._start()

    def ask_to_stop(self) -> None:
        """Ask it to end, once: some take a second request for impatience and drop what they hold."""
        if self.process is not None and self.process.poll() is None and not self._asked:
            self._asked = True
            self.process.terminate()

    def stop(self) -> None:
        """Ask it to end, wait, and kill it where it does not."""
        self.ask_to_stop()
        if self.process is not None:
            try:
                self.process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                _logger.warning("%s does not end and is killed", self.name)
                self.process.kill()
                self.process.wait()
            self._close()

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", *self.command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=dict(self.environment), start_new_session=True,
            )  # fmt: skip
        self._started, self._asked = time.monotonic(), False
        self.starts += 1

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def environment(**added: str) -> dict[str, str]:
    """Environment of a kept process: this one's, with what is added; no secret is ever an argument.

    Neither it nor what it starts imports from the folder where it stands: people keep a ``tasks.py`` of theirs there.

    Parameters
    ----------
    **added
        Variables.

    Returns
    -------
    dict of str to str
        The environment.
    """
    return {**os.environ, "PYTHONSAFEPATH": "1", **added}
