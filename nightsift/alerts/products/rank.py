"""Candidates in the order in which to look at them: a product of probabilities (docs/algorithms.md, section 21)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nightsift import tables
from nightsift.alerts.distance import distance_density, distance_moments
from nightsift.alerts.products.gather import Gathered
from nightsift.alerts.products.history import history_of, probability_to_stay
from nightsift.alerts.products.hosts import HostCatalogue, hosts_of
from nightsift.alerts.products.known import KnownPositions, Movers, known_at
from nightsift.alerts.products.objects import detections_of, nullable, numbers, objects_of
from nightsift.alerts.products.options import RankingOptions
from nightsift.alerts.products.reasons import reasons_of
from nightsift.alerts.products.tables import RANKED
from nightsift.alerts.skymap import DEG2, Cells, SkyMap
from nightsift.sky.sphere import Values

REGION = 0.9
"""Unrelated transients are taken to be spread evenly over the region that holds this probability."""


@dataclass(frozen=True, eq=False)
class Catalogues:
    """What is known of the sky, read once and kept by a process that lives long.

    Attributes
    ----------
    hosts : HostCatalogue or None
        Galaxies with distances.
    known : sequence of KnownPositions
        Variable stars and active nuclei.
    movers : Movers or None
        Minor planets.
    """

    hosts: HostCatalogue | None = None
    known: Sequence[KnownPositions] = ()
    movers: Movers | None = None


def rank_candidates(
    gathered: Gathered, skymap: SkyMap | None, catalogues: Catalogues, options: RankingOptions
) -> pa.Table:
    """Join the candidates of an alert to objects and rank them; nothing is left out.

    Parameters
    ----------
    gathered : Gathered
        Exposures and candidates of its fields.
    skymap : SkyMap or None
        Its sky map; without, place and distance tell nothing.
    catalogues : Catalogues
        Galaxies, variables, minor planets.
    options : RankingOptions
        Priors.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.alerts.products.tables.RANKED`, best first.
    """
    exposures, t0 = gathered.exposures, gathered.t0
    found = detections_of(gathered.after, exposures, options)
    if not found.n_objects:
        return RANKED.empty_table()
    columns = objects_of(found, options)
    ra, dec = (np.asarray(columns[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in ("ra", "dec"))
    place = ra, dec
    columns |= history_of(found, gathered.before, exposures, t0, place, options)
    columns["p_static"] = probability_to_stay(columns["epochs"], columns["misses"], options)
    columns |= known_at(found, exposures, place, catalogues.known, catalogues.movers, options)
    columns |= hosts_of(place, catalogues.hosts, options)
    n = found.n_objects
    blank = {"rank": np.zeros(n), "probability": np.zeros(n), "sky_factor": np.ones(n), "distance_factor": np.ones(n)}
    plain = tables.table({**columns, **blank, "reasons": [""] * n}, RANKED)
    return rank_again(plain, skymap, catalogues.hosts, t0, options)


def rank_again(
    ranked: pa.Table, skymap: SkyMap | None, hosts: HostCatalogue | None, t0: float, options: RankingOptions
) -> pa.Table:
    """Rank the same objects by another sky map: nothing is read or joined again.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.alerts.products.tables.RANKED`.
    skymap : SkyMap or None
        The new map.
    hosts : HostCatalogue or None
        The galaxies that the hosts were taken from.
    t0 : float
        Time of the event (MJD UTC).
    options : RankingOptions
        Priors.

    Returns
    -------
    pyarrow.Table
        The same rows with the columns that depend on the map renewed, in the new order.
    """
    columns = _on_the_map(ranked, skymap, hosts, options)
    plain = np.prod([numbers(ranked, name) for name in ("p_real", "p_static", "p_new", "p_unknown")], axis=0)
    bayes = numbers(ranked, "time_factor") * columns["sky_factor"] * columns["distance_factor"]
    weight = plain * bayes
    columns["probability"] = weight / (1.0 + math.fsum(plain) + math.fsum(weight))  # the same in any order of rows
    first = ranked["object_id"].to_numpy(zero_copy_only=False).astype(str)
    order = np.lexsort((first, -plain, -weight))
    position = np.empty(len(order), dtype=np.int32)
    position[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    columns["rank"] = position
    renewed = ranked
    for name, values in columns.items():
        number = RANKED.get_field_index(name)
        renewed = renewed.set_column(number, RANKED.field(name), pa.array(values, RANKED.field(name).type))
    told = pa.array(reasons_of(renewed, t0), pa.string())
    number = RANKED.get_field_index("reasons")
    return renewed.set_column(number, RANKED.field("reasons"), told).take(pa.array(order)).combine_chunks()


def _on_the_map(
    ranked: pa.Table, skymap: SkyMap | None, hosts: HostCatalogue | None, options: RankingOptions
) -> dict[str, Any]:
    """Columns that depend on the map."""
    n = ranked.num_rows
    ra, dec = numbers(ranked, "ra"), numbers(ranked, "dec")
    placed = np.flatnonzero(np.isfinite(ra + dec))
    values = {name: np.full(n, np.nan) for name in ("credible_level", "density", "map_distance", "map_distance_std")}
    sky, distance = np.ones(n), np.ones(n)
    if skymap is not None:
        cells = skymap.cells_at(ra[placed], dec[placed])
        density = np.where(cells >= 0, skymap.density[np.maximum(cells, 0)], 0.0) / DEG2
        values["density"][placed] = density
        values["credible_level"][placed] = skymap.credible_level_at(ra[placed], dec[placed])
        sky = np.where(np.isfinite(values["density"]), values["density"], 0.0) * skymap.credible_area(REGION) / REGION
        if skymap.has_distance:
            mean, values["map_distance_std"][placed] = _moments(skymap, cells)
            values["map_distance"][placed] = mean
            some = ranked.take(pa.array(placed))
            distance[placed] = distance_factor(some, skymap, cells, mean, hosts, options)
    return {name: nullable(one) for name, one in values.items()} | {"sky_factor": sky, "distance_factor": distance}


def distance_factor(
    ranked: pa.Table, skymap: SkyMap, cells: Cells, mean: Values, hosts: HostCatalogue | None, options: RankingOptions
) -> Values:
    """How much more likely host and distance are for a counterpart than for an unrelated transient.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.alerts.products.tables.RANKED`, all with a position.
    skymap : SkyMap
        A map with distances.
    cells : ndarray of int64, shape (n,)
        The cell of each.
    mean : ndarray of float64, shape (n,)
        Mean distance along each line of sight (Mpc), NaN where the map tells none.
    hosts : HostCatalogue or None
        The galaxies.
    options : RankingOptions
        Part of unrelated transients without a catalogued host.

    Returns
    -------
    ndarray of float64, shape (n,)
        Equation 21.5; 1 without galaxies, and where the map tells no distance.
    """
    if hosts is None:
        return np.ones(ranked.num_rows)
    without = (1.0 - hosts.completeness(np.nan_to_num(mean, nan=1e4))) / options.hostless
    distance, error = numbers(ranked, "host_distance"), numbers(ranked, "host_distance_err")
    chance = numbers(ranked, "host_chance")
    has = np.isfinite(distance)
    safe, safe_error = np.where(has, distance, 100.0), np.where(has, error, 1.0)
    along = np.nan_to_num(distance_density(skymap, cells, safe, safe_error))
    by_chance = (1.0 - options.hostless) * hosts.distance_density(safe)
    with_host = hosts.completeness(safe) * along / by_chance
    factor = np.where(has, (1.0 - chance) * with_host + np.nan_to_num(chance) * without, without)
    return np.asarray(np.where(np.isfinite(mean), factor, 1.0))


def _moments(skymap: SkyMap, cells: Cells) -> tuple[Values, Values]:
    """Mean and deviation of the distance along lines of sight, each cell once."""
    several, back = np.unique(cells, return_inverse=True)
    mean, deviation = distance_moments(skymap, several)
    return mean[back], deviation[back]
