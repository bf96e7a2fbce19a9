"""A smooth surface through the clipped levels of a mesh of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage
from scipy.interpolate import CubicSpline

from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows

BoolImage = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

_LEVELS = 512  # of the histogram of a cell
_REACH = 6.0  # robust sigma on both sides that the histogram spans
_FIRST = 255  # samples that place it
_CLIP = 3.0
_ROUNDS = 12
_LEAST_GOOD = 0.5  # part of a cell that must be usable
_SKEWED = 0.3  # sigma between mean and median, from which the median is trusted alone


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A natural bicubic spline through the centres of cells.

    Attributes
    ----------
    levels : ndarray of float64, shape (gy, gx)
        Level of each cell.
    sigma : float
        Median over cells of the standard deviation within them; NaN where no cell is usable.
    shape : tuple of int
        ``(ny, nx)`` of the image.
    """

    levels: Float64
    sigma: float
    shape: tuple[int, int]

    def pieces(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Cubic pieces along x of given rows.

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            Rows (pixel).

        Returns
        -------
        ndarray of float32, shape (n, gx, 4)
            Coefficients of each piece, highest power first, of x counted from its left centre in cells; the first
            and the last piece are valid to the edges of the image.
        """
        gy, gx = self.levels.shape
        at = (np.asarray(rows, dtype=np.float64) + 0.5) * gy / self.shape[0] - 0.5
        along = self.levels if gy == 1 else _spline(self.levels)(at)
        along = np.broadcast_to(along, (len(at), gx))
        if gx == 1:
            return np.stack([np.zeros_like(along)] * 3 + [along], axis=2).astype(np.float32)
        return np.ascontiguousarray(_spline(along.T).c.transpose(2, 1, 0), dtype=np.float32)

    def at(self, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Evaluate the surface on a lattice.

        Parameters
        ----------
        rows, columns : ndarray of int
            Rows and columns (pixel).

        Returns
        -------
        ndarray of float32, shape (len(rows), len(columns))
            The surface.
        """
        pieces = self.pieces(rows)
        u = (np.asarray(columns, dtype=np.float64) + 0.5) * self.levels.shape[1] / self.shape[1] - 0.5
        k = np.clip(np.floor(u).astype(np.intp), 0, pieces.shape[1] - 1)
        t = (u - k).astype(np.float32)
        c = pieces[:, k]
        return np.asarray(((c[..., 0] * t + c[..., 1]) * t + c[..., 2]) * t + c[..., 3], dtype=np.float32)


def _spline(values: Float64) -> CubicSpline:
    return CubicSpline(np.arange(len(values)), values, bc_type="natural" if len(values) > 2 else "not-a-knot")


def fit_surface(
    data: FloatImage,
    mask: MaskImage,
    skip: np.uint16,
    *,
    cell: int,
    stride: int = 2,
    sources: BoolImage | None = None,
    binning: int = 1,
) -> Surface:
    """Fit a surface to an image with sources.

    The level of each cell is SExtractor's estimate of the mode, 2.5 median - 1.5 mean of pixels clipped at three
    sigma, or their median where mean and median lie apart (Bertin & Arnouts 1996, section 3), of a sample of its
    pixels; a median over 3x3 cells follows.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The image.
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    skip : uint16
        Bits of pixels to leave out.
    cell : int
        Width of a cell (pixel), about.
    stride : int, optional
        Every how many rows and columns a pixel is looked at.
    sources : ndarray of bool, shape (ny // binning, nx // binning), optional
        Sources to leave out.
    binning : int, optional
        Pixels a side of a pixel of `sources`.

    Returns
    -------
    Surface
        The surface; 0 where no cell is usable.
    """
    shape = (int(data.shape[0]), int(data.shape[1]))
    gy, gx = (max(1, round(size / cell)) for size in shape)
    level, sigma = np.full((gy, gx), np.nan), np.full((gy, gx), np.nan)
    hidden = np.zeros((0, 0), dtype=np.bool_) if sources is None else sources

    def band(first: int, last: int) -> None:
        _measure(data, mask, skip, hidden, binning, stride, first, last, level, sigma)

    over_rows(band, gy, 1)
    known = np.isfinite(level)
    if not bool(known.any()):
        return Surface(np.zeros((1, 1)), float("nan"), shape)
    if not bool(known.all()):
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    return Surface(_smoothed(level), float(np.median(sigma[known])), shape)


def _smoothed(level: Float64) -> Float64:
    """Median over 3x3 cells; beyond the edges the image goes on as it came, so that a slope stays one."""
    framed = level
    for axis, count in enumerate(level.shape):
        width = [(1, 1) if k == axis else (0, 0) for k in range(2)]
        framed = np.pad(framed, width, "edge") if count == 1 else np.pad(framed, width, "reflect", reflect_type="odd")
    gy, gx = level.shape
    around = np.stack([framed[j : j + gy, i : i + gx] for j in range(3) for i in range(3)])
    return np.asarray(np.median(around, axis=0))


@njit(cache=True, nogil=True, error_model="numpy")
def _measure(
    data: FloatImage,
    mask: MaskImage,
    skip: np.uint16,
    hidden: BoolImage,
    binning: int,
    stride: int,
    first: int,
    last: int,
    level: Float64,
    sigma: Float64,
) -> None:
    """Level and sigma of the cells of some rows of the mesh; NaN where too little is usable."""
    ny, nx = data.shape
    gy, gx = level.shape
    most = (ny // gy // stride + 2) * (nx // gx // stride + 2)
    values, counts = np.empty(most, np.float32), np.empty(_LEVELS, np.int64)
    for gj in range(first, last):
        for gi in range(gx):
            seen, used = 0, 0
            for j in range(gj * ny // gy, (gj + 1) * ny // gy, stride):
                start = gi * nx // gx + (j // stride % 2) * (stride // 2)
                for i in range(start, (gi + 1) * nx // gx, stride):
                    seen += 1
                    if mask[j, i] & skip:
                        continue
                    b, a = j // binning, i // binning
                    if b < hidden.shape[0] and a < hidden.shape[1] and hidden[b, a]:
                        continue
                    values[used] = data[j, i]
                    used += 1
            if used > 0 and used >= _LEAST_GOOD * seen:
                level[gj, gi], sigma[gj, gi] = _mode(values[:used], counts)


@njit(cache=True, nogil=True, error_model="numpy")
def _mode(values: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Clipped mode and standard deviation, by a histogram around the median of a few."""
    few = np.sort(values[:: max(1, len(values) // _FIRST)].copy())
    middle = few[len(few) // 2]
    spread = max(few[int(0.84 * len(few))] - middle, middle - few[int(0.16 * len(few))])
    whole = True  # counts of a detector: a dither of one keeps the histogram smooth
    for one in few:
        whole = whole and one - few[0] == np.floor(one - few[0])
    dither = 1.0 if whole and few[0] != few[-1] else 0.0
    if not spread > 0.0:
        spread = 1.0 if dither > 0 else few[-1] - few[0]
        if not spread > 0.0:
            return float(middle), 0.0
    low = middle - _REACH * spread
    width = 2.0 * _REACH * spread / _LEVELS
    counts[:] = 0
    phase = 0.0
    for value in values:
        phase += 0.6180339887498949
        phase -= 1.0 if phase >= 1.0 else 0.0
        at = (value + dither * (phase - 0.5) - low) / width
        if 0.0 <= at < _LEVELS:
            counts[int(at)] += 1
    begin, end = 0, _LEVELS
    mean = median = float(_LEVELS // 2)
    deviation = 0.0
    for _ in range(_ROUNDS):
        number, total, squares = 0, 0.0, 0.0
        for k in range(begin, end):
            number += counts[k]
            total += counts[k] * (k + 0.5)
            squares += counts[k] * (k + 0.5) ** 2
        if number == 0:
            break
        mean = total / number
        deviation = np.sqrt(max(squares / number - mean * mean, 1.0 / 12.0))
        k, below = begin, 0
        while below + counts[k] < 0.5 * number:
            below += counts[k]
            k += 1
        median = k + (0.5 * number - below) / counts[k]
        new_begin = max(0, int(np.floor(median - _CLIP * deviation)))
        new_end = min(_LEVELS, int(np.ceil(median + _CLIP * deviation)))
        if new_begin == begin and new_end == end:
            break
        begin, end = new_begin, new_end
    best = 2.5 * median - 1.5 * mean if abs(mean - median) < _SKEWED * deviation else median
    return low + best * width, deviation * width


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def evaluate(pieces: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    """Evaluate one row of a surface.

    Parameters
    ----------
    pieces : ndarray of float32, shape (gx, 4)
        Its pieces from `Surface.pieces`.
    out : ndarray of float32, shape (nx,)
        Filled.
    """
    nx, n = len(out), len(pieces)
    cells = n + 1
    per = np.float32(cells / nx)
    begin = 0
    for k in range(n):
        end = nx if k == n - 1 else min(nx, int(np.ceil((k + 1.5) * nx / cells - 0.5)))
        a, b, c, d = pieces[k, 0], pieces[k, 1], pieces[k, 2], pieces[k, 3]
        start = np.float32((begin + 0.5) * cells / nx - 0.5 - k)
        part = out[begin:end]
        for i in range(len(part)):
            t = start + np.float32(i) * per
            part[i] = ((a * t + b) * t + c) * t + d
        begin = max(begin, end)
