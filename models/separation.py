"""How far what is new keeps from what changes already, and from each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.context.galaxies import Galaxies

Values = npt.NDArray[np.float64]


def busy_galaxies(galaxies: Galaxies, taken: Values, reach: float, separation: float) -> npt.NDArray[np.bool_]:
    """Galaxies in whose reach something changes already.

    They are no hosts: leaving out only the places too near to what changes would favour large offsets.

    Parameters
    ----------
    galaxies : Galaxies
        The galaxies.
    taken : ndarray of float64, shape (m, 2)
        x, y of what changes.
    reach : float
        Largest offset from a host (half-light radii).
    separation : float
        Least distance from what changes (pixel).

    Returns
    -------
    ndarray of bool, shape (n,)
        True where something changes within the separation of the largest ellipse.
    """
    if not len(taken) or not len(galaxies):
        return np.zeros(len(galaxies), dtype=np.bool_)
    distance, _ = cKDTree(taken).query(np.column_stack([galaxies.x, galaxies.y]))
    return np.asarray(distance < reach * galaxies.radius + separation)


def apart(
    x: Values, y: Values, candidates: npt.NDArray[np.bool_], taken: Values, radius: float
) -> npt.NDArray[np.bool_]:
    """Tell which places are no nearer than a radius to one drawn earlier that stays, nor to what is taken.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Places (pixel).
    candidates : ndarray of bool, shape (n,)
        Those that count.
    taken : ndarray of float64, shape (m, 2)
        x, y of what is taken.
    radius : float
        Least distance (pixel).

    Returns
    -------
    ndarray of bool, shape (n,)
        Those that stay.
    """
    keep = candidates.copy()
    places = np.column_stack([x, y])
    if len(taken):
        distance, _ = cKDTree(taken).query(np.where(candidates[:, None], places, 1e9))
        keep &= distance >= radius
    rows = np.flatnonzero(keep)
    for first, second in sorted(map(tuple, cKDTree(places[rows]).query_pairs(radius))) if len(rows) else ():
        if keep[rows[first]]:
            keep[rows[second]] = False
    return keep
