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
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_LEVELS = 512  # of the histogram of a cell
_REACH = 6.0  # robust sigma on both sides that the histogram spans
_FIRST = 255  # samples that place it
_CLIP = 3.0
_ROUNDS = 12
_LEAST_GOOD = 0.5  # part of a cell that must be usable
_SKEWED = 0.3  # sigma between mean and median, from which the median is trusted alone
_MODE = 1.5  # times mean less median, by which the mode lies below the median
_REACH_SKEW = 2  # cells over which that is averaged: of a single cell it is noisier than the median
_ORDER = 5  # of the polynomial that is taken off the levels before they are filtered
_LEVELS_A_TERM = 4  # cells that a term of it needs


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

    def pieces(self, rows: npt.NDArray[np.integer] | Float64) -> npt.NDArray[np.float32]:
        """Cubic pieces along x of given rows.

        Parameters
        ----------
        rows : ndarray of int or float, shape (n,)
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

    def at(self, rows: npt.NDArray[np.integer] | Float64, columns: npt.NDArray[np.integer] | Float64) -> Float32:
        """Evaluate the surface on a lattice.

        Parameters
        ----------
        rows, columns : ndarray of int or float
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

    def on_mesh(self, gy: int, gx: int) -> Float64:
        """Evaluate the surface at the middles of the cells of a mesh."""
        y, x = ((np.arange(n) + 0.5) * size / n - 0.5 for n, size in zip((gy, gx), self.shape, strict=True))
        return self.at(y, x).astype(np.float64)


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
    trend: Surface | None = None,
    reach: int = 1,
) -> Surface:
    """Fit a surface to an image with sources.

    The level of each cell is SExtractor's estimate of the mode, 2.5 median - 1.5 mean of pixels clipped at three
    sigma, or their median where mean and median lie apart (Bertin & Arnouts 1996, section 3), of a sample of its
    pixels. Levels are averaged over neighbouring cells, the extremes left out, and mean less median over more of
    them; what is steep or curved is taken off before, or the average would cut it: by the trend, or by a robust
    polynomial through the levels.

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
    trend : Surface, optional
        What is known of the surface: taken off the pixels, so that a slope does not widen their distribution.
    reach : int, optional
        How many cells away levels are averaged.

    Returns
    -------
    Surface
        The surface; 0 where no cell is usable.
    """
    shape = (int(data.shape[0]), int(data.shape[1]))
    gy, gx = (max(1, round(size / cell)) for size in shape)
    level, skew, sigma = (np.full((gy, gx), np.nan) for _ in range(3))
    hidden = np.zeros((0, 0), dtype=np.bool_) if sources is None else sources

    def band(first: int, last: int) -> None:
        rows = [np.arange(k * shape[0] // gy, (k + 1) * shape[0] // gy, stride) for k in range(first, last)]
        pieces = np.zeros((0, 1, 4), np.float32) if trend is None else trend.pieces(np.concatenate(rows))
        _measure(data, mask, skip, hidden, binning, stride, first, last, pieces, level, skew, sigma)

    over_rows(band, gy, 1)
    known = np.isfinite(level)
    if not bool(known.any()):
        return Surface(np.zeros((1, 1)), float("nan"), shape)
    # Where pixels are free of a trend, levels are flat already.
    under = _polynomial(level, known) if trend is None else trend.on_mesh(gy, gx)
    flat = level - under if trend is None else level
    level = _smoothed(flat, known, reach) - _MODE * _smoothed(skew, known, _REACH_SKEW) + under
    return Surface(level, float(np.median(sigma[known])), shape)


def _smoothed(level: Float64, known: BoolImage, reach: int) -> Float64:
    """Mean of the middle half of the cells up to `reach` away; unknown ones and those outside are like the nearest."""
    if not bool(known.all()):
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    for axis, count in enumerate(level.shape):
        most = min(reach, count - 1)
        width = [(most, most) if k == axis else (0, 0) for k in range(2)]
        # A slope that is left goes on beyond the edge.
        level = np.pad(level, width, "reflect", reflect_type="odd") if most else level
    around = np.lib.stride_tricks.sliding_window_view(level, [2 * min(reach, n - 1) + 1 for n in known.shape])
    ordered = np.sort(around.reshape(*known.shape, -1), axis=2)
    quarter = ordered.shape[2] // 4
    return np.asarray(ordered[:, :, quarter : ordered.shape[2] - quarter].mean(axis=2))


def _polynomial(level: Float64, known: BoolImage) -> Float64:
    """Smooth polynomial through the levels of known cells, hardly moved by the few that hold a galaxy or a halo."""
    gy, gx = level.shape
    v, u = ((2.0 * np.arange(n) + 1.0) / n - 1.0 for n in (gy, gx))
    number = int(known.sum())
    powers = [
        [(j, i) for j in range(order + 1) for i in range(order + 1 - j) if 2 * j < gy and 2 * i < gx]
        for order in range(_ORDER + 1)
    ]
    most = max((each for each in powers if _LEVELS_A_TERM * len(each) <= number), key=len, default=[(0, 0)])
    terms = np.stack([np.outer(v**j, u**i) for j, i in most], axis=2)
    chosen, values = terms[known], level[known]
    weight = np.ones(number)
    solved = np.zeros(chosen.shape[1])
    for _ in range(_ROUNDS):
        weighted = chosen * weight[:, None]
        # einsum and not BLAS, whose threads cost more than these sums
        normal, right = np.einsum("ki,kj->ij", weighted, chosen), np.einsum("ki,k->i", weighted, values)
        solved = np.linalg.lstsq(normal, right, rcond=None)[0]
        off = np.abs(values - np.einsum("ki,i->k", chosen, solved))
        weight = 1.0 / np.maximum(off, float(np.median(off)) + 1e-12)
    return np.asarray(terms @ solved)


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
    pieces: Float32,
    level: Float64,
    skew: Float64,
    sigma: Float64,
) -> None:
    """Level, skewness and sigma of the cells of some rows of the mesh; NaN where too little is usable."""
    ny, nx = data.shape
    gy, gx = level.shape
    most = (ny // gy // stride + 2) * (nx // gx // stride + 2)
    values, counts = np.empty(most, np.float32), np.empty(_LEVELS, np.int64)
    trend = np.zeros((ny // gy // stride + 2, nx), np.float32)
    row = 0
    for gj in range(first, last):
        begin, end = gj * ny // gy, (gj + 1) * ny // gy
        if len(pieces) > 0:
            for k in range(len(range(begin, end, stride))):
                evaluate(pieces[row], trend[k])
                row += 1
        for gi in range(gx):
            seen, used = 0, 0
            for j in range(begin, end, stride):
                under = trend[(j - begin) // stride]
                start = gi * nx // gx + (j // stride % 2) * (stride // 2)
                for i in range(start, (gi + 1) * nx // gx, stride):
                    seen += 1
                    if mask[j, i] & skip:
                        continue
                    b, a = j // binning, i // binning
                    if b < hidden.shape[0] and a < hidden.shape[1] and hidden[b, a]:
                        continue
                    values[used] = data[j, i] - under[i]
                    used += 1
            if used > 0 and used >= _LEAST_GOOD * seen:
                level[gj, gi], skew[gj, gi], sigma[gj, gi] = _mode(values[:used], counts)


@njit(cache=True, nogil=True, error_model="numpy")
def _mode(values: Float32, counts: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Clipped median, mean less median, and standard deviation, by a histogram around the median of a few."""
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
            return float(middle), 0.0, 0.0
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
    skew = mean - median if abs(mean - median) < _SKEWED * deviation else 0.0
    return low + median * width, skew * width, deviation * width


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
