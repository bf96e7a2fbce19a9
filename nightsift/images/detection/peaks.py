"""Peaks of a signal-to-noise map, separated where a saddle lies between them.

Pixels under masks that hold data count as well, so that nothing bright hides behind a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.images.photometry.psf_grid import psf_grid

# A fainter peak stands on its own when it rises this much (sigma) above the saddle to its brighter neighbour: noise
# of a matched-filtered map alone hardly does. Near very bright peaks the rise must also be a part of the brighter one.
RISE = 2.5

RISE_FRACTION = 0.01

# Pixels down to this much below the threshold join peaks together, so that noise does not split one source in two.
SKIRT = 1.5

_ABSENT = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)

# Share of the PSF's weight that must hold data for a value to mean anything.
_LEAST_WEIGHT = 0.25

_BAND = 64


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of one sign, brightest first.

    Attributes
    ----------
    column, row : ndarray of int64, shape (n,)
        Pixel of the peak.
    value : ndarray of float32, shape (n,)
        Height of the peak, positive for both signs.
    n_pixels : ndarray of int32, shape (n,)
        Pixels above the threshold that belong to it.
    """

    column: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    n_pixels: npt.NDArray[np.int32]


def floor_of(threshold: float) -> float:
    """Return the lowest value (sigma) that matters to peaks above a threshold (sigma): their skirts."""
    return max(threshold - SKIRT, 0.5 * threshold)


