"""Masks of a difference: both inputs, grown by the kernels, wider around saturated stars.

See docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nightsift.flags import Mask
from nightsift.frames import Frame, MaskImage
from subtraction.parallel import over_rows
from subtraction.spatial import ImageField

HARD = int(0xFFFF & ~Mask.BRIGHT_STAR.value)
"""Bits of pixels that hold no usable value. The halo of a bright star is doubtful but usable."""

OBSCURED = int(Mask.SATURATED.value | Mask.BLEED.value | Mask.STREAK.value)
"""Bits of areas of the sky that are masked but hold its light; a hit or a defect holds none."""

KERNEL_TAIL = 0.01
"""Part of a kernel's absolute sum that may fall on masked pixels before a pixel counts as masked itself."""

MISMATCH = 0.05
"""Part of a saturated star's light that no kernel matches: its wings differ from those of the anchors."""


def effective_radius(kernel: npt.NDArray[np.floating], tail: float = KERNEL_TAIL) -> int:
    """Radius outside which a kernel is negligible.

    Parameters
    ----------
    kernel : ndarray, shape (size, size)
        Kernel of odd size.
    tail : float, optional
        Part of the absolute sum that may lie outside.

    Returns
    -------
    int
        Radius (pixel), 0 to the half width.
    """
    half = int(kernel.shape[0]) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    radius = np.hypot(x, y)
    power = np.abs(kernel)
    total = float(power.sum())
    for r in range(half + 1):
        if float(power[radius > r + 0.5].sum()) <= tail * total:
            return r
    return half


def widest_radius(field: ImageField, tail: float = KERNEL_TAIL) -> int:
    """Largest effective radius of a kernel over centre and corners of the frame.

    Parameters
    ----------
    field : ImageField
        The kernel.
    tail : float, optional
        As in `effective_radius`.

    Returns
    -------
    int
        Radius (pixel).
    """
    return max(effective_radius(field.at(x, y), tail) for x, y in _places(field.shape))


def grow(mask: MaskImage, radius: int, bits: int = HARD, edge: bool = True, threads: int = 0) -> MaskImage:
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
    steps = np.arange(-radius, radius + 1)
    reach = np.floor(np.sqrt((radius + 0.5) ** 2 - steps**2)).astype(np.int64)

    def band(first: int, last: int) -> None:
        _grow_rows(mask, np.uint16(bits), reach, first, last, out)

    over_rows(band, mask.shape[0], 64, threads)
    if edge:
        bit = np.uint16(Mask.NO_DATA.value)
        out[:radius] |= bit
        out[-radius:] |= bit
        out[:, :radius] |= bit
        out[:, -radius:] |= bit
    return out


@nb.njit(cache=True, nogil=True)
def _grow_rows(mask, bits, reach, first, last, out):  # type: ignore[no-untyped-def]
    """Stamp the disc of every pixel on the rim of a masked region; its interior is covered already."""
    ny, nx = mask.shape
    radius = reach.shape[0] // 2
    for y in range(max(0, first - radius), min(ny, last + radius)):
        for x in range(nx):
            value = mask[y, x] & bits
            if value == 0:
                continue
            inner = value
            if y > 0:
                inner &= mask[y - 1, x]
            if y < ny - 1:
                inner &= mask[y + 1, x]
            if x > 0:
                inner &= mask[y, x - 1]
            if x < nx - 1:
                inner &= mask[y, x + 1]
            value = value & ~inner
            if value == 0:
                continue
            for j in range(max(first, y - radius), min(last, y + radius + 1)):
                wide = reach[j - y + radius]
                for i in range(max(0, x - wide), min(nx, x + wide + 1)):
                    out[j, i] |= value


def grow_by_kernel(mask: MaskImage, field: ImageField, tail: float = KERNEL_TAIL, threads: int = 0) -> MaskImage:
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
    grown = grow(mask, radius, threads=threads)
    if radius == 0:
        return grown
    weights = np.maximum.reduce([_share(field.at(x, y), radius) for x, y in _places(field.shape)])
    inner = (slice(radius, -radius), slice(radius, -radius))

    def band(first: int, last: int) -> None:
        _shrink_rows(mask, np.uint16(HARD), weights, np.float32(tail), first + radius, last + radius, grown)

    over_rows(band, mask[inner].shape[0], 64, threads)
    return grown


def _places(shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Centre, corners and middles of the sides of a frame."""
    ny, nx = shape
    return [(x, y) for x in (0.0, (nx - 1) / 2, nx - 1.0) for y in (0.0, (ny - 1) / 2, ny - 1.0)]


def _share(kernel: npt.NDArray[np.floating], radius: int) -> npt.NDArray[np.float32]:
    """Absolute weights within a radius as parts of their whole sum, mirrored to look from the output pixel."""
    middle = kernel.shape[0] // 2
    power = np.abs(kernel)[::-1, ::-1] / np.abs(kernel).sum()
    cut = slice(middle - radius, middle + radius + 1)
    return np.ascontiguousarray(power[cut, cut], dtype=np.float32)


@nb.njit(cache=True, nogil=True)
def _shrink_rows(mask, bits, weights, tail, first, last, grown):  # type: ignore[no-untyped-def]
    """Take growth back where the weight on masked pixels is small."""
    radius = weights.shape[0] // 2
    nx = mask.shape[1]
    for y in range(first, last):
        for x in range(radius, nx - radius):
            if (grown[y, x] & bits) == 0 or (mask[y, x] & bits) != 0:
                continue
            share = np.float32(0)
            for j in range(2 * radius + 1):
                for i in range(2 * radius + 1):
                    if (mask[y + j - radius, x + i - radius] & bits) != 0:
                        share += weights[j, i]
            if share <= tail:
                grown[y, x] = mask[y, x]


def grow_saturated(frame: Frame, fwhm: float, limit: float = 12.0) -> MaskImage:
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

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        The mask with the bit SATURATED grown, a new array.
    """
    saturated = (frame.mask & Mask.SATURATED.value) != 0
    out = frame.mask.copy()
    if not bool(saturated.any()):
        return out
    labels = ndimage.label(saturated)[0]
    reach = int(np.ceil(limit * fwhm))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        blob = labels[box] == number
        if int(blob.sum()) < 2:
            continue
        _grow_star(frame, blob, (int(box[0].start), int(box[1].start)), reach, out)
    return out


def _grow_star(frame: Frame, blob: npt.NDArray[np.bool_], corner: tuple[int, int], reach: int, out: MaskImage) -> None:
    """Grow one saturated star into `out`."""
    # The widest part of the blob is the star, the rest of it bleeds.
    inside = ndimage.distance_transform_edt(np.pad(blob, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(inside)), inside.shape)
    core = float(inside[row, column])
    y, x = corner[0] + int(row), corner[1] + int(column)
    size = int(np.ceil(core)) + reach
    ny, nx = frame.shape
    window = (slice(max(0, y - size), min(ny, y + size + 1)), slice(max(0, x - size), min(nx, x + size + 1)))
    rows, columns = np.ogrid[window[0], window[1]]
    ring = np.hypot(rows - y, columns - x)
    good = (frame.mask[window] & HARD) == 0
    excess = MISMATCH * frame.data[window] - np.sqrt(np.where(good, frame.variance[window], 1.0))
    step = np.minimum(ring.astype(np.int64), size)
    edge = int(np.ceil(core))
    for r in range(int(core), size + 1):
        values = excess[good & (step == r)]
        if len(values) >= 8 and float(np.median(values)) < 0:
            break
        edge = r + 1
    out[window] |= np.where(ring <= edge, np.uint16(Mask.SATURATED.value), np.uint16(0))
