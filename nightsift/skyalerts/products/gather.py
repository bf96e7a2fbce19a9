"""Exposures and candidates in the fields of a sky alert, before and after the event, and the footprint observed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.archive.paths import Archive
from nightsift.core.tables import CANDIDATES, LEDGER
from nightsift.io.parquet import numbers, read_tables
from nightsift.sky.fields import SkyField, square_field
from nightsift.sky.sphere import unit_vectors
from nightsift.skyalerts.planning.field_ranking import coverage
from nightsift.skyalerts.skymaps.skymap import SKY, SkyMap

_MJD_ZERO = dt.date(1858, 11, 17)
WHOLE_SKY = 41252.96
SAME = 0.02
"""Degrees: exposures of centres nearer than this are one pointing."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Exposures and candidates of a sky alert.

    Attributes
    ----------
    t0 : float
        Time of the event (MJD UTC).
    exposures : pyarrow.Table
        Reduced exposures that touch the fields, schema `nightsift.core.tables.LEDGER`.
    candidates : pyarrow.Table
        Their candidates, schema `nightsift.core.tables.CANDIDATES`.
    ledger : pyarrow.Table
        All rows read, so that they are not read again.
    read : dict of str to int
        Ledger files read, and when each was written (ns).
    """

    t0: float
    exposures: pa.Table
    candidates: pa.Table
    ledger: pa.Table
    read: dict[str, int]

    @property
    def after(self) -> pa.Table:
        """Candidates after the event."""
        return self.candidates.filter(pc.greater_equal(self.candidates["mjd"], self.t0))

    @property
    def before(self) -> pa.Table:
        """Candidates before the event."""
        return self.candidates.filter(pc.less(self.candidates["mjd"], self.t0))


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What was observed.

    Attributes
    ----------
    exposures : int
        Reduced exposures after the event.
    pointings : tuple of SkyField
        Their frames, each once, as squares of the area searched.
    area : float
        Area of all of them, overlaps counted once (deg2).
    probability : float or None
        Probability of the sky map in them; None without a map.
    depth : dict of str to (float, float)
        Median 5-sigma limit (mag) and exposure time (s) by band.
    first, last : float or None
        Times of the first and last exposure (MJD UTC).
    units : tuple of str
        Units that observed.
    fields : list of dict
        One per field: name, grid, units, probability, exposures, first, last, depth, bands, observed.
    """

    exposures: int
    pointings: tuple[SkyField, ...]
    area: float
    probability: float | None
    depth: dict[str, tuple[float, float]]
    first: float | None
    last: float | None
    units: tuple[str, ...]
    fields: list[dict[str, Any]]


def gather(
    archive: Archive,
    t0: float,
    fields: Sequence[SkyField],
    *,
    history_days: float,
    until: float = np.inf,
    known: Gathered | None = None,
) -> Gathered:
    """Read exposures and candidates of the fields of a sky alert.

    Parameters
    ----------
    archive : Archive
        The archive.
    t0 : float
        Time of the event (MJD UTC).
    fields : sequence of SkyField
        The fields; exposures of anywhere count without any.
    history_days : float
        How long before the event exposures count (d).
    until : float, optional
        Until when (MJD UTC).
    known : Gathered, optional
        What was gathered before of this archive and event: only files that are new or changed are read.

    Returns
    -------
    Gathered
        Exposures in the state ``done`` whose frame touches a field, or without a position; and their candidates.

    Raises
    ------
    BadTable
        If a file of the archive is damaged.
    """
    since = t0 - history_days
    read = {str(path): path.stat().st_mtime_ns for path in _ledger_files(archive, since, until)}
    old = known.read if known is not None else {}
    fresh = [path for path, written in read.items() if old.get(path) != written]
    rows = read_tables([Path(path) for path in fresh], LEDGER)
    renewed = rows["exposure_id"]
    if known is not None:
        unchanged = known.ledger.filter(pc.invert(pc.is_in(known.ledger["exposure_id"], renewed.combine_chunks())))
        rows = pa.concat_tables([unchanged, rows]).combine_chunks()
    mjd = pc.fill_null(rows["mjd"], np.nan).to_numpy()
    wanted = pc.equal(rows["state"], "done").to_numpy() & (mjd >= since) & (mjd <= until)
    exposures = rows.filter(pa.array(wanted & touching(rows, fields)))
    candidates = _candidates(archive, exposures, known, renewed=set(renewed.to_pylist()))
    return Gathered(t0, exposures, candidates, rows, read)


def touching(exposures: pa.Table, fields: Sequence[SkyField]) -> npt.NDArray[np.bool_]:
    """Tell which exposures may show a part of a field.

    Parameters
    ----------
    exposures : pyarrow.Table
        Schema `nightsift.core.tables.LEDGER`.
    fields : sequence of SkyField
        Fields; without any, all exposures count.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the circles around frame and field meet, and where an exposure has no position.
    """
    ra, dec, area = (pc.fill_null(exposures[name], np.nan).to_numpy() for name in ("ra", "dec", "area"))
    lost = ~np.isfinite(ra + dec)
    if not fields or not len(ra):
        return np.ones(len(ra), dtype=bool)
    centres = unit_vectors(np.array([one.ra for one in fields]), np.array([one.dec for one in fields]))
    reach = np.array([one.radius for one in fields]) + np.sqrt(np.nan_to_num(area) / 2.0)[:, None]
    near = unit_vectors(np.nan_to_num(ra), np.nan_to_num(dec)) @ centres.T >= np.cos(
        np.deg2rad(np.minimum(reach, 180.0))
    )
    return np.asarray(near.any(axis=1) | lost)


