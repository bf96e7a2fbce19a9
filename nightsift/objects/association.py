"""Objects: detections of one place belong together, across exposures and units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.archive.skyalert_options import RankingOptions
from nightsift.core.flags import Flag
from nightsift.core.tables import nullable
from nightsift.io.parquet import numbers
from nightsift.sky.sphere import Rows, Values, pairs_within, positions_of, unit_vectors


def associate(ra: Values, dec: Values, snr: Values, *, radius: Values) -> Rows:
    """Number the objects that detections belong to.

    The strongest detection takes all that lie within the larger of both radii and belong to nobody yet, then the next
    strongest of the rest: chains of neighbours do not grow together, and the order of the rows does not matter.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg); one without a position is an object of its own.
    snr : ndarray of float64, shape (n,)
        Signal-to-noise ratios.
    radius : ndarray of float64, shape (n,)
        Radii (arcsec).

    Returns
    -------
    ndarray of int64, shape (n,)
        Number of the object, in order of its first row.
    """
    n = len(ra)
    placed = np.flatnonzero(np.isfinite(ra + dec))
    leader = np.arange(n)
    ra, dec, own = ra[placed], dec[placed], radius[placed]
    first, second, _ = pairs_within(
        ra, dec, ra, other_dec=dec, most=float(own.max(initial=0.0)), radius=own, other_radius=own
    )
    other = first != second
    first, second = placed[first[other]], placed[second[other]]
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    start = np.searchsorted(first, np.arange(n + 1))
    free = np.ones(n, dtype=bool)
    for k in np.lexsort((np.arange(n), -snr)):
        if start[k] == start[k + 1] or not free[k]:
            continue
        near = second[start[k] : start[k + 1]]
        near = near[free[near]]
        free[k], free[near] = False, False
        leader[near] = k
    _, index, number = np.unique(leader, return_index=True, return_inverse=True)
    rank = np.empty(len(index), dtype=np.int64)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index))
    return np.asarray(rank[number.reshape(n)], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Candidates as arrays, with the object that each belongs to.

    Attributes
    ----------
    table : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    ra, dec, mjd : ndarray of float64, shape (n,)
        Position (deg, NaN where unknown) and time (MJD UTC).
    real : ndarray of float64, shape (n,)
        Probability of each to be real.
    radius : ndarray of float64, shape (n,)
        Distance within which another detection is the same object (arcsec).
    owner : ndarray of int64, shape (n,)
        Number of its object.
    """

    table: pa.Table
    ra: Values
    dec: Values
    mjd: Values
    real: Values
    radius: Values
    owner: Rows

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return int(self.owner.max()) + 1 if len(self.owner) else 0


def detections_of(candidates: pa.Table, exposures: pa.Table, options: RankingOptions) -> Detections:
    """Join candidates to objects.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    exposures : pyarrow.Table
        Their exposures, schema `nightsift.core.tables.LEDGER`, for the seeing.
    options : RankingOptions
        Distance within which they are one.

    Returns
    -------
    Detections
        The detections in order of time; objects are numbered by their first detection.
    """
    table = candidates.sort_by([("mjd", "ascending"), ("candidate_id", "ascending")])
    ra, dec, mjd = (numbers(table, name) for name in ("ra", "dec", "mjd"))
    seeing = dict(zip(exposures["exposure_id"].to_pylist(), exposures["seeing"].to_pylist(), strict=True))
    own = [seeing.get(one) or 0.0 for one in table["exposure_id"].to_pylist()]
    radius = np.maximum(options.association, 0.5 * np.array(own, dtype=np.float64).reshape(len(table)))
    owner = associate(ra, dec, numbers(table, "snr"), radius=radius)
    return Detections(table, ra, dec, mjd, probability_to_be_real(table, options), radius, owner)


def probability_to_be_real(table: pa.Table, options: RankingOptions) -> Values:
    """Return the probability of each candidate to be real, shape (n,): its score, lowered where it has a flag."""
    score = numbers(table, "score")
    real = np.where(np.isfinite(score), np.clip(score, 0.0, 1.0), options.unscored)
    return np.asarray(np.where(table["flags"].to_numpy() != 0, options.flagged * real, real))


