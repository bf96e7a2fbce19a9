"""Exact quantiles of a sample in compiled loops: a histogram tells where they lie, only their bins are sorted."""

from __future__ import annotations

import numba as nb
import numpy as np

BINS = 512
"""Bins of the histogram, those of the values beyond both ends not counted."""

FEW = 128
"""Values, about, that tell where the histogram lies."""


@nb.njit(cache=True, nogil=True)
def quantiles(values, parts, bins, out):  # type: ignore[no-untyped-def]
    """Quantiles of finite values, linear between two of them.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        The values, one at least.
    parts : ndarray of float64, shape (m,)
        Part of the values below each quantile.
    bins : ndarray of uint16, shape (>= n,)
        Space to work in.
    out : ndarray of float64, shape (m,)
        Receives the quantiles.
    """
    n = len(values)
    few = np.sort(values[:: max(1, n // FEW)])
    low, high = few[len(few) // 20], few[len(few) - 1 - len(few) // 20]
    scale = np.float32(BINS) / (high - low) if high > low else np.float32(0)
    counts = np.zeros(BINS + 2, np.int64)
    for i in range(n):
        place = (values[i] - low) * scale + np.float32(1)
        bins[i] = np.uint16(min(max(place, np.float32(0)), np.float32(BINS + 1)))
        counts[bins[i]] += 1
    for k in range(len(parts)):
        rank = parts[k] * (n - 1)
        before = int(rank)
        first, below = 0, 0
        while below + counts[first] <= before:
            below += counts[first]
            first += 1
        last, inside = first, counts[first]
        while below + inside <= min(before + 1, n - 1):
            last += 1
            inside += counts[last]
        own, count = np.empty(inside, np.float32), 0
        for i in range(n):
            if first <= bins[i] <= last:
                own[count] = values[i]
                count += 1
        own.sort()
        lower, upper = own[before - below], own[min(before + 1, n - 1) - below]
        out[k] = lower + (rank - before) * (upper - lower)
