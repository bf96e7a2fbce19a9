"""Host galaxies of candidates: the nearest by normalised separation, its distance, its chance probability."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.archive.skyalert_options import RankingOptions
from nightsift.core.tables import nullable
from nightsift.refcats.catalogues import read_galaxies
from nightsift.sky.sphere import Rows, Values, pairs_within

SUN_B = 5.48
LUMINOSITY = 1.98e8
"""Blue light of the nearby universe (solar luminosities Mpc**-3; Kopparapu et al. 2008, ApJ 675, 1459)."""
WIDTH = 0.15
"""Width in ln(distance) by which the distribution of distances is smoothed."""
_STEPS = np.log(np.geomspace(1.0, 1e4, 185))
_CLASSES = (30.0, 90.0, 270.0, 810.0, 2430.0, 7290.0, 18000.0)  # arcsec: galaxies of like reach are searched together


@dataclass(frozen=True, eq=False)
class HostCatalogue:
    """Galaxies as arrays.

    Attributes
    ----------
    name : ndarray of str, shape (n,)
        Names.
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    radius, axis_ratio, angle : ndarray of float64, shape (n,)
        Half-light radius (arcsec), minor over major axis, direction of the major axis (north through east, deg).
    mag : ndarray of float64, shape (n,)
        Blue magnitude, NaN where unknown.
    distance, distance_err : ndarray of float64, shape (n,)
        In Mpc.
    """

    name: npt.NDArray[Any]
    ra: Values
    dec: Values
    radius: Values
    axis_ratio: Values
    angle: Values
    mag: Values
    distance: Values
    distance_err: Values

    def __len__(self) -> int:
        return len(self.ra)

    @cached_property
    def sky_fraction(self) -> float:
        """Part of the sky that the catalogue covers: cells of 13 deg2 with a galaxy."""
        import astropy.units as u
        from astropy_healpix import lonlat_to_healpix

        cells = lonlat_to_healpix(self.ra * u.deg, self.dec * u.deg, 16, order="nested")
        return max(len(np.unique(cells)), 1) / 3072.0

    @cached_property
    def brightness(self) -> Values:
        """Magnitudes in order, unknown ones left out."""
        return np.sort(self.mag[np.isfinite(self.mag)])

    def chance(self, mag: Values, separation: Values, radius: Values) -> Values:
        """Return the probability of a galaxy as bright as near by chance, shape (n,).

        ``1 - exp(-pi (d**2 + 4 r**2) n(<mag))`` with separation and half-light radius in arcsec (Bloom, Kulkarni and
        Djorgovski 2002, AJ 123, 1111).
        """
        brighter = np.where(np.isfinite(mag), np.searchsorted(self.brightness, mag, side="right"), len(self))
        density = brighter / (41252.96 * self.sky_fraction * 3600.0**2)
        return np.asarray(-np.expm1(-np.pi * (separation**2 + 4.0 * radius**2) * density))

    def completeness(self, distance: Values) -> Values:
        """Return the part of the blue light at distances (Mpc) that is in the catalogue, 0.02 to 0.98, shape (n,).

        It never grows with distance; 0.5 where no magnitude is known.
        """
        return np.asarray(np.interp(np.log(np.maximum(distance, 1.0)), *self._light))

    def distance_density(self, distance: Values) -> Values:
        """Return the smoothed density (1/Mpc) of the distances of the catalogue at distances (Mpc), shape (n,)."""
        logarithm = np.log(np.maximum(distance, 1.0))
        return np.asarray(np.interp(logarithm, _STEPS, self._spread) / np.maximum(distance, 1.0))

    @cached_property
    def _spread(self) -> Values:
        from scipy.ndimage import gaussian_filter1d

        step = _STEPS[1] - _STEPS[0]
        edges = np.append(_STEPS - step / 2.0, _STEPS[-1] + step / 2.0)
        counts, _ = np.histogram(np.log(np.clip(self.distance, 1.0, 1e4)), edges)
        smooth = gaussian_filter1d(counts.astype(np.float64), WIDTH / step, mode="nearest") + 1e-3 * counts.mean()
        return np.asarray(smooth / (smooth.sum() * step))

    @cached_property
    def _light(self) -> tuple[Values, Values]:
        known = np.isfinite(self.mag)
        if not known.any():
            return np.array([0.0, 1.0]), np.array([0.5, 0.5])
        edges = np.geomspace(4.0, 4096.0, 31)
        distance = self.distance[known]
        light = 10.0 ** (-0.4 * (self.mag[known] - 5.0 * np.log10(distance) - 25.0 - SUN_B))
        found, _ = np.histogram(distance, edges, weights=light)
        whole = LUMINOSITY * 4.0 / 3.0 * np.pi * np.diff(edges**3) * self.sky_fraction
        share = np.maximum.accumulate((found / whole)[::-1])[::-1]
        return np.log(np.sqrt(edges[1:] * edges[:-1])), np.clip(share, 0.02, 0.98)


def load_hosts(path: str | Path) -> HostCatalogue:
    """Read galaxies with distances (see `read_galaxies`), in about a second; `BadTable` where they are damaged."""
    table = read_galaxies(path, distances=True)
    name = np.asarray(table["name"].to_numpy(zero_copy_only=False), dtype=object)
    names = ("ra", "dec", "radius", "axis_ratio", "angle", "mag", "distance", "distance_err")
    columns = (np.asarray(table[one].cast(pa.float64()).to_numpy(zero_copy_only=False)) for one in names)
    return HostCatalogue(name, *columns)


def hosts_of(place: tuple[Values, Values], hosts: HostCatalogue | None, options: RankingOptions) -> dict[str, Any]:
    """Return the columns of `nightsift.skyalerts.products.rank.RANKED` about hosts.

    Parameters
    ----------
    place : (ndarray, ndarray)
        Right ascension and declination (deg), NaN where unknown.
    hosts : HostCatalogue or None
        The galaxies.
    options : RankingOptions
        How far from a galaxy it is a host.

    Returns
    -------
    dict of str to array
        The columns; ``host_state`` is ``unknown`` without galaxies or position, ``hostless`` where none is near.
    """
    ra, dec = place
    n, placed = len(ra), np.isfinite(ra + dec)
    state = np.where(placed & (hosts is not None), "hostless", "unknown").astype(object)
    blank = {name: np.full(n, np.nan) for name in ("separation", "offset", "distance", "distance_err", "chance")}
    name = np.full(n, "", dtype=object)
    if hosts is not None and placed.any():
        owner, galaxy, separation, offset = nearest_hosts(ra, dec, hosts, options=options)
        state[owner], name[owner] = "host", hosts.name[galaxy]
        blank["separation"][owner], blank["offset"][owner] = separation, offset
        blank["distance"][owner], blank["distance_err"][owner] = hosts.distance[galaxy], hosts.distance_err[galaxy]
        blank["chance"][owner] = hosts.chance(hosts.mag[galaxy], separation, hosts.radius[galaxy])
    columns: dict[str, Any] = {f"host_{key}": nullable(values) for key, values in blank.items()}
    return columns | {"host_state": state.tolist(), "host_name": name.tolist()}


def nearest_hosts(
    ra: Values, dec: Values, hosts: HostCatalogue, *, options: RankingOptions
) -> tuple[Rows, Rows, Values, Values]:
    """Find the galaxy of the smallest normalised separation of each position.

    The separation is divided by the half-light radius in the direction of the position (Sullivan et al. 2006, ApJ 648,
    868; Gupta et al. 2016, AJ 152, 154).

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg); those that are NaN have no host.
    hosts : HostCatalogue
        The galaxies.
    options : RankingOptions
        Largest normalised separation, and the projected distance that is never too far.

    Returns
    -------
    owner, galaxy : ndarray of int64, shape (m,)
        Rows of the positions that have a host, and of their galaxies.
    separation, offset : ndarray of float64, shape (m,)
        Distance (arcsec), and normalised.
    """
    placed = np.flatnonzero(np.isfinite(ra + dec))
    span = np.rad2deg(1e-3 / hosts.distance) * 3600.0  # arcsec of one kpc
    reach = np.minimum(np.maximum(options.host_reach * hosts.radius, options.host_kpc * span), _CLASSES[-1])
    found: list[tuple[Rows, Rows, Values]] = []
    low = 0.0
    for high in _CLASSES:
        some = np.flatnonzero((reach > low) & (reach <= high))
        low = high
        if len(some):
            own, galaxy, apart = pairs_within(
                ra[placed], dec[placed], hosts.ra[some], other_dec=hosts.dec[some], most=high
            )
            near = apart <= reach[some[galaxy]]
            found.append((placed[own[near]], some[galaxy[near]], apart[near]))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0)
    owner, galaxy, separation = (np.concatenate(one) for one in zip(*found, strict=True))
    offset = separation / _radius_towards(ra[owner], dec[owner], hosts, galaxy=galaxy)
    order = np.lexsort((separation, offset, owner))
    _, first = np.unique(owner[order], return_index=True)
    best = order[first]
    return owner[best], galaxy[best], separation[best], offset[best]


def _radius_towards(ra: Values, dec: Values, hosts: HostCatalogue, *, galaxy: Rows) -> Values:
    """Half-light radius of each galaxy in the direction of a position (arcsec)."""
    east = ((ra - hosts.ra[galaxy] + 180.0) % 360.0 - 180.0) * np.cos(np.deg2rad(dec))
    turn = np.arctan2(east, dec - hosts.dec[galaxy]) - np.deg2rad(hosts.angle[galaxy])
    ratio = hosts.axis_ratio[galaxy]
    return np.asarray(hosts.radius[galaxy] * ratio / np.hypot(ratio * np.cos(turn), np.sin(turn)))
