"""Anchor stars: the stars that carry the fit of the kernel, unmasked, unblended, and spread over the frame.

See docs/algorithms.md, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import HARD
from nightsift.core.frames import Frame, Pair, StarTable
from nightsift.core.parallel import over_rows
from nightsift.core.robust import nan_mad_sigma
from nightsift.images.stars.shapes import widths
from nightsift.images.stars.stars import clean_stars, find_stars, typical_fwhm

Float64 = npt.NDArray[np.float64]

CHUNK = 64
"""Fewest stars that a thread works on at a time."""

WIDTH_RANGE = 0.3
"""Largest relative difference of an anchor's width from the usual one; the PSF may vary that much over a frame."""

MAX_MASKED = 0.35
"""Largest part of an anchor's stamp that may be masked or outside the frame."""


def _whole_stars(
    pair: Pair, x: Float64, y: Float64, *, half: int, masked: float, threads: int = 0
) -> npt.NDArray[np.bool_]:
    """Tell the stars whose core and most of whose surroundings are good on both frames."""
    keep = np.zeros(len(x), dtype=np.bool_)
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    masks = (pair.science.mask, pair.template.mask)
    # What lies outside the frame is missing too; but stars at the edge are needed, or the kernel is extrapolated.
    needed = (1.0 - masked) * (2 * half + 1) ** 2

    def some(first: int, last: int) -> None:
        _whole(*masks, np.uint16(HARD), columns, rows, half, needed, first, last, keep)

    over_rows(some, len(x), CHUNK, threads=threads)
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


def _circle_light(frame: Frame, x: Float64, y: Float64, *, radius: float, threads: int = 0) -> tuple[Float64, Float64]:
    """Flux and its error in a circle around the nearest pixel; masked pixels are left out."""
    radius = max(radius, 1.0) if np.isfinite(radius) else 6.0
    out = np.zeros((2, len(x)))
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)

    def some(first: int, last: int) -> None:
        _circle(frame.data, frame.variance, frame.mask, np.uint16(HARD), columns, rows, radius, first, last, out)

    over_rows(some, len(x), CHUNK, threads=threads)
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


