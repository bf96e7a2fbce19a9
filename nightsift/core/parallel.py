"""Threads over the rows of an image, the identity of a process, and the memory that it keeps.

The compiled loops release the interpreter lock, so plain threads are enough. A thread pool of our own is used rather
than numba's parallel loops, because those abort the process when two threads of a worker reduce two exposures, and
hang after a fork.

A plane of pixels is as large as some hundred thousand pages, and the C library gives each back to the system when it
is freed; the next plane is then a new one, every page of which the system has to find and to clear. In a process that
reduces all night that is a quarter of its time, so freed memory stays from exposure to exposure.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_NEVER = 2**31 - 1


def thread_count(threads: int = 0) -> int:
    """Return the number of threads to use, at least 1; 0 means all cores that this process may use, at most 8."""
    if threads > 0:
        return threads
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else (os.cpu_count() or 1)
    return max(1, min(cores, 8))


def over_rows(function: Callable[[int, int], None], rows: int, tile: int, *, threads: int = 0) -> None:
    """Call ``function(first, last)`` on bands of rows that together cover an image.

    Parameters
    ----------
    function : callable
        Works on rows ``first <= y < last`` and writes only to them.
    rows : int
        Number of rows of the image.
    tile : int
        Bands start at multiples of this.
    threads : int, optional
        As in `thread_count`.
    """
    count = thread_count(threads)
    tiles = -(-rows // tile)
    if count == 1 or tiles == 1:
        function(0, rows)
        return
    # Several bands a thread, so that one heavy band does not leave the others waiting.
    height = max(1, tiles // (4 * count)) * tile
    starts = range(0, rows, height)
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(function, start, min(start + height, rows)) for start in starts]:
            future.result()


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
    """Return the process that this code runs in."""
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


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the planes of the next exposure; it stays as large as it ever was.

    Returns whether it does: with the C library of GNU only, elsewhere nothing changes.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, _NEVER))


def give_back_memory() -> bool:
    """Give freed memory back to the system, and return whether any was; `keep_freed_memory` stays in force."""
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is that of GNU."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
