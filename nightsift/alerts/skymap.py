"""Probability on the sky as a list of HEALPix cells of any size, never rasterised.

Cells are kept in the order of the NESTED scheme, in which each cell is an interval of the cells of the finest level. So
the probability of any cell, of whatever size, is a difference of two cumulative sums, and a position is found by
bisection. Flat maps are merged back into the large cells that they were drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nightsift.alerts.errors import BadSkyMap

Values = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]

FINEST = 29
"""Level of the finest cells; one has 0.4 mas."""
SKY = 4.0 * math.pi
DEG2 = (180.0 / math.pi) ** 2
SUM_TOLERANCE = 0.02
"""How far the sum of a map may be from one; it is divided by."""


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
        """Whether the map tells distances."""
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
    level: Cells, pixel: Cells, probability: Values, layers: tuple[Values, Values, Values] | None, where: str
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
