"""The normalisation of `models.network.inputs` in compiled loops, for training and for scoring without Keras.

An export is refused where the two differ (`models.network.runtime`). In the graph the medians are sorts and cost more
than the convolutions; here they are selections.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from models.network.inputs import COMPRESSION, NOISE_FROM, PLANES, BoolStamps, FloatStamps, Recipe
from nightsift.core.robust import MAD_TO_SIGMA

BAD = np.float32(np.sinh(COMPRESSION))
"""Value that the compression makes 1."""


def normalise(data: FloatStamps, mask: BoolStamps, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Normalise prepared stamps (`models.network.inputs.prepare`).

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
    """Planes over the scale, stamp by stamp; each plane is laid out alone, so that loops over it vectorise."""
    n, size = mask.shape[:2]
    pixels, planes = size * size, data.shape[3]
    plane = np.empty((planes, pixels), np.float32)
    finite = np.empty((planes, pixels), np.uint8)
    good, masked = np.empty(pixels, np.uint8), np.empty(pixels, np.uint8)
    values, held = np.empty(pixels, np.float32), np.empty(pixels + 1, np.float32)
    bins = np.empty(2048, np.int32)
    there = np.empty(planes, np.bool_)
    levels = np.zeros(planes, np.float32)
    rim = _rim(size, border)
    for s in range(n):
        flat, hidden, made = data[s].reshape(pixels, planes), mask[s].reshape(pixels), out[s].reshape(pixels, -1)
        for c in range(planes):
            one, fine = plane[c], finite[c]
            for p in range(pixels):
                one[p] = flat[p, c]
            for p in range(pixels):
                fine[p] = (one[p] - one[p]) == 0  # false for infinities and NaN
        for p in range(pixels):
            masked[p] = hidden[p]
        _find_planes(finite, masked, optional, there)
        for p in range(pixels):
            good[p] = 1 - masked[p]
        for c in range(planes):
            if there[c]:
                fine = finite[c]
                for p in range(pixels):
                    good[p] &= fine[p]
        for c in range(planes):
            levelled = c != difference and there[c]
            levels[c] = _border_level(plane[c], good, rim, values, bins, held) if levelled else np.float32(0)
        source = noise_from[0]
        for c in noise_from:
            if there[c]:
                source = c
                break
        factor = np.float32(1) / (softening * _noise(plane[source], levels[source], good, values, bins, held))
        for k in range(order.shape[0]):
            c = order[k]
            one, level = plane[c], levels[c]
            for p in range(pixels):
                values[p] = (one[p] - level) * factor
            for p in range(pixels):
                made[p, k] = values[p] if good[p] and there[c] else np.float32(0)
        for p in range(pixels):
            made[p, order.shape[0]] = np.float32(0) if good[p] else BAD


@nb.njit(cache=True, nogil=True)
def _rim(size, border):  # type: ignore[no-untyped-def]
    """Flat places of the border pixels."""
    places = np.empty(size * size, np.int64)
    count = 0
    for y in range(size):
        for x in range(size):
            if y < border or y >= size - border or x < border or x >= size - border:
                places[count] = y * size + x
                count += 1
    return places[:count]


@nb.njit(cache=True, nogil=True)
def _find_planes(finite, masked, optional, there):  # type: ignore[no-untyped-def]
    """Which planes hold a good finite pixel; all count as there where none may be absent, or where all are."""
    found = False
    for c in range(there.shape[0]):
        there[c] = not optional
        for p in range(masked.shape[0]):
            if there[c]:
                break
            there[c] = finite[c, p] > masked[p]
        found = found or there[c]
    if not found:
        there[:] = True


@nb.njit(cache=True, nogil=True)
def _noise(plane, level, good, values, bins, held):  # type: ignore[no-untyped-def]
    count, total = 0, 0.0
    for p in range(plane.shape[0]):
        values[count] = abs(plane[p] - level)
        count += good[p]
    scale = np.float32(MAD_TO_SIGMA) * _median(values, count, bins, held)
    if not scale > 0:
        for p in range(count):
            total += values[p]
        scale = np.float32(total / max(count, 1))
    return scale if scale > 0 else np.float32(1)


@nb.njit(cache=True, nogil=True)
def _border_level(plane, good, rim, values, bins, held):  # type: ignore[no-untyped-def]
    count = 0
    for place in rim:
        values[count] = plane[place]
        count += good[place]
    return _median(values, count, bins, held)


@nb.njit(cache=True, nogil=True)
def _bin_of(bits):  # type: ignore[no-untyped-def]
    """Bin of a float by its highest eleven bits: bins are in the order of the floats."""
    top = np.int64(bits) >> 21
    return 2047 - top if top >= 1024 else top + 1024


@nb.njit(cache=True, nogil=True)
def _median(values, count, bins, held):  # type: ignore[no-untyped-def]
    """Median of the first `count` values; 0 of none. A histogram leaves only one bin to be searched."""
    if count == 0:
        return np.float32(0)
    bits = values.view(np.uint32)
    bins[:] = 0
    for i in range(count):
        bins[_bin_of(bits[i])] += 1
    place, before, chosen, inside = count // 2, 0, 0, 0
    while before + bins[chosen] <= place:
        before += bins[chosen]
        chosen += 1
    for i in range(count):
        held[inside] = values[i]
        inside += _bin_of(bits[i]) == chosen
    high = _select(held, inside, place - before)
    if count % 2:
        return high
    if place > before:
        low = held[0]
        for i in range(place - before):
            low = max(low, held[i])
    else:  # the other middle value is the highest of the bins below
        low = np.float32(-np.inf)
        for i in range(count):
            if _bin_of(bits[i]) < chosen:
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
