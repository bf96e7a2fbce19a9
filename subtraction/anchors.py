"""Anchor stars: the stars that carry the fit of the kernel, spread over the frame.

See docs/algorithms.md, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.errors import TooFewStars
from nightsift.frames import Frame, Pair
from nightsift.images.shapes import widths
from nightsift.images.stars import StarTable, clean_stars, find_stars, typical_fwhm
from subtraction.masks import HARD

Float64 = npt.NDArray[np.float64]

WIDTH_RANGE = 0.3
"""Largest relative difference of an anchor's width from the usual one; the PSF may vary that much over a frame."""

MAX_MASKED = 0.35
"""Largest part of an anchor's stamp that may be masked or outside the frame."""


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


def choose_anchors(pair: Pair, snr: float = 20.0, limit: int = 600, minimum: int = 3) -> Anchors:
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
    stars = find_stars(pair.template, threshold=max(0.5 * snr, 5.0), minimum=1)
    guess = typical_fwhm(stars)
    stars = _stellar(stars, guess, minimum)
    # Neighbours do no harm to the fit of a kernel (both frames show them), so the isolation asked for is mild.
    stars = stars[clean_stars(stars, pair.template.shape, isolation=1.5, snr=0.5 * snr)]
    stars = stars[_whole(pair, stars, half=int(np.ceil(2.0 * guess)) if np.isfinite(guess) else 8)]
    fluxes = [_aperture(frame, stars, 1.5 * guess) for frame in (pair.science, pair.template)]
    lowest = np.minimum(fluxes[0][0] / fluxes[0][1], fluxes[1][0] / fluxes[1][1]) if len(stars) else np.zeros(0)
    keep = lowest >= snr
    if int(keep.sum()) < max(3 * minimum, 10):
        # A sparse field: faint anchors are better than none, the fit weighs them by their noise.
        keep = lowest >= 0.5 * snr
    keep &= _steady(fluxes[0], fluxes[1], keep)
    stars, lowest = stars[keep], lowest[keep]
    if len(stars) < minimum:
        raise TooFewStars(found=len(stars), needed=minimum, where=f"{where} and its template (anchors)")
    order = _spread(stars, lowest, pair.science.shape, limit)
    x, y = stars["x"][order].astype(np.float64), stars["y"][order].astype(np.float64)
    fwhms = [_seeing(frame, x, y, guess) for frame in (pair.science, pair.template)]
    return Anchors(x, y, np.asarray(lowest[order], dtype=np.float64), fwhms[0], fwhms[1])


def _stellar(stars: StarTable, fwhm: float, minimum: int) -> StarTable:
    """Stars about as wide as most bright ones: no galaxies, which may hide a transient, unless there is little else."""
    alike = np.abs(stars["fwhm"] / fwhm - 1.0) < WIDTH_RANGE
    return stars[alike] if int(alike.sum()) >= 2 * minimum else stars


def _whole(pair: Pair, stars: StarTable, half: int) -> npt.NDArray[np.bool_]:
    """Whether core and most of the stamp are good on both frames."""
    keep = np.zeros(len(stars), dtype=np.bool_)
    masks = (pair.science.mask, pair.template.mask)
    ny, nx = pair.science.shape
    for k in range(len(stars)):
        y, x = int(np.rint(stars["y"][k])), int(np.rint(stars["x"][k]))
        if y < 2 or x < 2 or y >= ny - 2 or x >= nx - 2:
            continue
        core = any(bool((m[y - 2 : y + 3, x - 2 : x + 3] & HARD).any()) for m in masks)
        window = (slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1))
        good = int((((masks[0][window] | masks[1][window]) & HARD) == 0).sum())
        # What lies outside the frame is missing too; but stars at the edge are needed, or the kernel is extrapolated.
        keep[k] = not core and good >= (1.0 - MAX_MASKED) * (2 * half + 1) ** 2
    return keep


def _aperture(frame: Frame, stars: StarTable, radius: float) -> tuple[Float64, Float64]:
    """Flux and error in a circle around the nearest pixel, masked pixels left out."""
    half = int(np.ceil(radius)) if np.isfinite(radius) else 6
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    inside = np.hypot(dx, dy) <= max(radius, 1.0) if np.isfinite(radius) else np.hypot(dx, dy) <= half
    ny, nx = frame.shape
    rows = np.clip(np.rint(stars["y"]).astype(np.int64)[:, None] + dy[inside][None], 0, ny - 1)
    columns = np.clip(np.rint(stars["x"]).astype(np.int64)[:, None] + dx[inside][None], 0, nx - 1)
    good = (frame.mask[rows, columns] & HARD) == 0
    flux = np.where(good, frame.data[rows, columns], 0.0).sum(axis=1, dtype=np.float64)
    variance = np.where(good, frame.variance[rows, columns], 0.0).sum(axis=1, dtype=np.float64)
    return flux, np.sqrt(np.maximum(variance, 1e-30))


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
    spread = 1.4826 * float(np.nanmedian(np.abs(ratio[keep] - centre)))
    noise = np.hypot(science[1] / np.maximum(science[0], 1e-30), template[1] / np.maximum(template[0], 1e-30))
    return np.asarray(positive & (np.abs(ratio - centre) <= 4.0 * np.hypot(np.maximum(spread, 0.02), noise)))


def _spread(stars: StarTable, snr: Float64, shape: tuple[int, int], limit: int) -> npt.NDArray[np.int64]:
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


def _seeing(frame: Frame, x: Float64, y: Float64, guess: float) -> float:
    """Median seeing of a frame at positions of stars."""
    fwhm, _ = widths(np.where(frame.mask & HARD, np.float32(0), frame.data), x, y, np.ones(len(x), np.int8), guess)
    fwhm = fwhm[np.isfinite(fwhm)]
    return float(np.median(fwhm)) if len(fwhm) else guess
