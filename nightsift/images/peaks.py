"""Peaks of a signal-to-noise map, separated where a saddle lies between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage

# A fainter peak stands on its own when it rises this much (sigma) above the saddle to its brighter neighbour: noise
# of a matched-filtered map alone hardly does. Near very bright peaks the rise must also be a part of the brighter one.
RISE = 2.5
RISE_FRACTION = 0.01
# Pixels down to this much below the threshold join peaks together, so that noise does not split one source in two.
SKIRT = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of one sign, brightest first.

    Attributes
    ----------
    column, row : ndarray of int64, shape (n,)
        Pixel of the peak.
    value : ndarray of float32, shape (n,)
        Height of the peak, positive for both signs.
    n_pixels : ndarray of int32, shape (n,)
        Pixels above the threshold that belong to it.
    """

    column: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    n_pixels: npt.NDArray[np.int32]


def floor_of(threshold: float) -> float:
    """Lowest value that matters to peaks above a threshold: their skirts.

    Parameters
    ----------
    threshold : float
        Least height of a peak (sigma).

    Returns
    -------
    float
        The floor (sigma).
    """
    return max(threshold - SKIRT, 0.5 * threshold)


def find_peaks(
    score: FloatImage,
    threshold: float,
    sign: int = 1,
    min_pixels: int = 1,
    above: npt.NDArray[np.int64] | None = None,
) -> Peaks:
    """Find the peaks of one sign at or above a threshold.

    Pixels are flooded from the highest down; where two hills meet, the lower one stays a peak of its own only if it
    rises enough above the saddle (the persistence of a peak, Edelsbrunner, Letscher & Zomorodian 2002).

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map; non-finite pixels are ignored.
    threshold : float
        Least height of a peak (sigma).
    sign : int, optional
        +1 for peaks, -1 for troughs.
    min_pixels : int, optional
        Least number of pixels above the skirt, 1.5 sigma below the threshold: the map is matched-filtered already, and
        a faint point source has but one pixel above the threshold itself.
    above : ndarray of int64, shape (n,), optional
        Flat indices of all pixels of either sign above the floor (`floor_of`), where they are known already.

    Returns
    -------
    Peaks
        The peaks, highest first.
    """
    floor = floor_of(threshold)
    if above is None:
        above = np.flatnonzero(np.abs(score) > floor)
    values = score.ravel()[above] * np.float32(sign)
    wanted = (values > floor) & np.isfinite(values)
    indices, values = above[wanted], values[wanted]
    order = np.argsort(-values, kind="stable")
    first, counts, areas = _flood(_neighbours(indices, score.shape[1]), order, values, threshold)
    indices, values = indices[order], values[order]
    chosen = (first >= 0) & (areas >= min_pixels)
    at = indices[first[chosen]]
    return Peaks(at % score.shape[1], at // score.shape[1], values[first[chosen]], counts[chosen].astype(np.int32))


@njit(cache=True, nogil=True)
def _root(parents: npt.NDArray[np.int32], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True, nogil=True)
def _neighbours(indices: npt.NDArray[np.int64], nx: int) -> npt.NDArray[np.int32]:
    """Places in the ascending list of flat indices of the eight pixels around each, -1 where one is not in it."""
    n = len(indices)
    around = np.full((n, 8), -1, np.int32)
    above = 0
    for k in range(n):
        x = indices[k] % nx
        if k > 0 and x > 0 and indices[k - 1] == indices[k] - 1:
            around[k, 0], around[k - 1, 1] = k - 1, k
        while indices[above] < indices[k] - nx - 1:
            above += 1
        for m in range(above, min(above + 3, k)):
            step = indices[m] - (indices[k] - nx)
            # x + step leaves the row where the pixel stands at its end
            if -1 <= step <= 1 and 0 <= x + step < nx:
                around[k, 3 + step], around[m, 6 - step] = m, k
    return around


@njit(cache=True, nogil=True)
def _flood(
    around: npt.NDArray[np.int32], order: npt.NDArray[np.int64], values: npt.NDArray[np.float32], threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Place in `order` of each kept peak (-1 where a hill was absorbed), its pixels above threshold and skirt."""
    n = len(order)
    labels = np.full(n, -1, np.int32)
    hills = 0
    first = np.empty(n, np.int64)
    counts = np.zeros(n, np.int64)
    areas = np.zeros(n, np.int64)
    joined = np.empty(n, np.int32)  # all hills that touch
    owner = np.empty(n, np.int32)  # hills absorbed by another one
    for k in range(n):
        at = order[k]
        high = values[at] >= threshold
        best, highest = -1, n
        for m in around[at]:
            if m < 0 or labels[m] < 0:
                continue
            root = _root(joined, labels[m])
            if first[root] < highest:
                best, highest = root, first[root]
        if best < 0:
            first[hills], joined[hills], owner[hills] = k, hills, hills
            best = hills
            hills += 1
        for m in around[at]:
            if m < 0 or labels[m] < 0:
                continue
            root = _root(joined, labels[m])
            if root == best:
                continue
            peak = values[order[first[root]]]
            needed = max(RISE, RISE_FRACTION * values[order[first[best]]])
            joined[root] = best
            if peak - values[at] < needed or peak < threshold:
                owner[root] = best
        labels[at] = best
        areas[best] += 1
        counts[best] += 1 if high else 0
    for hill in range(hills):
        if owner[hill] != hill:
            counts[_root(owner, hill)] += counts[hill]
            areas[_root(owner, hill)] += areas[hill]
    for hill in range(hills):
        if owner[hill] != hill or values[order[first[hill]]] < threshold:
            first[hill] = -1
    return first[:hills], counts[:hills], areas[:hills]
