"""Sums over the pixels of one tile, in compiled loops that keep to the cache and to vector registers.

A tile is copied with its surroundings into a buffer of constant width; constant widths are what lets the compiler
unroll the loop over a row of a tile. Four rows are summed at a time, so that a row of the buffer, once loaded,
serves four rows of the kernel. See docs/algorithms.md, section 5.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

SIDE = 64
"""Largest side of a tile (pixel)."""

LARGEST_HALF = 32
"""Largest half width of a kernel (pixel)."""

STRIDE = SIDE + 2 * LARGEST_HALF + 8
"""Width of a tile's buffer (pixel)."""

ROWS = 4
"""Rows of a tile that are summed at a time."""

EDGE = ROWS - 1
"""Rows of zeros above and below a kernel, for the rows of a tile that its first and last row do not reach."""

WIDEST = 2 * LARGEST_HALF + 8
"""Largest width of a kernel in whole registers (pixel)."""

SPREAD = SIDE + 2 * (2 * LARGEST_HALF) + 8
"""Width of the sums around a tile that its bright pixels reach (pixel)."""

BUFFER = (SIDE + 2 * LARGEST_HALF + ROWS) * STRIDE
"""Size of a tile's buffer."""


def pad_kernel(terms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Surround kernels (n_terms, size, size) with the zeros that the compiled loops need.

    ``size`` is odd and at most ``2 LARGEST_HALF + 1``. The result, float32 of shape (n_terms, size + 2 EDGE, width),
    has rows whose width is a multiple of four.
    """
    size = terms.shape[2]
    if size > 2 * LARGEST_HALF + 1:
        raise ValueError(f"a kernel may be {2 * LARGEST_HALF + 1} pixels wide, got {size}")
    return np.ascontiguousarray(np.pad(terms, ((0, 0), (EDGE, EDGE), (0, -size % 4))), dtype=np.float32)


@nb.njit(cache=True, nogil=True, fastmath=True)
def kernel_at(terms, weights, kernel):  # type: ignore[no-untyped-def]
    """Kernel of one tile: the padded terms weighted.

    Parameters
    ----------
    terms : ndarray of float32, shape (n_terms, height, width)
        Terms, padded by `pad_kernel`.
    weights : ndarray of float32, shape (n_terms,)
        Polynomial at the tile.
    kernel : ndarray of float32, shape (height, width)
        Where it is written.
    """
    flat = kernel.ravel()
    first = terms[0].ravel()
    for i in range(flat.shape[0]):
        flat[i] = weights[0] * first[i]
    for t in range(1, terms.shape[0]):
        weight, term = weights[t], terms[t].ravel()
        for i in range(flat.shape[0]):
            flat[i] += weight * term[i]


@nb.njit(cache=True, nogil=True)
def fill(data, mask, bad, y0, x0, half, height, width, buffer):  # type: ignore[no-untyped-def]
    """Copy a tile with its surroundings into a buffer: zero where bad or outside the image.

    Parameters
    ----------
    data, mask : ndarray, shape (ny, nx)
        Image and its mask.
    bad : uint16
        Bits that make a pixel bad.
    y0, x0 : int
        First row and column of the tile.
    half : int
        Half width of the kernel.
    height, width : int
        Size of the tile.
    buffer : ndarray of float32, shape (BUFFER,)
        Where it is copied to, in rows of STRIDE; zeros at first.
    """
    ny, nx = data.shape
    left = max(0, half - x0)
    right = min(width + 2 * half, nx - x0 + half)
    start = x0 - half + left
    for j in range(rounded(height) + 2 * half):
        y = y0 - half + j
        line = buffer[j * STRIDE : (j + 1) * STRIDE]
        if y < 0 or y >= ny or j >= height + 2 * half or right <= left:
            line[: width + 2 * half] = np.float32(0)
            continue
        # What an earlier tile left further right meets only the zeros of the kernel's padding.
        line[:left] = np.float32(0)
        line[right : width + 2 * half] = np.float32(0)
        values = data[y, start : start + right - left]
        flags = mask[y, start : start + right - left]
        target = line[left:right]
        for i in range(target.shape[0]):
            target[i] = values[i] if (flags[i] & bad) == 0 else np.float32(0)


@nb.njit(cache=True, nogil=True)
def rounded(height):  # type: ignore[no-untyped-def]
    """Return the height of a tile in whole groups of ROWS."""
    return (height + ROWS - 1) // ROWS * ROWS


@nb.njit(cache=True, nogil=True, fastmath=True)
def sum_tile(buffer, kernel, height, out):  # type: ignore[no-untyped-def]
    """Correlate a filled tile (`fill`) of `height` rows with a padded kernel (`pad_kernel`), into rows of SIDE.

    Up to three rows of `out` (float32, SIDE * SIDE) beyond `height` are written.
    """
    for y in range(0, height, ROWS):
        _sum_rows(buffer, kernel, y, out[y * SIDE : (y + ROWS) * SIDE])


@nb.njit(cache=True, nogil=True, fastmath=True)
def sum_sloping(buffer, kernel, slope, height, middle, local, out):  # type: ignore[no-untyped-def]
    """Correlate one filled tile with a kernel that changes from row to row; once in ROWS rows is enough.

    Parameters
    ----------
    buffer : ndarray of float32, shape (BUFFER,)
        The tile with its surroundings (`fill`).
    kernel : ndarray of float32, shape (size + 2 EDGE, width)
        Padded kernel (`pad_kernel`).
    slope : ndarray of float32
        Change of the kernel by a row, padded alike.
    height : int
        Rows of the tile.
    middle : float
        Row of the tile at which the kernel is `kernel`.
    local : ndarray of float32
        As large as the kernel, used in between.
    out : ndarray of float32, shape (SIDE * SIDE,)
        Sums, in rows of SIDE; up to three rows more than `height` are written.
    """
    flat, first, change = local.ravel(), kernel.ravel(), slope.ravel()
    for y in range(0, height, ROWS):
        away = np.float32(y + 0.5 * (ROWS - 1) - middle)
        for i in range(flat.shape[0]):
            flat[i] = first[i] + away * change[i]
        _sum_rows(buffer, local, y, out[y * SIDE : (y + ROWS) * SIDE])


@nb.njit(cache=True, nogil=True, fastmath=True)
def _sum_rows(buffer, kernel, y, total):  # type: ignore[no-untyped-def]
    """Sums of ROWS rows of a tile."""
    taps = kernel.shape[1]
    steps = kernel.shape[0] - EDGE
    total[:] = np.float32(0)
    for j in range(steps):
        ka, kb, kc, kd = kernel[j + 3], kernel[j + 2], kernel[j + 1], kernel[j]
        for i in range(0, taps, 4):
            a0, a1, a2, a3 = ka[i], ka[i + 1], ka[i + 2], ka[i + 3]
            b0, b1, b2, b3 = kb[i], kb[i + 1], kb[i + 2], kb[i + 3]
            c0, c1, c2, c3 = kc[i], kc[i + 1], kc[i + 2], kc[i + 3]
            d0, d1, d2, d3 = kd[i], kd[i + 1], kd[i + 2], kd[i + 3]
            start = (y + j) * STRIDE + i
            line = buffer[start : start + SIDE + 3]
            for x in range(SIDE):
                p, q, r, s = line[x], line[x + 1], line[x + 2], line[x + 3]
                total[x] += a0 * p + a1 * q + a2 * r + a3 * s
                total[SIDE + x] += b0 * p + b1 * q + b2 * r + b3 * s
                total[2 * SIDE + x] += c0 * p + c1 * q + c2 * r + c3 * s
                total[3 * SIDE + x] += d0 * p + d1 * q + d2 * r + d3 * s


@nb.njit(cache=True, nogil=True, fastmath=True)
def spread_bright(buffer, kernel, height, width, least, most, turned, sums):  # type: ignore[no-untyped-def]
    """Correlate the bright pixels of a tile alone: each spreads the kernel around itself.

    Parameters
    ----------
    buffer : ndarray of float32, shape (BUFFER,)
        The tile with its surroundings (`fill`).
    kernel : ndarray of float32, shape (size + 2 EDGE, width)
        Padded kernel (`pad_kernel`).
    height, width : int
        Size of the tile.
    least : float32
        Absolute value from which a pixel is bright.
    most : int
        Bright pixels to give up at, because the sum over all pixels is faster.
    turned : ndarray of float32, shape (WIDEST, WIDEST)
        Space for the kernel turned by half a turn.
    sums : ndarray of float32, shape (SIDE * SPREAD,)
        Sums, in rows of SPREAD; the first column of the tile is column ``size - 1``.

    Returns
    -------
    bool
        False where there are too many and nothing was summed.
    """
    reach = kernel.shape[0] - 2 * EDGE - 1
    count = 0
    for v in range(height + reach):
        count += _brighter(buffer[v * STRIDE : v * STRIDE + width + reach], least)
        if count > most:
            return False
    taps = (reach + 8) // 8 * 8
    for j in range(reach + 1):
        turned[j, :taps] = np.float32(0)
        for i in range(reach + 1):
            turned[j, i] = kernel[EDGE + reach - j, reach - i]
    for y in range(height):
        sums[y * SPREAD : y * SPREAD + width + 2 * reach + 8] = np.float32(0)
    for v in range(height + reach):
        line = buffer[v * STRIDE : v * STRIDE + width + reach]
        if _brighter(line, least) == 0:
            continue
        for u in range(width + reach):
            if not abs(line[u]) > least:
                continue
            for y in range(max(0, v - reach), min(height, v + 1)):
                start = y * SPREAD + u
                _add_scaled(sums[start : start + taps], turned[y - v + reach, :taps], line[u])
    return True


@nb.njit(cache=True, nogil=True, fastmath=True)
def _brighter(line, least):  # type: ignore[no-untyped-def]
    """Number of pixels brighter than a limit, in the type of the pixels, which the compiler vectorises."""
    count = np.float32(0)
    for i in range(line.shape[0]):
        count += np.float32(1) if abs(line[i]) > least else np.float32(0)
    return int(count)


@nb.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _add_scaled(sums, taps, value):  # type: ignore[no-untyped-def]
    """Add a multiple of some taps, eight at a time, which is one vector register."""
    for i in range(0, taps.shape[0], 8):
        a, b, c, d = taps[i], taps[i + 1], taps[i + 2], taps[i + 3]
        e, f, g, h = taps[i + 4], taps[i + 5], taps[i + 6], taps[i + 7]
        o, p, q, r = sums[i], sums[i + 1], sums[i + 2], sums[i + 3]
        s, t, u, v = sums[i + 4], sums[i + 5], sums[i + 6], sums[i + 7]
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = o + value * a, p + value * b, q + value * c, r + value * d
        sums[i + 4], sums[i + 5], sums[i + 6], sums[i + 7] = s + value * e, t + value * f, u + value * g, v + value * h
