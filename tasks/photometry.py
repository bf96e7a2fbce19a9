"""Forced photometry of one recorded exposure: reduced again up to its difference, measured, nothing of it kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift import __version__
from nightsift.archive.paths import Archive
from nightsift.core import tables
from nightsift.core.frames import Frame
from nightsift.core.provenance import code_of
from nightsift.core.rows import LedgerRow
from nightsift.images.photometry.forced import forced_photometry
from nightsift.io.sources import checksum, local_copy
from nightsift.sky.sphere import separation
from nightsift.unit.units import Unit
from tasks.record import key_of, opening_row
from tasks.reduce import Reduction, to_difference

# A frame reaches this many times the root of the area searched from its centre at most: aspect ratios up to four, a
# third of it masked.
REACH = 1.3


@dataclass(frozen=True, slots=True)
class Position:
    """A place on the sky to be measured.

    Attributes
    ----------
    name : str
        What it is called.
    ra, dec : float
        Right ascension and declination, ICRS (deg).
    """

    name: str
    ra: float
    dec: float


def may_cover(row: LedgerRow, positions: Sequence[Position]) -> list[Position]:
    """Return the positions that an exposure may cover by the centre and area in its ledger row; all without these."""
    if row["ra"] is None or row["dec"] is None or not row["area"]:
        return list(positions)
    reach = REACH * math.sqrt(row["area"])
    return [p for p in positions if separation(row["ra"], row["dec"], p.ra, p.dec) <= reach]


@task(name="photometry", persist_result=False, cache_policy=NO_CACHE)
def measure_exposure(
    row: LedgerRow, unit: Unit, archive: Archive, positions: Sequence[Position], recentre: float = 0.0
) -> pa.Table:
    """Measure positions on one exposure that the ledger knows; the archive is left as it is.

    Parameters
    ----------
    row : mapping
        Its ledger row.
    unit : Unit
        The unit that took it.
    archive : Archive
        Where templates are read.
    positions : sequence of Position
        Positions to measure.
    recentre : float, optional
        How far (pixel) each may move to a certain peak (`nightsift.images.photometry.forced.forced_photometry`).

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.tables.LIGHT_CURVE`: one row for each position that lies on the frame.

    Raises
    ------
    NightsiftError
        If the exposure is gone or can no longer be reduced.
    """
    with local_copy(row["url"]) as path:
        reduction = Reduction(opening_row(unit.name, row["night"], row["url"]))
        reduction.row["checksum"] = checksum(Path(path))
        _, zero = to_difference(reduction, Path(path), unit, archive=archive)
    pair, difference, facts = reduction.pair, reduction.difference, reduction.row
    assert pair is not None
    assert difference is not None
    x, y, on_frame = _places(pair.science, positions)
    forced = forced_photometry(difference, x, y, zero_point=zero, recentre=recentre)
    seen = [p for p, inside in zip(positions, on_frame, strict=True) if inside]
    constant = {name: facts.get(name) for name in ("night", "field", "band", "mjd", "exposure_s", "template_id")} | {
        "exposure_id": row["exposure_id"], "unit": unit.name, "zero_point": facts.get("zero_point"),
        "verdict": difference.verdict, "version": __version__,
        "provenance": key_of(facts["checksum"], facts["template_id"] or "", unit, code=code_of("photometry")),
    }  # fmt: skip
    columns: dict[str, Any] = {"name": [p.name for p in seen], "ra": [p.ra for p in seen], "dec": [p.dec for p in seen]}
    columns |= {name: [value] * len(seen) for name, value in constant.items()}
    columns |= {name: forced[name].combine_chunks() for name in forced.column_names}
    return tables.table(columns, tables.LIGHT_CURVE)


def _places(frame: Frame, positions: Sequence[Position]) -> tuple[Any, Any, Any]:
    """Pixels of the positions that lie on the frame, and which those are; none without coordinates."""
    if frame.wcs is None:
        return np.empty(0), np.empty(0), np.zeros(len(positions), dtype=bool)
    sky = frame.wcs.all_world2pix([[p.ra, p.dec] for p in positions], 0, quiet=True)
    ny, nx = frame.shape
    # The projection maps the far side of the sky onto the frame too.
    back = frame.wcs.all_pix2world(sky, 0)
    there = zip(back.tolist(), positions, strict=True)
    near = np.array([separation(ra, dec, p.ra, p.dec) < 0.01 for (ra, dec), p in there], dtype=bool)
    inside = near & (sky > -0.5).all(axis=1) & (sky[:, 0] < nx - 0.5) & (sky[:, 1] < ny - 0.5)
    return sky[inside, 0], sky[inside, 1], inside
