"""Match two star lists by their pattern alone: any shift, rotation and parity, scale within limits, many strangers.

Triangles of neighbouring stars are compared by shape (Valdes et al. 1995; Groth 1986) and vote for the
transformation that they imply; the transformations with most votes are tried on all bright stars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import bdtrc

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_DEPTHS = (40, 80, 160, 320)  # brightest stars tried, in turn
_NEIGHBOURS = 8  # of each star that form triangles with it; more where stars are few
_TRIANGLES = 3000  # about how many to make of a list
_SHAPE = 0.012  # largest distance of two triangles in the plane of side ratios
_TRIED = 12  # transformations tried at each depth


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """An affine transformation of the plane.

    Attributes
    ----------
    matrix : ndarray of float64, shape (2, 3)
        ``(x', y') = matrix @ (x, y, 1)``.
    """

    matrix: FloatArray

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Transform positions.

        Parameters
        ----------
        xy : ndarray of float64, shape (n, 2)
            Positions.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Transformed positions.
        """
        return xy @ self.matrix[:, :2].T + self.matrix[:, 2]


@dataclass(frozen=True, slots=True, eq=False)
class PatternMatch:
    """A transformation between two star lists and the stars that support it.

    Attributes
    ----------
    affine : Affine
        From the first list to the second.
    first, second : ndarray of int, shape (n,)
        Indices of the matched stars.
    log_chance : float
        Natural logarithm of the expected number of equally good matches by chance.
    """

    affine: Affine
    first: IntArray
    second: IntArray
    log_chance: float


def match_pattern(
    first: FloatArray,
    second: FloatArray,
    tolerance: float = 3.0,
    *,
    scale: tuple[float, float] = (0.8, 1.25),
    log_chance: float = -14.0,
) -> PatternMatch | None:
    """Find the transformation that carries one star list onto another.

    Parameters
    ----------
    first, second : ndarray of float64, shape (n, 2)
        Positions (pixel), brightest first.
    tolerance : float, optional
        Distance within which stars count as the same (pixel of the second list).
    scale : tuple of float, optional
        Lowest and highest ratio of scales, second over first.
    log_chance : float, optional
        A match must be less probable by chance than this (natural logarithm).

    Returns
    -------
    PatternMatch or None
        The best match, None where no match is beyond chance.
    """
    best: PatternMatch | None = None
    for depth in _DEPTHS:
        a, b = first[:depth], second[:depth]
        if min(len(a), len(b)) < 3:
            return None
        for matrix in _hypotheses(a, b, tolerance, scale=scale):
            match = _verify(a, b, Affine(matrix), tolerance=tolerance, scale=scale)
            if match is not None and (best is None or match.log_chance < best.log_chance):
                best = match
        if best is not None and best.log_chance < log_chance:
            return best
        if depth >= max(len(first), len(second)):
            break
    return None


def _triangles(xy: FloatArray) -> tuple[FloatArray, IntArray]:
    """Shapes (middle and shortest side over the longest) and vertices, ordered by the side opposite, longest first."""
    k = min(max(_NEIGHBOURS, int(np.sqrt(2.0 * _TRIANGLES / len(xy)))), len(xy) - 1)
    near = cKDTree(xy).query(xy, k=k + 1)[1][:, 1:]
    i, j = np.triu_indices(k, 1)
    corners = np.stack([np.repeat(np.arange(len(xy)), len(i)), near[:, i].ravel(), near[:, j].ravel()], axis=1)
    corners = np.unique(np.sort(corners, axis=1), axis=0)
    points = xy[corners]
    sides = np.stack([np.hypot(*(points[:, (v + 1) % 3] - points[:, (v + 2) % 3]).T) for v in range(3)], axis=1)
    order = np.argsort(-sides, axis=1)
    sides = np.take_along_axis(sides, order, axis=1)
    corners = np.take_along_axis(corners, order, axis=1)
    shapes = sides[:, 1:] / np.maximum(sides[:, :1], 1e-9)
    # Nearly equal sides leave the order of vertices open, a tiny triangle its shape: noise would decide.
    clear = (shapes[:, 0] < 0.98) & (shapes[:, 0] - shapes[:, 1] > 0.02) & (sides[:, 2] > 8.0)
    return shapes[clear], corners[clear]


def _hypotheses(a: FloatArray, b: FloatArray, tolerance: float, *, scale: tuple[float, float]) -> list[FloatArray]:
    """Transformations implied by similar triangles, those with most votes first."""
    shapes_a, corners_a = _triangles(a)
    shapes_b, corners_b = _triangles(b)
    if len(shapes_a) == 0 or len(shapes_b) == 0:
        return []
    pairs = cKDTree(shapes_a).sparse_distance_matrix(cKDTree(shapes_b), _SHAPE, output_type="coo_matrix")
    p, q = a[corners_a[pairs.row]], b[corners_b[pairs.col]]
    matrices, error = _similarities(p, q)
    size = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2]))) if len(matrices) else np.zeros(0)
    ok = (error < tolerance) & (size > scale[0]) & (size < scale[1])
    matrices = matrices[ok]
    if len(matrices) == 0:
        return []
    # Each is described by where it puts three points of the frame, so that distances are in pixels.
    centre, span = a.mean(axis=0), max(float(np.ptp(a, axis=0).max()), 1.0)
    anchors = centre + 0.5 * span * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    images = np.einsum("nij,kj->nki", matrices[:, :, :2], anchors) + matrices[:, None, :, 2]
    votes = images.reshape(len(matrices), 6) / (0.04 * span + 2.0 * tolerance)
    tree = cKDTree(votes)
    counts = tree.query_ball_point(votes, 1.0, return_length=True)
    chosen: list[FloatArray] = []
    free = np.ones(len(votes), dtype=np.bool_)
    for index in np.argsort(counts, kind="stable")[::-1]:
        if not free[index]:
            continue
        members = np.asarray(tree.query_ball_point(votes[index], 1.0))
        free[members] = False
        chosen.append(np.median(matrices[members], axis=0))
        chosen.append(matrices[index])
        if len(chosen) >= 2 * _TRIED:
            break
    return chosen


