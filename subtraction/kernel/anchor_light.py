"""Light and masks around candidates for anchor stars, in compiled loops over the stars.

See docs/algorithms.md, section 1.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.frames import Frame, Pair
from nightsift.images.shapes import widths
from nightsift.parallel import over_rows
from subtraction.masks.union import HARD

Float64 = npt.NDArray[np.float64]

CHUNK = 64
"""Fewest stars that a thread works on at a time."""


def whole_stars(
    pair: Pair, x: Float64, y: Float64, half: int, masked: float, threads: int = 0
) -> npt.NDArray[np.bool_]:
    """Tell the stars whose core and most of whose surroundings are good on both frames.

    Parameters
    ----------
    pair : Pair
        Science and template.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    half : int
        Half width of the surroundings (pixel).
    masked : float
        Largest part of them that may be masked or outside the frame.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of bool, shape (n,)
        False for stars within two pixels of the edge or with a masked pixel within two pixels, too.
    """
    keep = np.zeros(len(x), dtype=np.bool_)
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    masks = (pair.science.mask, pair.template.mask)
    # What lies outside the frame is missing too; but stars at the edge are needed, or the kernel is extrapolated.
    needed = (1.0 - masked) * (2 * half + 1) ** 2

    def some(first: int, last: int) -> None:
        _whole(*masks, np.uint16(HARD), columns, rows, half, needed, first, last, keep)

    over_rows(some, len(x), CHUNK, threads)
    return keep


@nb.njit(cache=True, nogil=True)
def _whole(science, template, bad, columns, rows, half, needed, first, last, keep):  # type: ignore[no-untyped-def]
    ny, nx = science.shape
    for k in range(first, last):
        x, y = columns[k], rows[k]
        if y < 2 or x < 2 or y >= ny - 2 or x >= nx - 2:
            continue
        core = np.uint16(0)
        for j in range(y - 2, y + 3):
            for i in range(x - 2, x + 3):
                core |= science[j, i] | template[j, i]
        if (core & bad) != 0:
            continue
        good = 0
        for j in range(max(0, y - half), min(ny, y + half + 1)):
            for i in range(max(0, x - half), min(nx, x + half + 1)):
                good += ((science[j, i] | template[j, i]) & bad) == 0
        keep[k] = good >= needed


def circle_light(frame: Frame, x: Float64, y: Float64, radius: float, threads: int = 0) -> tuple[Float64, Float64]:
    """Flux and its error in a circle around the nearest pixel; masked pixels are left out.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    radius : float
        Radius of the circle (pixel), 1 at least; NaN for 6.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    flux, error : ndarray of float64, shape (n,)
        Sums and their standard errors (ADU).
    """
    radius = max(radius, 1.0) if np.isfinite(radius) else 6.0
    out = np.zeros((2, len(x)))
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)

    def some(first: int, last: int) -> None:
        _circle(frame.data, frame.variance, frame.mask, np.uint16(HARD), columns, rows, radius, first, last, out)

    over_rows(some, len(x), CHUNK, threads)
    return out[0], np.sqrt(np.maximum(out[1], 1e-30))


@nb.njit(cache=True, nogil=True)
def _circle(data, variance, mask, bad, columns, rows, radius, first, last, out):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    half = int(radius)
    for k in range(first, last):
        flux = noise = 0.0
        for j in range(max(0, rows[k] - half), min(ny, rows[k] + half + 1)):
            wide = int(np.sqrt(radius * radius - float((j - rows[k]) ** 2)))
            for i in range(max(0, columns[k] - wide), min(nx, columns[k] + wide + 1)):
                if (mask[j, i] & bad) == 0:
                    flux += data[j, i]
                    noise += variance[j, i]
        out[0, k], out[1, k] = flux, noise


def median_fwhm(frame: Frame, x: Float64, y: Float64, guess: float, threads: int = 0) -> float:
    """Median full width at half maximum of a frame at positions of stars.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame; masked pixels count as dark.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    guess : float
        Width to expect (pixel): that of the window.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    float
        The width (pixel), or the guess where no star tells it.
    """
    columns, rows = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    half = int(np.ceil(2.0 * max(guess, 1.5))) if np.isfinite(guess) else 8
    size = 2 * half + 1
    fwhm = np.empty(len(x), dtype=np.float32)

    def some(first: int, last: int) -> None:
        # The stamps one above the other are an image, in which no window of a star leaves its own stamp.
        strip = np.zeros(((last - first) * size, size), dtype=np.float32)
        _strip(frame.data, frame.mask, np.uint16(HARD), columns[first:last], rows[first:last], half, strip)
        there = np.arange(last - first) * size + half
        fwhm[first:last], _ = widths(
            strip,
            x[first:last] - columns[first:last] + half,
            y[first:last] - rows[first:last] + there,
            np.ones(last - first, np.int8),
            guess,
        )

    over_rows(some, len(x), CHUNK, threads)
    found = fwhm[np.isfinite(fwhm)]
    return float(np.median(found)) if len(found) else guess


@nb.njit(cache=True, nogil=True)
def _strip(data, mask, bad, columns, rows, half, strip):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    size = 2 * half + 1
    for k in range(len(columns)):
        for j in range(size):
            y = rows[k] - half + j
            if y < 0 or y >= ny:
                continue
            for i in range(max(0, half - columns[k]), min(size, nx + half - columns[k])):
                x = columns[k] - half + i
                if (mask[y, x] & bad) == 0:
                    strip[k * size + j, i] = data[y, x]