def _candidates(archive: Archive, exposures: pa.Table, known: Gathered | None, *, renewed: set[str]) -> pa.Table:
    """Candidates of the exposures; those that were read before and did not change are not read again."""
    have: set[str] = set()
    if known is not None:
        have = set(known.exposures["exposure_id"].to_pylist()) - renewed
    keys = zip(*(exposures[name].to_pylist() for name in ("night", "unit", "exposure_id", "n_candidates")), strict=True)
    wanted = [(night, unit, one) for night, unit, one, n in keys if one not in have and n != 0]
    paths = [archive.candidates(*key) for key in wanted]
    found = read_tables(paths, CANDIDATES)
    if known is None:
        return found
    still = pa.array(sorted(have & set(exposures["exposure_id"].to_pylist())), pa.string())
    unchanged = known.candidates.filter(pc.is_in(known.candidates["exposure_id"], still))
    return pa.concat_tables([unchanged, found]).combine_chunks()


def _ledger_files(archive: Archive, since: float, until: float) -> list[Path]:
    """Ledger files of the nights that may hold exposures between two times: a night's label is its local evening."""
    first, last = _label(since - 2.0), _label(until + 1.0) if np.isfinite(until) else "9999"
    nights = [night for night in archive.nights("ledger") if first <= night <= last]
    return [path for night in nights for path in archive.tables("ledger", night)]


def _label(mjd: float) -> str:
    return (_MJD_ZERO + dt.timedelta(days=int(mjd))).isoformat()


def footprint_of(
    exposures: pa.Table, t0: float, fields: Sequence[SkyField], *, probability: Sequence[float], skymap: SkyMap | None
) -> Footprint:
    """Say what was observed after the event.

    Parameters
    ----------
    exposures : pyarrow.Table
        Schema `nightsift.core.tables.LEDGER`; those before the event do not count.
    t0 : float
        Time of the event (MJD UTC).
    fields : sequence of SkyField
        Fields that are wanted, best first.
    probability : sequence of float
        Probability of each.
    skymap : SkyMap or None
        The sky map.

    Returns
    -------
    Footprint
        What was observed.
    """
    after = exposures.filter(pc.fill_null(pc.greater_equal(exposures["mjd"], t0), False))
    pointings = _pointings(after)
    area = WHOLE_SKY * coverage(_even(), pointings).of_union(range(len(pointings))) if pointings else 0.0
    covered = None
    if skymap is not None:
        covered = coverage(skymap, pointings).of_union(range(len(pointings))) if pointings else 0.0
    mjd = numbers(after, "mjd")
    return Footprint(
        after.num_rows, pointings, area, covered, _depths(after),
        float(mjd.min()) if len(mjd) else None, float(mjd.max()) if len(mjd) else None,
        tuple(sorted(set(after["unit"].to_pylist()))), _fields(after, fields, probability),
    )  # fmt: skip


def _even() -> SkyMap:
    """A map that is the same everywhere: its probability is area."""
    twelve = np.arange(12, dtype=np.int64)
    return SkyMap(np.zeros(12, dtype=np.int64), twelve, np.full(12, 1.0 / 12.0))


def _pointings(after: pa.Table) -> tuple[SkyField, ...]:
    """Squares of the area searched, one for exposures of the same place."""
    ra, dec, area = (numbers(after, name) for name in ("ra", "dec", "area"))
    found: dict[tuple[int, int, int], SkyField] = {}
    for a, d, size in zip(ra, dec, area, strict=True):
        if not (np.isfinite(a + d) and 0.0 < size < SKY * 400.0):
            continue
        key = (round(a * np.cos(np.deg2rad(d)) / SAME), round(d / SAME), round(10.0 * size))
        if key not in found:
            found[key] = square_field(f"P{len(found)}", float(a), float(d), width=float(np.sqrt(size)))
    return tuple(found.values())


def _depths(after: pa.Table) -> dict[str, tuple[float, float]]:
    bands = np.array(after["band"].to_pylist(), dtype=object)
    limit, seconds = numbers(after, "limiting_mag"), numbers(after, "exposure_s")
    found = {}
    for band in sorted({one for one in bands if one}):
        some = bands == band
        found[band] = (_median(limit[some]), _median(seconds[some]))
    return found


def _fields(after: pa.Table, fields: Sequence[SkyField], probability: Sequence[float]) -> list[dict[str, Any]]:
    ra, dec, area, mjd, limit = (numbers(after, name) for name in ("ra", "dec", "area", "mjd", "limiting_mag"))
    good = np.isfinite(ra + dec)
    vectors = unit_vectors(np.where(good, ra, 0.0), np.where(good, dec, 0.0))
    reach = np.cos(np.deg2rad(np.sqrt(np.nan_to_num(area)) / 2.0))
    bands = np.array(after["band"].to_pylist(), dtype=object)
    rows = []
    for field, held in zip(fields, probability, strict=True):
        # a frame shows a field when its centre lies in the field, or the centre of the field in the frame
        shows = good & (field.holds(ra, dec) | (vectors @ unit_vectors(field.ra, field.dec) >= reach))
        rows.append({
            "name": field.name, "grid": field.grid, "units": ", ".join(field.units), "ra": field.ra, "dec": field.dec,
            "probability": held, "exposures": int(shows.sum()), "observed": bool(shows.any()),
            "first": _extreme(mjd[shows], np.min), "last": _extreme(mjd[shows], np.max),
            "depth": _median(limit[shows]), "bands": ", ".join(sorted({one for one in bands[shows] if one})),
        })  # fmt: skip
    return rows


def _extreme(values: npt.NDArray[np.float64], of: Any) -> float | None:
    return float(of(values)) if len(values) else None


def _median(values: npt.NDArray[np.float64]) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else float("nan")