def _median_fwhm(frame: Frame, x: Float64, y: Float64, *, guess: float, threads: int = 0) -> float:
    """Median full width at half maximum of a frame at positions of stars."""
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
            sign=np.ones(last - first, np.int8),
            fwhm=guess,
        )

    over_rows(some, len(x), CHUNK, threads=threads)
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


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Positions of anchor stars and the seeing measured on them.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions on the common grid (pixel).
    snr : ndarray of float64, shape (n,)
        Signal-to-noise ratio in the shallower of the two frames.
    fwhm_science, fwhm_template : float
        Median full width at half maximum of the anchors on each frame (pixel), by the same estimator.
    """

    x: Float64
    y: Float64
    snr: Float64
    fwhm_science: float
    fwhm_template: float

    def __len__(self) -> int:
        return len(self.x)


def choose_anchors(
    pair: Pair, snr: float = 20.0, limit: int = 600, *, minimum: int = 3, stars: StarTable | None = None
) -> Anchors:
    """Choose anchor stars of a pair.

    They are found on the template, so that a transient of the science frame cannot be among them, and must be seen
    on both frames: unsaturated, unmasked, shaped like stars, with a flux ratio like that of the others. The frame is
    divided in cells, and every cell gives its brightest ones in turn.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.
    snr : float, optional
        Lowest signal-to-noise ratio on either frame.
    limit : int, optional
        Most anchors.
    minimum : int, optional
        Fewest anchors to go on with.
    stars : StarTable or None, optional
        Stars of the template, where they are known.

    Returns
    -------
    Anchors
        The anchors, brightest first.

    Raises
    ------
    TooFewStars
        If fewer than `minimum` are left.
    """
    where = pair.science.meta.path or pair.science.meta.exposure_id
    faintest = max(0.5 * snr, 5.0)
    stars = find_stars(pair.template, faintest, minimum=1) if stars is None else stars[stars["snr"] >= faintest]
    guess = typical_fwhm(stars)
    stars = _stellar(stars, guess, minimum)
    # Neighbours do no harm to the fit of a kernel (both frames show them), so the isolation asked for is mild.
    stars = stars[clean_stars(stars, pair.template.shape, isolation=1.5, snr=0.5 * snr)]
    half = int(np.ceil(2.0 * guess)) if np.isfinite(guess) else 8
    stars = stars[_whole_stars(pair, stars["x"].copy(), stars["y"].copy(), half=half, masked=MAX_MASKED)]
    places = (stars["x"].copy(), stars["y"].copy())
    fluxes = [_circle_light(frame, *places, radius=1.5 * guess) for frame in (pair.science, pair.template)]
    lowest = np.minimum(fluxes[0][0] / fluxes[0][1], fluxes[1][0] / fluxes[1][1]) if len(stars) else np.zeros(0)
    keep = lowest >= snr
    if int(keep.sum()) < max(3 * minimum, 10):
        # A sparse field: faint anchors are better than none, the fit weighs them by their noise.
        keep = lowest >= 0.5 * snr
    keep &= _steady(fluxes[0], fluxes[1], keep)
    stars, lowest = stars[keep], lowest[keep]
    if len(stars) < minimum:
        raise TooFewStars(found=len(stars), needed=minimum, where=f"{where} and its template (anchors)")
    order = _spread(stars, lowest, pair.science.shape, limit=limit)
    x, y = stars["x"][order].astype(np.float64), stars["y"][order].astype(np.float64)
    fwhms = [_median_fwhm(frame, x, y, guess=guess) for frame in (pair.science, pair.template)]
    return Anchors(x, y, np.asarray(lowest[order], dtype=np.float64), fwhms[0], fwhms[1])


def _stellar(stars: StarTable, fwhm: float, minimum: int) -> StarTable:
    """Stars about as wide as most bright ones: no galaxies, which may hide a transient, unless there is little else."""
    alike = np.abs(stars["fwhm"] / fwhm - 1.0) < WIDTH_RANGE
    return stars[alike] if int(alike.sum()) >= 2 * minimum else stars


def _steady(
    science: tuple[Float64, Float64], template: tuple[Float64, Float64], keep: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Whether the ratio of both fluxes is like that of the others: no variable star, no asteroid."""
    steady = np.ones(len(keep), dtype=np.bool_)
    if int(keep.sum()) < 5:
        return steady
    ratio = np.full(len(keep), np.nan)
    positive = (science[0] > 0) & (template[0] > 0)
    ratio[positive] = np.log(science[0][positive] / template[0][positive])
    centre = float(np.nanmedian(ratio[keep]))
    spread = nan_mad_sigma(ratio[keep], centre)
    noise = np.hypot(science[1] / np.maximum(science[0], 1e-30), template[1] / np.maximum(template[0], 1e-30))
    return np.asarray(positive & (np.abs(ratio - centre) <= 4.0 * np.hypot(np.maximum(spread, 0.02), noise)))


def _spread(stars: StarTable, snr: Float64, shape: tuple[int, int], *, limit: int) -> npt.NDArray[np.int64]:
    """Indices of stars taken in turn from the cells of a grid, the brightest of each cell first."""
    cells = max(2, int(np.sqrt(limit / 8.0)))
    cell = (stars["y"] * cells / shape[0]).astype(np.int64) * cells + (stars["x"] * cells / shape[1]).astype(np.int64)
    by_snr = np.argsort(-snr, kind="stable")
    within = by_snr[np.argsort(cell[by_snr], kind="stable")]
    starts = np.searchsorted(cell[within], cell[within], side="left")
    rank = np.empty(len(stars), dtype=np.int64)
    rank[within] = np.arange(len(stars)) - starts
    chosen = np.lexsort((-snr, rank))[:limit]
    return np.asarray(chosen[np.argsort(-snr[chosen], kind="stable")], dtype=np.int64)
