"""Catalogues of galaxies with sizes, whatever their columns are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nightsift.errors import BadTable

COLUMNS = ("object_id", "ra", "dec", "radius", "axis_ratio", "angle", "mag")
# Isophotal sizes as HyperLEDA gives them: log of the diameter at 25 mag/arcsec2 in 0.1 arcmin, log of the axis ratio.
ISOPHOTAL = {"ra": "RAJ2000", "dec": "DEJ2000", "d25": "logd25Hyp", "r25": "logr25Hyp", "angle": "PAHyp", "mag": "Bmag"}
NAMES = ("PGC", "GLADE+")
HALF_LIGHT = 0.272  # half-light radius over D25 of a disc of the usual surface brightness (Freeman 1970): 1.678 / 6.16


def read_galaxies(path: str | Path) -> pa.Table:
    """Read galaxies with half-light radii, or with isophotal diameters of HyperLEDA.

    Parameters
    ----------
    path : str or Path
        Parquet file with the columns ``object_id``, ``ra``, ``dec`` (deg), ``radius`` (half-light, arcsec),
        ``axis_ratio``, ``angle`` (deg) and ``mag``; or with ``RAJ2000``, ``DEJ2000``, ``logd25Hyp``, ``logr25Hyp``,
        ``PAHyp`` and ``Bmag``, as GLADE+ joined with HyperLEDA has them. From the latter, half-light radii are 0.272 of
        the diameter, which is good to a factor of about 1.5; unknown axis ratios and angles count as round.

    Returns
    -------
    pyarrow.Table
        The first set of columns; galaxies without a size are left out.

    Raises
    ------
    BadTable
        If the file cannot be read or has neither set of columns.
    """
    try:
        names = pq.read_schema(path).names
        if all(name in names for name in COLUMNS):
            return pq.read_table(path, columns=list(COLUMNS))
        lacking = [name for name in ISOPHOTAL.values() if name not in names]
        if lacking or not any(name in names for name in NAMES):
            what = f"a catalogue of galaxies needs the columns {', '.join(COLUMNS)}"
            raise BadTable(path=str(path), what=what)
        label = next(name for name in NAMES if name in names)
        table = pq.read_table(path, columns=[label, *ISOPHOTAL.values()])
    except (OSError, pa.ArrowException) as error:
        raise BadTable(path=str(path), what=" ".join(str(error).split())) from error
    columns = {name: np.asarray(table[of].cast(pa.float64()).to_numpy()) for name, of in ISOPHOTAL.items()}
    ratio = np.where(np.isfinite(columns["r25"]), 10 ** -np.abs(columns["r25"]), 1.0)
    found = pa.table({
        "object_id": table[label].cast(pa.string()), "ra": columns["ra"], "dec": columns["dec"],
        "radius": HALF_LIGHT * 6.0 * 10 ** columns["d25"], "axis_ratio": np.clip(ratio, 0.1, 1.0),
        "angle": np.nan_to_num(columns["angle"]), "mag": columns["mag"],
    })  # fmt: skip
    return found.filter(pa.array(np.isfinite(columns["d25"]) & np.isfinite(columns["ra"] + columns["dec"])))
