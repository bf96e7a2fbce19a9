"""Peaks of the matched-filtered image: islands of pixels that stand out, taken apart where two have grown together.

It takes a pass over the pixels and another over those that stand out.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# A second peak in one object counts if it holds this part of its light above the saddle (as SExtractor's
# DEBLEND_MINCONT), rises this much over the saddle (sigma), and has this many pixels above it. Little light is asked
# for, so that stars in the halo of a bright one count; what the halo itself makes, `moments.stand_out` tells from them.
_CONTRAST, _RISE, _LEAST_AREA = 0.002, 3.0, 3

_CHUNK = 256  # islands, the fewest that a thread works on at a time
_TRUNCATE = 4.0  # sigma at which the filter ends
_TILE = 64  # rows
_CROWDED = 0.35  # part of the frame above the threshold, from which the threshold rises to keep it there


def deblend(place: Int64, value: Float32, nx: int) -> tuple[Int64, Float64]:
    """Find the peaks among pixels above a threshold, by the contrast criterion of Bertin & Arnouts 1996, section 4.

    Islands of touching pixels have nothing to do with each other, so each is worked on by itself, which keeps it in
    the cache. Its pixels are taken in the order of their height; each joins the object of its neighbours or founds
    one. Where two objects meet, the lower one is an object of its own if enough of its light lies above the saddle.

    Parameters
    ----------
    place : ndarray of int64, shape (n,)
        Flat indices of the pixels, rising.
    value : ndarray of float32, shape (n,)
        Their heights, above zero.
    nx : int
        Width of the image.

    Returns
    -------
    peak : ndarray of int64, shape (m,)
        Highest pixel of each object, as an index of `place`.
    total : ndarray of float64, shape (m,)
        Its light: that above the saddle for the lower of two objects.
    """
    before, island = _islands(place, nx)
    start, member = _members(island)
    n = len(place)
    parent = np.full(n, -1, np.int32)
    top, area, held = (np.empty(n, np.int32) for _ in range(3))
    light, excess = np.empty(n, np.float64), np.zeros(n, np.float64)
    after = _after(place, nx)

    def some(first: int, last: int) -> None:
        _grow(place, value, nx, before, after, start[first : last + 1], member, parent, top, area, light, excess, held)

    over_rows(some, len(start) - 1, _CHUNK)
    return _gather(parent, top, area, light, excess, held)


@njit(cache=True, nogil=True)
def _root(parent: Int32, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@njit(cache=True, nogil=True)
def _islands(place: Int64, nx: int) -> tuple[Int32, Int32]:
    """First pixel at or after the lower left neighbour of each, and the number of its island, in order of rows."""
    n = len(place)
    before, parent = np.empty(n, np.int32), np.empty(n, np.int32)
    at = 0
    for k in range(n):
        parent[k] = k
        here = place[k]
        column = here % nx
        if k > 0 and place[k - 1] == here - 1 and column > 0:
            parent[k] = parent[k - 1]
        while place[at] < here - nx - 1:
            at += 1
        before[k] = at
        m = at
        while place[m] <= here - nx + 1:
            # the row may end or begin between two neighbours
            if abs(place[m] % nx - column) <= 1:
                a, b = _root(parent, m), _root(parent, k)
                # The earlier one is the root, so that a pass in order numbers all.
                parent[max(a, b)] = min(a, b)
            m += 1
    count = 0
    for k in range(n):
        if parent[k] == k:
            parent[k] = -1 - count
            count += 1
        else:
            # An earlier pixel of the island has its number already.
            while parent[k] >= 0:
                parent[k] = parent[parent[k]]
    return before, -1 - parent


@njit(cache=True, nogil=True)
def _members(island: Int32) -> tuple[Int64, Int32]:
    """Where each island starts in a list of all its pixels, and that list, in order within each."""
    n = len(island)
    count = 0
    for k in range(n):
        count = max(count, island[k] + 1)
    start = np.zeros(count + 1, np.int64)
    for k in range(n):
        start[island[k] + 1] += 1
    for m in range(count):
        start[m + 1] += start[m]
    free, member = start.copy(), np.empty(n, np.int32)
    for k in range(n):
        member[free[island[k]]] = k
        free[island[k]] += 1
    return start, member


@njit(cache=True, nogil=True)
def _after(place: Int64, nx: int) -> Int32:
    """First pixel that lies at or after the upper left neighbour of each."""
    n = len(place)
    after = np.empty(n, np.int32)
    at = 0
    for k in range(n):
        while at < n and place[at] < place[k] + nx - 1:
            at += 1
        after[k] = at
    return after


@njit(cache=True, nogil=True)
def _highest_first(value: Float32, members: Int32) -> npt.NDArray[np.uint64]:
    """Members in falling order of their values, as the lower halves of numbers; equal ones in order of place."""
    keys = np.empty(len(members), np.uint64)
    bits = value.view(np.uint32)
    for m in range(len(members)):
        # The bits of positive floating-point numbers are in the order of the numbers.
        keys[m] = (np.uint64(~bits[members[m]] & np.uint32(0xFFFFFFFF)) << np.uint64(32)) | np.uint64(members[m])
    keys.sort()
    return keys


@njit(cache=True, nogil=True)
def _grow(  # type: ignore[no-untyped-def]
    place, value, nx, before, after, start, member, parent, top, area, light, excess, held
):
    """Grow the objects of some islands; `excess` of an object that ends in a saddle is above zero if it counts."""
    n = len(place)
    around = np.empty(8, np.int64)
    for island in range(len(start) - 1):
        for key in _highest_first(value, member[start[island] : start[island + 1]]):
            k = np.int64(key & np.uint64(0xFFFFFFFF))
            here = place[k]
            column = here % nx
            count = 0
            if k > 0 and place[k - 1] == here - 1 and column > 0:
                around[count] = k - 1
                count += 1
            if k + 1 < n and place[k + 1] == here + 1 and column < nx - 1:
                around[count] = k + 1
                count += 1
            for first, middle in ((before[k], here - nx), (after[k], here + nx)):
                at = np.int64(first)
                while at < n and place[at] <= middle + 1:
                    if abs(place[at] % nx - column) <= 1:
                        around[count] = at
                        count += 1
                    at += 1
            parent[k], top[k], area[k], light[k] = k, k, 1, value[k]
            own = int(k)
            for m in range(count):
                if parent[around[m]] < 0:
                    continue
                other = _root(parent, around[m])
                if other == own:
                    continue
                high, low = (other, own) if value[top[other]] >= value[top[own]] else (own, other)
                if area[low] >= _LEAST_AREA and value[top[low]] - value[k] > _RISE:
                    excess[low], held[low] = light[low] - area[low] * float(value[k]), high
                parent[low] = high
                area[high] += area[low]
                light[high] += light[low]
                own = high


@njit(cache=True, nogil=True)
def _gather(
    parent: Int32, top: Int32, area: Int32, light: Float64, excess: Float64, held: Int32
) -> tuple[Int64, Float64]:
    """Objects that are left at the end, and those that ended in a saddle with enough light above it."""
    n = len(parent)
    peak, total = np.empty(n, np.int64), np.empty(n, np.float64)
    found = 0
    for k in range(n):
        if parent[k] == k and area[k] >= _LEAST_AREA:
            peak[found], total[found] = top[k], light[k]
            found += 1
    for k in range(n):
        if excess[k] > 0 and excess[k] > _CONTRAST * light[_root(parent, held[k])]:
            peak[found], total[found] = top[k], excess[k]
            found += 1
    return peak[:found], total[:found]


def find_star_peaks(
    data: FloatImage, variance: FloatImage, mask: MaskImage, *, dark: np.uint16, sigma: float, threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Find peaks in the signal-to-noise image of a Gaussian matched filter.

    Pixels above the threshold are taken in the order of their height; each joins the object of its neighbours or
    founds one. Where two objects meet, the lower one is an object of its own if enough of its light lies above the
    saddle (the contrast criterion of Bertin & Arnouts 1996, section 4, with every level a threshold).

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    dark : uint16
        Bits of pixels that hold no light of the sky; they count as 0 and are no peaks.
    sigma : float
        Width of the filter (pixel).
    threshold : float
        Lowest signal-to-noise ratio; it rises in frames so crowded that a third of them lies above it.

    Returns
    -------
    columns, rows : ndarray of int64, shape (n,)
        Peak pixels, the brightest objects first.
    snr : ndarray of float32, shape (n,)
        Signal-to-noise ratio there.
    """
    ny, nx = data.shape
    reach = math.ceil(_TRUNCATE * sigma)
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    norm = float(taps[0] ** 2 + 2.0 * (taps[1:] ** 2).sum())
    taps = (taps / np.sqrt(norm)).astype(np.float32)
    bands: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}

    def band(first: int, last: int) -> None:
        bands[first] = _significant(data, variance, mask, dark, taps, np.float32(threshold), first, last)

    over_rows(band, ny, _TILE)
    place = np.concatenate([bands[first][0] for first in sorted(bands)])
    value = np.concatenate([bands[first][1] for first in sorted(bands)])
    most = int(_CROWDED * ny * nx)
    if len(value) > most:
        keep = value > np.partition(value, len(value) - most)[len(value) - most]
        place, value = place[keep], value[keep]
    peak, total = deblend(place, value, nx)
    brightest = peak[np.argsort(-total, kind="stable")]
    return place[brightest] % nx, place[brightest] // nx, value[brightest]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _filtered(
    data: npt.NDArray[np.float32],
    variance: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint16],
    dark: np.uint16,
    taps: npt.NDArray[np.float32],
    unit: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """One row in units of its noise, filtered along x."""
    nx, reach = len(data), len(taps) - 1
    zero, one = np.float32(0.0), np.float32(1.0)
    inner = unit[reach : reach + nx]
    for x in range(nx):
        lit = (mask[x] & dark) == 0 and variance[x] > zero
        inner[x] = (data[x] if lit else zero) / np.sqrt(variance[x] if lit else one)
    weight = taps[0]
    for x in range(nx):
        out[x] = weight * inner[x]
    for k in range(1, reach + 1):
        weight, left, right = taps[k], unit[reach - k : reach - k + nx], unit[reach + k : reach + k + nx]
        for x in range(nx):
            out[x] += weight * (left[x] + right[x])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _significant(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    dark: np.uint16,
    taps: npt.NDArray[np.float32],
    threshold: np.float32,
    first: int,
    last: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Flat indices and values of the pixels of some rows whose filtered value is above the threshold."""
    ny, nx = data.shape
    reach = len(taps) - 1
    height = 2 * reach + 1
    ring, unit = np.zeros((height, nx), np.float32), np.zeros(nx + 2 * reach, np.float32)
    score = np.empty(nx, np.float32)
    places, values = np.empty(nx, np.int64), np.empty(nx, np.float32)
    found = 0
    for y in range(first - reach, last + reach):
        line = ring[y % height]
        if 0 <= y < ny:
            _filtered(data[y], variance[y], mask[y], dark, taps, unit, line)
        else:
            line[:] = 0.0
        middle = y - reach
        if middle < first:
            continue
        weight, centre = taps[0], ring[middle % height]
        for x in range(nx):
            score[x] = weight * centre[x]
        for k in range(1, reach + 1):
            weight, above, below = taps[k], ring[(middle - k) % height], ring[(middle + k) % height]
            for x in range(nx):
                score[x] += weight * (above[x] + below[x])
        if found + nx > len(places):
            places = np.concatenate((places, np.empty(len(places) + nx, np.int64)))
            values = np.concatenate((values, np.empty(len(values) + nx, np.float32)))
        for x in range(nx):
            if score[x] > threshold and (mask[middle, x] & dark) == 0:
                places[found], values[found] = middle * nx + x, score[x]
                found += 1
    return places[:found].copy(), values[:found].copy()
