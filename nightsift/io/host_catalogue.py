"""Catalogues of galaxies with sizes and distances, whatever their columns are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nightsift.errors import BadTable
from nightsift.io.galaxy_catalogue import HALF_LIGHT, ISOPHOTAL

PLAIN = ("object_id", "ra", "dec", "radius", "axis_ratio", "angle", "mag", "distance", "distance_err")
HUBBLE = 299792.458 / 70.0
"""Speed of light over Hubble's constant (Mpc)."""
PECULIAR = 300.0 / 70.0
"""Error of a distance from a spectroscopic redshift by peculiar motion of 300 km/s (Mpc)."""
PHOTOMETRIC = 0.015
"""Error of a photometric redshift over 1 + z (2MPZ: Bilicki et al. 2014, ApJS 210, 9)."""
MEASURED = 0.15
"""Relative error of a distance without redshift (Tully-Fisher, fundamental plane)."""


def read_hosts(path: str | Path) -> pa.Table:
    """Read galaxies with half-light radii and distances.

    Parameters
    ----------
    path : str or Path
        Parquet file with the columns ``object_id``, ``ra``, ``dec`` (deg), ``radius`` (half-light, arcsec),
        ``axis_ratio``, ``angle`` (north through east, deg), ``mag``, ``distance`` and ``distance_err`` (Mpc); or GLADE+
        joined with HyperLEDA (see `nightsift.io.galaxy_catalogue`), with ``Dist`` (Mpc), ``f_dL`` and names. Errors of
        the latter follow from how each distance was found: 0.015 (1 + z) for photometric redshifts, peculiar motion of
        300 km/s for spectroscopic ones, 15 % for measured distances; its column ``z_best_std`` is not used.

    Returns
    -------
    pyarrow.Table
        The first set of columns; galaxies without position, size or distance are left out.

    Raises
    ------
    BadTable
        If the file cannot be read or has neither set of columns.
    """
    try:
        names = pq.read_schema(path).names
        if all(name in names for name in PLAIN):
            found = pq.read_table(path, columns=list(PLAIN))
        else:
            lacking = [name for name in (*ISOPHOTAL.values(), "Dist", "f_dL") if name not in names]
            if lacking:
                what = (
                    f"a catalogue of hosts needs the columns {', '.join(PLAIN)}; or {', '.join(lacking)}, as GLADE+ has"
                )
                raise BadTable(path=str(path), what=what)
            labels = [name for name in ("GWGC", "PGC", "GLADE+") if name in names]
            found = _plain(pq.read_table(path, columns=[*ISOPHOTAL.values(), "Dist", "f_dL", *labels]), labels)
    except (OSError, pa.ArrowException) as error:
        raise BadTable(path=str(path), what=" ".join(str(error).split())) from error
    good = np.isfinite(sum(_column(found, name) for name in ("ra", "dec", "radius", "distance")))
    return found.filter(pa.array(good & (_column(found, "radius") > 0.0) & (_column(found, "distance") > 0.0)))


def _plain(table: pa.Table, labels: list[str]) -> pa.Table:
    columns = {name: _column(table, of) for name, of in ISOPHOTAL.items()}
    distance, kind = _column(table, "Dist"), _column(table, "f_dL")
    ratio = np.where(np.isfinite(columns["r25"]), 10 ** -np.abs(columns["r25"]), 1.0)
    return pa.table({
        "object_id": _names(table, labels), "ra": columns["ra"], "dec": columns["dec"],
        "radius": HALF_LIGHT * 6.0 * 10 ** columns["d25"], "axis_ratio": np.clip(ratio, 0.1, 1.0),
        "angle": np.nan_to_num(columns["angle"]), "mag": columns["mag"], "distance": distance,
        "distance_err": distance_errors(distance, kind),
    })  # fmt: skip


def distance_errors(distance: npt.NDArray[np.float64], kind: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Errors of distances by how they were found.

    Parameters
    ----------
    distance : ndarray of float64, shape (n,)
        Luminosity distances (Mpc).
    kind : ndarray of float64, shape (n,)
        The flag ``f_dL`` of GLADE+: 1 from a photometric redshift, 2 measured, 3 from a spectroscopic redshift.

    Returns
    -------
    ndarray of float64, shape (n,)
        Standard deviations (Mpc); unknown kinds count as photometric.
    """
    redshift = distance / HUBBLE  # to first order, which is enough for an error
    photometric = HUBBLE * PHOTOMETRIC * (1.0 + redshift)
    return np.asarray(
        np.select([kind == 2, kind == 3], [MEASURED * distance, np.hypot(PECULIAR, 1e-3 * distance)], photometric)
    )


def _names(table: pa.Table, labels: list[str]) -> pa.Array:
    """The name that people know best."""
    columns = [[_text(value) for value in table[name].to_pylist()] for name in labels]
    named = []
    for row in zip(*columns, strict=True):
        label, value = next(((a, b) for a, b in zip(labels, row, strict=True) if b), ("", ""))
        named.append(value if label == "GWGC" else f"{label} {value}")
    return pa.array(named, pa.string())


def _text(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text in ("null", "nan", "None", "--") else text


def _column(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
