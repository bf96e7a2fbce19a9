"""First guesses of where the pixels of one frame lie on another: through both WCS, or by the pattern of the stars."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from astropy.wcs import NoConvergence
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift.frames import Frame
from nightsift.images.pattern import FloatArray, chance, match_pattern, mutual_neighbours
from nightsift.units import AlignmentOptions

BRIGHT = 300  # stars used to find the match
RADIUS = 3.0  # px, within which stars count as the same before the fit
LOG_CHANCE = -14.0  # a match by chance is accepted once in a million frames

Guess = Callable[[FloatArray], FloatArray]


def first_guesses(
    frame: Frame, first: FloatArray, reference: Frame, second: FloatArray, options: AlignmentOptions
) -> Iterator[tuple[str, Guess]]:
    """Give first guesses that are beyond chance, the more trusted one first.

    Parameters
    ----------
    frame, reference : Frame
        Frames mapped from and to.
    first, second : ndarray of float64, shape (n, 2)
        Positions of their stars (pixel), brightest first.
    options : AlignmentOptions
        The ``[alignment]`` table of the unit.

    Yields
    ------
    str, callable
        ``"wcs"`` or ``"pattern"``, and a function ``(n, 2) -> (n, 2)``.
    """
    if options.use_wcs and (guess := _by_wcs(frame, first, reference, second, options)) is not None:
        yield "wcs", guess
    if (guess := _by_pattern(frame, first, reference, second)) is not None:
        yield "pattern", guess


def _by_wcs(
    frame: Frame, first: FloatArray, reference: Frame, second: FloatArray, options: AlignmentOptions
) -> Guess | None:
    """Carry stars over through both WCS, then vote for the offset that is left."""
    wcs, reference_wcs = frame.wcs, reference.wcs
    if wcs is None or reference_wcs is None:
        return None

    def through(xy: FloatArray) -> FloatArray:
        return np.asarray(reference_wcs.all_world2pix(wcs.all_pix2world(xy, 0), 0, quiet=True), dtype=np.float64)

    if len(first) < 3:
        return None
    # Without the distortion first: on the other side of the sky that one has no inverse.
    rough = reference_wcs.wcs_world2pix(wcs.all_pix2world(first[:BRIGHT], 0), 0)
    if not bool(np.isfinite(rough).all()):
        return None
    try:
        carried = through(first[:BRIGHT])
    except NoConvergence:
        return None
    if not bool(np.isfinite(carried).all()):
        return None
    scale = 3600.0 * float(np.mean(proj_plane_pixel_scales(reference_wcs)))
    offset = _vote(carried, second[:BRIGHT], options.tolerance / scale)
    if offset is None:
        return None
    i, _ = mutual_neighbours(carried + offset, second[:BRIGHT], RADIUS)
    if chance(carried + offset, second[:BRIGHT], len(i), RADIUS) > LOG_CHANCE:
        return None
    return lambda xy: through(xy) + offset


def _vote(carried: FloatArray, second: FloatArray, tolerance: float) -> FloatArray | None:
    """Offset on which most pairs of stars agree (pixel)."""
    pairs = cKDTree(carried).sparse_distance_matrix(cKDTree(second), tolerance, output_type="coo_matrix")
    if pairs.nnz == 0:
        return None
    offsets = second[pairs.col] - carried[pairs.row]
    edges = np.arange(-tolerance - 3.0, tolerance + 3.0 + 1.0, 1.0)
    votes = ndimage.gaussian_filter(np.histogram2d(offsets[:, 0], offsets[:, 1], bins=(edges, edges))[0], 1.0)
    best = np.unravel_index(int(votes.argmax()), votes.shape)
    peak = np.array([edges[best[0]] + 0.5, edges[best[1]] + 0.5])
    near = offsets[np.hypot(*(offsets - peak).T) < RADIUS]
    return np.asarray(np.median(near, axis=0)) if len(near) else None


def _by_pattern(frame: Frame, first: FloatArray, reference: Frame, second: FloatArray) -> Guess | None:
    ratio = frame.meta.pixel_scale / reference.meta.pixel_scale
    limits = (0.8 * ratio, 1.25 * ratio) if np.isfinite(ratio) and ratio > 0 else (0.4, 2.5)
    match = match_pattern(first[:BRIGHT], second[:BRIGHT], RADIUS, limits, LOG_CHANCE)
    return None if match is None else match.affine
