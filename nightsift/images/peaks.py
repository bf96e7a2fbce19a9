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


def find_peaks(score: FloatImage, threshold: float, sign: int = 1, min_pixels: int = 1) -> Peaks:
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

    Returns
    -------
    Peaks
        The peaks, highest first.
    """
    floor = max(threshold - SKIRT, 0.5 * threshold)
    indices = np.flatnonzero(score > floor) if sign > 0 else np.flatnonzero(score < -floor)
    values = np.abs(score.ravel()[indices])
    indices, values = indices[np.isfinite(values)], values[np.isfinite(values)]
    order = np.argsort(-values, kind="stable")
    indices, values = indices[order], values[order]
    first, counts, areas = _flood(indices, values, score.shape[0], score.shape[1], threshold)
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
def _flood(
    indices: npt.NDArray[np.int64], values: npt.NDArray[np.float32], ny: int, nx: int, threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Position in `indices` of each kept peak (-1 where a hill was absorbed), its pixels above threshold and skirt."""
    n = len(indices)
    labels = np.zeros(ny * nx, np.int32)  # 0 is unseen, hill k is k + 1
    hills = 0
    first = np.empty(n, np.int64)
    counts = np.zeros(n, np.int64)
    areas = np.zeros(n, np.int64)
    joined = np.empty(n, np.int32)  # all hills that touch
    owner = np.empty(n, np.int32)  # hills absorbed by another one
    for k in range(n):
        y, x = indices[k] // nx, indices[k] % nx
        best, highest = -1, n
        for j in range(max(0, y - 1), min(ny, y + 2)):
            for i in range(max(0, x - 1), min(nx, x + 2)):
                label = labels[j * nx + i]
                if label == 0:
                    continue
                root = _root(joined, label - 1)
                if first[root] < highest:
                    best, highest = root, first[root]
        if best < 0:
            first[hills], joined[hills], owner[hills] = k, hills, hills
            labels[indices[k]] = hills + 1
            counts[hills] = 1 if values[k] >= threshold else 0
            areas[hills] = 1
            hills += 1
            continue
        for j in range(max(0, y - 1), min(ny, y + 2)):
            for i in range(max(0, x - 1), min(nx, x + 2)):
                label = labels[j * nx + i]
                if label == 0:
                    continue
                root = _root(joined, label - 1)
                if root == best:
                    continue
                rise = values[first[root]] - values[k]
                needed = max(RISE, RISE_FRACTION * values[first[best]])
                joined[root] = best
                if rise < needed or values[first[root]] < threshold:
                    owner[root] = best
        labels[indices[k]] = best + 1
        areas[best] += 1
        if values[k] >= threshold:
            counts[best] += 1
    for hill in range(hills):
        if owner[hill] != hill:
            counts[_root(owner, hill)] += counts[hill]
            areas[_root(owner, hill)] += areas[hill]
    for hill in range(hills):
        if owner[hill] != hill or values[first[hill]] < threshold:
            first[hill] = -1
    return first[:hills], counts[:hills], areas[:hills]
