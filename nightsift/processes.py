"""Which process this is, and whether another one still lives: told apart from a later one with the same number."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """A process on some machine.

    Attributes
    ----------
    host : str
        Name of its machine, for people.
    machine : str
        Machine, its boot and its space of process numbers: only equal ones may be compared by number.
    pid : int
        Process number.
    started : str
        When it started, in ticks since the boot; empty where the system does not tell.
    """

    host: str
    machine: str
    pid: int
    started: str

    def is_dead(self) -> bool:
        """Whether it is known to have ended; a process elsewhere never is."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return bool(self.started) and _started(self.pid) != self.started


def this_process() -> Holder:
    """Tell which process this is.

    Returns
    -------
    Holder
        This process.
    """
    return Holder(platform.node() or "localhost", _machine(), os.getpid(), _started(os.getpid()))


@lru_cache(maxsize=1)
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str:
    """Ticks since the boot at which a process started; a zombie has ended, so it gives none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
