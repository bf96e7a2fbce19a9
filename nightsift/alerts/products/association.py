"""Positions that lie near each other on the sky, and detections that are of one place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightsift.alerts.fields import unit_vectors

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def associate(ra: Values, dec: Values, snr: Values, radius: Values) -> Rows:
    """Number the objects that detections belong to.

    The strongest detection takes all that lie within the larger of both radii and belong to nobody yet, then the next
    strongest of the rest: chains of neighbours do not grow together, and the order of the rows does not matter.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg); one without a position is an object of its own.
    snr : ndarray of float64, shape (n,)
        Signal-to-noise ratios.
    radius : ndarray of float64, shape (n,)
        Radii (arcsec).

    Returns
    -------
    ndarray of int64, shape (n,)
        Number of the object, in order of its first row.
    """
    n = len(ra)
    placed = np.flatnonzero(np.isfinite(ra + dec))
    leader = np.arange(n)
    ra, dec, own = ra[placed], dec[placed], radius[placed]
    first, second, _ = pairs_within(ra, dec, ra, dec, float(own.max(initial=0.0)), own, own)
    other = first != second
    first, second = placed[first[other]], placed[second[other]]
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    start = np.searchsorted(first, np.arange(n + 1))
    free = np.ones(n, dtype=bool)
    for k in np.lexsort((np.arange(n), -snr)):
        if start[k] == start[k + 1] or not free[k]:
            continue
        near = second[start[k] : start[k + 1]]
        near = near[free[near]]
        free[k], free[near] = False, False
        leader[near] = k
    _, index, number = np.unique(leader, return_index=True, return_inverse=True)
    rank = np.empty(len(index), dtype=np.int64)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index))
    return np.asarray(rank[number.reshape(n)], dtype=np.int64)


def pairs_within(
    ra: Values, dec: Values, other_ra: Values, other_dec: Values, most: float,
    radius: Values | float = 0.0, other_radius: Values | float = 0.0,
) -> tuple[Rows, Rows, Values]:  # fmt: skip
    """Pairs of positions that lie near each other.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    other_ra, other_dec : ndarray of float64, shape (m,)
        Other positions (deg).
    most : float
        Largest distance (arcsec).
    radius, other_radius : ndarray of float64 or float, optional
        Only pairs within the larger of their radii (arcsec); all within `most` where both are zero.

    Returns
    -------
    first, second : ndarray of int64, shape (p,)
        Rows of both lists.
    separation : ndarray of float64, shape (p,)
        Their distances (arcsec).
    """
    from scipy.spatial import cKDTree

    if not len(ra) or not len(other_ra) or most <= 0.0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    one, two = unit_vectors(ra, dec), unit_vectors(other_ra, other_dec)
    found = cKDTree(one).sparse_distance_matrix(cKDTree(two), chord(most) * (1.0 + 1e-9), output_type="ndarray")
    first, second = found["i"].astype(np.int64), found["j"].astype(np.int64)
    separation = np.rad2deg(2.0 * np.arcsin(np.minimum(found["v"] / 2.0, 1.0))) * 3600.0
    limit = np.maximum(np.broadcast_to(radius, len(one))[first], np.broadcast_to(other_radius, len(two))[second])
    kept = separation <= np.where(limit > 0.0, limit, most)
    return first[kept], second[kept], separation[kept]


def chord(arcsec: float) -> float:
    """Length between two unit vectors.

    Parameters
    ----------
    arcsec : float
        Angle between them.

    Returns
    -------
    float
        The chord of the unit sphere.
    """
    return float(2.0 * np.sin(np.deg2rad(min(arcsec / 3600.0, 180.0)) / 2.0))
