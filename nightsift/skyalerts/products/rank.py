"""Ranked candidates of a sky alert: a product of probabilities (docs/algorithms.md, section 21), with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nightsift.archive.skyalert_options import RankingOptions
from nightsift.context.hosts import HostCatalogue, hosts_of
from nightsift.context.known_objects import KnownPositions, Movers
from nightsift.core import tables
from nightsift.core.flags import names
from nightsift.core.tables import Column, nullable, schema
from nightsift.io.parquet import numbers
from nightsift.objects.association import detections_of, objects_of
from nightsift.objects.history import history_of, known_at, probability_to_stay
from nightsift.sky.sphere import Values
from nightsift.skyalerts.products.gather import Gathered
from nightsift.skyalerts.skymaps.skymap import DEG2, Cells, SkyMap, distance_density, distance_moments

DOUBT = 0.5
"""A probability below this is a reason."""

FAR = 0.2
"""A distance factor below this is a reason."""

OUTSIDE = 0.99
"""A candidate outside the region of this probability is said to be."""

_KNOWN = {"star": "known variable star", "nucleus": "known active nucleus", "mover": "minor planet"}
_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()
_O = "nightsift.objects.association"
_H = "nightsift.objects.history"
_G = "nightsift.context.hosts"
_C = "nightsift.skyalerts.products.rank"
RANKED_COLUMNS = (
    Column("rank", _I, "", "1 for the candidate to look at first", _C),
    Column("probability", _D, "", "that it is the counterpart, among all candidates and none of them", _C),
    Column(
        "reasons", _S, "", "why it is ranked down, separated by semicolons; empty where nothing speaks against it", _C
    ),
    Column("object_id", _S, "", "candidate_id of its earliest detection after the event", _O),
    Column("name", _S, "", "name made of its position", _O),
    Column("ra", _D, "deg", "right ascension, ICRS, mean weighted by signal-to-noise", _O, True),
    Column("dec", _D, "deg", "declination, ICRS", _O, True),
    Column("detections", _I, "", "detections after the event", _O),
    Column("units", _S, "", "units that saw it, separated by commas", _O),
    Column("bands", _S, "", "filters, separated by commas", _O),
    Column("first_mjd", _D, "d", "first detection after the event, UTC", _O),
    Column("last_mjd", _D, "d", "last detection, UTC", _O),
    Column("epochs", _I, "", "detections that lie apart in time", _O),
    Column("mag_first", _F, "mag", "magnitude of the first detection", _O, True),
    Column("mag_last", _F, "mag", "magnitude of the last", _O, True),
    Column("mag_brightest", _F, "mag", "brightest magnitude", _O, True),
    Column("snr", _F, "", "highest signal-to-noise ratio", _O),
    Column("score", _D, "", "mean real/bogus score of the detections that count", _O, True),
    Column("score_spread", _D, "", "their scatter and model uncertainty in quadrature", _O, True),
    Column("flags", _I, "", "bits of nightsift.core.flags.Flag that all its detections have", _O),
    Column("best_id", _S, "", "candidate_id of its best detection, which is shown", _O),
    Column("candidate_ids", pa.list_(_S), "", "its detections in order of time", _O),
    Column("earlier", _I, "", "detections at its place before the event", _H),
    Column("earlier_mjd", _D, "d", "the last of them, UTC", _H, True),
    Column("limit_mjd", _D, "d", "last exposure before the event that would have shown it and did not, UTC", _H, True),
    Column("limit_mag", _F, "mag", "5-sigma limit of that exposure", _H, True),
    Column("misses", _I, "", "deeper exposures after its first detection that do not show it", _H),
    Column("known", _S, "", "known object at its place: star, nucleus or mover; empty for none", _H),
    Column("known_name", _S, "", "catalogue, or designation of the minor planet", _H),
    Column("known_separation", _F, "arcsec", "distance from it", _H, True),
    Column("host_state", _S, "", "host, hostless, or unknown without a catalogue of galaxies", _G),
    Column("host_name", _S, "", "galaxy of the smallest normalised separation; empty without one", _G),
    Column("host_separation", _F, "arcsec", "distance from its centre", _G, True),
    Column("host_offset", _F, "", "the same in half-light radii of the galaxy in that direction", _G, True),
    Column("host_distance", _D, "Mpc", "distance of the galaxy", _G, True),
    Column("host_distance_err", _D, "Mpc", "its standard deviation", _G, True),
    Column("host_chance", _F, "", "probability of a galaxy as bright as near by chance", _G, True),
    Column("credible_level", _D, "", "probability of the smallest region of the sky map that holds it", _C, True),
    Column("density", _D, "deg**-2", "probability density of the sky map there", _C, True),
    Column("map_distance", _D, "Mpc", "mean distance along the line of sight", _C, True),
    Column("map_distance_std", _D, "Mpc", "its standard deviation", _C, True),
    Column("p_real", _D, "", "probability to be real", _O),
    Column("p_static", _D, "", "probability to be neither moving nor false, by what was seen again", _H),
    Column("p_new", _D, "", "probability that nothing real was seen there before the event", _H),
    Column("p_unknown", _D, "", "probability to be no known object", _H),
    Column("time_factor", _D, "", "how much more likely its time is for a counterpart than by chance", _H),
    Column("sky_factor", _D, "", "the same of its place in the sky map", _C),
    Column("distance_factor", _D, "", "the same of its host and distance", _C),
)

RANKED = schema(RANKED_COLUMNS, "ranked candidates")
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
    gathered: Gathered, skymap: SkyMap | None, catalogues: Catalogues, *, options: RankingOptions
) -> pa.Table:
    """Join the candidates of a sky alert to objects and rank them; nothing is left out.

    Parameters
    ----------
    gathered : Gathered
        Exposures and candidates of its fields.
    skymap : SkyMap or None
        Its sky map; without, place and distance say nothing.
    catalogues : Catalogues
        Galaxies, variables, minor planets.
    options : RankingOptions
        Priors.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.skyalerts.products.rank.RANKED`, best first.
    """
    exposures, t0 = gathered.exposures, gathered.t0
    found = detections_of(gathered.after, exposures, options)
    if not found.n_objects:
        return RANKED.empty_table()
    columns = objects_of(found, options)
    ra, dec = (np.asarray(columns[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in ("ra", "dec"))
    place = ra, dec
    columns |= history_of(found, gathered.before, exposures, t0=t0, place=place, options=options)
    columns["p_static"] = probability_to_stay(columns["epochs"], columns["misses"], options)
    columns |= known_at(found, exposures, place, catalogues=catalogues.known, movers=catalogues.movers, options=options)
    columns |= hosts_of(place, catalogues.hosts, options)
    n = found.n_objects
    blank = {"rank": np.zeros(n), "probability": np.zeros(n), "sky_factor": np.ones(n), "distance_factor": np.ones(n)}
    plain = tables.table({**columns, **blank, "reasons": [""] * n}, RANKED)
    return rank_again(plain, skymap, catalogues.hosts, t0=t0, options=options)


def rank_again(
    ranked: pa.Table, skymap: SkyMap | None, hosts: HostCatalogue | None, *, t0: float, options: RankingOptions
) -> pa.Table:
    """Rank the same objects by another sky map: nothing is read or joined again.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.skyalerts.products.rank.RANKED`.
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
    columns = _on_the_map(ranked, skymap, hosts, options=options)
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
    reasons = pa.array(_reasons_of(renewed, t0), pa.string())
    number = RANKED.get_field_index("reasons")
    return renewed.set_column(number, RANKED.field("reasons"), reasons).take(pa.array(order)).combine_chunks()


