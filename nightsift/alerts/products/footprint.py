"""What was observed after the event: field by field, and the sky and probability covered in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.alerts.coverage import coverage
from nightsift.alerts.products.objects import numbers
from nightsift.alerts.skymap import SKY, SkyMap
from nightsift.sky.fields import SkyField, square_field
from nightsift.sky.sphere import unit_vectors

WHOLE_SKY = 41252.96
SAME = 0.02
"""Degrees: exposures of centres nearer than this are one pointing."""


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
        One a field: name, grid, units, probability, exposures, first, last, depth, bands, observed.
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


def footprint_of(
    exposures: pa.Table, t0: float, fields: Sequence[SkyField], probability: Sequence[float], skymap: SkyMap | None
) -> Footprint:
    """Say what was observed after the event.

    Parameters
    ----------
    exposures : pyarrow.Table
        Schema `nightsift.tables.LEDGER`; those before the event do not count.
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
            found[key] = square_field(f"P{len(found)}", float(a), float(d), float(np.sqrt(size)))
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