def objects_of(found: Detections, options: RankingOptions) -> dict[str, Any]:
    """Return the columns of `nightsift.skyalerts.products.rank.RANKED` that follow from detections alone.

    Parameters
    ----------
    found : Detections
        The detections.
    options : RankingOptions
        When detections lie apart in time.

    Returns
    -------
    dict of str to array
        The columns.
    """
    table, n = found.table, found.n_objects
    order = np.lexsort((found.mjd, found.owner))
    start = np.searchsorted(found.owner[order], np.arange(n))
    stop = np.append(start[1:], len(order))
    snr, mag, score = (numbers(table, name) for name in ("snr", "mag", "score"))
    spread, flags = numbers(table, "score_std"), table["flags"].to_numpy()
    best_real = np.full(n, -1.0)
    np.maximum.at(best_real, found.owner, found.real)
    clean = np.zeros(n, dtype=bool)
    np.logical_or.at(clean, found.owner, flags == 0)
    counts = (flags == 0) | ~clean[found.owner]  # flagged detections count where there is no other
    common = np.full(n, sum(Flag), dtype=np.int64)
    np.bitwise_and.at(common, found.owner, flags)
    best = order[np.lexsort((-snr[order], -found.real[order], found.owner[order]))][start]
    ra, dec = _mean_positions(found, snr)
    mean, scatter = _mean(score, counts, found.owner, n=n)
    model, _ = _mean(spread**2, counts, found.owner, n=n)
    real, _ = _mean(found.real, counts, found.owner, n=n)
    first, last = order[start], order[stop - 1]
    brightest = np.full(n, np.inf)
    np.minimum.at(brightest, found.owner, np.where(np.isfinite(mag), mag, np.inf))
    ids = np.asarray(table["candidate_id"].to_pylist(), dtype=object)
    lists = pa.ListArray.from_arrays(pa.array(np.append(start, len(order)), pa.int32()), pa.array(ids[order]))
    return {
        "object_id": ids[first].tolist(), "name": [position_name(*one) for one in zip(ra, dec, strict=True)],
        "ra": nullable(ra), "dec": nullable(dec), "detections": stop - start,
        "epochs": _epochs(found, order, start, stop=stop, options=options),
        "units": _joined(table, "unit", order, start=start, stop=stop),
        "bands": _joined(table, "band", order, start=start, stop=stop),
        "first_mjd": found.mjd[first], "last_mjd": found.mjd[last],
        "mag_first": nullable(mag[first]), "mag_last": nullable(mag[last]), "mag_brightest": nullable(brightest),
        "snr": snr[best], "score": nullable(mean), "score_spread": nullable(np.sqrt(scatter**2 + np.nan_to_num(model))),
        "flags": common, "best_id": ids[best].tolist(), "candidate_ids": lists, "p_real": real,
    }  # fmt: skip


def position_name(ra: float, dec: float) -> str:
    """Name made of a position, cut off and not rounded as the IAU asks: ``J004814.88-250324.1``.

    Parameters
    ----------
    ra, dec : float
        Position (deg).

    Returns
    -------
    str
        The name; empty without a position.
    """
    if not np.isfinite(ra + dec):
        return ""
    seconds, arcsec = int(ra % 360.0 * 24000.0 + 1e-6), int(abs(dec) * 36000.0 + 1e-6)
    return (
        f"J{seconds // 360000:02d}{seconds // 6000 % 60:02d}{seconds % 6000 / 100:05.2f}"
        f"{'-' if dec < 0 else '+'}{arcsec // 36000:02d}{arcsec // 600 % 60:02d}{arcsec % 600 / 10:04.1f}"
    )


def _mean(values: Values, counts: npt.NDArray[np.bool_], owner: Rows, *, n: int) -> tuple[Values, Values]:
    """Mean and scatter of the values that count, by object; NaN where there are none."""
    good = counts & np.isfinite(values)
    weight = np.bincount(owner[good], minlength=n).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(owner[good], values[good], n) / weight
        scatter = np.sqrt(np.bincount(owner[good], (values[good] - mean[owner[good]]) ** 2, n) / weight)
    return mean, scatter


def _mean_positions(found: Detections, snr: Values) -> tuple[Values, Values]:
    n = found.n_objects
    weight = np.maximum(snr, 1e-3) ** 2
    vectors = unit_vectors(np.nan_to_num(found.ra), np.nan_to_num(found.dec)) * weight[:, None]
    total = np.stack([np.bincount(found.owner, vectors[:, k], n) for k in range(3)], axis=-1, dtype=np.float64)
    placed = np.bincount(found.owner, np.isfinite(found.ra + found.dec), n) > 0
    ra, dec = positions_of(total)
    return np.where(placed, ra, np.nan), np.where(placed, dec, np.nan)


def _epochs(found: Detections, order: Rows, start: Rows, *, stop: Rows, options: RankingOptions) -> Rows:
    """Detections of each object that lie apart from the one counted before."""
    apart = options.apart_minutes / 1440.0
    epochs = np.ones(len(start), dtype=np.int64)
    mjd = found.mjd[order]
    for k in np.flatnonzero(stop - start > 1):
        counted = mjd[start[k]]
        for one in mjd[start[k] + 1 : stop[k]]:
            if one - counted >= apart:
                epochs[k], counted = epochs[k] + 1, one
    return epochs


def _joined(table: pa.Table, name: str, order: Rows, *, start: Rows, stop: Rows) -> list[str]:
    names = np.asarray(table[name].to_pylist(), dtype=object)[order]
    return [names[a] if b - a == 1 else ",".join(sorted(set(names[a:b]))) for a, b in zip(start, stop, strict=True)]
