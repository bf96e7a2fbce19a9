"""Error circles and ellipses as sky maps: the profile is stated, and the systematic error of the instrument is in it.

A circle is a Fisher distribution on the sphere (von Mises-Fisher in three dimensions), density ``exp(kappa cos theta)``
with ``kappa`` such that the radius holds its containment; an ellipse is a normal distribution on the plane of
azimuthal equidistance around its centre.

Fermi GBM tells statistical errors only. Connaughton et al. 2015 (ApJS 216, 32) find that its automatic positions have a
systematic error of 3.7 deg (68 %) in 90 % of the cases and of 14 deg in 10 %: such a circle becomes a mixture of two
Fisher distributions, each with the statistical and the systematic radius added in quadrature.
"""

from __future__ import annotations

import math

import numpy as np

from nightsift.alerts.alert import ErrorRegion
from nightsift.alerts.skymap import FINEST, SKY, Cells, SkyMap, Values, make_skymap
from nightsift.sky.sphere import tangent_axes

LEAST_RADIUS = 1.0 / 3600.0
"""Degrees: a position told to better than this is taken as this good."""
CELLS_A_SIGMA = 8.0
REACH = 6.0
"""Standard deviations out to which cells are made small."""


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
        kept = ~split
        value = _density(parts, x[kept], y[kept], away[kept])
        done.append((level[kept], pixel[kept], value))
        if last:
            break
        level = np.repeat(level[split] + 1, 4)
        pixel = np.repeat(pixel[split] << 2, 4) + np.tile(np.arange(4), int(split.sum()))
    levels, pixels, density = (np.concatenate(one) for one in zip(*done, strict=True))
    probability = density / 4.0**levels
    return make_skymap(levels, pixels, probability / probability.sum(), None, "of an error region")


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


def _density(parts: list[tuple[float, tuple[float, float]]], x: Values, y: Values, away: Values) -> Values:
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
