"""Sweep over the frame: subtract, whiten and propagate the variance, band by band of rows that stay in the cache.

The kernel follows the frame inside a tile. Along y it is renewed every few rows, which costs next to nothing; along x
its change is added, and only for the pixels whose light is bright enough to show it. See docs/algorithms.md, sections 5
and 8.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD
from nightsift.core.frames import FloatImage, Frame, MaskImage
from nightsift.core.parallel import over_rows
from subtraction.convolution.convolve import mirrored, tile_size, tile_slopes, tile_weights
from subtraction.convolution.tiles import (
    BUFFER,
    EDGE,
    SIDE,
    SPREAD,
    STRIDE,
    WIDEST,
    fill,
    kernel_at,
    pad_kernel,
    rounded,
    spread_bright,
    sum_sloping,
    sum_tile,
)
from subtraction.fields import ImageField, widest_radius
from subtraction.noise.whitening import Filters

BEND = 0.02
"""Least change of the kernel across a tile that is followed inside it, in sigma of a pixel of the target."""

BRIGHT = 0.2
"""Pixels fainter than this part of what shows the change of the kernel are left out of that change."""

FEW = 150
"""Bright pixels in a tile up to which the change of the kernel is added pixel by pixel."""

VARIANCE_TAIL = 1e-3
"""Part of the sum of a kernel of variances that its footprint may leave out; the sum is preserved."""


@nb.njit(cache=True, nogil=True)
def _sum_bent(  # type: ignore[no-untyped-def]
    target, bad, terms, slopes, kernel, bent, tile, start, x0, height, width, buffer, total, more, space
):
    """Correlate a tile; where it holds light enough to show it, the kernel changes across it, to first order."""
    ny = target[0].shape[0]
    half = (terms.shape[1] - 2 * EDGE) // 2
    peak = _brightest(buffer, height + 2 * half, width + 2 * half)
    limit = BEND * np.sqrt(_least(target[1], target[2], bad, start, x0, height, width))
    row, column = start // tile, x0 // tile
    slope, local = bent
    kernel_at(terms, slopes[1, row, column], slope)
    if peak * np.sqrt(_power(slope)) * tile / 2 < limit:
        sum_tile(buffer, kernel, height, total)
    else:
        middle = row * tile + (min(tile, ny - row * tile) - 1) / 2 - start
        sum_sloping(buffer, kernel, slope, height, middle, local, total)
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


def difference(
    target: Frame,
    reference: Frame,
    kernel: ImageField,
    *,
    filters: Filters,
    spoilt: MaskImage,
    final: MaskImage,
    hidden: npt.NDArray[np.bool_],
    scale: float = 0.0,
    threads: int = 0,
) -> tuple[FloatImage, FloatImage, FloatImage]:
    """Subtract the convolved reference from the target, whiten what is left, and propagate the variance.

    ``D = W * (target - K * reference)`` and ``v = A * v_target + B * v_reference`` in one pass: no image in between
    is ever written whole.

    Parameters
    ----------
    target, reference : Frame
        The frame that is matched and the frame that is convolved.
    kernel : ImageField
        Matching kernel K.
    filters : Filters
        Whitening filter W, kernels A and B of the variances (`subtraction.noise.whitening.make_filters`).
    spoilt : ndarray of uint16, shape (ny, nx)
        Mask of ``target - K * reference``: hard pixels of it count as zero in the whitening.
    final : ndarray of uint16, shape (ny, nx)
        Mask of the difference: hard pixels of the model become zero.
    hidden : ndarray of bool, shape (ny, nx)
        Masked pixels that keep ``target - K * reference`` as their data.
    scale : float, optional
        Where not zero, the model is the target times this instead of the convolved reference.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance and the matched template.
    """
    shape = target.shape
    tile = tile_size(kernel.shape)
    smooth = (_cut(filters.target_variance), _cut(filters.reference_variance))
    fields = tuple(mirrored(field) for field in (kernel, filters.whitening, *smooth))
    terms = tuple(pad_kernel(field.terms) for field in fields)
    weights = tuple(tile_weights(field, tile) for field in fields)
    slopes = tile_slopes(kernel, tile)
    planes = tuple((frame.data, frame.variance, frame.mask) for frame in (target, reference))
    out = tuple(np.empty(shape, dtype=np.float32) for _ in range(3))
    masks = (spoilt, final, hidden, np.uint16(HARD))

    def band(first: int, last: int) -> None:
        _sweep(planes[0], planes[1], masks, terms, weights, slopes, np.float32(scale), tile, first, last, out)

    over_rows(band, shape[0], tile, threads=threads)
    return out[0], out[1], out[2]


def _cut(field: ImageField) -> ImageField:
    """A kernel of variances cut to where its weight lies, the sum of each of its terms preserved."""
    radius = widest_radius(field, VARIANCE_TAIL)
    middle = field.half
    cut = field.terms[:, middle - radius : middle + radius + 1, middle - radius : middle + radius + 1].copy()
    lost = field.terms.sum(axis=(1, 2), dtype=np.float64) - cut.sum(axis=(1, 2), dtype=np.float64)
    cut[:, radius, radius] += lost.astype(np.float32)
    return ImageField(cut, field.order, field.shape)


@nb.njit(cache=True, nogil=True)
def _sweep(  # type: ignore[no-untyped-def]
    target, reference, masks, terms, weights, slopes, scale, tile, first, last, out
):
    """The sweep over one band of rows; residuals wait in a ring of tile rows until the filter has passed."""
    ny, nx = target[0].shape
    half = (terms[1].shape[1] - 2 * EDGE) // 2
    around = (half + tile - 1) // tile
    ring = np.zeros(((2 * around + 1) * tile, nx), np.float32)
    buffer = np.zeros(BUFFER, np.float32)
    total = np.empty(SIDE * SIDE, np.float32)
    more = np.empty(SIDE * SIDE, np.float32)
    kernels = (
        np.empty(terms[0].shape[1:], np.float32),
        np.empty(terms[1].shape[1:], np.float32),
        np.empty(terms[2].shape[1:], np.float32),
        np.empty(terms[3].shape[1:], np.float32),
    )
    bent = (np.empty(terms[0].shape[1:], np.float32), np.empty(terms[0].shape[1:], np.float32))
    space = (np.empty((WIDEST, WIDEST), np.float32), np.empty(SIDE * SPREAD, np.float32))
    for row in range(first - around * tile, last + around * tile, tile):
        # Whole tiles beyond the band too: what a tile holds decides how it is summed, and bands differ with threads.
        start, stop = max(row, 0), min(row + tile, ny)
        if start < stop:
            _residual_row(
                target, reference, masks, terms[0], weights[0], slopes, kernels[0], bent, scale, tile, start, stop,
                first, last, buffer, total, more, space, ring, out,
            )  # fmt: skip
        done = row - around * tile
        if first <= done < last:
            height = min(tile, last - done)
            _whiten_row(ring, masks, terms[1], weights[1], kernels[1], tile, done, height, buffer, total, out[0])
            _variance_row(
                target, reference, masks, terms, weights, kernels, tile, done, height, buffer, total, more, out[1]
            )


@nb.njit(cache=True, nogil=True)
def _residual_row(  # type: ignore[no-untyped-def]
    target, reference, masks, terms, weights, slopes, kernel, bent, scale, tile, start, stop, first, last,
    buffer, total, more, space, ring, out,
):  # fmt: skip
    """Residual of rows ``start <= y < stop`` of one row of tiles into the ring; the model beside."""
    nx = ring.shape[1]
    spoilt, final, hidden, bad = masks
    half = (terms.shape[1] - 2 * EDGE) // 2
    height = stop - start
    for x0 in range(0, nx, tile):
        width = min(tile, nx - x0)
        kernel_at(terms, weights[start // tile, x0 // tile], kernel)
        fill(reference[0], reference[2], bad, start, x0, half, height, width, buffer)
        _sum_bent(target, bad, terms, slopes, kernel, bent, tile, start, x0, height, width, buffer, total, more, space)
        for y in range(start, stop):
            wanted = target[0][y, x0 : x0 + width]
            flags = spoilt[y, x0 : x0 + width]
            convolved = total[(y - start) * SIDE : (y - start) * SIDE + width]
            left = ring[y % ring.shape[0], x0 : x0 + width]
            for x in range(width):
                left[x] = wanted[x] - convolved[x] if (flags[x] & bad) == 0 else np.float32(0)
            if y < first or y >= last:
                continue
            model = out[2][y, x0 : x0 + width]
            flags = final[y, x0 : x0 + width]
            if scale != 0:
                for x in range(width):
                    model[x] = scale * wanted[x] if (flags[x] & bad) == 0 else np.float32(0)
                continue
            for x in range(width):
                model[x] = convolved[x] if (flags[x] & bad) == 0 else np.float32(0)
            if _any(hidden[y, x0 : x0 + width]):
                under = out[0][y, x0 : x0 + width]
                under[:] = wanted - convolved


@nb.njit(cache=True, nogil=True)
def _any(flags):  # type: ignore[no-untyped-def]
    """Whether any flag of a row is set."""
    count = 0
    for x in range(flags.shape[0]):
        count += flags[x]
    return count > 0


@nb.njit(cache=True, nogil=True)
def _whiten_row(ring, masks, terms, weights, kernel, tile, y0, height, buffer, total, out):  # type: ignore[no-untyped-def]
    """Whitened residual of one row of tiles."""
    ny, nx = out.shape
    hidden = masks[2]
    half = (terms.shape[1] - 2 * EDGE) // 2
    for x0 in range(0, nx, tile):
        width = min(tile, nx - x0)
        kernel_at(terms, weights[y0 // tile, x0 // tile], kernel)
        left = max(0, half - x0)
        right = min(width + 2 * half, nx - x0 + half)
        for j in range(rounded(height) + 2 * half):
            y = y0 - half + j
            line = buffer[j * STRIDE : (j + 1) * STRIDE]
            if y < 0 or y >= ny or j >= height + 2 * half:
                line[: width + 2 * half] = np.float32(0)
                continue
            line[:left] = np.float32(0)
            line[right : width + 2 * half] = np.float32(0)
            line[left:right] = ring[y % ring.shape[0], x0 - half + left : x0 - half + right]
        sum_tile(buffer, kernel, height, total)
        for y in range(height):
            row = out[y0 + y, x0 : x0 + width]
            white = total[y * SIDE : y * SIDE + width]
            under = hidden[y0 + y, x0 : x0 + width]
            if _any(under):
                for x in range(width):
                    row[x] = row[x] if under[x] else white[x]
            else:
                row[:] = white


@nb.njit(cache=True, nogil=True)
def _variance_row(  # type: ignore[no-untyped-def]
    target, reference, masks, terms, weights, kernels, tile, y0, height, buffer, total, more, out
):
    """Variance of one row of tiles."""
    nx = out.shape[1]
    bad = masks[3]
    for x0 in range(0, nx, tile):
        width = min(tile, nx - x0)
        kernel_at(terms[2], weights[2][y0 // tile, x0 // tile], kernels[2])
        kernel_at(terms[3], weights[3][y0 // tile, x0 // tile], kernels[3])
        half = (terms[2].shape[1] - 2 * EDGE) // 2
        fill(target[1], target[2], bad, y0, x0, half, height, width, buffer)
        sum_tile(buffer, kernels[2], height, total)
        half = (terms[3].shape[1] - 2 * EDGE) // 2
        fill(reference[1], reference[2], bad, y0, x0, half, height, width, buffer)
        sum_tile(buffer, kernels[3], height, more)
        for y in range(height):
            row = out[y0 + y, x0 : x0 + width]
            first, second = total[y * SIDE : y * SIDE + width], more[y * SIDE : y * SIDE + width]
            for x in range(width):
                row[x] = first[x] + second[x]
