"""Anchor stars: the stars that carry the fit of the kernel, spread over the frame.

See docs/algorithms.md, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.robust import nan_mad_sigma
from nightsift.errors import TooFewStars
from nightsift.frames import Pair
from nightsift.images.stars import StarTable, clean_stars, find_stars, typical_fwhm
from subtraction.kernel.anchor_light import circle_light, median_fwhm, whole_stars

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


def choose_anchors(
    pair: Pair, snr: float = 20.0, limit: int = 600, minimum: int = 3, stars: StarTable | None = None
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
    stars = stars[whole_stars(pair, stars["x"].copy(), stars["y"].copy(), half, MAX_MASKED)]
    places = (stars["x"].copy(), stars["y"].copy())
    fluxes = [circle_light(frame, *places, 1.5 * guess) for frame in (pair.science, pair.template)]
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
    fwhms = [median_fwhm(frame, x, y, guess) for frame in (pair.science, pair.template)]
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
