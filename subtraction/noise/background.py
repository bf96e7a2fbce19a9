"""Differential background: what is left of the sky in a difference, as a polynomial through exact quantiles of blocks.

A histogram says where quantiles lie, and only its bins there are sorted. See docs/algorithms.md, section 10.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.core.psf import polynomial_terms
from nightsift.core.robust import mad_sigma
from subtraction.fields import affordable_order, n_terms
from subtraction.noise.pixels import gather_sky

Float64 = npt.NDArray[np.float64]

BINS = 512
"""Bins of the histogram, those of the values beyond both ends not counted."""

FEW = 128
"""Values, about, that tell where the histogram lies."""

MIN_SKY = 0.2
"""Least part of a block that must be sky for its median to count."""

CLIP = 4.0
"""Pixels farther than this from the median of their block (sigma) do not count in its mean."""

SHARED = 8
"""Distance of the pixels (pixel) whose differences tell how the noise of the template goes into a difference."""

FAINT = 3.0
"""Nor do pixels whose surroundings stand out by this much (sigma): there is a faint transient."""


@nb.njit(cache=True, nogil=True)
def _quantiles(values, parts, bins, out):  # type: ignore[no-untyped-def]
    """Quantiles of finite values, linear between two of them."""
    n = len(values)
    few = np.sort(values[:: max(1, n // FEW)])
    low, high = few[len(few) // 20], few[len(few) - 1 - len(few) // 20]
    scale = np.float32(BINS) / (high - low) if high > low else np.float32(0)
    counts = np.zeros(BINS + 2, np.int64)
    for i in range(n):
        place = (values[i] - low) * scale + np.float32(1)
        bins[i] = np.uint16(min(max(place, np.float32(0)), np.float32(BINS + 1)))
        counts[bins[i]] += 1
    for k in range(len(parts)):
        rank = parts[k] * (n - 1)
        before = int(rank)
        first, below = 0, 0
        while below + counts[first] <= before:
            below += counts[first]
            first += 1
        last, inside = first, counts[first]
        while below + inside <= min(before + 1, n - 1):
            last += 1
            inside += counts[last]
        own, count = np.empty(inside, np.float32), 0
        for i in range(n):
            if first <= bins[i] <= last:
                own[count] = values[i]
                count += 1
        own.sort()
        lower, upper = own[before - below], own[min(before + 1, n - 1) - below]
        out[k] = lower + (rank - before) * (upper - lower)


def sky_blocks(
    data: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage, *, blocks: int = 24, threads: int = 0
) -> tuple[Float64, Float64, Float64, Float64]:
    """Levels of a difference over blocks of sky.

    Parameters
    ----------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance, and the matched template, whose sources are left out.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    blocks : int, optional
        Most blocks along the longer side; blocks are 16 pixels wide at least.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    x, y, level, error : ndarray of float64, shape (n,)
        Centres (pixel), clipped means and their standard errors (ADU).
    """
    ny, nx = data.shape
    size = max(16, -(-max(ny, nx) // blocks))
    step = max(1, size // 64)
    share = np.float32(noise_share(data, variance, model, mask))
    table = np.full((-(-ny // size), -(-nx // size), 4), np.nan)

    def some(first: int, last: int) -> None:
        _block_rows(data, variance, model, mask, share, size, step, first, last, table)

    over_rows(some, ny, size, threads=threads)
    found = table.reshape(-1, 4)[np.isfinite(table[:, :, 2].ravel())]
    return found[:, 0], found[:, 1], found[:, 2], found[:, 3]


@nb.njit(cache=True, nogil=True)
def _block_rows(data, variance, model, mask, share, size, step, first, last, table):  # type: ignore[no-untyped-def]
    """Centres, levels and errors of the blocks of some rows; NaN is left where there is too little sky."""
    ny, nx = data.shape
    seen = np.empty((2, ((size + step - 1) // step) ** 2), np.float32)
    bins = np.empty(seen.shape[1], np.uint16)
    for y0 in range(first, last, size):
        for x0 in range(0, nx, size):
            y1, x1 = min(y0 + size, ny), min(x0 + size, nx)
            count, pixels = gather_sky(data, variance, model, mask, share, (y0, y1), (x0, x1), step, seen)
            if count < max(16.0, MIN_SKY * pixels):
                continue
            row = table[y0 // size, x0 // size]
            row[0], row[1] = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
            row[2], row[3] = _level(seen[0, :count], seen[1, :count], bins)


@nb.njit(cache=True, nogil=True)
def _level(values, around, bins):  # type: ignore[no-untyped-def]
    """Clipped mean of pixels around which nothing stands out, and its standard error; `values` are reordered."""
    parts, found = np.array([0.158655, 0.5, 0.841345]), np.empty(3)
    _quantiles(around, parts, bins, found)
    limit, near = FAINT * (found[2] - found[0]) / 2.0, 0
    for value in around:
        near += abs(value - found[1]) <= limit
    if near >= 16:
        near = 0
        for i in range(len(around)):
            if abs(around[i] - found[1]) <= limit:
                values[near] = values[i]
                near += 1
        values = values[:near]
    _quantiles(values, parts, bins, found)
    # The clipped mean: photon noise is skewed, its median lies low, and a matched filter adds that up.
    limit, total, count = CLIP * (found[2] - found[0]) / 2.0, 0.0, 0
    for value in values:
        if abs(value - found[1]) <= limit:
            total += value
            count += 1
    return total / count if count > 0 else found[1], (found[2] - found[0]) / 2.0 / np.sqrt(len(values))


def noise_share(data: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage) -> float:
    """Part f of a difference D for which ``M + f D``, M the matched template, has no noise in common with D.

    Among sources, pixels where M is faint are those with the lower noise of the template, so that D is too high there:
    by 0.2 sigma in a crowd where both frames are equally deep. ``M + f D`` is the mean of both frames weighted by their
    variances; a choice by it leaves the mean of D alone, whatever sources there are. Its sign is independent of D,
    which tells f in spite of sources. Pixels are compared with those `SHARED` farther on, so that gradients do not
    count.

    Parameters
    ----------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance, matched template.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.

    Returns
    -------
    float
        0 (template without noise, or too few pixels) to 1.
    """
    step = max(1, int(np.sqrt(data.size / 200_000)))
    width = max(data.shape[1] - SHARED, 0)
    here, there = (np.s_[::step, first : first + width : step] for first in (0, SHARED))
    z, noise = data[here] - data[there], variance[here] + variance[there]
    good = (mask[here] == 0) & (mask[there] == 0) & (z * z < 9.0 * noise)
    z, m = z[good], (model[here] - model[there])[good]
    if len(z) < 400:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2.0
        # Rises with the share, and is zero on average where both are independent.
        shared = float((np.sign(m + np.float32(middle) * z) * z).sum(dtype=np.float64))
        low, high = (low, middle) if shared > 0 else (middle, high)
    return (low + high) / 2.0


def is_sky(model: FloatImage, variance: FloatImage, mask: MaskImage) -> npt.NDArray[np.bool_]:
    """Return True on pixels of a difference, masked ones aside, on which no source of the template is seen."""
    return np.asarray((mask == 0) & (np.abs(model) < 2.0 * np.sqrt(variance)))


def fit_background(
    blocks: tuple[Float64, Float64, Float64, Float64], shape: tuple[int, int], order: int
) -> tuple[Float64, int]:
    """Fit a polynomial to levels of blocks, clipped.

    Parameters
    ----------
    blocks : tuple of ndarray
        What `sky_blocks` returns.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Wanted order; lowered where blocks are few.

    Returns
    -------
    coefficients : ndarray of float64
        In the order of `nightsift.core.psf.polynomial_terms`; a zero where there is no sky at all.
    order : int
        Order used.
    """
    x, y, median, error = blocks
    if len(x) == 0:
        return np.zeros(1), 0
    order = affordable_order(len(x), order, per_term=4)
    terms = polynomial_terms(x, y, shape, order)
    keep = np.ones(len(x), dtype=np.bool_)
    coefficients: Float64 = np.zeros(terms.shape[1])
    for _ in range(4):
        weight = 1.0 / np.maximum(error[keep], 1e-30)
        solved = np.linalg.lstsq(terms[keep] * weight[:, None], median[keep] * weight, rcond=None)[0]
        coefficients = np.asarray(solved, dtype=np.float64)
        pull = (median - terms @ coefficients) / np.maximum(error, 1e-30)
        spread = max(mad_sigma(pull[keep], 0.0), 1.0)
        new = np.abs(pull) < 4.0 * spread
        if int(new.sum()) < 2 * n_terms(order) or bool((new == keep).all()):
            break
        keep = new
    return coefficients, order


def subtract_polynomial(data: FloatImage, coefficients: Float64, order: int, *, threads: int = 0) -> None:
    """Subtract a polynomial from an image, in place.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The image, changed.
    coefficients : ndarray of float64
        In the order of `nightsift.core.psf.polynomial_terms`.
    order : int
        Order of the polynomial.
    threads : int, optional
        Number of threads, 0 for all cores.
    """
    ny, nx = data.shape
    u = 2.0 * np.arange(nx) / max(nx - 1, 1) - 1.0
    v = 2.0 * np.arange(ny) / max(ny - 1, 1) - 1.0
    # Coefficients of the powers of u, row by row.
    lines = np.zeros((ny, order + 1))
    index = 0
    for total in range(order + 1):
        for j in range(total + 1):
            lines[:, total - j] += coefficients[index] * v**j
            index += 1
    columns = u.astype(np.float32)

    def band(first: int, last: int) -> None:
        _subtract_rows(data, lines, columns, first, last)

    over_rows(band, ny, 64, threads=threads)


@nb.njit(cache=True, nogil=True)
def _subtract_rows(data, lines, columns, first, last):  # type: ignore[no-untyped-def]
    level = np.empty(columns.shape[0], np.float32)
    for y in range(first, last):
        row = data[y]
        level[:] = np.float32(lines[y, -1])
        for k in range(lines.shape[1] - 2, -1, -1):
            constant = np.float32(lines[y, k])
            for x in range(columns.shape[0]):
                level[x] = level[x] * columns[x] + constant
        for x in range(columns.shape[0]):
            row[x] -= level[x]
