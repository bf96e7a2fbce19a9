"""Lanczos-3 resampling in two passes, row by row, for mappings that hardly turn the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.frames import FloatImage, MaskImage
from nightsift.images.resampling.lanczos import BAD, NO_DATA, PHASES, one_pixel, powers

MOST_SLOPE = 0.1
"""Steepest path of an output row through the input (rad) that is resampled in two passes."""

_LEAST_SCALE, _MOST_SCALE = 0.7, 1.4
_PAD = 8  # columns beyond both edges of the input that a kernel may ask for
_HARD = np.uint16(BAD)


def fits_two_passes(grid: npt.NDArray[np.float64]) -> bool:
    """Whether a mapping may be resampled in two passes: rows run nearly along rows, and the scale hardly changes.

    `grid`, shape (2, gy, gx), holds the input x and y at the nodes, divided by the distance of nodes.
    """
    across = np.diff(grid, axis=2)
    if not bool(np.isfinite(across).all()):
        return False
    dx, dy = across
    return bool(dx.min() > _LEAST_SCALE and dx.max() < _MOST_SCALE and (np.abs(dy) < MOST_SLOPE * dx).all())


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def resample_rows(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    grid: npt.NDArray[np.float64],
    step: int,
    table: npt.NDArray[np.float32],
    first: int,
    last: int,
    out: FloatImage,
    out_variance: FloatImage,
    out_mask: MaskImage,
) -> None:
    """Resample rows ``first <= y < last``: along columns to the path of each row, then along that path.

    The path of an output row through the input is followed from column to column; interpolation along each column
    brings the image on it, interpolation along it to the output pixels (Catmull & Smith 1980, with paths instead of
    columns). For a straight path the result is exact for the same polynomials as interpolation in two dimensions.
    Variances take the squares of the weights both times, divided by their sums. Pixels that see a masked one, or
    the edge, are done one by one.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (my, mx)
        Input and its variance.
    mask : ndarray of uint16, shape (my, mx)
        Its `Mask` bits.
    grid : ndarray of float64, shape (2, gy, gx)
        Input x and y at output pixels ``(step * i, step * j)``.
    step : int
        Distance of nodes (pixel).
    table : ndarray of float32, shape (PHASES + 1, 8)
        Weights from `nightsift.images.resampling.lanczos.kernel_table`.
    first, last : int
        Output rows.
    out, out_variance : ndarray of float32, shape (ny, nx)
        Filled in these rows.
    out_mask : ndarray of uint16, shape (ny, nx)
        Filled in these rows.
    """
    nx, mx = out.shape[1], data.shape[1]
    width = mx + 2 * _PAD
    place, phase = np.empty(nx, np.int32), np.empty(nx, np.int32)
    row, row_phase = np.empty(nx, np.int32), np.empty(nx, np.int32)
    scale = np.empty(nx, np.float32)
    path, path_phase = np.empty(width, np.int32), np.empty(width, np.int32)
    level, noise = np.zeros(width, np.float32), np.zeros(width, np.float32)
    seen, near = np.zeros(width, np.uint16), np.zeros(width, np.uint16)
    weights = np.empty((6, max(nx, width)), np.float32)
    power = powers(table)
    for y in range(first, last):
        left, right, c0, c1 = _follow(grid, step, y, data.shape, place, phase, row, row_phase, scale, path, path_phase)
        out[y, :left], out_variance[y, :left], out_mask[y, :left] = 0.0, 0.0, NO_DATA
        out[y, right:], out_variance[y, right:], out_mask[y, right:] = 0.0, 0.0, NO_DATA
        if left >= right:
            continue
        _spread(table, path_phase, c0, c1, weights)
        _along_columns(data, variance, mask, path, c0, c1, weights, level, noise, seen, near)
        _spread(table, phase, left, right, weights)
        _along_path(place, left, right, weights, scale, level, noise, seen, near, out[y], out_variance[y], out_mask[y])
        line = out_mask[y]
        for x in range(left, right):
            if line[x] != NO_DATA:
                continue
            value, spread, bits = np.float32(0.0), np.float32(0.0), NO_DATA
            if row[x] >= 0:
                wx, wy = table[phase[x]], table[row_phase[x]]
                value, spread, bits = one_pixel(data, variance, mask, place[x], row[x], wx, wy)
            out[y, x], out_variance[y, x], line[x] = value * scale[x], spread * scale[x], bits
        for x in range(left, right):
            out_variance[y, x] /= power[phase[x]] * power[row_phase[x]]


@njit(cache=True, nogil=True, error_model="numpy")
def _follow(
    grid: npt.NDArray[np.float64],
    step: int,
    y: int,
    shape: tuple[int, int],
    place: npt.NDArray[np.int32],
    phase: npt.NDArray[np.int32],
    row: npt.NDArray[np.int32],
    row_phase: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float32],
    path: npt.NDArray[np.int32],
    path_phase: npt.NDArray[np.int32],
) -> tuple[int, int, int, int]:
    """Place of each output pixel, and the path through the columns that they need; both ranges."""
    my, mx = shape
    nx = len(place)
    left, right = nx, 0
    gy = min(y // step, grid.shape[1] - 2)
    v = (y - gy * step) / step
    cells = grid.shape[2] - 1
    for gx in range(cells):
        begin, end = gx * step, (gx + 1) * step if gx < cells - 1 else nx
        end = min(end, nx)
        low, high = grid[:, gy, gx : gx + 2], grid[:, gy + 1, gx : gx + 2]
        ax, bx = low[0, 0] * (1 - v) + high[0, 0] * v, low[0, 1] * (1 - v) + high[0, 1] * v
        ay, by = low[1, 0] * (1 - v) + high[1, 0] * v, low[1, 1] * (1 - v) + high[1, 1] * v
        dx, dy = (bx - ax) / step, (by - ay) / step
        ex = 0.5 * (high[0, 0] - low[0, 0] + high[0, 1] - low[0, 1]) / step
        ey = 0.5 * (high[1, 0] - low[1, 0] + high[1, 1] - low[1, 1]) / step
        area = np.float32(abs(dx * ey - dy * ex))
        # The 1e-6 keeps an exact edge pixel inside in spite of rounding.
        while begin < end and not ax + dx * (begin - gx * step) > -1e-6:
            begin += 1
        while end > begin and not ax + dx * (end - 1 - gx * step) < mx - 1 + 1e-6:
            end -= 1
        for x in range(begin, end):
            px, py = ax + dx * (x - gx * step), ay + dy * (x - gx * step)
            inside = py > -1e-6 and py < my - 1 + 1e-6
            px, py = min(max(px, 0.0), mx - 1.0), min(max(py, 0.0), my - 1.0)
            place[x], row[x] = np.int32(px), np.int32(py) if inside else np.int32(-1)
            phase[x] = np.int32((px - np.int32(px)) * PHASES + 0.5)
            row_phase[x] = np.int32((py - np.int32(py)) * PHASES + 0.5)
            scale[x] = area
        if begin < end:
            left, right = min(left, begin), end
        c0 = int(max(np.ceil(ax), -1.0 * _PAD)) if gx > 0 else -_PAD
        c1 = int(min(np.ceil(bx), 1.0 * mx + _PAD)) if gx < cells - 1 else mx + _PAD
        for c in range(max(c0, -_PAD), c1):
            py = ay + (c - ax) * dy / dx
            good = py >= 2.0 and py < my - 3.0 and c >= 0 and c < mx
            py = py if good else 0.0
            path[c + _PAD] = np.int32(py) if good else np.int32(-1)
            path_phase[c + _PAD] = np.int32((py - np.int32(py)) * PHASES + 0.5)
    if left >= right:
        return 0, 0, 0, 0
    return left, right, place[left] - 2 + _PAD, place[right - 1] + 4 + _PAD


@njit(cache=True, nogil=True)
def _spread(
    table: npt.NDArray[np.float32],
    phase: npt.NDArray[np.int32],
    first: int,
    last: int,
    weights: npt.NDArray[np.float32],
) -> None:
    """Six weights of each pixel, plane by plane."""
    w0, w1, w2, w3, w4, w5 = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5]
    for c in range(first, last):
        one = table[phase[c]]
        w0[c], w1[c], w2[c], w3[c], w4[c], w5[c] = one[0], one[1], one[2], one[3], one[4], one[5]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _along_columns(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    path: npt.NDArray[np.int32],
    c0: int,
    c1: int,
    weights: npt.NDArray[np.float32],
    level: npt.NDArray[np.float32],
    noise: npt.NDArray[np.float32],
    seen: MaskImage,
    near: MaskImage,
) -> None:
    """Interpolate each column at the path; masks of the six rows and of the two nearest."""
    begin = c0
    while begin < c1:
        end, y = begin + 1, path[begin]
        while end < c1 and path[end] == y:
            end += 1
        if y < 0:
            level[begin:end], noise[begin:end], seen[begin:end], near[begin:end] = 0.0, 0.0, _HARD, 0
            begin = end
            continue
        n, a, b = end - begin, begin - _PAD, end - _PAD
        w0, w1, w2 = weights[0, begin:end], weights[1, begin:end], weights[2, begin:end]
        w3, w4, w5 = weights[3, begin:end], weights[4, begin:end], weights[5, begin:end]
        d0, d1, d2 = data[y - 2, a:b], data[y - 1, a:b], data[y, a:b]
        d3, d4, d5 = data[y + 1, a:b], data[y + 2, a:b], data[y + 3, a:b]
        v0, v1, v2 = variance[y - 2, a:b], variance[y - 1, a:b], variance[y, a:b]
        v3, v4, v5 = variance[y + 1, a:b], variance[y + 2, a:b], variance[y + 3, a:b]
        m0, m1, m2 = mask[y - 2, a:b], mask[y - 1, a:b], mask[y, a:b]
        m3, m4, m5 = mask[y + 1, a:b], mask[y + 2, a:b], mask[y + 3, a:b]
        target, spread, all_six, two = level[begin:end], noise[begin:end], seen[begin:end], near[begin:end]
        for k in range(n):
            a0, a1, a2, a3, a4, a5 = w0[k], w1[k], w2[k], w3[k], w4[k], w5[k]
            target[k] = a0 * d0[k] + a1 * d1[k] + a2 * d2[k] + a3 * d3[k] + a4 * d4[k] + a5 * d5[k]
            spread[k] = (
                a0 * a0 * v0[k] + a1 * a1 * v1[k] + a2 * a2 * v2[k]
                + a3 * a3 * v3[k] + a4 * a4 * v4[k] + a5 * a5 * v5[k]
            )  # fmt: skip
        for k in range(n):
            two[k] = m2[k] | m3[k]
            all_six[k] = m0[k] | m1[k] | m2[k] | m3[k] | m4[k] | m5[k]
        begin = end


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _along_path(
    place: npt.NDArray[np.int32],
    left: int,
    right: int,
    weights: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    level: npt.NDArray[np.float32],
    noise: npt.NDArray[np.float32],
    seen: MaskImage,
    near: MaskImage,
    out: npt.NDArray[np.float32],
    out_variance: npt.NDArray[np.float32],
    out_mask: npt.NDArray[np.uint16],
) -> None:
    """Interpolate along the path; pixels that see a bad one get NO_DATA, to be done with care."""
    begin = left
    while begin < right:
        end, offset = begin + 1, place[begin] - begin
        while end < right and place[end] - end == offset:
            end += 1
        n, a = end - begin, begin + offset - 2 + _PAD
        w0, w1, w2 = weights[0, begin:end], weights[1, begin:end], weights[2, begin:end]
        w3, w4, w5 = weights[3, begin:end], weights[4, begin:end], weights[5, begin:end]
        d0, d1, d2 = level[a : a + n], level[a + 1 : a + 1 + n], level[a + 2 : a + 2 + n]
        d3, d4, d5 = level[a + 3 : a + 3 + n], level[a + 4 : a + 4 + n], level[a + 5 : a + 5 + n]
        v0, v1, v2 = noise[a : a + n], noise[a + 1 : a + 1 + n], noise[a + 2 : a + 2 + n]
        v3, v4, v5 = noise[a + 3 : a + 3 + n], noise[a + 4 : a + 4 + n], noise[a + 5 : a + 5 + n]
        m0, m1, m2 = seen[a : a + n], seen[a + 1 : a + 1 + n], seen[a + 2 : a + 2 + n]
        m3, m4, m5 = seen[a + 3 : a + 3 + n], seen[a + 4 : a + 4 + n], seen[a + 5 : a + 5 + n]
        n2, n3 = near[a + 2 : a + 2 + n], near[a + 3 : a + 3 + n]
        target, spread, bits, area = out[begin:end], out_variance[begin:end], out_mask[begin:end], scale[begin:end]
        for k in range(n):
            a0, a1, a2, a3, a4, a5 = w0[k], w1[k], w2[k], w3[k], w4[k], w5[k]
            s = area[k]
            target[k] = s * (a0 * d0[k] + a1 * d1[k] + a2 * d2[k] + a3 * d3[k] + a4 * d4[k] + a5 * d5[k])
            spread[k] = s * (
                a0 * a0 * v0[k] + a1 * a1 * v1[k] + a2 * a2 * v2[k]
                + a3 * a3 * v3[k] + a4 * a4 * v4[k] + a5 * a5 * v5[k]
            )  # fmt: skip
        for k in range(n):
            hard = (m0[k] | m1[k] | m2[k] | m3[k] | m4[k] | m5[k]) & _HARD
            bits[k] = n2[k] | n3[k] if hard == 0 else NO_DATA
        begin = end
