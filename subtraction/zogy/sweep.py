"""Sweep over the frame: both cross filters, their difference, its variance and masks, tile by tile.

Small gaps of a frame are filled from their surroundings before filters reach over them. See docs/algorithms.md,
sections 5, 13.1 and 13.3.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD, OBSCURED, Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage
from nightsift.core.parallel import over_rows
from subtraction.convolution.convolve import mirrored, tile_size, tile_slopes, tile_weights
from subtraction.convolution.tiles import BUFFER, EDGE, SIDE, STRIDE, fill, kernel_at, pad_kernel, rounded, sum_tile
from subtraction.fields import ImageField

DARK = int(HARD & ~Mask.SATURATED.value)
"""Bits of pixels that hold no light of their own: a saturated star's wings, to which its bit is grown, are light."""

BEND = 0.02
"""Least change of a filter across a tile that is followed inside it, in sigma of a pixel of the frame."""


@nb.njit(cache=True, nogil=True)
def _inside(data, mask, bad, row, column):  # type: ignore[no-untyped-def]
    """Value of a bad pixel from its good surroundings.

    A filter gives a bad pixel's neighbours a small part of what it holds. Zero there is a hole in a star's light, the
    worse the brighter the star; interpolation makes most of it good. The pixel stays masked.
    """
    ny, nx = data.shape
    near = smooth = np.float32(0)
    count = all_good = 0
    for j in range(-2, 3):
        for i in range(-2, 3):
            distance = abs(j) + abs(i)
            y, x = row + j, column + i
            if distance == 0 or distance > 2 or y < 0 or x < 0 or y >= ny or x >= nx:
                continue
            if (mask[y, x] & bad) != 0 or not np.isfinite(data[y, x]):
                continue
            value = data[y, x]
            all_good += 1
            if distance == 1:
                smooth += np.float32(8) * value
            elif j != 0 and i != 0:
                smooth -= np.float32(2) * value
            else:
                smooth -= value
            if abs(j) < 2 and abs(i) < 2:
                near += value
                count += 1
    if all_good == 12:
        return smooth / np.float32(20)
    return near / np.float32(count) if count >= 3 else np.float32(0)


def cross_difference(
    frames: tuple[Frame, Frame],
    filters: tuple[ImageField, ImageField],
    squares: tuple[ImageField, ImageField],
    *,
    grown: tuple[MaskImage, MaskImage],
    threads: int = 0,
) -> tuple[FloatImage, FloatImage, FloatImage, npt.NDArray[np.bool_]]:
    """Filter both frames and subtract; propagate variance and mask.

    ``D = A * S - B * T``, ``v = A^2 * v_S + B^2 * v_T`` (Zackay, Ofek and Gal-Yam 2016, eq. 13, 26-29), no image in
    between is ever written. Small gaps are filled from their surroundings (`subtraction.zogy.sweep`).

    Parameters
    ----------
    frames : tuple of Frame
        Science frame and template.
    filters : tuple of ImageField
        Filters A and B of both.
    squares : tuple of ImageField
        Kernels of their variances.
    grown : tuple of ndarray of uint16, shape (ny, nx)
        Masks of both frames grown by the filters; the first one is changed: it becomes the mask of the difference.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance and the filtered template; data and model are zero where nothing is known.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that are masked on the science frame alone and still hold the sky's light: under a streak or a trail.
        There the frame's own light stays, so that extraction can tell what is there.
    """
    shape = frames[0].shape
    tile = tile_size(shape)
    fields = tuple(mirrored(field) for field in (*filters, *squares))
    terms = tuple(pad_kernel(field.terms) for field in fields)
    weights = tuple(tile_weights(field, tile) for field in fields)
    slopes = tuple(tile_slopes(field, tile) for field in fields[:2])
    planes = tuple((frame.data, frame.variance, frame.mask) for frame in frames)
    out = tuple(np.empty(shape, dtype=np.float32) for _ in range(3))
    hidden = np.empty(shape, dtype=np.bool_)
    bits = (np.uint16(HARD), np.uint16(OBSCURED), np.uint16(DARK))

    def band(first: int, last: int) -> None:
        _sweep(planes[0], planes[1], terms, weights, slopes, grown, bits, tile, first, last, out, hidden)

    over_rows(band, shape[0], tile, threads=threads)
    return out[0], out[1], out[2], hidden


