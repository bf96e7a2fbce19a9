"""Probability on the sky as a list of HEALPix cells of any size, with distances; error regions as sky maps.

Cells stand in the order of the NESTED scheme, in which each cell is an interval of the cells of the finest level. So
the probability of any cell, of whatever size, is a difference of two cumulative sums, and a position is found by
bisection. Flat maps are merged back into the large cells that they were drawn from.

Along each line of sight ``n`` the distance ``r`` has the density ``p(r | n) = N r**2 exp(-(r - mu)**2 / (2 sigma**2)) /
(sqrt(2 pi) sigma)`` with the layers DISTMU, DISTSIGMA and DISTNORM as mu, sigma and N (Singer et al. 2016, ApJS 226,
10; ApJL 829, L15, eq. 2).

An error circle is a Fisher distribution on the sphere (von Mises-Fisher in three dimensions), density ``exp(kappa cos
theta)`` with ``kappa`` such that the radius holds its containment; an ellipse is a normal distribution on the plane of
azimuthal equidistance around its centre. Fermi GBM gives statistical errors only. Connaughton et al. 2015 (ApJS 216,
32) find that its automatic positions have a systematic error of 3.7 deg (68 %) in 90 % of the cases and of 14 deg in 10
%: such a circle becomes a mixture of two Fisher distributions, each with the statistical and the systematic radius
added in quadrature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nightsift.core.errors import BadSkyMap
from nightsift.sky.sphere import tangent_axes
from nightsift.skyalerts.notices.skyalert import ErrorRegion

Values = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]
FINEST = 29
"""Level of the finest cells; one has 0.4 mas."""

SKY = 4.0 * math.pi
DEG2 = (180.0 / math.pi) ** 2
SUM_TOLERANCE = 0.02
"""How far the sum of a map may be from one; it is divided by."""

_GRID = 2048
LEAST_RADIUS = 1.0 / 3600.0
"""Degrees: a position given to better than this is taken as this good."""

CELLS_A_SIGMA = 8.0
REACH = 6.0
"""Standard deviations out to which cells are made small."""


@dataclass(frozen=True, eq=False)
class SkyMap:
    """Probability of an event over the sky, perhaps with its distance along each line of sight.

    Attributes
    ----------
    level : ndarray of int64, shape (n,)
        Level of each cell: ``nside = 2**level``.
    pixel : ndarray of int64, shape (n,)
        Its NESTED number at that level; cells stand in the order of the sky and do not overlap.
    probability : ndarray of float64, shape (n,)
        Probability of each cell; the sum is 1.
    distmu, distsigma, distnorm : ndarray of float64, shape (n,), or None
        Ansatz parameters of the distance (Mpc, Mpc, Mpc**-2) after Singer et al. 2016; None without distances.
    """

    level: Cells
    pixel: Cells
    probability: Values
    distmu: Values | None = None
    distsigma: Values | None = None
    distnorm: Values | None = None

    def __len__(self) -> int:
        return len(self.pixel)

    @property
    def has_distance(self) -> bool:
        """Whether the map has distances."""
        return self.distmu is not None

    @cached_property
    def start(self) -> Cells:
        """First cell of the finest level in each cell."""
        return np.asarray(self.pixel << (2 * (FINEST - self.level)), dtype=np.int64)

    @cached_property
    def area(self) -> Values:
        """Area of each cell (sr)."""
        return np.asarray(SKY / (12.0 * 4.0**self.level))

    @cached_property
    def density(self) -> Values:
        """Probability density of each cell (1/sr)."""
        return self.probability / self.area

    def cells_at(self, ra: Values | float, dec: Values | float) -> Cells:
        """Number of the cell that holds each position (deg), -1 where the map has none."""
        import astropy.units as u
        from astropy_healpix import lonlat_to_healpix

        finest = lonlat_to_healpix(np.asarray(ra) * u.deg, np.asarray(dec) * u.deg, 2**FINEST, order="nested")
        number, safe, width = self._last_before(finest)
        return np.asarray(np.where((number >= 0) & (finest - self.start[safe] < width), number, -1))

    def density_at(self, ra: Values | float, dec: Values | float) -> Values:
        """Probability density at positions (deg), in 1/sr."""
        number = self.cells_at(ra, dec)
        return np.asarray(np.where(number >= 0, self.density[number], 0.0))

    def credible_level_at(self, ra: Values | float, dec: Values | float) -> Values:
        """Probability of the smallest region that holds each position (deg): 0 at the peak, 1 where the map is zero."""
        number = self.cells_at(ra, dec)
        return np.asarray(np.where(number >= 0, self._credible_level[number], 1.0))

    def credible_area(self, level: float) -> float:
        """Area of the smallest region that holds the probability `level`, in deg2."""
        order = self._ranking
        reached = np.cumsum(self.probability[order])
        areas = np.cumsum(self.area[order])
        last = min(int(np.searchsorted(reached, level * reached[-1])), len(order) - 1)
        before, area_before = (reached[last - 1], areas[last - 1]) if last else (0.0, 0.0)
        own = max(self.probability[order[last]], 1e-300)
        part = min(1.0, max(0.0, (level * reached[-1] - before) / own))
        return float((area_before + part * self.area[order[last]]) * DEG2)

    def cumulative(self, finest: Cells) -> Values:
        """Probability of all cells of the finest level below each of the given numbers."""
        number, safe, width = self._last_before(finest)
        part = np.minimum((finest - self.start[safe]) / width, 1.0)
        value = self._sums[safe] + part * self.probability[safe]
        return np.asarray(np.where(number >= 0, value, 0.0))

    def _last_before(self, finest: Cells) -> tuple[Cells, Cells, Cells]:
        """Last cell that begins at or before each of the finest level (-1: none), fit for indexing, and its width."""
        number = np.searchsorted(self.start, finest, side="right") - 1
        safe = np.maximum(number, 0)
        return number, safe, np.int64(1) << (2 * (FINEST - self.level[safe]))

    def probability_of(self, level: int, pixel: Cells) -> Values:
        """Probability of any cells of one level, larger or smaller than those of the map."""
        shift = 2 * (FINEST - level)
        return self.cumulative((pixel + 1) << shift) - self.cumulative(pixel << shift)

    @cached_property
    def _sums(self) -> Values:
        """Probability of all cells before each one."""
        return np.asarray(np.concatenate([[0.0], np.cumsum(self.probability)[:-1]]))

    @cached_property
    def _ranking(self) -> Cells:
        """Cells by falling density."""
        return np.asarray(np.argsort(-self.density, kind="stable"))

    @cached_property
    def _credible_level(self) -> Values:
        """Probability of all denser cells, and of half of those as dense: the middle of equals, the peak at 0."""
        order = self._ranking
        dense = self.density[order]
        ends = np.cumsum(self.probability[order])
        first = np.flatnonzero(np.concatenate([[True], dense[1:] != dense[:-1]]))
        group = np.cumsum(np.concatenate([[True], dense[1:] != dense[:-1]])) - 1
        last = np.append(first[1:], len(dense)) - 1
        level = np.empty(len(order))
        level[order] = np.minimum(ends[last][group], 1.0)
        level[self.density <= 0.0] = 1.0
        return level


def make_skymap(
    level: Cells, pixel: Cells, probability: Values, *, layers: tuple[Values, Values, Values] | None, where: str
) -> SkyMap:
    """Make a sky map of cells in any order, checked.

    Parameters
    ----------
    level, pixel : ndarray of int64, shape (n,)
        The cells.
    probability : ndarray of float64, shape (n,)
        Their probability, not necessarily of sum 1.
    layers : tuple of three ndarray of float64, shape (n,), or None
        DISTMU, DISTSIGMA and DISTNORM.
    where : str
        What the map is called in errors.

    Returns
    -------
    SkyMap
        The map, of sum 1.

    Raises
    ------
    BadSkyMap
        If cells lie outside the sky or overlap, or the probabilities are none.
    """
    if not len(pixel):
        raise BadSkyMap(where=where, what="it has no cells")
    if ((level < 0) | (level > FINEST)).any() or ((pixel < 0) | (pixel >= 12 * 4 ** level.astype(np.int64))).any():
        raise BadSkyMap(where=where, what="it has cells that do not exist on the sky")
    bad = int((~np.isfinite(probability) | (probability < 0.0)).sum())
    if bad:
        raise BadSkyMap(where=where, what=f"the probability of {bad} cells is negative or not a number")
    total = float(probability.sum())
    if not abs(total - 1.0) <= SUM_TOLERANCE:
        raise BadSkyMap(where=where, what=f"its probabilities add up to {total:.6g}, not to 1")
    start = pixel << (2 * (FINEST - level))
    order = np.argsort(start, kind="stable")
    level, pixel, start = level[order], pixel[order], start[order]
    if ((start + (np.int64(1) << (2 * (FINEST - level))))[:-1] > start[1:]).any():
        raise BadSkyMap(where=where, what="its cells overlap")
    return SkyMap(level, pixel, probability[order] / total, *([one[order] for one in layers] if layers else ()))


def merge_equal(level: int, values: tuple[Values, ...], where: str) -> tuple[Cells, Cells, Cells]:
    """Find the cells that a flat map was drawn from: siblings with the same values become their parent again.

    Parameters
    ----------
    level : int
        Level of the flat map.
    values : tuple of ndarray of float64, shape (12 * 4**level,)
        The layers of the map in NESTED order.
    where : str
        What the map is called in errors.

    Returns
    -------
    level, pixel : ndarray of int64, shape (n,)
        The cells, in the order of the sky at each level.
    sample : ndarray of int64, shape (n,)
        A pixel of the flat map in each cell, which has its values.

    Raises
    ------
    BadSkyMap
        If the layers do not cover the sky.
    """
    if any(len(one) != 12 * 4**level for one in values):
        raise BadSkyMap(where=where, what=f"a flat map of level {level} has {12 * 4**level} pixels")
    whole = np.ones(12 * 4**level, dtype=bool)  # nodes that have one value all over
    found: list[tuple[int, Cells]] = []
    step = 1  # flat pixels in a node
    for depth in range(level, -1, -1):
        if depth == 0:
            found.append((0, np.flatnonzero(whole)))
            break
        corners = [tuple(one[::step][k::4] for k in range(4)) for one in values]
        together = np.asarray(whole.reshape(-1, 4).all(axis=1))
        for a, b, c, d in corners:
            together &= (a == b) & (a == c) & (a == d)
        found.append((depth, np.flatnonzero(whole & ~np.repeat(together, 4))))
        whole, step = together, 4 * step
    levels = np.concatenate([np.full(len(pixels), depth, dtype=np.int64) for depth, pixels in found])
    pixels = np.concatenate([pixels for _, pixels in found])
    return levels, pixels, pixels << (2 * (level - levels))


def distance_density(skymap: SkyMap, cells: Cells, distance: Values, *, error: Values | float = 0.0) -> Values:
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
        ``p(r | n)``, averaged over the error (1/Mpc); NaN where the map has no distance.
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
        In Mpc; NaN where the map has none.
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


def skymap_of(region: ErrorRegion) -> SkyMap:
    """Make the sky map of an error circle or ellipse.

    Parameters
    ----------
    region : ErrorRegion
        Position, size, containment and systematic errors.

    Returns
    -------
    SkyMap
        Multi-order, of sum 1, fine where it is steep.
    """
    parts = [(1.0, _widths(region, 0.0))]
    if region.systematics:
        parts = [(weight, _widths(region, size)) for weight, size in region.systematics]
    level, pixel = np.zeros(12, dtype=np.int64), np.arange(12, dtype=np.int64)
    done: list[tuple[Cells, Cells, Values]] = []
    for depth in range(FINEST):
        away, x, y = _offsets(region, level, pixel)
        size = math.sqrt(SKY / (12.0 * 4.0**depth))
        split = np.zeros(len(pixel), dtype=bool)
        for _, (major, minor) in parts:
            split |= (size > minor / CELLS_A_SIGMA) & (away < REACH * major + 1.5 * size)
        last = not split.any()
        finished = ~split
        value = _density(parts, x[finished], y[finished], away=away[finished])
        done.append((level[finished], pixel[finished], value))
        if last:
            break
        level = np.repeat(level[split] + 1, 4)
        pixel = np.repeat(pixel[split] << 2, 4) + np.tile(np.arange(4), int(split.sum()))
    levels, pixels, density = (np.concatenate(one) for one in zip(*done, strict=True))
    probability = density / 4.0**levels
    return make_skymap(levels, pixels, probability / probability.sum(), layers=None, where="of an error region")


def _widths(region: ErrorRegion, systematic: float) -> tuple[float, float]:
    """Standard deviations along both axes (rad); the systematic radius is one that holds 68 %."""
    scale = math.sqrt(-2.0 * math.log1p(-min(max(region.containment, 0.01), 0.9999)))
    common = systematic / math.sqrt(-2.0 * math.log1p(-0.6827))
    major, minor = (
        math.radians(math.hypot(max(one, LEAST_RADIUS) / scale, common)) for one in (region.radius, region.minor)
    )
    return major, minor


def _offsets(region: ErrorRegion, level: Cells, pixel: Cells) -> tuple[Values, Values, Values]:
    """Angle of each cell from the centre, and its parts along both axes of the ellipse (rad)."""
    from astropy_healpix import healpix_to_xyz

    points = np.stack(healpix_to_xyz(pixel, 2**level, order="nested"), axis=-1)
    axis, east, north = tangent_axes(region.ra, region.dec)
    across, up = points @ east, points @ north
    away = np.arctan2(np.hypot(across, up), points @ axis)
    turn = math.radians(region.angle)
    scale = away / np.maximum(np.hypot(across, up), 1e-300)
    along = scale * (math.sin(turn) * across + math.cos(turn) * up)
    beside = scale * (math.cos(turn) * across - math.sin(turn) * up)
    return away, along, beside


def _density(parts: list[tuple[float, tuple[float, float]]], x: Values, y: Values, *, away: Values) -> Values:
    """Density (1/sr) of the mixture."""
    total = np.zeros(len(x))
    for weight, (major, minor) in parts:
        if math.isclose(major, minor, rel_tol=1e-9):
            kappa = 1.0 / major**2
            height = kappa / (-math.expm1(-2.0 * kappa)) / (2.0 * math.pi)
            total += weight * height * np.exp(-2.0 * kappa * np.sin(away / 2.0) ** 2)
        else:
            total += weight / (2.0 * math.pi * major * minor) * np.exp(-0.5 * ((x / major) ** 2 + (y / minor) ** 2))
    return total
