"""What the archive holds of the fields of an alert: exposures and candidates after the event, and those before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.io.parquet import read_tables
from nightsift.io.paths import Archive
from nightsift.sky.fields import SkyField
from nightsift.sky.sphere import unit_vectors
from nightsift.tables import CANDIDATES, LEDGER

_MJD_ZERO = dt.date(1858, 11, 17)


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Exposures and candidates of an alert.

    Attributes
    ----------
    t0 : float
        Time of the event (MJD UTC).
    exposures : pyarrow.Table
        Reduced exposures that touch the fields, schema `nightsift.tables.LEDGER`.
    candidates : pyarrow.Table
        Their candidates, schema `nightsift.tables.CANDIDATES`.
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


def gather(
    archive: Archive,
    t0: float,
    fields: Sequence[SkyField],
    history_days: float,
    until: float = np.inf,
    known: Gathered | None = None,
) -> Gathered:
    """Read exposures and candidates of the fields of an alert.

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
        Exposures in the state ``done`` whose frame touches a field, or that tell no place; and their candidates.

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
        kept = known.ledger.filter(pc.invert(pc.is_in(known.ledger["exposure_id"], renewed.combine_chunks())))
        rows = pa.concat_tables([kept, rows]).combine_chunks()
    mjd = pc.fill_null(rows["mjd"], np.nan).to_numpy()
    wanted = pc.equal(rows["state"], "done").to_numpy() & (mjd >= since) & (mjd <= until)
    exposures = rows.filter(pa.array(wanted & touching(rows, fields)))
    candidates = _candidates(archive, exposures, known, set(renewed.to_pylist()))
    return Gathered(t0, exposures, candidates, rows, read)


def touching(exposures: pa.Table, fields: Sequence[SkyField]) -> npt.NDArray[np.bool_]:
    """Tell which exposures may show a part of a field.

    Parameters
    ----------
    exposures : pyarrow.Table
        Schema `nightsift.tables.LEDGER`.
    fields : sequence of SkyField
        Fields; without any, all exposures count.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the circles around frame and field meet, and where an exposure tells no place.
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


def _candidates(archive: Archive, exposures: pa.Table, known: Gathered | None, renewed: set[str]) -> pa.Table:
    """Candidates of the exposures; those that were read before and did not change are kept."""
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
    kept = known.candidates.filter(pc.is_in(known.candidates["exposure_id"], still))
    return pa.concat_tables([kept, found]).combine_chunks()


def _ledger_files(archive: Archive, since: float, until: float) -> list[Path]:
    """Ledger files of the nights that may hold exposures between two times: a night's label is its local evening."""
    first, last = _label(since - 2.0), _label(until + 1.0) if np.isfinite(until) else "9999"
    nights = [night for night in archive.nights("ledger") if first <= night <= last]
    return [path for night in nights for path in archive.tables("ledger", night)]


def _label(mjd: float) -> str:
    return (_MJD_ZERO + dt.timedelta(days=int(mjd))).isoformat()