@nb.njit(cache=True, nogil=True)
def _sweep(  # type: ignore[no-untyped-def]
    science, template, terms, weights, slopes, grown, bits, tile, first, last, out, hidden
):
    nx = hidden.shape[1]
    hard, _, dark = bits
    buffer = np.zeros(BUFFER, np.float32)
    light = np.empty(SIDE * SIDE, np.float32)
    model = np.empty(SIDE * SIDE, np.float32)
    more = np.empty(SIDE * SIDE, np.float32)
    kernels = (
        np.empty(terms[0].shape[1:], np.float32),
        np.empty(terms[1].shape[1:], np.float32),
        np.empty(terms[2].shape[1:], np.float32),
        np.empty(terms[3].shape[1:], np.float32),
    )
    for y0 in range(first, last, tile):
        height = min(tile, last - y0)
        row = y0 // tile
        for x0 in range(0, nx, tile):
            width = min(tile, nx - x0)
            place = (y0, x0, height, width, tile)
            column = x0 // tile
            _filter_tile(science, terms[0], weights[0], slopes[0], kernels[0], dark, hard, place, buffer, light, more)
            _filter_tile(template, terms[1], weights[1], slopes[1], kernels[1], dark, hard, place, buffer, model, more)
            _settle_tile(science, grown, bits, place, light, model, out, hidden)
            kernel_at(terms[2], weights[2][row, column], kernels[2])
            kernel_at(terms[3], weights[3][row, column], kernels[3])
            half = (terms[2].shape[1] - 2 * EDGE) // 2
            fill(science[1], science[2], hard, y0, x0, half, height, width, buffer)
            sum_tile(buffer, kernels[2], height, light)
            half = (terms[3].shape[1] - 2 * EDGE) // 2
            fill(template[1], template[2], hard, y0, x0, half, height, width, buffer)
            sum_tile(buffer, kernels[3], height, model)
            for y in range(height):
                line = out[1][y0 + y, x0 : x0 + width]
                one, other = light[y * SIDE : y * SIDE + width], model[y * SIDE : y * SIDE + width]
                for x in range(width):
                    line[x] = one[x] + other[x]


@nb.njit(cache=True, nogil=True)
def _filter_tile(  # type: ignore[no-untyped-def]
    frame, terms, weights, slopes, kernel, dark, hard, place, buffer, total, more
):
    """One frame through its filter, which follows the frame inside the tile where there is light enough to show it."""
    y0, x0, height, width, tile = place
    half = (terms.shape[1] - 2 * EDGE) // 2
    row, column = y0 // tile, x0 // tile
    kernel_at(terms, weights[row, column], kernel)
    _fill_lit(frame[0], frame[2], dark, y0, x0, half, height, width, buffer)
    sum_tile(buffer, kernel, height, total)
    peak = _brightest(buffer, height + 2 * half, width + 2 * half)
    limit = BEND * np.sqrt(_least(frame[1], frame[2], hard, y0, x0, height, width))
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    for axis in range(2):
        kernel_at(terms, slopes[axis, row, column], kernel)
        power = np.float32(0)
        for value in kernel.ravel():
            power += value * value
        if peak * np.sqrt(power) * tile / 2 < limit:
            continue
        sum_tile(buffer, kernel, height, more)
        for y in range(height):
            line, change = total[y * SIDE : (y + 1) * SIDE], more[y * SIDE : (y + 1) * SIDE]
            away = np.float32(y - middle_y)
            for x in range(SIDE):
                line[x] += change[x] * (np.float32(x - middle_x) if axis == 0 else away)


@nb.njit(cache=True, nogil=True)
def _fill_lit(data, mask, dark, y0, x0, half, height, width, buffer):  # type: ignore[no-untyped-def]
    """Copy a tile with its surroundings into a buffer, small gaps filled."""
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
        line[:left] = np.float32(0)
        line[right : width + 2 * half] = np.float32(0)
        values = data[y, start : start + right - left]
        flags = mask[y, start : start + right - left]
        target = line[left:right]
        any_bit = np.uint16(0)
        for i in range(target.shape[0]):
            target[i] = values[i]
            any_bit |= flags[i]
        if any_bit != 0:
            for i in range(target.shape[0]):
                if (flags[i] & dark) != 0 or not np.isfinite(values[i]):
                    target[i] = _inside(data, mask, dark, y, start + i)


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


@nb.njit(cache=True, nogil=True)
def _settle_tile(science, grown, bits, place, light, model, out, hidden):  # type: ignore[no-untyped-def]
    """Difference, model and masks of one tile."""
    y0, x0, height, width, _ = place
    hard, obscured, dark = bits
    for y in range(height):
        part = slice(x0, x0 + width)
        own, given = science[0][y0 + y, part], science[2][y0 + y, part]
        first, second = grown[0][y0 + y, part], grown[1][y0 + y, part]
        data, matched, under = out[0][y0 + y, part], out[2][y0 + y, part], hidden[y0 + y, part]
        one, other = light[y * SIDE : y * SIDE + width], model[y * SIDE : y * SIDE + width]
        every = np.uint16(0)
        for x in range(width):
            data[x] = one[x] - other[x]
            matched[x] = other[x]
            under[x] = False
            every |= first[x] | second[x]
        if (every & hard) == 0:
            for x in range(width):
                first[x] |= second[x]
            continue
        for x in range(width):
            alone = (given[x] & obscured) != 0 and (given[x] & hard & ~obscured) == 0
            under[x] = alone and (second[x] & hard) == 0
            first[x] |= second[x]
            if (first[x] & hard) == 0:
                continue
            matched[x] = np.float32(0)
            if not under[x]:
                data[x] = np.float32(0)
            elif (given[x] & dark) != 0:
                # What a filter made of interpolated values tells nothing.
                data[x] = own[x] - other[x]
