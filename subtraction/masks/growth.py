"""Masks of a difference: both inputs, grown by the kernels, and wider around saturated stars.

Growth by a kernel goes tile by tile in compiled loops; tiles without a masked pixel are copied. See
docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD, OBSCURED, Mask
from nightsift.core.frames import Frame, MaskImage
from nightsift.core.parallel import over_rows
from subtraction.convolution.tiles import BUFFER, ROWS, SIDE, STRIDE, pad_kernel, rounded, sum_tile
from subtraction.fields import KERNEL_TAIL, ImageField, reference_points, widest_radius
from subtraction.masks.saturated_stars import find_blobs, measure_reach, stamp_discs

MISMATCH = 0.05
"""Part of a saturated star's light that no kernel matches: its wings differ from those of the anchors."""


def grow(mask: MaskImage, radius: int, bits: int = HARD, *, edge: bool = True, threads: int = 0) -> MaskImage:
    """Grow mask bits by a disc.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        The mask.
    radius : int
        Radius of the disc (pixel).
    bits : int, optional
        Bits that grow; the others stay as they are.
    edge : bool, optional
        Whether pixels closer than `radius` to the edge of the frame become `Mask.NO_DATA`, because nothing is known
        of what lies outside.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        The grown mask, a new array.
    """
    out = mask.copy()
    if radius <= 0:
        return out
    reach = _disc(radius)

    def band(first: int, last: int) -> None:
        _grow_disc(mask, np.uint16(bits), reach, first, last, out)

    over_rows(band, mask.shape[0], 64, threads=threads)
    if edge:
        _mark_edge(out, radius)
    return out


def _disc(radius: int) -> npt.NDArray[np.int64]:
    """Half width of a disc in each of its rows."""
    steps = np.arange(-radius, radius + 1)
    return np.asarray(np.floor(np.sqrt((radius + 0.5) ** 2 - steps**2)), dtype=np.int64)


def _mark_edge(mask: MaskImage, radius: int) -> None:
    """Set NO_DATA on pixels closer to the edge than a radius."""
    bit = np.uint16(Mask.NO_DATA.value)
    mask[:radius] |= bit
    mask[-radius:] |= bit
    mask[:, :radius] |= bit
    mask[:, -radius:] |= bit


@nb.njit(cache=True, nogil=True)
def _grow_disc(mask, bits, reach, first, last, out):  # type: ignore[no-untyped-def]
    """Stamp the disc of every pixel on the rim of a masked region; its interior is covered already."""
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


def grow_by_kernel(mask: MaskImage, field: ImageField, tail: float = KERNEL_TAIL, *, threads: int = 0) -> MaskImage:
    """Grow mask bits to where a kernel puts more than a small part of its weight on masked pixels.

    A lone bad pixel, which only the kernel's middle reaches with any weight, grows by little; the rim of a large
    area by the kernel's effective radius.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        The mask.
    field : ImageField
        The kernel.
    tail : float, optional
        Part of the kernel's absolute sum that masked pixels may have.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        The grown mask, a new array; pixels within the effective radius of the edge become `Mask.NO_DATA`.
    """
    radius = widest_radius(field, tail)
    if radius == 0:
        return mask.copy()
    weights = np.maximum.reduce([_share(field.at(x, y), radius) for x, y in reference_points(field.shape)])
    kernel, reach = pad_kernel(weights[None])[0], _disc(radius)
    grown = np.empty_like(mask)

    def band(first: int, last: int) -> None:
        grow_by_share(mask, np.uint16(HARD), kernel, reach, np.float32(tail), first, last, grown)

    over_rows(band, mask.shape[0], SIDE, threads=threads)
    _mark_edge(grown, radius)
    return grown


def _share(kernel: npt.NDArray[np.floating], radius: int) -> npt.NDArray[np.float32]:
    """Absolute weights within a radius as parts of their whole sum, mirrored to look from the output pixel."""
    middle = kernel.shape[0] // 2
    power = np.abs(kernel)[::-1, ::-1] / np.abs(kernel).sum()
    cut = slice(middle - radius, middle + radius + 1)
    return np.ascontiguousarray(power[cut, cut], dtype=np.float32)


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


def grow_saturated(frame: Frame, fwhm: float, limit: float = 12.0, *, threads: int = 0) -> MaskImage:
    """Grow the mask around each saturated star out to where its unmatched light sinks into the noise.

    The brighter the star, the farther that is. The light profile is measured on the frame itself, star by star, as
    the median in rings, so that nothing has to be known of the wings.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    fwhm : float
        Seeing (pixel).
    limit : float, optional
        Largest growth in units of `fwhm`.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        The mask with the bit SATURATED grown, a new array.
    """
    out = frame.mask.copy()
    runs, starts = find_blobs(frame.mask, Mask.SATURATED.value)
    discs = np.empty((len(starts) - 1, 3))
    reach = int(np.ceil(limit * fwhm))

    def some(first: int, last: int) -> None:
        measure_reach(
            frame.data,
            frame.variance,
            frame.mask,
            np.uint16(HARD),
            np.float32(MISMATCH),
            reach,
            runs,
            starts,
            first,
            last,
            discs,
        )

    over_rows(some, len(discs), 1, threads=threads)
    stamp_discs(discs, np.uint16(Mask.SATURATED.value), out)
    return out


def unite(mask: MaskImage, spoilt: MaskImage, obscured: bool = True, *, threads: int = 0) -> npt.NDArray[np.bool_]:
    """Add the mask of the science frame to the grown mask of what is subtracted from it, in place.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the science frame.
    spoilt : ndarray of uint16, shape (ny, nx)
        Grown mask of the convolved frame; becomes the union.
    obscured : bool, optional
        Whether to look for pixels that still hold the sky's light.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Pixels that are masked on the science frame alone and still hold the sky's light: under a streak or a trail.
    """
    hidden = np.zeros(mask.shape, dtype=np.bool_)
    bits = np.uint16(OBSCURED if obscured else 0)

    def band(first: int, last: int) -> None:
        _unite_rows(mask, spoilt, bits, np.uint16(HARD), first, last, hidden)

    over_rows(band, mask.shape[0], SIDE, threads=threads)
    return hidden


@nb.njit(cache=True, nogil=True)
def _unite_rows(mask, spoilt, obscured, hard, first, last, hidden):  # type: ignore[no-untyped-def]
    for y in range(first, last):
        given, grown, under = mask[y], spoilt[y], hidden[y]
        for x in range(given.shape[0]):
            alone = (given[x] & obscured) != 0 and (given[x] & hard & ~obscured) == 0
            under[x] = alone and (grown[x] & hard) == 0
            grown[x] |= given[x]