def find_peaks(
    score: FloatImage,
    threshold: float,
    sign: int = 1,
    *,
    min_pixels: int = 1,
    above: npt.NDArray[np.int64] | None = None,
) -> Peaks:
    """Find the peaks of one sign at or above a threshold.

    Pixels are flooded from the highest down; where two hills meet, the lower one stays a peak of its own only if it
    rises enough above the saddle (the persistence of a peak, Edelsbrunner, Letscher & Zomorodian 2002).

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map; non-finite pixels are ignored.
    threshold : float
        Least height of a peak (sigma).
    sign : int, optional
        +1 for peaks, -1 for troughs.
    min_pixels : int, optional
        Least number of pixels above the skirt, 1.5 sigma below the threshold: the map is matched-filtered already, and
        a faint point source has but one pixel above the threshold itself.
    above : ndarray of int64, shape (n,), optional
        Flat indices of all pixels of either sign above the floor (`floor_of`), where they are known already.

    Returns
    -------
    Peaks
        The peaks, highest first.
    """
    floor = floor_of(threshold)
    if above is None:
        above = np.flatnonzero(np.abs(score) > floor)
    values = score.ravel()[above] * np.float32(sign)
    wanted = (values > floor) & np.isfinite(values)
    indices, values = above[wanted], values[wanted]
    order = np.argsort(-values, kind="stable")
    first, counts, areas = _flood(_neighbours(indices, score.shape[1]), order, values, threshold)
    indices, values = indices[order], values[order]
    chosen = (first >= 0) & (areas >= min_pixels)
    at = indices[first[chosen]]
    return Peaks(at % score.shape[1], at // score.shape[1], values[first[chosen]], counts[chosen].astype(np.int32))


@njit(cache=True, nogil=True)
def _root(parents: npt.NDArray[np.int32], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True, nogil=True)
def _neighbours(indices: npt.NDArray[np.int64], nx: int) -> npt.NDArray[np.int32]:
    """Places in the ascending list of flat indices of the eight pixels around each, -1 where one is not in it."""
    n = len(indices)
    around = np.full((n, 8), -1, np.int32)
    above = 0
    for k in range(n):
        x = indices[k] % nx
        if k > 0 and x > 0 and indices[k - 1] == indices[k] - 1:
            around[k, 0], around[k - 1, 1] = k - 1, k
        while indices[above] < indices[k] - nx - 1:
            above += 1
        for m in range(above, min(above + 3, k)):
            step = indices[m] - (indices[k] - nx)
            # x + step leaves the row where the pixel stands at its end
            if -1 <= step <= 1 and 0 <= x + step < nx:
                around[k, 3 + step], around[m, 6 - step] = m, k
    return around


@njit(cache=True, nogil=True)
def _flood(
    around: npt.NDArray[np.int32], order: npt.NDArray[np.int64], values: npt.NDArray[np.float32], threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Place in `order` of each remaining peak (-1 where a hill was absorbed), its pixels above threshold and skirt."""
    n = len(order)
    labels = np.full(n, -1, np.int32)
    hills = 0
    first = np.empty(n, np.int64)
    counts = np.zeros(n, np.int64)
    areas = np.zeros(n, np.int64)
    joined = np.empty(n, np.int32)  # all hills that touch
    owner = np.empty(n, np.int32)  # hills absorbed by another one
    for k in range(n):
        at = order[k]
        high = values[at] >= threshold
        best, highest = -1, n
        for m in around[at]:
            if m < 0 or labels[m] < 0:
                continue
            root = _root(joined, labels[m])
            if first[root] < highest:
                best, highest = root, first[root]
        if best < 0:
            first[hills], joined[hills], owner[hills] = k, hills, hills
            best = hills
            hills += 1
        for m in around[at]:
            if m < 0 or labels[m] < 0:
                continue
            root = _root(joined, labels[m])
            if root == best:
                continue
            peak = values[order[first[root]]]
            needed = max(RISE, RISE_FRACTION * values[order[first[best]]])
            joined[root] = best
            if peak - values[at] < needed or peak < threshold:
                owner[root] = best
        labels[at] = best
        areas[best] += 1
        counts[best] += 1 if high else 0
    for hill in range(hills):
        if owner[hill] != hill:
            counts[_root(owner, hill)] += counts[hill]
            areas[_root(owner, hill)] += areas[hill]
    for hill in range(hills):
        if owner[hill] != hill or values[order[first[hill]]] < threshold:
            first[hill] = -1
    return first[:hills], counts[:hills], areas[:hills]


@dataclass(frozen=True, slots=True, eq=False)
class Significant:
    """The score of a difference everywhere, and where it is high.

    Attributes
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise ratio, finite everywhere; 0 where there are no data.
    indices : ndarray of int64, shape (n,)
        Pixels of the flattened score whose absolute value exceeds the floor, in order.
    """

    score: FloatImage
    indices: npt.NDArray[np.int64]


def significant(difference: Difference, factor: float, floor: float, *, threads: int = 0) -> Significant:
    """Copy the score, give masked pixels that hold data one too, and collect what stands out: one pass over the frame.

    Where the score of the difference is 0 under a mask it is replaced by the matched filter of whatever data there
    are, within one FWHM: ``sum(p d / v) / sqrt(sum(p^2 / v))``.

    Parameters
    ----------
    difference : Difference
        The difference.
    factor : float
        Factor on the noise for correlation between pixels, from `noise_factor`.
    floor : float
        Absolute value above which a pixel is collected (sigma).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    Significant
        Score and pixels.
    """
    psf, (ny, nx) = difference.psf, difference.shape
    grid = psf_grid(psf, difference.shape)
    half = min(psf.size // 2, max(1, round(psf.fwhm)))
    middle, step = grid.images.shape[1] // 2, grid.step
    near = slice(middle - step * half, middle + step * half + 1, step)
    cores = np.ascontiguousarray(grid.images[:, near, near])
    node_of_column = grid.nodes(np.arange(nx), np.zeros(nx))
    node_of_row = grid.nodes(np.zeros(ny), np.arange(ny))
    score = np.empty(difference.shape, dtype=np.float32)
    found: dict[int, npt.NDArray[np.int64]] = {}

    def band(first: int, last: int) -> None:
        found[first] = _scan(
            difference.data, difference.variance, difference.mask, difference.score, cores, node_of_column,
            node_of_row, factor, floor, first, last, score,
        )  # fmt: skip

    over_rows(band, ny, _BAND, threads=threads)
    parts = [found[first] for first in sorted(found)]
    return Significant(score, np.concatenate(parts) if parts else np.empty(0, dtype=np.int64))


@njit(cache=True, nogil=True)
def _scan(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    given: FloatImage,
    cores: FloatImage,
    node_of_column: npt.NDArray[np.int64],
    node_of_row: npt.NDArray[np.int64],
    factor: float,
    floor: float,
    first: int,
    last: int,
    score: FloatImage,
) -> npt.NDArray[np.int64]:
    """Fill rows of the score; return the flat indices of what stands out in them."""
    nx = data.shape[1]
    indices = np.empty(1024, np.int64)
    count = 0
    limit, zero, infinite = np.float32(floor), np.float32(0.0), np.float32(np.inf)
    for y in range(first, last):
        row, bits, out = given[y], mask[y], score[y]
        highest, masked = zero, np.uint16(0)
        for x in range(nx):
            value = row[x]
            # NaN compares false: it becomes 0
            value = value if abs(value) < infinite else zero
            out[x] = value
            highest = max(highest, abs(value))
        for x in range(nx):
            masked |= bits[x]
        if highest <= limit and masked == 0:
            continue
        for x in range(nx):
            if bits[x] != 0 and out[x] == zero and (bits[x] & _ABSENT) == 0:
                core = cores[node_of_row[y] + node_of_column[x]]
                out[x] = _filtered(data, variance, mask, core, x, y, factor)
            if abs(out[x]) > limit:
                if count == len(indices):
                    longer = np.empty(2 * count, np.int64)
                    longer[:count] = indices
                    indices = longer
                indices[count] = y * nx + x
                count += 1
    return indices[:count].copy()


@njit(cache=True, nogil=True)
def _filtered(
    data: FloatImage, variance: FloatImage, mask: MaskImage, core: FloatImage, column: int, row: int, factor: float
) -> float:
    """Matched filter of the data around a pixel, whatever masks say; 0 where too few are there."""
    ny, nx = data.shape
    size = core.shape[0]
    half = size // 2
    pd = pp = weight = whole = 0.0
    for j in range(size):
        y = row + j - half
        for i in range(size):
            p = core[j, i]
            whole += p * p
            x = column + i - half
            if y < 0 or x < 0 or y >= ny or x >= nx or (mask[y, x] & _ABSENT) != 0:
                continue
            d, v = data[y, x], variance[y, x]
            # exactly 0 under a mask: the subtraction has blanked the pixel
            if v > 0 and np.isfinite(d + v) and (d != 0 or mask[y, x] == 0):
                pd += p * d / v
                pp += p * p / v
                weight += p * p
    return pd / (np.sqrt(pp) * factor) if weight > _LEAST_WEIGHT * whole else 0.0
