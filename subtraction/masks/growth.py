"""Growth of a mask by a kernel, tile by tile in compiled loops; tiles without a masked pixel are copied.

See docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from subtraction.convolution.tiles import BUFFER, ROWS, SIDE, STRIDE, rounded, sum_tile


@nb.njit(cache=True, nogil=True)
def grow_by_share(mask, bits, kernel, reach, tail, first, last, out):  # type: ignore[no-untyped-def]
    """Grow bits to where more than a part of a kernel's weight falls on masked pixels.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        The mask.
    bits : uint16
        Bits that grow.
    kernel : ndarray of float32, shape (size + 2 EDGE, width)
        Absolute weights as seen from the output pixel, of sum one, padded by
        `subtraction.convolution.tiles.pad_kernel`.
    reach : ndarray of int64, shape (size,)
        Half width of the kernel's disc in each of its rows.
    tail : float32
        The part.
    first, last : int
        Rows to work on; `first` is a multiple of SIDE.
    out : ndarray of uint16, shape (ny, nx)
        Where the grown mask is written.
    """
    nx = mask.shape[1]
    radius = reach.shape[0] // 2
    flags = np.zeros(BUFFER, np.uint16)
    lit = np.zeros(BUFFER, np.float32)
    rows = np.zeros(BUFFER // STRIDE, np.uint16)
    share = np.empty(ROWS * SIDE, np.float32)
    wide = np.empty(SIDE, np.uint16)
    for y0 in range(first, last, SIDE):
        height = min(SIDE, last - y0)
        for x0 in range(0, nx, SIDE):
            width = min(SIDE, nx - x0)
            _fill_flags(mask, bits, y0, x0, radius, height, width, flags, lit, rows)
            for y in range(0, height, ROWS):
                near = np.uint16(0)
                for j in range(y, y + ROWS + 2 * radius):
                    near |= rows[j]
                stop = min(y + ROWS, height)
                if near == 0:
                    out[y0 + y : y0 + stop, x0 : x0 + width] = mask[y0 + y : y0 + stop, x0 : x0 + width]
                    continue
                sum_tile(lit[y * STRIDE :], kernel, ROWS, share)
                for k in range(y, stop):
                    if near & (near - np.uint16(1)) == 0:
                        # One kind of bit alone: whatever grows gets it.
                        wide[:] = near
                    else:
                        _spread(flags, reach, k, wide)
                    given = mask[y0 + k, x0 : x0 + width]
                    target = out[y0 + k, x0 : x0 + width]
                    part = share[(k - y) * SIDE : (k - y) * SIDE + width]
                    for x in range(width):
                        grows = part[x] > tail or (given[x] & bits) != 0
                        target[x] = given[x] | wide[x] if grows else given[x]


@nb.njit(cache=True, nogil=True)
def _fill_flags(mask, bits, y0, x0, radius, height, width, flags, lit, rows):  # type: ignore[no-untyped-def]
    """Copy a tile's growing bits with their surroundings, and their union row by row; nothing where there are none."""
    ny, nx = mask.shape
    left = max(0, radius - x0)
    right = min(width + 2 * radius, nx - x0 + radius)
    start = x0 - radius + left
    every = np.uint16(0)
    for j in range(rounded(height) + 2 * radius):
        y = y0 - radius + j
        found = np.uint16(0)
        if 0 <= y < ny and j < height + 2 * radius:
            values = mask[y, start : start + right - left]
            for i in range(values.shape[0]):
                found |= values[i]
        rows[j] = found & bits
        every |= rows[j]
    if every == 0:
        return
    for j in range(rounded(height) + 2 * radius):
        line = flags[j * STRIDE : (j + 1) * STRIDE]
        weights = lit[j * STRIDE : (j + 1) * STRIDE]
        line[:] = np.uint16(0)
        weights[:] = np.float32(0)
        if rows[j] == 0:
            continue
        values = mask[y0 - radius + j, start : start + right - left]
        line, weights = line[left:right], weights[left:right]
        for i in range(values.shape[0]):
            line[i] = values[i] & bits
            weights[i] = np.float32(1) if (values[i] & bits) != 0 else np.float32(0)


@nb.njit(cache=True, nogil=True)
def _spread(flags, reach, y, wide):  # type: ignore[no-untyped-def]
    """Union of the bits within the disc around each pixel of one row of a tile."""
    radius = reach.shape[0] // 2
    wide[:] = np.uint16(0)
    for j in range(2 * radius + 1):
        for i in range(radius - reach[j], radius + reach[j] + 1):
            start = (y + j) * STRIDE + i
            line = flags[start : start + SIDE]
            for x in range(SIDE):
                wide[x] |= line[x]


@nb.njit(cache=True, nogil=True)
def grow_disc(mask, bits, reach, first, last, out):  # type: ignore[no-untyped-def]
    """Stamp the disc of every pixel on the rim of a masked region; its interior is covered already.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        The mask.
    bits : uint16
        Bits that grow.
    reach : ndarray of int64, shape (size,)
        Half width of the disc in each of its rows.
    first, last : int
        Rows of `out` to write to.
    out : ndarray of uint16, shape (ny, nx)
        Copy of the mask, grown in place.
    """
    ny, nx = mask.shape
    radius = reach.shape[0] // 2
    for y in range(max(0, first - radius), min(ny, last + radius)):
        for start in range(0, nx, SIDE):
            chunk = mask[y, start : min(start + SIDE, nx)]
            found = np.uint16(0)
            for i in range(chunk.shape[0]):
                found |= chunk[i]
            if (found & bits) == 0:
                continue
            for x in range(start, min(start + SIDE, nx)):
                value = _rim(mask, bits, y, x)
                if value == 0:
                    continue
                for j in range(max(first, y - radius), min(last, y + radius + 1)):
                    wide = reach[j - y + radius]
                    for i in range(max(0, x - wide), min(nx, x + wide + 1)):
                        out[j, i] |= value


@nb.njit(cache=True, nogil=True)
def _rim(mask, bits, y, x):  # type: ignore[no-untyped-def]
    """Bits of a pixel that one of its four neighbours lacks."""
    ny, nx = mask.shape
    value = mask[y, x] & bits
    inner = value
    if y > 0:
        inner &= mask[y - 1, x]
    if y < ny - 1:
        inner &= mask[y + 1, x]
    if x > 0:
        inner &= mask[y, x - 1]
    if x < nx - 1:
        inner &= mask[y, x + 1]
    return value & ~inner
