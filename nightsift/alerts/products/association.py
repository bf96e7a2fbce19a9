"""Detections that are of one place."""

from __future__ import annotations

import numpy as np

from nightsift.sky.sphere import Rows, Values, pairs_within


def associate(ra: Values, dec: Values, snr: Values, radius: Values) -> Rows:
    """Number the objects that detections belong to.

    The strongest detection takes all that lie within the larger of both radii and belong to nobody yet, then the next
    strongest of the rest: chains of neighbours do not grow together, and the order of the rows does not matter.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg); one without a position is an object of its own.
    snr : ndarray of float64, shape (n,)
        Signal-to-noise ratios.
    radius : ndarray of float64, shape (n,)
        Radii (arcsec).

    Returns
    -------
    ndarray of int64, shape (n,)
        Number of the object, in order of its first row.
    """
    n = len(ra)
    placed = np.flatnonzero(np.isfinite(ra + dec))
    leader = np.arange(n)
    ra, dec, own = ra[placed], dec[placed], radius[placed]
    first, second, _ = pairs_within(ra, dec, ra, dec, most=float(own.max(initial=0.0)), radius=own, other_radius=own)
    other = first != second
    first, second = placed[first[other]], placed[second[other]]
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    start = np.searchsorted(first, np.arange(n + 1))
    free = np.ones(n, dtype=bool)
    for k in np.lexsort((np.arange(n), -snr)):
        if start[k] == start[k + 1] or not free[k]:
            continue
        near = second[start[k] : start[k + 1]]
        near = near[free[near]]
        free[k], free[near] = False, False
        leader[near] = k
    _, index, number = np.unique(leader, return_index=True, return_inverse=True)
    rank = np.empty(len(index), dtype=np.int64)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index))
    return np.asarray(rank[number.reshape(n)], dtype=np.int64)