def _on_the_map(
    ranked: pa.Table, skymap: SkyMap | None, hosts: HostCatalogue | None, *, options: RankingOptions
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
            distance[placed] = distance_factor(some, skymap, cells, mean=mean, hosts=hosts, options=options)
    return {name: nullable(one) for name, one in values.items()} | {"sky_factor": sky, "distance_factor": distance}


def distance_factor(
    ranked: pa.Table,
    skymap: SkyMap,
    cells: Cells,
    *,
    mean: Values,
    hosts: HostCatalogue | None,
    options: RankingOptions,
) -> Values:
    """How much more likely host and distance are for a counterpart than for an unrelated transient.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.skyalerts.products.rank.RANKED`, all with a position.
    skymap : SkyMap
        A map with distances.
    cells : ndarray of int64, shape (n,)
        The cell of each.
    mean : ndarray of float64, shape (n,)
        Mean distance along each line of sight (Mpc), NaN where the map has none.
    hosts : HostCatalogue or None
        The galaxies.
    options : RankingOptions
        Part of unrelated transients without a catalogued host.

    Returns
    -------
    ndarray of float64, shape (n,)
        Equation 21.5; 1 without galaxies, and where the map has no distance.
    """
    if hosts is None:
        return np.ones(ranked.num_rows)
    without = (1.0 - hosts.completeness(np.nan_to_num(mean, nan=1e4))) / options.hostless
    distance, error = numbers(ranked, "host_distance"), numbers(ranked, "host_distance_err")
    chance = numbers(ranked, "host_chance")
    has = np.isfinite(distance)
    safe, safe_error = np.where(has, distance, 100.0), np.where(has, error, 1.0)
    along = np.nan_to_num(distance_density(skymap, cells, safe, error=safe_error))
    by_chance = (1.0 - options.hostless) * hosts.distance_density(safe)
    with_host = hosts.completeness(safe) * along / by_chance
    factor = np.where(has, (1.0 - chance) * with_host + np.nan_to_num(chance) * without, without)
    return np.asarray(np.where(np.isfinite(mean), factor, 1.0))


def _moments(skymap: SkyMap, cells: Cells) -> tuple[Values, Values]:
    """Mean and deviation of the distance along lines of sight, each cell once."""
    several, back = np.unique(cells, return_inverse=True)
    mean, deviation = distance_moments(skymap, several)
    return mean[back], deviation[back]


def _reasons_of(ranked: pa.Table, t0: float) -> list[str]:
    """What speaks against each candidate, separated by semicolons; empty where nothing does."""
    wanted = (
        "p_real", "p_static", "p_new", "known", "known_name", "known_separation", "earlier", "earlier_mjd", "misses",
        "score", "flags", "ra", "credible_level", "distance_factor", "host_state", "host_distance", "host_distance_err",
        "map_distance", "map_distance_std",
    )  # fmt: skip
    columns = [ranked[name].to_pylist() for name in wanted]
    return ["; ".join(_reasons(dict(zip(wanted, row, strict=True)), t0)) for row in zip(*columns, strict=True)]


def _reasons(row: dict[str, Any], t0: float) -> list[str]:
    reasons = []
    if row["known"]:
        place = f" {row['known_separation']:.1f} arcsec away"
        reasons.append(f"{_KNOWN[row['known']]} ({row['known_name']}){place}")
    if row["earlier"]:
        times = "once" if row["earlier"] == 1 else f"{row['earlier']} times"
        reasons.append(f"seen {times} before the event, {_ago(t0 - row['earlier_mjd'])} before it last")
    if row["misses"]:
        reasons.append(f"not seen in {_count(row['misses'], 'deeper exposure')} after its first detection")
    if row["flags"]:
        reasons.append("flagged " + ", ".join(name.lower().replace("_", " ") for name in names(row["flags"])))
    if row["score"] is not None and row["score"] < DOUBT:
        reasons.append(f"real/bogus score {row['score']:.2f}")
    if row["ra"] is None:
        reasons.append("no sky position")
    elif row["credible_level"] is not None and row["credible_level"] > OUTSIDE:
        reasons.append("outside 99 % of the sky map")
    if row["distance_factor"] < FAR and row["map_distance"] is not None:
        there = f"the map says {row['map_distance']:.0f} ± {row['map_distance_std']:.0f} Mpc here"
        if row["host_state"] == "host":
            reasons.append(f"host at {row['host_distance']:.0f} ± {row['host_distance_err']:.0f} Mpc, {there}")
        else:
            reasons.append(f"no galaxy near it, and {there}, where the catalogue is nearly complete")
    return reasons


def _ago(days: float) -> str:
    return f"{days * 24.0:.1f} h" if days < 2.0 else f"{days:.1f} d"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
