"""Memory of a process that reduces one exposure after another: kept from one to the next, given back in between nights.

A plane of pixels is as large as some hundred thousand pages, and the C library gives each back to the system when it
is freed; the next plane is then a new one, every page of which the system has to find and to clear. In a process that
reduces all night that is a quarter of its time.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the planes of the next exposure; it stays as large as it once was.

    Returns
    -------
    bool
        Whether it does: with the C library of GNU only, elsewhere nothing changes.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, _NEVER))


def give_back_memory() -> bool:
    """Give freed memory back to the system now; what was asked of `keep_freed_memory` stays.

    Returns
    -------
    bool
        Whether any was given back.
    """
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is that of GNU."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
