"""Objects at other times and in catalogues: seen before, not seen again, or a known star, nucleus or minor planet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.archive.skyalert_options import RankingOptions
from nightsift.context.known_objects import MOVER, NUCLEUS, STAR, KnownPositions, Movers
from nightsift.core.tables import nullable
from nightsift.io.parquet import numbers
from nightsift.objects.association import Detections, probability_to_be_real
from nightsift.sky.sphere import Rows, Values, pairs_within

INSIDE = 0.9
"""Part of half the side of a frame within which a place counts as covered: the corners are left out, as the ledger does
not say how a frame is rotated."""
LEAST = 1e-4
"""Lowest probability that an object is new: earlier detections may be of something else."""
SOON = 0.5
"""Days after its last detection within which an object is expected to be seen again."""
CHANCE_AGAIN = 0.05
"""Probability that a moving or false detection is followed by another at the same place."""


def history_of(
    found: Detections,
    before: pa.Table,
    exposures: pa.Table,
    *,
    t0: float,
    place: tuple[Values, Values],
    options: RankingOptions,
) -> dict[str, Any]:
    """Return the columns of `nightsift.skyalerts.products.rank.RANKED` that tell what was seen at other times.

    `before` holds the candidates before the event at `t0` (MJD UTC), `exposures` the ledger rows of both times, `place`
    the positions of the objects (deg), NaN where unknown.
    """
    return _earlier(found, before, place, options=options) | _not_seen(
        found, exposures, t0, place=place, options=options
    )


def probability_to_stay(epochs: Rows, misses: Rows, options: RankingOptions) -> Values:
    """Return the probability that objects are neither moving nor false, by Bayes' theorem, shape (n,).

    `epochs` counts detections apart in time, `misses` deeper exposures that do not show the object.
    """
    again, missed = epochs - 1, misses
    stays = np.log1p(-options.moving) + again * np.log(options.seen_again) + missed * np.log1p(-options.seen_again)
    moves = np.log(options.moving) + again * np.log(CHANCE_AGAIN) + missed * np.log1p(-CHANCE_AGAIN)
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(moves - stays, -500.0, 500.0))))


def _earlier(
    found: Detections, before: pa.Table, place: tuple[Values, Values], *, options: RankingOptions
) -> dict[str, Any]:
    """Detections before the event, and the probability that none of them was real."""
    n = found.n_objects
    ra, dec = place
    count: Rows = np.zeros(n, dtype=np.int64)
    last, none = np.full(n, -np.inf), np.zeros(n)
    if before.num_rows:
        old_ra, old_dec, mjd = (numbers(before, name) for name in ("ra", "dec", "mjd"))
        old = np.flatnonzero(np.isfinite(old_ra + old_dec))
        placed = np.flatnonzero(np.isfinite(ra + dec))
        radius = _object_radius(found)
        first, second, _ = pairs_within(
            ra[placed],
            dec[placed],
            old_ra[old],
            other_dec=old_dec[old],
            most=float(radius.max(initial=0.0)),
            radius=radius[placed],
        )
        first, second = placed[first], old[second]
        count = np.bincount(first, minlength=n).astype(np.int64)
        np.maximum.at(last, first, mjd[second])
        doubt = np.log1p(-np.minimum(probability_to_be_real(before, options)[second], 1.0 - LEAST))
        none += np.bincount(first, doubt, n)
    return {"earlier": count, "earlier_mjd": nullable(last), "p_new": np.maximum(np.exp(none), LEAST)}


def _object_radius(found: Detections) -> Values:
    """Largest radius of the detections of each object (arcsec), shape (n_objects,)."""
    radius = np.zeros(found.n_objects)
    np.maximum.at(radius, found.owner, found.radius)
    return radius


def _not_seen(
    found: Detections, exposures: pa.Table, t0: float, *, place: tuple[Values, Values], options: RankingOptions
) -> dict[str, Any]:
    """Deeper exposures that do not show an object: the last before the event, and those after its first detection."""
    n = found.n_objects
    first_mjd, last_mjd = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(first_mjd, found.owner, found.mjd)
    np.maximum.at(last_mjd, found.owner, found.mjd)
    mag = _typical_magnitude(found)
    owner, row = _covered(exposures, place)
    mjd, limit = numbers(exposures, "mjd"), numbers(exposures, "limiting_mag")
    deep = limit[row] >= mag[owner] + options.limit_margin
    owner, row = owner[deep], row[deep]
    seen = _seen(found, exposures)
    unseen = ~np.isin(owner * len(mjd) + row, seen)
    owner, row = owner[unseen], row[unseen]
    after = (
        (mjd[row] > first_mjd[owner])
        & (mjd[row] <= last_mjd[owner] + SOON)
        & _same_band(found, exposures, owner, row=row)
    )
    misses = np.bincount(owner[after], minlength=n)
    prior = mjd[row] < t0
    owner, row = owner[prior], row[prior]
    order = np.argsort(mjd[row], kind="stable")
    latest = np.full(n, -1)
    latest[owner[order]] = row[order]  # the last one written is the latest
    known = latest >= 0
    limit_mjd = np.where(known, mjd[latest] if len(mjd) else np.nan, np.nan)
    gap = np.maximum(first_mjd - limit_mjd, 1e-3)
    factor = np.where(known, np.maximum(options.visible_days / gap, 1.0), 1.0)
    return {
        "limit_mjd": nullable(limit_mjd), "misses": misses, "time_factor": factor,
        "limit_mag": nullable(np.where(known, limit[latest] if len(mjd) else np.nan, np.nan)),
    }  # fmt: skip


def _typical_magnitude(found: Detections) -> Values:
    """Faintest magnitude of each object; infinite without any, so that no exposure counts as deeper."""
    mag = numbers(found.table, "mag")
    faintest = np.full(found.n_objects, -np.inf)
    np.maximum.at(faintest, found.owner, np.where(np.isfinite(mag), mag, -np.inf))
    return np.where(np.isfinite(faintest), faintest, np.inf)


def _covered(exposures: pa.Table, place: tuple[Values, Values]) -> tuple[Rows, Rows]:
    """Pairs of objects and exposures that show their places."""
    ra, dec = place
    placed = np.flatnonzero(np.isfinite(ra + dec))
    centre_ra, centre_dec, area = (numbers(exposures, name) for name in ("ra", "dec", "area"))
    known = np.flatnonzero(np.isfinite(centre_ra + centre_dec) & (area > 0.0))
    reach = INSIDE * 0.5 * np.sqrt(area[known]) * 3600.0
    owner, row, separation = pairs_within(
        ra[placed], dec[placed], centre_ra[known], other_dec=centre_dec[known], most=float(reach.max(initial=0.0))
    )
    inside = separation <= reach[row]
    return placed[owner[inside]], known[row[inside]]


def _seen(found: Detections, exposures: pa.Table) -> Rows:
    """Object and exposure of each detection as one number."""
    row_of = pc.index_in(found.table["exposure_id"], exposures["exposure_id"].combine_chunks())
    row = pc.fill_null(row_of, -1).to_numpy().astype(np.int64)
    return np.asarray((found.owner * exposures.num_rows + row)[row >= 0])


def _same_band(found: Detections, exposures: pa.Table, owner: Rows, *, row: Rows) -> Any:
    """Tell which exposures are in a band that the object was detected in."""
    names = exposures["band"].to_pylist()
    number = {name: k for k, name in enumerate(sorted({*names, *found.table["band"].to_pylist()}, key=str))}
    of_exposure = np.array([number[name] for name in names], dtype=np.int64)
    of_detection = np.array([number[name] for name in found.table["band"].to_pylist()], dtype=np.int64)
    have = np.unique(found.owner * len(number) + of_detection)
    return np.isin(owner * len(number) + of_exposure[row], have)


def known_at(
    found: Detections, exposures: pa.Table, place: tuple[Values, Values],
    *, catalogues: Sequence[KnownPositions], movers: Movers | None, options: RankingOptions,
) -> dict[str, Any]:  # fmt: skip
    """Return the columns of `nightsift.skyalerts.products.rank.RANKED` about known objects.

    Parameters
    ----------
    found : Detections
        The detections.
    exposures : pyarrow.Table
        Their exposures, schema `nightsift.core.tables.LEDGER`.
    place : (ndarray, ndarray)
        Right ascension and declination of the objects (deg).
    catalogues : sequence of KnownPositions
        Variable stars and active nuclei.
    movers : Movers or None
        Minor planets.
    options : RankingOptions
        Priors.

    Returns
    -------
    dict of str to array
        The columns; where several are near, the one that explains most.
    """
    radius = np.maximum(_object_radius(found), options.known_radius)  # astrometry of unit and catalogue differ
    n = len(radius)
    kind, name = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    separation, unknown = np.full(n, np.nan), np.ones(n)
    priors = {STAR: options.known_star, NUCLEUS: options.known_nucleus, MOVER: options.known_mover}
    matches = [(one.kind, one.catalogue, *_nearest(place, radius, one)) for one in catalogues]
    for of_kind, of_name, rows, apart in [*matches, *_movers(found, exposures, movers, options=options)]:
        better = (priors[of_kind] < unknown[rows]) | ((priors[of_kind] == unknown[rows]) & (apart < separation[rows]))
        chosen = rows[better]
        kind[chosen], name[chosen] = of_kind, of_name
        separation[chosen], unknown[chosen] = apart[better], priors[of_kind]
    return {
        "known": kind.tolist(), "known_name": name.tolist(), "known_separation": nullable(separation),
        "p_unknown": unknown,
    }  # fmt: skip


def _nearest(place: tuple[Values, Values], radius: Values, known: KnownPositions) -> tuple[Rows, Values]:
    """Objects with an entry of the catalogue at their place, and how far it is."""
    ra, dec = place
    placed = np.flatnonzero(np.isfinite(ra + dec))
    if not len(placed):
        return placed, np.empty(0)
    # only entries in the declinations of the candidates are worth a tree
    band = (known.dec > dec[placed].min() - 0.1) & (known.dec < dec[placed].max() + 0.1)
    first, _, apart = pairs_within(
        ra[placed],
        dec[placed],
        known.ra[band],
        other_dec=known.dec[band],
        most=float(radius[placed].max()),
        radius=radius[placed],
    )
    order = np.lexsort((apart, first))
    rows, index = np.unique(first[order], return_index=True)
    return placed[rows], apart[order][index]


def _movers(
    found: Detections, exposures: pa.Table, movers: Movers | None, *, options: RankingOptions
) -> list[tuple[str, str, npt.NDArray[np.int64], Values]]:
    """Objects of which at least half of the detections lie on a minor planet."""
    if movers is None or not len(found.owner):
        return []
    hit = np.zeros(len(found.owner), dtype=bool)
    best: dict[int, tuple[float, str]] = {}
    rows_of: dict[str, list[int]] = {}
    for row, one in enumerate(found.table["exposure_id"].to_pylist()):
        rows_of.setdefault(one, []).append(row)
    for exposure in exposures.to_pylist():
        rows = np.array(rows_of.get(exposure["exposure_id"], []), dtype=np.int64)
        rows = rows[np.isfinite(found.ra[rows] + found.dec[rows])]
        if not len(rows) or exposure["ra"] is None or exposure["dec"] is None:
            continue
        there = movers.of(exposure)
        first, second, apart = pairs_within(
            found.ra[rows], found.dec[rows], there.ra, other_dec=there.dec, most=options.mover_radius
        )
        for k, j, distance in zip(rows[first], second, apart, strict=True):
            hit[k] = True
            owner = int(found.owner[k])
            best[owner] = min(best.get(owner, (np.inf, "")), (float(distance), str(there.name[j])))
    share = np.bincount(found.owner, hit, found.n_objects) / np.bincount(found.owner, minlength=found.n_objects)
    return [(MOVER, name, np.array([owner]), np.array([apart]))
            for owner, (apart, name) in best.items() if share[owner] >= 0.5]  # fmt: skip
