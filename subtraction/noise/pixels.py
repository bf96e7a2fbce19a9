"""Samples of sky pixels and the last pass over a difference, in compiled loops without images in between.

See docs/algorithms.md, section 11.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows

Float32 = npt.NDArray[np.float32]

SKY = np.float32(4.0)
"""Squared signal-to-noise ratio of the template in a pixel above which that pixel is no sky."""

CELL = 4
"""Side of the cells that tell where something significant is near (pixel)."""

SAMPLE = 2_000_000
"""Pixels that suffice to tell the noise of a frame."""


@nb.njit(cache=True, nogil=True)
def gather_sky(data, variance, model, mask, share, rows, columns, step, out):  # type: ignore[no-untyped-def]
    """Collect the values of sky pixels in a window.

    Parameters
    ----------
    data, variance, model, mask : ndarray, shape (ny, nx)
        Image to take values from, variance and matched template that tell sky from sources, mask.
    share : float
        From `noise_share`: part of the difference that the template lacks to be the mean of both frames.
    rows, columns : tuple of int
        First and after the last row and column.
    step : int
        Distance of the pixels looked at.
    out : ndarray of float32, shape (2, n)
        Where the values are written, and the means of the 24 pixels around each, which tell what is too faint to
        stand out of one pixel.

    Returns
    -------
    count, seen : int
        Values written and pixels looked at.
    """
    ny, nx = data.shape
    count = seen = 0
    for y in range(rows[0], rows[1], step):
        for x in range(columns[0], columns[1], step):
            seen += 1
            m = model[y, x] + share * data[y, x]
            if mask[y, x] != 0 or m * m >= SKY * variance[y, x]:
                continue
            total, pixels = np.float32(0), 0
            for j in range(max(0, y - 2), min(ny, y + 3)):
                for i in range(max(0, x - 2), min(nx, x + 3)):
                    if mask[j, i] == 0:
                        total += data[j, i]
                        pixels += 1
            out[0, count] = data[y, x]
            out[1, count] = (total - data[y, x]) / max(pixels - 1, 1)
            count += 1
    return count, seen


def sample_score(
    score: FloatImage, variance: FloatImage, model: FloatImage, *, mask: MaskImage, reach: float, threads: int = 0
) -> Float32:
    """Values of the score on source-free sky, from at most `SAMPLE` pixels in a regular grid.

    Parameters
    ----------
    score, variance, model : ndarray of float32, shape (ny, nx)
        Signal-to-noise map, variance of the difference, matched template.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    reach : float
        Distance from anything significant that counts as its surroundings (pixel).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of float32, shape (n,)
        The values.
    """
    ny, nx = score.shape
    cells = np.zeros((-(-ny // CELL), -(-nx // CELL)), dtype=np.bool_)
    around = int(np.ceil(reach / CELL))
    step = max(1, int(np.ceil(np.sqrt(score.size / SAMPLE))))

    def mark(first: int, last: int) -> None:
        _mark_significant(score, np.float32(6.0), first, last, cells)

    over_rows(mark, ny, 16 * CELL, threads=threads)
    near = _widened(cells, around)
    parts: dict[int, Float32] = {}

    def band(first: int, last: int) -> None:
        parts[first] = _gather_score(score, variance, model, mask, near, step, first, last)

    over_rows(band, ny, step * 16, threads=threads)
    return np.concatenate([parts[first] for first in sorted(parts)])


@nb.njit(cache=True, nogil=True)
def _mark_significant(score, limit, first, last, cells):  # type: ignore[no-untyped-def]
    """Mark the cells that hold a pixel beyond the limit."""
    nx = score.shape[1]
    highest = np.empty(nx, np.float32)
    for y0 in range(first, last, CELL):
        highest[:] = np.float32(0)
        for y in range(y0, min(y0 + CELL, last)):
            row = score[y]
            for x in range(nx):
                highest[x] = max(highest[x], abs(row[x]))
        line = cells[y0 // CELL]
        for start in range(0, nx, 64):
            chunk = highest[start : min(start + 64, nx)]
            count = 0
            for i in range(chunk.shape[0]):
                count += chunk[i] > limit
            if count == 0:
                continue
            for i in range(chunk.shape[0]):
                if chunk[i] > limit:
                    line[(start + i) // CELL] = True


@nb.njit(cache=True, nogil=True)
def _widened(cells, around):  # type: ignore[no-untyped-def]
    """Cells within a number of cells of a marked one, along both axes."""
    ny, nx = cells.shape
    out = np.zeros_like(cells)
    for y in range(ny):
        for x in range(nx):
            if cells[y, x]:
                out[max(0, y - around) : y + around + 1, max(0, x - around) : x + around + 1] = True
    return out


@nb.njit(cache=True, nogil=True)
def _gather_score(score, variance, model, mask, near, step, first, last):  # type: ignore[no-untyped-def]
    """Values on sky without sources in rows of the sample."""
    nx = score.shape[1]
    rows, columns = (last - first + step - 1) // step, (nx + step - 1) // step
    out = np.empty(rows * columns, np.float32)
    count = 0
    for y in range(first, last, step):
        for x in range(0, nx, step):
            m = model[y, x]
            sky = mask[y, x] == 0 and m * m < SKY * variance[y, x]
            if sky and not near[y // CELL, x // CELL]:
                out[count] = score[y, x]
                count += 1
    return out[:count].copy()


def give_variance(variance: FloatImage, mask: MaskImage, threads: int = 0) -> None:
    """Give pixels without variance the usual one and mask them, in place, so that nothing divides by zero.

    Parameters
    ----------
    variance : ndarray of float32, shape (ny, nx)
        Variance (ADU^2), changed.
    mask : ndarray of uint16, shape (ny, nx)
        Mask, changed.
    threads : int, optional
        Number of threads, 0 for all cores.
    """
    step = max(4, int(np.sqrt(variance.size / 250_000)))
    seen = variance[::step, ::step]
    good = seen[((mask[::step, ::step] & HARD) == 0) & (seen > 0)]
    usual = np.float32(np.median(good)) if len(good) else np.float32(1.0)

    def band(first: int, last: int) -> None:
        _give_rows(variance, mask, usual, np.uint16(Mask.NO_DATA.value), first, last)

    over_rows(band, variance.shape[0], 64, threads=threads)


@nb.njit(cache=True, nogil=True)
def _give_rows(variance, mask, usual, bit, first, last):  # type: ignore[no-untyped-def]
    for y in range(first, last):
        row, flags = variance[y], mask[y]
        for x in range(row.shape[0]):
            hopeless = not row[x] > 0
            flags[x] |= bit if hopeless else np.uint16(0)
            row[x] = usual if hopeless else row[x]


def settle(
    data: FloatImage,
    variance: FloatImage,
    score: FloatImage,
    *,
    mask: MaskImage,
    hidden: npt.NDArray[np.bool_],
    scale: float,
    threads: int = 0,
) -> float:
    """Scale the noise, and empty masked pixels that hold nothing, in place.

    Parameters
    ----------
    data, variance, score : ndarray of float32, shape (ny, nx)
        Difference, its variance and score, changed.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    hidden : ndarray of bool, shape (ny, nx)
        Masked pixels that keep their data.
    scale : float
        Factor on the standard deviation.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    float
        Fraction of pixels that are usable.
    """
    counts: list[int] = []

    def band(first: int, last: int) -> None:
        factors = (np.float32(scale**2), np.float32(1.0 / scale))
        counts.append(_settle_rows(data, variance, score, mask, hidden, np.uint16(HARD), *factors, first, last))

    over_rows(band, data.shape[0], 64, threads=threads)
    return sum(counts) / data.size


@nb.njit(cache=True, nogil=True)
def _settle_rows(data, variance, score, mask, hidden, bad, power, inverse, first, last):  # type: ignore[no-untyped-def]
    usable = 0
    for y in range(first, last):
        row, noise, signal, flags, under = data[y], variance[y], score[y], mask[y], hidden[y]
        for x in range(row.shape[0]):
            good = (flags[x] & bad) == 0
            usable += good
            row[x] = row[x] if good or under[x] else np.float32(0)
            noise[x] *= power
            signal[x] *= inverse
    return usable
