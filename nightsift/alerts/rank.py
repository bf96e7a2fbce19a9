"""Fields of tile grids in the order in which an alert wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from nightsift import tables
from nightsift.alerts.coverage import coverage, greedy
from nightsift.alerts.options import AlertOptions
from nightsift.alerts.skymap import SkyMap
from nightsift.alerts.tables import FIELDS
from nightsift.site.site import Site
from nightsift.site.visibility import Limits, Visibility, visibility
from nightsift.sky.fields import SkyField

LOOKED_AT = 600
"""Fields of the highest probability whose visibility is worked out; the others hold nothing worth it."""
HOURS = 24.0


def rank_fields(
    skymap: SkyMap,
    fields: Sequence[SkyField],
    sites: Mapping[str, Site],
    start: float,
    options: AlertOptions,
    wanted: Sequence[str] = (),
) -> pa.Table:
    """Rank fields by the probability that each adds to those before it.

    Parameters
    ----------
    skymap : SkyMap
        The sky map.
    fields : sequence of SkyField
        Fields of one or more grids.
    sites : mapping of str to Site
        Where the units stand, by unit; under ``""`` for fields that name none. Without a site a field counts as
        observable.
    start : float
        From when on fields are to be observed (MJD UTC).
    options : AlertOptions
        How many fields, and what counts as observable.
    wanted : sequence of str
        Names of fields that stand first whatever they hold: those that operators added.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.alerts.tables.FIELDS`: first the fields that are wanted, best first, then those that would be
        wanted but cannot be observed, with the reason.
    """
    found = coverage(skymap, fields)
    plain = found.of_each()
    looked_at = [int(k) for k in np.argsort(-plain, kind="stable")[:LOOKED_AT] if plain[k] > 0.0]
    asked = [k for k, one in enumerate(fields) if one.name in wanted]
    seen = _visibilities(fields, sorted({*looked_at, *asked}), sites, start, options)
    allowed = np.zeros(len(fields), dtype=bool)
    for k in looked_at:
        allowed[k] = not seen[k] or not seen[k]["reason"]
    order, gain = _with_asked_first(found, asked, *greedy(found, allowed, options.fields + len(asked)))
    enough = 1 + int(np.searchsorted(np.cumsum(gain), options.probability)) if gain else 0
    # relative to the best, so that small fields on a wide map are asked for too
    worth = options.least * max(gain, default=0.0)
    enough = min(enough, options.fields, sum(one >= worth for one in gain[len(asked) :]) + len(asked))
    order = order[: max(enough, len(asked))]
    total = 0.0
    rows: list[dict[str, Any]] = []
    for number, k in enumerate(order):
        total += gain[number]
        rows.append(
            {"rank": number + 1, "gain": gain[number], "cumulative": min(total, 1.0), **_row(fields[k], plain[k])}
        )
        rows[-1] |= seen[k]
    least = min((plain[k] for k in order), default=0.0)
    lost = [k for k in looked_at if k not in order and seen[k] and seen[k]["reason"] and plain[k] >= least]
    rows += [{**_row(fields[k], plain[k]), **seen[k]} for k in lost]
    return tables.table(rows, FIELDS) if rows else FIELDS.empty_table()


def _with_asked_first(
    found: Any, asked: list[int], order: list[int], gain: list[float]
) -> tuple[list[int], list[float]]:
    """Put the fields that were asked for before the others, and work out again what each adds."""
    if not asked:
        return order, gain
    together = [*asked, *(k for k in order if k not in asked)]
    held = [found.of_union(together[: n + 1]) for n in range(len(together))]
    return together, np.diff([0.0, *held]).tolist()


def _row(field: SkyField, probability: float) -> dict[str, Any]:
    return {
        "grid": field.grid, "field": field.name, "units": ",".join(field.units), "ra": field.ra, "dec": field.dec,
        "probability": float(probability), "reason": "",
    }  # fmt: skip


def _visibilities(
    fields: Sequence[SkyField], rows: Sequence[int], sites: Mapping[str, Site], start: float, options: AlertOptions
) -> dict[int, dict[str, Any]]:
    """When each of the fields can be observed, from the best of the sites of its units; empty without one."""
    limits = Limits(options.altitude, options.sun_altitude, options.moon_distance)
    told: dict[int, dict[str, Any]] = {k: {} for k in rows}
    for site in dict.fromkeys(sites.values()):
        names = {name for name, one in sites.items() if one == site}
        here = [k for k in rows if not fields[k].units or names & set(fields[k].units)]
        if not here:
            continue
        ra, dec = (np.array([getattr(fields[k], name) for k in here]) for name in ("ra", "dec"))
        seen = visibility(ra, dec, site, start=start, hours=HOURS, limits=limits)
        for number, k in enumerate(here):
            one = _visible(seen, number)
            if not told[k] or (one["hours"] or 0.0) > (told[k]["hours"] or 0.0):
                told[k] = one
    return told


def _visible(seen: Visibility, k: int) -> dict[str, Any]:
    possible = not seen.reason[k]
    return {
        "reason": seen.reason[k], "hours": float(seen.hours[k]), "altitude": float(seen.altitude[k]),
        "moon_distance": float(seen.moon[k]), "first_mjd": float(seen.first[k]) if possible else None,
        "best_mjd": float(seen.best[k]) if possible else None,
    }  # fmt: skip