def _similarities(p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least-squares similarity of each pair of triangles (either parity), and its largest error.

    With complex numbers z' = m z + t, or z' = m conj(z) + t for a mirrored pair.
    """
    zp, zq = p[:, :, 0] + 1j * p[:, :, 1], q[:, :, 0] + 1j * q[:, :, 1]
    mirrored = _area(p) * _area(q) < 0
    zp = np.where(mirrored[:, None], zp.conj(), zp)
    mean_p, mean_q = zp.mean(axis=1), zq.mean(axis=1)
    dp, dq = zp - mean_p[:, None], zq - mean_q[:, None]
    m = (dp.conj() * dq).sum(axis=1) / np.maximum((np.abs(dp) ** 2).sum(axis=1), 1e-12)
    t = mean_q - m * mean_p
    error = np.abs(m[:, None] * zp + t[:, None] - zq).max(axis=1) if len(p) else np.zeros(0)
    sign = np.where(mirrored, -1.0, 1.0)
    rows = ((m.real, -m.imag * sign, t.real), (m.imag, m.real * sign, t.imag))
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1), error


def _area(p: FloatArray) -> FloatArray:
    u, v = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0], dtype=np.float64)


def _verify(
    a: FloatArray, b: FloatArray, affine: Affine, *, tolerance: float, scale: tuple[float, float]
) -> PatternMatch | None:
    """Refine on all stars with a narrowing search, and weigh the matches against chance."""
    tree = cKDTree(b)
    for radius in (6.0 * tolerance, 3.0 * tolerance, 2.0 * tolerance, tolerance, tolerance):
        i, j = mutual_neighbours(affine(a), b, radius, tree=tree)
        if len(i) < 4:
            return None
        affine = _fit_affine(a[i], b[j])
        determinant = float(np.linalg.det(affine.matrix[:, :2]))
        if not scale[0] ** 2 < abs(determinant) < scale[1] ** 2:
            return None
    carried = affine(a)
    best: PatternMatch | None = None
    # True partners lie close together, strangers anywhere: the narrower the search that keeps them, the surer.
    for radius in (tolerance, 0.5 * tolerance, 0.25 * tolerance):
        i, j = mutual_neighbours(carried, b, radius, tree=tree)
        odds = chance(carried, b, len(i), radius=radius)
        if best is None or odds < best.log_chance:
            best = PatternMatch(affine, i, j, odds)
    return best


def _fit_affine(p: FloatArray, q: FloatArray) -> Affine:
    """Least-squares affine transformation, or similarity where four stars or fewer are matched."""
    if len(p) <= 4:
        similar = _similarities(np.stack([p]), np.stack([q]))[0][0]
        return Affine(similar)
    terms = np.column_stack((p, np.ones(len(p))))
    return Affine(np.asarray(np.linalg.lstsq(terms, q, rcond=None)[0].T, dtype=np.float64))


def mutual_neighbours(
    a: FloatArray, b: FloatArray, radius: float, *, tree: cKDTree | None = None
) -> tuple[IntArray, IntArray]:
    """Return the indices i, j of pairs in which each point of `a` and `b`, shape (n, 2), is the nearest of the other.

    No pair is wider than `radius`; `tree` is that of `b`, where it exists already.
    """
    distance, nearest = (tree or cKDTree(b)).query(a, distance_upper_bound=radius)
    back = cKDTree(a).query(b, distance_upper_bound=radius)[1]
    i = np.flatnonzero(np.isfinite(distance))
    i = i[back[nearest[i]] == i]
    return i, nearest[i]


def chance(a: FloatArray, b: FloatArray, matched: int, *, radius: float) -> float:
    """Logarithm of the expected number of matches as good as this among strangers.

    Parameters
    ----------
    a, b : ndarray of float64, shape (n, 2)
        Positions in one system, already carried over.
    matched : int
        Stars matched.
    radius : float
        Search radius.

    Returns
    -------
    float
        Natural logarithm of the binomial tail, times the number of transformations that could have been tried;
        the stars that the fit needs for its own freedom (three) are not counted.
    """
    low, high = b.min(axis=0) - radius, b.max(axis=0) + radius
    inside = int(((a >= low) & (a <= high)).all(axis=1).sum())
    if inside <= 3 or matched <= 3:
        return 0.0
    area = max(float(np.prod(high - low)), np.pi * radius**2)
    probability = min(0.95, 1.0 - np.exp(-len(b) * np.pi * radius**2 / area))
    # scipy.special, because scipy.stats is slow to import
    tail = float(bdtrc(matched - 4, inside - 3, probability)) if matched - 4 < inside - 3 else 0.0
    return (float(np.log(tail)) if tail > 0.0 else -1e6) + float(np.log(len(a) * len(b)))
