"""Saturated stars: their blobs of pixels, and how far their unmatched light reaches.

See docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

STAR_LIGHT = np.float32(10.0)
"""Median signal-to-noise ratio of the pixels around a lone saturated one from which it is taken for a star."""


def find_blobs(mask: npt.NDArray[np.uint16], bit: int) -> tuple[Int64, Int64]:
    """Find the connected regions of pixels with a bit, as runs along rows.

    `runs`, int64 of shape (n, 3), holds row, first column and column after the last of each run, sorted by blob;
    `starts`, shape (n_blobs + 1,), where the runs of each blob begin. Runs that touch along a side belong together.
    """
    runs = _runs(mask, np.uint16(bit))
    blob = _join(runs)
    order = np.argsort(blob, kind="stable")
    starts = np.flatnonzero(np.diff(blob[order], prepend=-1, append=len(runs)))
    return runs[order], np.asarray(starts, dtype=np.int64)


@nb.njit(cache=True, nogil=True)
def _runs(mask, bit):  # type: ignore[no-untyped-def]
    """Runs of pixels with the bit, row by row."""
    ny, nx = mask.shape
    capacity, count = 1024, 0
    runs = np.empty((capacity, 3), np.int64)
    for y in range(ny):
        row = mask[y]
        x = 0
        while x < nx:
            if x % 64 == 0 and x + 64 <= nx:
                found = np.uint16(0)
                chunk = row[x : x + 64]
                for i in range(64):
                    found |= chunk[i]
                if (found & bit) == 0:
                    x += 64
                    continue
            if (row[x] & bit) == 0:
                x += 1
                continue
            start = x
            while x < nx and (row[x] & bit) != 0:
                x += 1
            if count == capacity:
                capacity *= 2
                larger = np.empty((capacity, 3), np.int64)
                larger[:count] = runs
                runs = larger
            runs[count, 0], runs[count, 1], runs[count, 2] = y, start, x
            count += 1
    return runs[:count].copy()


@nb.njit(cache=True, nogil=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@nb.njit(cache=True, nogil=True)
def _join(runs):  # type: ignore[no-untyped-def]
    """Number of the first run of the blob of each run."""
    n = len(runs)
    parent = np.arange(n)
    above = 0
    for i in range(n):
        y, start, stop = runs[i]
        while runs[above, 0] < y - 1 or (runs[above, 0] == y - 1 and runs[above, 2] <= start):
            above += 1
        k = above
        while k < i and runs[k, 0] == y - 1 and runs[k, 1] < stop:
            if runs[k, 2] > start:
                a, b = _root(parent, i), _root(parent, k)
                parent[max(a, b)] = min(a, b)
            k += 1
    for i in range(n):
        parent[i] = _root(parent, i)
    return parent


@nb.njit(cache=True, nogil=True)
def measure_reach(  # type: ignore[no-untyped-def]
    data, variance, mask, bad, mismatch, limit, runs, starts, first, last, out
):
    """Measure how far each saturated star's unmatched light reaches.

    Parameters
    ----------
    data, variance, mask : ndarray, shape (ny, nx)
        Background-subtracted frame.
    bad : uint16
        Bits of pixels without a value.
    mismatch : float32
        Part of the light that remains.
    limit : int
        Farthest reach beyond the saturated core (pixel).
    runs, starts : ndarray
        Blobs (`find_blobs`).
    first, last : int
        Blobs to work on.
    out : ndarray of float64, shape (n_blobs, 3)
        Row and column of the widest part of each blob, and the radius to mask around it; -1 for a lone pixel that is
        no star.
    """
    for b in range(first, last):
        own = runs[starts[b] : starts[b + 1]]
        count = 0
        for k in range(len(own)):
            count += own[k, 2] - own[k, 1]
        y, x, core = _widest_part(own)
        if count < 2 and not _is_star(data, variance, mask, bad, y, x):
            out[b, 2] = -1.0
            continue
        out[b, 0], out[b, 1] = y, x
        out[b, 2] = _edge(data, variance, mask, bad, mismatch, y, x, core, int(np.ceil(core)) + limit)


@nb.njit(cache=True, nogil=True)
def find_cores(runs, starts):  # type: ignore[no-untyped-def]
    """Find the star in each blob (`find_blobs`): row and column of its widest part, distance to the outside (pixel).

    The result has the shape (n_blobs, 3).
    """
    out = np.empty((len(starts) - 1, 3))
    for b in range(len(out)):
        out[b, 0], out[b, 1], out[b, 2] = _widest_part(runs[starts[b] : starts[b + 1]])
    return out


@nb.njit(cache=True, nogil=True)
def _widest_part(own):  # type: ignore[no-untyped-def]
    """Pixel of a blob that is farthest from its outside, and that distance: the star; the rest of it bleeds."""
    top, bottom = own[0, 0], own[0, 0]
    left, right = own[0, 1], own[0, 2]
    for k in range(len(own)):
        bottom = max(bottom, own[k, 0])
        left, right = min(left, own[k, 1]), max(right, own[k, 2])
    height, width = bottom - top + 1, right - left
    # Distance to the nearest pixel outside along the column; the frame around the box is outside.
    column = np.zeros((height, width), np.int64)
    for k in range(len(own)):
        column[own[k, 0] - top, own[k, 1] - left : own[k, 2] - left] = 1
    for y in range(1, height):
        for x in range(width):
            if column[y, x] > 0:
                column[y, x] = column[y - 1, x] + 1
    for y in range(height - 1, -1, -1):
        for x in range(width):
            below = column[y + 1, x] if y + 1 < height else 0
            column[y, x] = min(column[y, x], below + 1)
    best, best_y, best_x = 0, top, left
    for y in range(height):
        for x in range(width):
            nearest = column[y, x] * column[y, x]
            if nearest <= best:
                continue
            for step in range(1, width + 1):
                if step * step >= nearest:
                    break
                for i in (x - step, x + step):
                    there = column[y, i] if 0 <= i < width else 0
                    nearest = min(nearest, step * step + there * there)
            if nearest > best:
                best, best_y, best_x = nearest, y + top, x + left
    return best_y, best_x, np.sqrt(float(best))


@nb.njit(cache=True, nogil=True)
def _is_star(data, variance, mask, bad, y, x):  # type: ignore[no-untyped-def]
    """Whether light surrounds a lone saturated pixel: it is no hit and no hot pixel."""
    values = np.empty(32, np.float32)
    count = gather_ring(data, variance, mask, bad, y, x, 1, np.float32(1), STAR_LIGHT, values)
    return count >= 4 and np.median(values[:count]) > 0


@nb.njit(cache=True, nogil=True)
def _edge(data, variance, mask, bad, mismatch, y, x, core, size):  # type: ignore[no-untyped-def]
    """Radius of the first ring in which the median of the unmatched light lies below the noise of a pixel."""
    values = np.empty(8 * (size + 2), np.float32)
    edge = int(np.ceil(core))
    for r in range(int(core), size + 1):
        count = gather_ring(data, variance, mask, bad, y, x, r, mismatch, np.float32(1), values)
        if count >= 8 and np.median(values[:count]) < 0:
            break
        edge = r + 1
    return float(edge)


@nb.njit(cache=True, nogil=True)
def gather_ring(data, variance, mask, bad, y, x, r, part, sigmas, values):  # type: ignore[no-untyped-def]
    """Collect ``part * data - sigmas * noise`` of the good pixels at ``r <= distance < r + 1``.

    Parameters
    ----------
    data, variance, mask : ndarray, shape (ny, nx)
        The image.
    bad : uint16
        Bits of pixels without a value.
    y, x, r : int
        Centre and inner radius of the ring (pixel).
    part, sigmas : float32
        Factors.
    values : ndarray of float32
        Where the values are written; 8 (r + 2) at least.

    Returns
    -------
    int
        Their number.
    """
    ny, nx = data.shape
    count = 0
    for j in range(max(-r, -y), min(r, ny - 1 - y) + 1):
        inner = int(np.ceil(np.sqrt(float(max(r * r - j * j, 0)))))
        outer = int(np.ceil(np.sqrt(float((r + 1) * (r + 1) - j * j)))) - 1
        for i in range(inner, outer + 1):
            for side in range(2 if i > 0 else 1):
                column = x + i if side == 0 else x - i
                if column < 0 or column >= nx or (mask[y + j, column] & bad) != 0:
                    continue
                values[count] = part * data[y + j, column] - sigmas * np.sqrt(variance[y + j, column])
                count += 1
    return count


@nb.njit(cache=True, nogil=True)
def stamp_discs(discs, bit, out):  # type: ignore[no-untyped-def]
    """Set a bit in discs.

    Parameters
    ----------
    discs : ndarray of float64, shape (n, 3)
        Row, column and radius of each; none where the radius is negative.
    bit : uint16
        The bit.
    out : ndarray of uint16, shape (ny, nx)
        Mask, changed.
    """
    ny, nx = out.shape
    for k in range(len(discs)):
        y, x, radius = int(discs[k, 0]), int(discs[k, 1]), int(discs[k, 2])
        if radius < 0:
            continue
        for row in range(max(0, y - radius), min(ny, y + radius + 1)):
            wide = int(np.sqrt(float(radius * radius - (row - y) * (row - y))))
            line = out[row, max(0, x - wide) : min(nx, x + wide + 1)]
            for i in range(line.shape[0]):
                line[i] |= bit
