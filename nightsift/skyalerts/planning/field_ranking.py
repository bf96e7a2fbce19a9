"""Fields of tile grids in the order in which a sky alert wants them: each adds most to those before it.

The sky is taken apart by HEALPix cells from the largest down. A cell that lies wholly inside or outside of every field
is done; only cells on the edge of a field that hold more than `TOLERANCE` of the probability are split. What is left is
a list of pieces, each with its probability and the fields that hold it: plain sums and unions are both read off it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.archive.skyalert_options import SkyAlertOptions
from nightsift.core import tables
from nightsift.core.tables import Column, schema
from nightsift.site.ephemeris import Limits, Visibility, visibility
from nightsift.site.site import Site
from nightsift.sky.fields import SkyField
from nightsift.skyalerts.skymaps.skymap import Cells, SkyMap, Values

TOLERANCE = 1e-6
"""Probability of a piece on the edge of a field that is no longer split: errors of a field stay near 1e-6."""

DEEPEST = 20
CELL_RADIUS = 1.07
"""Largest angle from the centre of a cell to its edge, times nside (rad): that of the cells next to the poles."""

HALF_DIAGONAL = 0.7236
"""Half the diagonal of a square of the area of a cell, times nside (rad)."""

_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()
_R = "nightsift.skyalerts.planning.field_ranking"
FIELD_COLUMNS = (
    Column("rank", _I, "", "1 for the field that is wanted first; null where it cannot be observed", _R, True),
    Column("grid", _S, "", "tile grid", _R),
    Column("field", _S, "", "name of the field in its grid", _R),
    Column("units", _S, "", "units that observe it, separated by commas; empty for all", _R),
    Column("ra", _D, "deg", "right ascension of its centre, ICRS", _R),
    Column("dec", _D, "deg", "declination of its centre, ICRS", _R),
    Column("probability", _D, "", "probability that the field holds the source", _R),
    Column("gain", _D, "", "probability that it adds to the fields before it", _R, True),
    Column("cumulative", _D, "", "probability of this field and all before it, nothing counted twice", _R, True),
    Column("reason", _S, "", "why it cannot be observed; empty where it can", _R),
    Column("first_mjd", _D, "d", "when it can be observed first, UTC", _R, True),
    Column("best_mjd", _D, "d", "when it is highest, UTC", _R, True),
    Column("altitude", _F, "deg", "altitude then", _R, True),
    Column("hours", _F, "h", "how long it can be observed within a day", _R, True),
    Column("moon_distance", _F, "deg", "distance from the Moon", _R, True),
)

FIELDS = schema(FIELD_COLUMNS, "alert fields")
LOOKED_AT = 600
"""Fields of the highest probability whose visibility is worked out; the others hold nothing worth it."""

HOURS = 24.0


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Pieces of the sky and the fields that hold them.

    Attributes
    ----------
    probability : ndarray of float64, shape (p,)
        Probability of each piece that at least one field holds.
    piece, field : ndarray of int64, shape (m,)
        Which field holds which piece, sorted by field.
    part : ndarray of float64, shape (m,)
        Part of the piece that lies in the field: 1 but for pieces on its edge.
    n_fields : int
        Number of fields.
    """

    probability: Values
    piece: Cells
    field: Cells
    part: Values
    n_fields: int

    def of_each(self) -> Values:
        """Probability of each field, shape (n_fields,)."""
        held = self.probability[self.piece] * self.part
        return np.asarray(np.bincount(self.field, held, minlength=self.n_fields), dtype=np.float64)

    def pieces_of(self, field: int) -> tuple[Cells, Values]:
        """Numbers of the pieces that a field holds, and the probability that it holds of each."""
        first, last = np.searchsorted(self.field, [field, field + 1])
        own = self.piece[first:last]
        return own, self.probability[own] * self.part[first:last]

    def of_union(self, fields: Sequence[int]) -> float:
        """Probability that at least one of the fields holds the source."""
        held = np.zeros(len(self.probability))
        for one in fields:
            own, value = self.pieces_of(one)
            held[own] += value
        return float(np.minimum(held, self.probability).sum())


