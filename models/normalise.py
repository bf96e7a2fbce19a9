"""The normalisation of `models.normalisation` in compiled loops, for scoring without Keras.

The same formula (`models.inputs`); an export is refused where both differ (`models.export`). In the graph the medians
are sorts and cost more than the convolutions; here they are selections.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from models.inputs import PLANES, BoolStamps, FloatStamps, Recipe
from models.normalisation import COMPRESSION, MAD

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
    out = np.empty((*mask.shape, len(order) + 1), dtype=np.float32)
    levelled = np.array([name != "difference" for name in recipe.channels])
    difference = PLANES.index("difference")
    softening = np.float32(recipe.softening)
    _scale(np.ascontiguousarray(data), mask, order, levelled, difference, recipe.border, softening, out)
    np.arcsinh(out, out=out)  # numpy's own is vectorised, over planes and mask alike
    out *= np.float32(1.0 / COMPRESSION)
    return out


@nb.njit(cache=True, nogil=True)
def _scale(data, mask, order, levelled, difference, border, softening, out):  # type: ignore[no-untyped-def]
    n, size = mask.shape[:2]
    values = np.empty(size * size, np.float32)
    good = np.empty((size, size), np.bool_)
    for s in range(n):
        count, total = 0, 0.0
        for y in range(size):
            for x in range(size):
                pixel = data[s, y, x]
                fine = not mask[s, y, x]
                for c in range(pixel.shape[0]):
                    fine = fine and np.isfinite(pixel[c])
                good[y, x] = fine
                if fine:
                    values[count] = abs(pixel[difference])
                    total += values[count]
                    count += 1
        scale = np.float32(MAD) * _median(values, count)
        if not scale > 0:
            scale = np.float32(total / max(count, 1))
        scale = softening * (scale if scale > 0 else np.float32(1))
        for k in range(order.shape[0]):
            level = np.float32(0)
            if levelled[k]:
                level = _border_level(data[s, :, :, order[k]], good, border, values)
            for y in range(size):
                for x in range(size):
                    out[s, y, x, k] = (data[s, y, x, order[k]] - level) / scale if good[y, x] else np.float32(0)
        for y in range(size):
            for x in range(size):
                out[s, y, x, order.shape[0]] = np.float32(0) if good[y, x] else BAD


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
