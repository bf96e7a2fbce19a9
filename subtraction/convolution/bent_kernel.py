"""Sums over a tile with a kernel that follows the frame inside it.

Along y the kernel is renewed every few rows, which costs next to nothing; along x its change is added, and only for the
pixels whose light is bright enough to show it. See docs/algorithms.md, section 5.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from subtraction.convolution.tiles import EDGE, SIDE, SPREAD, STRIDE, kernel_at, spread_bright, sum_sloping, sum_tile

BEND = 0.02
"""Least change of the kernel across a tile that is followed inside it, in sigma of a pixel of the target."""

BRIGHT = 0.2
"""Pixels fainter than this part of what shows the change of the kernel are left out of that change."""

FEW = 150
"""Bright pixels in a tile up to which the change of the kernel is added pixel by pixel."""


@nb.njit(cache=True, nogil=True)
def sum_bent(  # type: ignore[no-untyped-def]
    target, bad, terms, slopes, kernel, bent, tile, start, x0, height, width, buffer, total, more, space
):
    """Correlate a tile; where it holds light enough to show it, the kernel changes across it, to first order.

    Parameters
    ----------
    target : tuple of ndarray, shape (ny, nx)
        Data, variance and mask of the frame that is matched.
    bad : uint16
        Bits that make a pixel bad.
    terms : ndarray of float32, shape (n_terms, size + 2 EDGE, width)
        Padded terms of the kernel (`subtraction.convolution.tiles.pad_kernel`).
    slopes : ndarray of float32, shape (2, tiles_y, tiles_x, n_terms)
        Slopes of the terms (`subtraction.convolution.convolve.tile_slopes`).
    kernel : ndarray of float32
        The kernel at the middle of the tile, padded.
    bent : tuple of two ndarray of float32
        Space for two more of them.
    tile : int
        Side of a tile.
    start, x0 : int
        First row and column; the row may lie inside the tile.
    height, width : int
        Size of the part of the tile.
    buffer : ndarray of float32, shape (BUFFER,)
        The tile with its surroundings (`subtraction.convolution.tiles.fill`).
    total, more : ndarray of float32, shape (SIDE * SIDE,)
        The sums, in rows of SIDE, and space for others.
    space : tuple of two ndarray of float32
        Space for `subtraction.convolution.tiles.spread_bright`.
    """
    ny = target[0].shape[0]
    half = (terms.shape[1] - 2 * EDGE) // 2
    peak = _brightest(buffer, height + 2 * half, width + 2 * half)
    limit = BEND * np.sqrt(_least(target[1], target[2], bad, start, x0, height, width))
    row, column = start // tile, x0 // tile
    slope, now = bent
    kernel_at(terms, slopes[1, row, column], slope)
    if peak * np.sqrt(_power(slope)) * tile / 2 < limit:
        sum_tile(buffer, kernel, height, total)
    else:
        middle = row * tile + (min(tile, ny - row * tile) - 1) / 2 - start
        sum_sloping(buffer, kernel, slope, height, middle, now, total)
    kernel_at(terms, slopes[0, row, column], slope)
    least = limit / (np.sqrt(_power(slope)) * tile / 2 + np.float32(1e-30))
    if peak < least:
        return
    middle = (width - 1) / 2
    turned, sums = space
    if spread_bright(buffer, slope, height, width, np.float32(BRIGHT * least), FEW, turned, sums):
        for y in range(height):
            line, change = (
                total[y * SIDE : y * SIDE + width],
                sums[y * SPREAD + 2 * half : y * SPREAD + 2 * half + width],
            )
            for x in range(width):
                line[x] += change[x] * np.float32(x - middle)
        return
    sum_tile(buffer, slope, height, more)
    for y in range(height):
        line, change = total[y * SIDE : y * SIDE + width], more[y * SIDE : y * SIDE + width]
        for x in range(width):
            line[x] += change[x] * np.float32(x - middle)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _power(kernel):  # type: ignore[no-untyped-def]
    """Sum of the squares of a kernel."""
    power = np.float32(0)
    for value in kernel.ravel():
        power += value * value
    return power


@nb.njit(cache=True, nogil=True, fastmath=True)
def _brightest(buffer, height, width):  # type: ignore[no-untyped-def]
    """Largest absolute value of a tile with its surroundings."""
    peak = np.float32(0)
    for j in range(height):
        for value in buffer[j * STRIDE : j * STRIDE + width]:
            peak = max(peak, abs(value))
    return peak


@nb.njit(cache=True, nogil=True)
def _least(variance, mask, bad, y0, x0, height, width):  # type: ignore[no-untyped-def]
    """Smallest variance of a sample of the good pixels of a tile; 0 where there is none."""
    least = np.float32(np.inf)
    for y in range(y0, y0 + height, 4):
        for x in range(x0, x0 + width, 4):
            if (mask[y, x] & bad) == 0:
                least = min(least, variance[y, x])
    return least if least < np.inf else np.float32(0)
