"""Pixels that carry the fit of a delta kernel: sky lit by sources of the template, less what changed, cell by cell.

What changed are variable stars, transients and hits. See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage
from nightsift.core.parallel import over_rows
from subtraction.masks.growth import grow

Int64 = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

HOLES = int(Mask.COSMIC_RAY.value | Mask.DEFECT.value | Mask.NONFINITE.value)
"""Bits of small holes, which are filled from their surroundings where the kernel's outer parts reach them."""

EMPTY = int(Mask.NO_DATA.value)
"""Bits of pixels that hold no light at all."""

PER_OCTAVE = 8.0
"""Steps of the brightness levels for each factor of two."""

CELLS = 20
"""Cells along the longer side of the frame, where they do not become smaller than `SMALLEST`."""

SMALLEST = 40
"""Smallest side of a cell (pixel): a star with its surroundings."""


@dataclass(frozen=True, slots=True, eq=False)
class SourcePixels:
    """Pixels of the fit, ordered by cell.

    Attributes
    ----------
    index : ndarray of int64, shape (n,)
        Flat indices, row by row within each cell.
    first : ndarray of int64, shape (n_cells + 1,)
        Where each cell's pixels begin.
    cell : int
        Side of the cells (pixel).
    grid : tuple of int
        Cells along y and x.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    """

    index: Int64
    first: Int64
    cell: int
    grid: tuple[int, int]
    shape: tuple[int, int]


