"""Distances along the line of sight of a sky map, by the ansatz of Singer et al. 2016 (ApJS 226, 10; ApJL 829, L15).

Along each line of sight ``n`` the distance ``r`` has the density ``p(r | n) = N r**2 exp(-(r - mu)**2 / (2 sigma**2)) /
(sqrt(2 pi) sigma)`` (eq. 2 of the second paper) with the layers DISTMU, DISTSIGMA and DISTNORM as mu, sigma and N.
"""

from __future__ import annotations

import math

import numpy as np

from nightsift.alerts.skymap import Cells, SkyMap, Values

_GRID = 2048


def distance_density(skymap: SkyMap, cells: Cells, distance: Values, error: Values | float = 0.0) -> Values:
    """Density of the distance, conditional on the line of sight, for distances that have errors themselves.

    Parameters
    ----------
    skymap : SkyMap
        A map with distances.
    cells : ndarray of int64, shape (n,)
        The cell of each line of sight (see `SkyMap.cells_at`).
    distance : ndarray of float64, shape (n,)
        Distances (Mpc).
    error : ndarray of float64 or float, optional
        Their standard deviations (Mpc).

    Returns
    -------
    ndarray of float64, shape (n,)
        ``p(r | n)``, averaged over the error (1/Mpc); NaN where the map tells no distance.
    """
    mu, sigma, norm = _ansatz(skymap, cells)
    variance = sigma**2 + np.asarray(error, dtype=np.float64) ** 2
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        gauss = np.exp(-0.5 * (distance - mu) ** 2 / variance) / np.sqrt(2.0 * math.pi * variance)
        # r**2 under the product of both Gaussians: its mean squared plus its variance
        mean = (mu * (variance - sigma**2) + distance * sigma**2) / variance
        spread = sigma**2 * (variance - sigma**2) / variance
        density = norm * gauss * (mean**2 + spread)
    return np.asarray(np.where(np.isfinite(mu) & (norm > 0), density, np.nan))


def distance_moments(skymap: SkyMap, cells: Cells) -> tuple[Values, Values]:
    """Mean and standard deviation of the distance along lines of sight.

    Parameters
    ----------
    skymap : SkyMap
        A map with distances.
    cells : ndarray of int64, shape (n,)
        The cell of each line of sight.

    Returns
    -------
    mean, deviation : ndarray of float64, shape (n,)
        In Mpc; NaN where the map tells none.
    """
    mu, sigma, norm = _ansatz(skymap, cells)
    mean, deviation = np.full(len(mu), np.nan), np.full(len(mu), np.nan)
    for k in np.flatnonzero(np.isfinite(mu) & (norm > 0) & (sigma > 0)):
        low, high = max(0.0, mu[k] - 8.0 * sigma[k]), max(mu[k], 0.0) + 8.0 * sigma[k]
        r = np.linspace(low, high, _GRID)
        weight = r**2 * np.exp(-0.5 * ((r - mu[k]) / sigma[k]) ** 2)
        total = weight.sum()
        if total > 0.0:
            mean[k] = (r * weight).sum() / total
            deviation[k] = math.sqrt(max(0.0, ((r - mean[k]) ** 2 * weight).sum() / total))
    return mean, deviation


def mean_distance(skymap: SkyMap) -> tuple[float, float]:
    """Mean and standard deviation of the distance over the whole sky (Mpc), NaN without distances.

    Parameters
    ----------
    skymap : SkyMap
        The map.

    Returns
    -------
    mean, deviation : float
        Of the marginal distance.
    """
    if not skymap.has_distance:
        return math.nan, math.nan
    best = np.argsort(-skymap.probability)[:4096]
    mean, deviation = distance_moments(skymap, best)
    good = np.isfinite(mean)
    weight = skymap.probability[best][good]
    if not good.any() or weight.sum() <= 0.0:
        return math.nan, math.nan
    weight = weight / weight.sum()
    middle = float((weight * mean[good]).sum())
    variance = float((weight * (deviation[good] ** 2 + (mean[good] - middle) ** 2)).sum())
    return middle, math.sqrt(variance)


def _ansatz(skymap: SkyMap, cells: Cells) -> tuple[Values, Values, Values]:
    if skymap.distmu is None or skymap.distsigma is None or skymap.distnorm is None:
        nothing = np.full(len(cells), np.nan)
        return nothing, nothing, nothing
    inside = cells >= 0
    return tuple(  # type: ignore[return-value]
        np.where(inside, layer[np.maximum(cells, 0)], np.nan)
        for layer in (skymap.distmu, skymap.distsigma, skymap.distnorm)
    )
