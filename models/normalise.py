"""The normalisation of `models.normalisation` in compiled loops, for scoring without Keras.

The same formula (`models.inputs`); an export is refused where both differ (`models.export`). In the graph the medians
are sorts and cost more than the convolutions; here they are selections.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from models.inputs import PLANES, BoolStamps, FloatStamps, Recipe
from models.normalisation import COMPRESSION, MAD, NOISE_FROM

BAD = np.float32(np.sinh(COMPRESSION))
"""What becomes 1 by the compression."""


def normalise(data: FloatStamps, mask: BoolStamps, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Normalise prepared stamps (`models.inputs.prepare`).

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference.
    mask : ndarray of bool, shape (n, size, size)
        True where bad.
    recipe : Recipe
        The formula's numbers.

    Returns
    -------
    ndarray of float32, shape (n, size, size, channels + 1)
        Normalised planes in the order of the recipe, then the mask (1 where bad).
    """
    order = np.array([PLANES.index(name) for name in recipe.channels])
    noise_from = np.array([PLANES.index(name) for name in NOISE_FROM if name in recipe.channels])
    out = np.empty((*mask.shape, len(order) + 1), dtype=np.float32)
    optional, softening = recipe.planes_may_be_absent, np.float32(recipe.softening)
    difference = PLANES.index("difference")
    _scale(np.ascontiguousarray(data), mask, order, noise_from, difference, recipe.border, softening, optional, out)
    np.arcsinh(out, out=out)  # numpy's own is vectorised, over planes and mask alike
    out *= np.float32(1.0 / COMPRESSION)
    return out


@nb.njit(cache=True, nogil=True)
def _scale(data, mask, order, noise_from, difference, border, softening, optional, out):  # type: ignore[no-untyped-def]
    n, size = mask.shape[:2]
    values = np.empty(size * size, np.float32)
    good = np.empty((size, size), np.bool_)
    there = np.empty(data.shape[3], np.bool_)
    levels = np.zeros(data.shape[3], np.float32)
    for s in range(n):
        _find_planes(data[s], mask[s], optional, there)
        _find_good(data[s], mask[s], there, good)
        for c in range(data.shape[3]):
            levelled = c != difference and there[c]
            levels[c] = _border_level(data[s, :, :, c], good, border, values) if levelled else np.float32(0)
        source = noise_from[0]
        for c in noise_from:
            if there[c]:
                source = c
                break
        scale = softening * _noise(data[s, :, :, source], levels[source], good, values)
        for k in range(order.shape[0]):
            c = order[k]
            for y in range(size):
                for x in range(size):
                    fine = good[y, x] and there[c]
                    out[s, y, x, k] = (data[s, y, x, c] - levels[c]) / scale if fine else np.float32(0)
        for y in range(size):
            for x in range(size):
                out[s, y, x, order.shape[0]] = np.float32(0) if good[y, x] else BAD


@nb.njit(cache=True, nogil=True)
def _find_planes(data, mask, optional, there):  # type: ignore[no-untyped-def]
    """Which planes hold a good finite pixel; all count as there where none may be absent, or where all are."""
    size, found = mask.shape[0], False
    for c in range(there.shape[0]):
        there[c] = not optional
        for y in range(size):
            if there[c]:
                break
            for x in range(size):
                if not mask[y, x] and np.isfinite(data[y, x, c]):
                    there[c] = True
                    break
        found = found or there[c]
    if not found:
        there[:] = True


@nb.njit(cache=True, nogil=True)
def _find_good(data, mask, there, good):  # type: ignore[no-untyped-def]
    size = mask.shape[0]
    for y in range(size):
        for x in range(size):
            fine = not mask[y, x]
            for c in range(there.shape[0]):
                fine = fine and (not there[c] or np.isfinite(data[y, x, c]))
            good[y, x] = fine


@nb.njit(cache=True, nogil=True)
def _noise(plane, level, good, values):  # type: ignore[no-untyped-def]
    size, count, total = plane.shape[0], 0, 0.0
    for y in range(size):
        for x in range(size):
            if good[y, x]:
                values[count] = abs(plane[y, x] - level)
                total += values[count]
                count += 1
    scale = np.float32(MAD) * _median(values, count)
    if not scale > 0:
        scale = np.float32(total / max(count, 1))
    return scale if scale > 0 else np.float32(1)


@nb.njit(cache=True, nogil=True)
def _border_level(plane, good, border, values):  # type: ignore[no-untyped-def]
    size, count = plane.shape[0], 0
    for y in range(size):
        rim = y < border or y >= size - border
        for x in range(size):
            if (rim or x < border or x >= size - border) and good[y, x]:
                values[count] = plane[y, x]
                count += 1
    return _median(values, count)


@nb.njit(cache=True, nogil=True)
def _median(values, count):  # type: ignore[no-untyped-def]
    """Median of the first `count` values, which are reordered; 0 of none."""
    if count == 0:
        return np.float32(0)
    high = _select(values, count, count // 2)
    if count % 2:
        return high
    low = values[0]
    for i in range(count // 2):
        low = max(low, values[i])
    return np.float32(0.5) * low + np.float32(0.5) * high


@nb.njit(cache=True, nogil=True)
def _select(values, count, place):  # type: ignore[no-untyped-def]
    """Value of a rank (Hoare's selection); smaller ones stand before it afterwards."""
    first, last = 0, count - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if place <= j:
            last = j
        elif place >= i:
            first = i
        else:
            break
    return values[place]