def cell_side(shape: tuple[int, int]) -> int:
    """Return the side (pixel) of the cells over which a kernel counts as constant in the fit."""
    return int(max(SMALLEST, -(-max(shape) // CELLS)))


def fill_holes(frame: Frame, threads: int = 0) -> FloatImage:
    """Copy an image, small holes filled by the mean of the good pixels around, empty pixels by zero: finite everywhere.

    Saturated areas, trails and streaks stay as they are: they are closer to the sky's light than a zero.
    """
    out = np.empty_like(frame.data)

    def band(first: int, last: int) -> None:
        _fill_rows(frame.data, frame.mask, np.uint16(HOLES), np.uint16(EMPTY), np.uint16(HARD), first, last, out)

    over_rows(band, frame.shape[0], 64, threads=threads)
    return out


@nb.njit(cache=True, nogil=True)
def _fill_rows(data, mask, holes, empty, hard, first, last, out):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    for y in range(first, last):
        for x in range(nx):
            flags = mask[y, x]
            if (flags & (holes | empty)) == 0:
                value = data[y, x]
                out[y, x] = value if np.isfinite(value) else np.float32(0)
                continue
            total = np.float32(0)
            count = 0
            for j in range(max(0, y - 2), min(ny, y + 3)):
                for i in range(max(0, x - 2), min(nx, x + 3)):
                    if (mask[j, i] & hard) == 0:
                        total += data[j, i]
                        count += 1
            out[y, x] = total / np.float32(count) if count > 0 and (flags & empty) == 0 else np.float32(0)


def usable_pixels(
    target: MaskImage, reference: MaskImage, half: int, *, radius: int, threads: int = 0
) -> npt.NDArray[np.bool_]:
    """Pixels that are good on the matched frame, and round which the convolved one is good in the kernel's middle.

    Parameters
    ----------
    target, reference : ndarray of uint16, shape (ny, nx)
        Masks of the frame that is matched and of the one that is convolved.
    half : int
        Half width of the kernel (pixel).
    radius : int
        Radius of its core (pixel).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        False within `half` of the edge too.
    """
    spoilt = grow(reference, max(2, radius // 3), HARD, edge=False, threads=threads)
    spoilt |= target
    good = (spoilt & np.uint16(HARD)) == 0
    good[:half] = good[-half:] = False
    good[:, :half] = good[:, -half:] = False
    return np.asarray(good)


def light_levels(
    template: FloatImage,
    variance: tuple[FloatImage, FloatImage],
    scale: float,
    *,
    reach: int,
    threads: int = 0,
) -> Levels:
    """Brightness of the brightest template pixel within reach, in units of the noise of the difference.

    Parameters
    ----------
    template : ndarray of float32, shape (ny, nx)
        Template, holes filled.
    variance : tuple of ndarray
        Variances of science frame and template.
    scale : float
        Flux scale from template to science.
    reach : int
        How far around a pixel (square, pixel).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of uint8, shape (ny, nx)
        0 for less than half the noise, then `PER_OCTAVE` steps for each factor of two.
    """
    ny, nx = template.shape
    own = np.zeros((ny, nx), dtype=np.uint8)
    wide = np.zeros((ny, nx), dtype=np.uint8)
    out = np.zeros((ny, nx), dtype=np.uint8)

    def measure(first: int, last: int) -> None:
        _level_rows(template, variance[0], variance[1], np.float32(scale), first, last, own)
        _widen_rows(own, reach, first, last, wide)

    def heighten(first: int, last: int) -> None:
        _heighten_rows(wide, reach, first, last, out)

    over_rows(measure, ny, 64, threads=threads)
    over_rows(heighten, ny, 64, threads=threads)
    return out


@nb.njit(cache=True, nogil=True, fastmath=True)
def _level_rows(template, science_variance, template_variance, scale, first, last, out):  # type: ignore[no-untyped-def]
    """Levels of the mean of three by three pixels."""
    ny, nx = template.shape
    # Convolution leaves about a third of the template's noise a pixel.
    part = np.float32(0.3) * scale * scale
    ninth = scale / np.float32(9)
    for y in range(max(1, first), min(ny - 1, last)):
        below, row, above = template[y - 1], template[y], template[y + 1]
        for x in range(1, nx - 1):
            light = below[x - 1] + below[x] + below[x + 1] + row[x - 1] + row[x] + row[x + 1]
            light = (light + above[x - 1] + above[x] + above[x + 1]) * ninth
            noise = science_variance[y, x] + part * template_variance[y, x]
            if light > 0 and noise > 0 and 4 * light * light > noise:
                level = np.float32(4.0) * np.log2(4 * light * light / noise)
                out[y, x] = np.uint8(min(max(level + 1, 1), 255))


@nb.njit(cache=True, nogil=True)
def _widen_rows(levels, reach, first, last, out):  # type: ignore[no-untyped-def]
    nx = levels.shape[1]
    for y in range(first, last):
        row, line = levels[y], out[y]
        line[:] = row
        for step in range(1, reach + 1):
            left, right = line[: nx - step], line[step:]
            ahead, behind = row[step:], row[: nx - step]
            for x in range(nx - step):
                left[x] = max(left[x], ahead[x])
            for x in range(nx - step):
                right[x] = max(right[x], behind[x])


@nb.njit(cache=True, nogil=True)
def _heighten_rows(levels, reach, first, last, out):  # type: ignore[no-untyped-def]
    ny, nx = levels.shape
    for y in range(first, last):
        line = out[y]
        for j in range(max(0, y - reach), min(ny, y + reach + 1)):
            row = levels[j]
            for x in range(nx):
                line[x] = max(line[x], row[x])


def list_pixels(
    levels: Levels, good: npt.NDArray[np.bool_], limit: int, *, threshold: float = 1.0, side: int = 0
) -> SourcePixels:
    """List the pixels near light, the brightest regions only where there are too many.

    Parameters
    ----------
    levels : ndarray of uint8, shape (ny, nx)
        What `light_levels` returns.
    good : ndarray of bool, shape (ny, nx)
        What `usable_pixels` returns.
    limit : int
        Most pixels; the threshold rises until they are not exceeded.
    threshold : float, optional
        Lowest light in units of the noise of a pixel.
    side : int, optional
        Side of the cells (pixel); 0 for `cell_side`.

    Returns
    -------
    SourcePixels
        The pixels.
    """
    shape = (int(levels.shape[0]), int(levels.shape[1]))
    side = side or cell_side(shape)
    counts = _histogram(levels, good)
    lowest = max(1, int(PER_OCTAVE * np.log2(2.0 * threshold)) + 1)
    above = np.cumsum(counts[::-1])[::-1]
    fits = np.flatnonzero(above[lowest:] <= limit)
    lowest += int(fits[0]) if len(fits) else len(above) - lowest - 1
    grid = (-(-shape[0] // side), -(-shape[1] // side))
    first = np.zeros(grid[0] * grid[1] + 1, dtype=np.int64)
    _count_cells(levels, good, lowest, side, grid[1], first)
    first = np.cumsum(first)
    index = np.empty(int(first[-1]), dtype=np.int64)
    _list_cells(levels, good, lowest, side, grid[1], first[:-1].copy(), index)
    return SourcePixels(index, first, side, grid, shape)


@nb.njit(cache=True, nogil=True)
def _histogram(levels, good):  # type: ignore[no-untyped-def]
    counts = np.zeros(256, np.int64)
    for y in range(levels.shape[0]):
        for x in range(levels.shape[1]):
            if good[y, x]:
                counts[levels[y, x]] += 1
    return counts


@nb.njit(cache=True, nogil=True)
def _count_cells(levels, good, lowest, side, across, counts):  # type: ignore[no-untyped-def]
    """Pixels of cell c counted in element c + 1."""
    for y in range(levels.shape[0]):
        row = (y // side) * across
        for x in range(levels.shape[1]):
            if levels[y, x] >= lowest and good[y, x]:
                counts[row + x // side + 1] += 1


@nb.njit(cache=True, nogil=True)
def _list_cells(levels, good, lowest, side, across, position, index):  # type: ignore[no-untyped-def]
    nx = levels.shape[1]
    for y in range(levels.shape[0]):
        row = (y // side) * across
        for x in range(nx):
            if levels[y, x] >= lowest and good[y, x]:
                cell = row + x // side
                index[position[cell]] = y * nx + x
                position[cell] += 1


@dataclass(frozen=True, slots=True)
class Clip:
    """When pixels are left out because they changed.

    Attributes
    ----------
    box : int
        Half width of the square over which a change of flux is summed (pixel); about the seeing.
    flux : float
        Least change of the light in it, as a part of it.
    peak : float
        Least mean residual of three by three pixels, as a part of the brightest pixel in the box.
    sigma : float
        Least significance of either.
    """

    box: int
    flux: float
    peak: float
    sigma: float = 6.0


def drop_pixels(
    index: npt.NDArray[np.int64],
    pixels: SourcePixels,
    cell: int,
    *,
    planes: tuple[Float32, Float32, Float32],
    clip: Clip,
    keep: npt.NDArray[np.bool_],
) -> None:
    """Drop the pixels around changes in one cell.

    Parameters
    ----------
    index : ndarray of int64, shape (n,)
        Flat indices of the cell's pixels.
    pixels : SourcePixels
        All pixels of the fit.
    cell : int
        Which cell.
    planes : tuple of ndarray of float32, shape (n,)
        Matched model, variance and residual of the pixels; the median residual counts as background.
    clip : Clip
        What counts as a change.
    keep : ndarray of bool, shape (n,)
        Pixels that take part; those dropped become False.
    """
    model, variance, residual = planes
    row, column = divmod(cell, pixels.grid[1])
    level = np.float32(np.median(residual[keep]))
    sigma, flux, peak = (np.float32(one) for one in (clip.sigma, clip.flux, clip.peak))
    corner = (row * pixels.cell, column * pixels.cell)
    size = (pixels.cell, pixels.shape[1])
    _mark_changed(index, *corner, *size, model, variance, residual - level, clip.box, flux, peak, sigma, keep)


@nb.njit(cache=True, nogil=True)
def _mark_changed(  # type: ignore[no-untyped-def]
    index, y0, x0, side, nx, model, variance, residual, box, flux, peak, sigma, chosen
):
    """Drop pixels around changes of flux and around misfits of three by three pixels."""
    lights = np.zeros((side, side), np.float32)
    noises = np.zeros((side, side), np.float32)
    rests = np.zeros((side, side), np.float32)
    hit = np.zeros((side, side), np.bool_)
    for p in range(index.shape[0]):
        if chosen[p]:
            y, x = index[p] // nx - y0, index[p] % nx - x0
            lights[y, x], noises[y, x], rests[y, x] = model[p], variance[p], residual[p]
    for p in range(index.shape[0]):
        if not chosen[p]:
            continue
        y, x = index[p] // nx - y0, index[p] % nx - x0
        top = light = noise = rest = np.float32(0)
        near = near_noise = np.float32(0)
        for j in range(max(0, y - box), min(side, y + box + 1)):
            for i in range(max(0, x - box), min(side, x + box + 1)):
                light += lights[j, i]
                noise += noises[j, i]
                rest += rests[j, i]
                top = max(top, lights[j, i])
                if abs(j - y) <= 1 and abs(i - x) <= 1:
                    near += rests[j, i]
                    near_noise += noises[j, i]
        changed = rest * rest > sigma * sigma * noise and abs(rest) > flux * abs(light)
        misfit = near * near > sigma * sigma * near_noise and abs(near) > 9 * peak * top
        hit[y, x] = changed or misfit
    for p in range(index.shape[0]):
        y, x = index[p] // nx - y0, index[p] % nx - x0
        for j in range(max(0, y - box), min(side, y + box + 1)):
            for i in range(max(0, x - box), min(side, x + box + 1)):
                if hit[j, i]:
                    chosen[p] = False
