"""Row bands of an image over threads.

The compiled loops release the interpreter lock, so plain threads are enough. A thread pool of one's own is
used rather than numba's parallel loops, because those abort the process when two exposures are reduced by
two threads of one worker, and hang after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def thread_count(threads: int = 0) -> int:
    """Threads to use.

    Parameters
    ----------
    threads : int, optional
        Wanted number; 0 means all cores that this process may use, at most 8.

    Returns
    -------
    int
        At least 1.
    """
    if threads > 0:
        return threads
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else (os.cpu_count() or 1)
    return max(1, min(cores, 8))


def over_rows(function: Callable[[int, int], None], rows: int, tile: int, threads: int = 0) -> None:
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
