"""Celestial coordinates for an image that has none: vote over rotation, parity, scale and shift against a catalogue.

Meant for templates of units whose headers hold a pointing and a pixel scale but no WCS. Any list of positions
does (also one without magnitudes): catalogue stars near the pointing are projected on the image for a grid of
rotations, scales and both parities; the offsets to all detected stars vote in a two-dimensional histogram, the
best hypotheses are refined by an affine fit and the winner must be far beyond what chance produces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from numba import njit
from scipy.spatial import KDTree

from nightsift.core.errors import AlignmentFailed
from nightsift.sky.sphere import separation, sky_to_plane

Floats = npt.NDArray[np.float64]

BIN = 3.0
"""Width of a voting bin (pixel): larger than what half a rotation step moves a star at the corner."""

MATCH_RADIUS = 1.0
"""Final distance within which a star counts as matched (pixel)."""

REFINED = 3000
"""Hypotheses that are refined: a sparse catalogue in a rich field rises above chance only after the fit."""

STAR_COUNTS = (150, 300, 600, 1200)
"""Brightest stars used, in turn, until the solution is sure: few are fast, a faint catalogue needs many."""

FARTHEST = 84.0
"""Distance from the pointing (deg) beyond which positions are left out: the tangent plane ends at 90."""

FEWEST = 6
"""Catalogue positions and stars without which nothing is tried."""

MAX_LOG_CHANCE = -12.0
"""Natural logarithm of the largest probability of a chance solution that is accepted, trials included."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A solved image.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        Tangential projection fitted to the matched stars.
    matched : int
        Catalogue positions that found a star.
    expected : float
        Matches expected by chance.
    residual : float
        Median distance of the matches (pixel).
    """

    wcs: WCS
    matched: int
    expected: float
    residual: float


def solve(
    x: Floats,
    y: Floats,
    catalogue: tuple[Floats, Floats],
    *,
    pointing: tuple[float, float],
    pixel_scale: float,
    shape: tuple[int, int],
    max_shift: float = 0.35,
    scale_range: float = 0.03,
) -> Solution:
    """Find the WCS of an image from its pointing, its pixel scale and a catalogue of positions.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Stars found in the image (pixel), by decreasing flux.
    catalogue : tuple of ndarray of float64, shape (m,)
        Right ascension and declination of catalogue sources (deg, ICRS), at least those around the pointing.
    pointing : tuple of float
        Right ascension and declination of the nominal image centre (deg, ICRS).
    pixel_scale : float
        Nominal pixel scale (arcsec/pixel).
    shape : tuple of int
        ``(ny, nx)`` of the image.
    max_shift : float, optional
        Largest error of the pointing, as a fraction of the longer side.
    scale_range : float, optional
        Largest relative error of the pixel scale.

    Returns
    -------
    Solution
        The WCS and how sure it is.

    Raises
    ------
    AlignmentFailed
        If no hypothesis matches significantly more stars than chance does.
    """
    plane = _project(catalogue, pointing, pixel_scale)
    reach = 0.5 * float(np.hypot(*shape)) + max_shift * max(shape)
    plane = plane[np.hypot(plane[:, 0], plane[:, 1]) < reach]
    stars = np.stack([x, y], axis=1).astype(np.float64)
    if min(len(plane), len(stars)) < FEWEST:
        what = f"only {len(plane)} catalogue positions and {len(stars)} stars, {FEWEST} of each needed"
        raise AlignmentFailed(where="the image", what=what, matched=0, residual_px=np.nan)
    hypotheses = _hypotheses(shape, scale_range)
    threshold = MAX_LOG_CHANCE - np.log(len(hypotheses))
    best: _Match | None = None
    for count in STAR_COUNTS:
        found = _search(plane, stars[:count], hypotheses, reach=max_shift * max(shape), shape=shape)
        if found is not None and (best is None or found.log_chance < best.log_chance):
            best = found
        if count >= len(stars) or (best is not None and best.log_chance < threshold):
            break
    if best is None or best.log_chance > threshold:
        matched, residual = (0, np.nan) if best is None else (len(best.sky), best.residual)
        what = f"no orientation matches the catalogue beyond chance among {len(hypotheses)} tried"
        raise AlignmentFailed(where="the image", what=what, matched=matched, residual_px=residual)
    wcs = _tangential(plane[best.sky], stars[best.stars], pointing, pixel_scale=pixel_scale)
    return Solution(wcs=wcs, matched=len(best.sky), expected=best.expected, residual=best.residual)


@dataclass(frozen=True, slots=True)
class _Match:
    log_chance: float
    sky: npt.NDArray[np.intp]
    stars: npt.NDArray[np.intp]
    residual: float
    expected: float


def _hypotheses(shape: tuple[int, int], scale_range: float) -> Floats:
    """Parity, rotation (rad) and scale of each hypothesis; steps move the corner by half a bin."""
    step = BIN / float(np.hypot(*shape))
    scales = 1.0 + np.linspace(-scale_range, scale_range, 1 + 2 * int(np.ceil(scale_range * max(shape) / BIN)))
    angles = np.arange(0.0, 2 * np.pi, step)
    return np.array([(p, a, s) for p in (1.0, -1.0) for a in angles for s in scales])


def _search(plane: Floats, stars: Floats, hypotheses: Floats, *, reach: float, shape: tuple[int, int]) -> _Match | None:
    """Vote on all hypotheses, refine the best ones and return the least likely by chance."""
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    votes = _vote(plane, stars - centre, hypotheses, reach, BIN)
    tree, best = KDTree(stars), None
    for index in np.argsort(-votes[:, 0], kind="stable")[:REFINED]:
        found = _refine(
            plane, tree, stars, linear=_linear(*hypotheses[index]), shift=centre + votes[index, 1:], shape=shape
        )
        if found is not None and (best is None or found.log_chance < best.log_chance):
            best = found
    return best


def _project(catalogue: tuple[Floats, Floats], pointing: tuple[float, float], pixel_scale: float) -> Floats:
    """Gnomonic projection around the pointing: (m, 2) in nominal pixels, east and north positive."""
    ra, dec = (np.asarray(angle, dtype=np.float64) for angle in catalogue)
    ahead = separation(ra, dec, *pointing) < FARTHEST
    plane = sky_to_plane(ra[ahead], dec[ahead], *pointing)
    return np.asarray(np.stack(plane, axis=1) * 3600.0 / pixel_scale)


def _linear(parity: float, angle: float, scale: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[parity * c, -s], [parity * s, c]]) / scale


@njit(cache=True, nogil=True)
def _vote(plane: Floats, stars: Floats, hypotheses: Floats, reach: float, width: float) -> Floats:
    """For each hypothesis the highest block of offsets: (n, 3) of votes, x and y."""
    n = int(2 * reach / width) + 1
    result = np.zeros((len(hypotheses), 3))
    counts = np.zeros((n, n), dtype=np.int32)
    for k in range(len(hypotheses)):
        parity, angle, scale = hypotheses[k]
        c, s = np.cos(angle) / scale, np.sin(angle) / scale
        counts[:] = 0
        for i in range(len(plane)):
            px = parity * c * plane[i, 0] - s * plane[i, 1]
            py = parity * s * plane[i, 0] + c * plane[i, 1]
            for j in range(len(stars)):
                bx = int((stars[j, 0] - px + reach) / width)
                by = int((stars[j, 1] - py + reach) / width)
                if 0 <= bx < n and 0 <= by < n:
                    counts[by, bx] += 1
        # Blocks of two by two bins, so that a peak on a border between bins is not split.
        for by in range(n - 1):
            for bx in range(n - 1):
                block = counts[by, bx] + counts[by, bx + 1] + counts[by + 1, bx] + counts[by + 1, bx + 1]
                if block > result[k, 0]:
                    result[k, 0] = block
                    result[k, 1] = (bx + 1) * width - reach
                    result[k, 2] = (by + 1) * width - reach
    return result


def _refine(
    plane: Floats, tree: KDTree, stars: Floats, *, linear: Floats, shift: Floats, shape: tuple[int, int]
) -> _Match | None:
    """Affine fit with a shrinking radius."""
    for radius in (BIN, 2 * MATCH_RADIUS, MATCH_RADIUS, MATCH_RADIUS):
        predicted = plane @ linear.T + shift
        inside = np.flatnonzero(((predicted > 0) & (predicted < np.array(shape[::-1]) - 1)).all(axis=1))
        if len(inside) < 5:
            return None
        distance, index = tree.query(predicted[inside], distance_upper_bound=radius)
        hit = np.isfinite(distance)
        if hit.sum() < 5:
            return None
        design = np.column_stack([plane[inside[hit]], np.ones(int(hit.sum()))])
        solution, *_ = np.linalg.lstsq(design, stars[index[hit]], rcond=None)
        linear, shift = solution[:2].T, solution[2]
    chance = min(len(stars) * np.pi * MATCH_RADIUS**2 / (shape[0] * shape[1]), 0.999)
    # Three matches are owed to the six parameters of the fit and do not count as evidence.
    from scipy.stats import binom  # slow to import

    log_chance = float(binom.logsf(int(hit.sum()) - 4, len(inside), chance))
    residual = float(np.median(np.hypot(*(design @ solution - stars[index[hit]]).T)))
    return _Match(log_chance, inside[hit], index[hit], residual, chance * len(inside))


def _tangential(sky: Floats, stars: Floats, pointing: tuple[float, float], *, pixel_scale: float) -> WCS:
    """TAN projection whose matrix is the affine fit from pixels to the plane of the pointing."""
    design = np.column_stack([stars, np.ones(len(stars))])
    solution, *_ = np.linalg.lstsq(design, sky * pixel_scale / 3600.0, rcond=None)
    matrix = solution[:2].T
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = list(pointing)
    wcs.wcs.cd = matrix
    wcs.wcs.crpix = np.linalg.solve(matrix, -solution[2]) + 1.0
    return wcs