def rank_fields(
    skymap: SkyMap,
    fields: Sequence[SkyField],
    sites: Mapping[str, Site],
    *,
    start: float,
    options: SkyAlertOptions,
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
    options : SkyAlertOptions
        How many fields, and what counts as observable.
    wanted : sequence of str
        Names of fields that stand first whatever they hold: those that operators added.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.skyalerts.planning.field_ranking.FIELDS`: first the fields that are wanted, best first, then
        those that would be wanted but cannot be observed, with the reason.
    """
    found = coverage(skymap, fields)
    plain = found.of_each()
    looked_at = [int(k) for k in np.argsort(-plain, kind="stable")[:LOOKED_AT] if plain[k] > 0.0]
    asked = [k for k, one in enumerate(fields) if one.name in wanted]
    seen = _visibilities(fields, sorted({*looked_at, *asked}), sites, start=start, options=options)
    allowed = np.zeros(len(fields), dtype=bool)
    for k in looked_at:
        allowed[k] = not seen[k] or not seen[k]["reason"]
    order, gain = greedy(found, allowed, options.fields + len(asked))
    order, gain = _with_asked_first(found, asked, order=order, gain=gain)
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


def coverage(skymap: SkyMap, fields: Sequence[SkyField]) -> Coverage:
    """Take the sky apart along the edges of fields.

    Parameters
    ----------
    skymap : SkyMap
        The map.
    fields : sequence of SkyField
        The fields; they may overlap.

    Returns
    -------
    Coverage
        Pieces and who holds them.
    """
    caps = _caps_of(fields)
    pixel = np.arange(12, dtype=np.int64)
    node, field = (one.ravel() for one in np.indices((12, len(fields))))
    part = np.zeros(len(node))  # 0 where a pair is still open, 1 where the cell lies inside
    weights: list[Values] = []
    held: list[tuple[Cells, Cells, Values]] = []
    count = 0
    for level in range(DEEPEST + 1):
        weight = skymap.probability_of(level, pixel)
        fresh = part < 1.0
        share = part.copy()
        share[fresh], is_edge = _shares(level, pixel, caps, node=node[fresh], field=field[fresh])
        edge = np.zeros(len(node), dtype=bool)
        edge[fresh] = is_edge
        split = np.zeros(len(pixel), dtype=bool)
        split[node[edge]] = level < DEEPEST
        split &= weight > TOLERANCE
        done = ~split & (weight > 0.0)
        named = np.cumsum(done) - 1 + count
        inside = done[node] & (share > 0.0)
        weights.append(weight[done])
        held.append((named[node[inside]], field[inside], share[inside]))
        count += int(done.sum())
        if not split.any():
            break
        further = split[node] & (edge | (share >= 1.0))
        part = np.repeat(np.where(edge, 0.0, 1.0)[further], 4)
        child = np.cumsum(split) - 1
        node = _children(child[node[further]])
        field = np.repeat(field[further], 4)
        pixel = _children(pixel[split])
    pieces, fields_of, parts = (np.concatenate(one) for one in zip(*held, strict=True))
    return _packed(np.concatenate(weights), pieces, fields_of, part=parts, n_fields=len(fields))


def greedy(found: Coverage, allowed: npt.NDArray[np.bool_], most: int) -> tuple[list[int], list[float]]:
    """Order fields so that each adds most to what those before it hold.

    Parameters
    ----------
    found : Coverage
        Pieces and who holds them.
    allowed : ndarray of bool, shape (n_fields,)
        Fields to take.
    most : int
        How many.

    Returns
    -------
    order : list of int
        Fields, best first; those that add nothing are left out.
    gain : list of float
        Probability that each adds.
    """
    left = found.probability.copy()
    queue = [(-value, number) for number, value in enumerate(found.of_each()) if allowed[number] and value > 0.0]
    heapq.heapify(queue)
    order: list[int] = []
    gain: list[float] = []
    while queue and len(order) < most:
        # what a field adds only shrinks as others are taken: the first whose value still stands is the best
        _, number = heapq.heappop(queue)
        own, value = found.pieces_of(number)
        adds = np.minimum(left[own], value)
        total = float(adds.sum())
        if queue and total < -queue[0][0] * (1.0 - 1e-12):
            if total > 0.0:
                heapq.heappush(queue, (-total, number))
            continue
        if total <= 0.0:
            break
        order.append(number)
        gain.append(total)
        left[own] -= adds
    return order, gain


def _caps_of(fields: Sequence[SkyField]) -> Values:
    """Caps of all fields, shape (n_fields, most, 4), filled up with caps that hold the whole sphere."""
    most = max((len(one.caps) for one in fields), default=1)
    caps = np.zeros((len(fields), most, 4))
    caps[:, :, 3] = 10.0
    for number, one in enumerate(fields):
        caps[number, : len(one.caps)] = one.caps
    return caps


def _shares(
    level: int, pixel: Cells, caps: Values, *, node: Cells, field: Cells
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Part of each cell that lies in its field, and whether it lies across the edge.

    Across the edge, the part is that of a diamond cut by a straight line at the distance of the nearest side.
    """
    from astropy_healpix import healpix_to_xyz

    nside = 2**level
    centre = np.stack(healpix_to_xyz(pixel, nside, order="nested"), axis=-1)
    own = caps[field]
    angle = np.arccos(np.clip(np.einsum("pkc,pc->pk", own[:, :, :3], centre[node]), -1.0, 1.0))
    beyond = (angle - own[:, :, 3]).max(axis=1)
    radius = CELL_RADIUS / nside
    cut = np.clip(beyond * nside / HALF_DIAGONAL, -1.0, 1.0)
    share = np.where(cut > 0.0, 0.5 * (1.0 - cut) ** 2, 1.0 - 0.5 * (1.0 + cut) ** 2)
    share[beyond <= -radius], share[beyond >= radius] = 1.0, 0.0
    return share, np.abs(beyond) < radius


def _children(cell: Cells) -> Cells:
    """The four children of each cell."""
    return np.asarray((np.repeat(cell << 2, 4).reshape(-1, 4) + np.arange(4)).ravel(), dtype=np.int64)


def _packed(probability: Values, piece: Cells, field: Cells, *, part: Values, n_fields: int) -> Coverage:
    """Pieces that some field holds, numbered anew and sorted by field."""
    held, piece = np.unique(piece, return_inverse=True)
    order = np.lexsort((piece, field))
    return Coverage(probability[held], piece[order].astype(np.int64), field[order], part[order], n_fields)


def _with_asked_first(
    found: Coverage, asked: list[int], *, order: list[int], gain: list[float]
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
    fields: Sequence[SkyField],
    rows: Sequence[int],
    sites: Mapping[str, Site],
    *,
    start: float,
    options: SkyAlertOptions,
) -> dict[int, dict[str, Any]]:
    """When each of the fields can be observed, from the best of the sites of its units; empty without one."""
    limits = Limits(options.altitude, options.sun_altitude, options.moon_distance)
    best: dict[int, dict[str, Any]] = {k: {} for k in rows}
    for site in dict.fromkeys(sites.values()):
        names = {name for name, one in sites.items() if one == site}
        here = [k for k in rows if not fields[k].units or names & set(fields[k].units)]
        if not here:
            continue
        ra, dec = (np.array([getattr(fields[k], name) for k in here]) for name in ("ra", "dec"))
        seen = visibility(ra, dec, site, start=start, hours=HOURS, limits=limits)
        for number, k in enumerate(here):
            one = _visible(seen, number)
            if not best[k] or (one["hours"] or 0.0) > (best[k]["hours"] or 0.0):
                best[k] = one
    return best


def _visible(seen: Visibility, k: int) -> dict[str, Any]:
    possible = not seen.reason[k]
    return {
        "reason": seen.reason[k], "hours": float(seen.hours[k]), "altitude": float(seen.altitude[k]),
        "moon_distance": float(seen.moon[k]), "first_mjd": float(seen.first[k]) if possible else None,
        "best_mjd": float(seen.best[k]) if possible else None,
    }  # fmt: skip
