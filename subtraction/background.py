"""Differential background: what is left of the sky in a difference, as a polynomial.

See docs/algorithms.md, section 10.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightsift.frames import FloatImage, MaskImage
from nightsift.psf import polynomial_terms
from subtraction.parallel import over_rows
from subtraction.spatial import affordable_order, n_terms

Float64 = npt.NDArray[np.float64]

MIN_SKY = 0.2
"""Least part of a block that must be sky for its median to count."""


def sky_blocks(
    data: FloatImage, variance: FloatImage, model: FloatImage, mask: MaskImage, blocks: int = 24
) -> tuple[Float64, Float64, Float64, Float64]:
    """Medians of a difference over blocks of sky.

    Parameters
    ----------
    data, variance, model : ndarray of float32, shape (ny, nx)
        Difference, its variance, and the matched template, whose sources are left out.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    blocks : int, optional
        Most blocks along the longer side; blocks are 16 pixels wide at least.

    Returns
    -------
    x, y, median, error : ndarray of float64, shape (n,)
        Centres (pixel), medians and their standard errors (ADU).
    """
    ny, nx = data.shape
    size = max(16, -(-max(ny, nx) // blocks))
    step = max(1, size // 64)
    rows = []
    for y0 in range(0, ny, size):
        for x0 in range(0, nx, size):
            window = (slice(y0, y0 + size, step), slice(x0, x0 + size, step))
            sky = is_sky(model[window], variance[window], mask[window])
            values = data[window][sky]
            if len(values) < max(16, MIN_SKY * sky.size):
                continue
            low, centre, high = np.percentile(values, (15.8655, 50.0, 84.1345))
            error = 1.2533 * (high - low) / 2.0 / np.sqrt(len(values))
            middle_x, middle_y = (x0 + min(x0 + size, nx) - 1) / 2, (y0 + min(y0 + size, ny) - 1) / 2
            rows.append((middle_x, middle_y, float(centre), float(error)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


def is_sky(model: FloatImage, variance: FloatImage, mask: MaskImage) -> npt.NDArray[np.bool_]:
    """Tell pixels on which no source of the template is seen.

    Parameters
    ----------
    model, variance : ndarray of float32
        Matched template and variance of the difference.
    mask : ndarray of uint16
        Mask of the difference.

    Returns
    -------
    ndarray of bool
        True on sky.
    """
    return np.asarray((mask == 0) & (np.abs(model) < 2.0 * np.sqrt(variance)))


def fit_background(
    blocks: tuple[Float64, Float64, Float64, Float64], shape: tuple[int, int], order: int
) -> tuple[Float64, int]:
    """Fit a polynomial to medians of blocks, clipped.

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
        In the order of `nightsift.frames.polynomial_terms`; a zero where there is no sky at all.
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
        spread = max(1.4826 * float(np.median(np.abs(pull[keep]))), 1.0)
        new = np.abs(pull) < 4.0 * spread
        if int(new.sum()) < 2 * n_terms(order) or bool((new == keep).all()):
            break
        keep = new
    return coefficients, order


def subtract_polynomial(data: FloatImage, coefficients: Float64, order: int, threads: int = 0) -> None:
    """Subtract a polynomial from an image, in place.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The image, changed.
    coefficients : ndarray of float64
        In the order of `nightsift.frames.polynomial_terms`.
    order : int
        Order of the polynomial.
    threads : int, optional
        Number of threads, 0 for all cores.
    """
    ny, nx = data.shape
    u = 2.0 * np.arange(nx) / max(nx - 1, 1) - 1.0
    v = 2.0 * np.arange(ny) / max(ny - 1, 1) - 1.0
    powers = np.stack([u**k for k in range(order + 1)])
    # Coefficients of the powers of u, row by row.
    lines = np.zeros((ny, order + 1))
    index = 0
    for total in range(order + 1):
        for j in range(total + 1):
            lines[:, total - j] += coefficients[index] * v**j
            index += 1

    def band(first: int, last: int) -> None:
        for start in range(first, last, 64):
            stop = min(start + 64, last)
            data[start:stop] -= (lines[start:stop] @ powers).astype(np.float32)

    over_rows(band, ny, 64, threads)
