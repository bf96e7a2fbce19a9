"""Catalogue files of positions and of galaxies, whatever their columns are called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nightsift.core.errors import BadTable

RA_NAMES = ("ra", "raj2000", "ra_icrs", "ra_deg", "alpha_j2000", "_raj2000")
DEC_NAMES = ("dec", "dej2000", "de_icrs", "dec_deg", "delta_j2000", "_dej2000", "decj2000")
Values = npt.NDArray[np.float64]
COLUMNS = ("object_id", "ra", "dec", "radius", "axis_ratio", "angle", "mag")
"""Of every galaxy: identity, position (deg), half-light radius (arcsec), axis ratio, angle (deg), magnitude."""

DISTANCES = ("distance", "distance_err")
EXTENDED = (*COLUMNS, "name", *DISTANCES, "redshift", "redshift_err")
"""With name, luminosity distance (Mpc) and redshift, and the errors of both."""

HALF_LIGHT = 0.272  # half-light radius over D25 of a disc of the usual surface brightness (Freeman 1970): 1.678 / 6.16
HUBBLE = 299792.458 / 70.0
"""Speed of light over Hubble's constant (Mpc)."""

PECULIAR = 300.0 / 70.0
"""Error of a distance from a spectroscopic redshift by peculiar motion of 300 km/s (Mpc)."""

PHOTOMETRIC = 0.015
"""Error of a photometric redshift over 1 + z (2MPZ: Bilicki et al. 2014, ApJS 210, 9)."""

MEASURED = 0.15
"""Relative error of a distance without redshift (Tully-Fisher, fundamental plane)."""

_MEASURED, _SPECTROSCOPIC = 2, 3  # values of f_dL
# Columns of GLADE+ joined with HyperLEDA by what they hold. Isophotal sizes: log of the diameter at 25 mag/arcsec2 in
# 0.1 arcmin, log of the axis ratio. The error of its redshifts, z_best_std, is 0.3 z throughout and is not used.
ISOPHOTAL = {"ra": "RAJ2000", "dec": "DEJ2000", "d25": "logd25Hyp", "r25": "logr25Hyp", "angle": "PAHyp", "mag": "Bmag"}
FOUND = {"distance": "Dist", "kind": "f_dL"}
REDSHIFT = "z_best"
IDENTITIES = ("PGC", "GLADE+", "GWGC")
NAMES = ("GWGC", "PGC", "GLADE+")
"""The name that people know best first; those of the first are complete, others are put behind their catalogue."""


def read_positions(path: str | Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Read right ascension and declination of a catalogue.

    Parameters
    ----------
    path : str or Path
        Parquet or CSV file, or a text file (``.txt``, ``.dat``) whose lines begin with both in degrees, as Milliquas
        has them; environment variables and ``~`` are expanded.

    Returns
    -------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg); rows without a finite position are left out.

    Raises
    ------
    BadTable
        If the file cannot be read, or has no columns of positions in degrees.
    """
    file = Path(os.path.expandvars(str(path))).expanduser()
    if file.suffix in (".txt", ".dat"):
        return _beginnings(file)
    try:
        names = _names(file)
        columns = [_column(file, names, wanted) for wanted in (RA_NAMES, DEC_NAMES)]
        table = _read(file, columns)
        ra, dec = (np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64) for name in columns)
    except (OSError, pa.ArrowException) as error:
        raise BadTable(path=str(file), what=" ".join(str(error).split())) from error
    good = np.isfinite(ra) & np.isfinite(dec)
    return ra[good], dec[good]


def read_galaxies(path: str | Path, *, distances: bool = False) -> pa.Table:
    """Read galaxies with half-light radii, or with isophotal diameters of HyperLEDA.

    Parameters
    ----------
    path : str or Path
        Parquet file with the columns ``object_id``, ``ra``, ``dec`` (deg), ``radius`` (half-light, arcsec),
        ``axis_ratio``, ``angle`` (north through east, deg) and ``mag``, for distances also ``distance`` and
        ``distance_err`` (Mpc), and where they are known ``name``, ``redshift`` and ``redshift_err``; or GLADE+ joined
        with HyperLEDA. From the latter, half-light radii are 0.272 of the diameter, which is good to a factor of about
        1.5; unknown axis ratios and angles count as round; errors of distances are 0.015 (1 + z) for
        photometric redshifts, peculiar motion of 300 km/s for spectroscopic ones, and 15 % for measured distances.
    distances : bool, optional
        Read names, distances and redshifts too, and leave out galaxies without position, size or distance.

    Returns
    -------
    pyarrow.Table
        Columns `COLUMNS`, or `EXTENDED` with distances; redshifts and their errors are NaN where unknown. Galaxies of
        GLADE+ without a position or size are left out.

    Raises
    ------
    BadTable
        If the file cannot be read or has neither set of columns.
    """
    try:
        present = pq.read_schema(path).names
        own = (*COLUMNS, *DISTANCES) if distances else COLUMNS
        if all(name in present for name in own):
            more = [name for name in EXTENDED if name in present and name not in own] if distances else []
            found = pq.read_table(path, columns=[*own, *more])
            found = _extended(found) if distances else found
        else:
            lacking = [
                name for name in (*ISOPHOTAL.values(), *(FOUND.values() if distances else ())) if name not in present
            ]
            labels = [name for name in NAMES if name in present]
            if lacking or not labels:
                theirs = ", ".join(lacking or [" or ".join(IDENTITIES)])
                what = f"a catalogue of galaxies needs the columns {', '.join(own)}; or {theirs}, as GLADE+ has"
                raise BadTable(path=str(path), what=what)
            more = [name for name in (*FOUND.values(), REDSHIFT) if name in present] if distances else []
            found = _of_glade(pq.read_table(path, columns=[*ISOPHOTAL.values(), *labels, *more]), labels, distances)
    except (OSError, pa.ArrowException) as error:
        raise BadTable(path=str(path), what=" ".join(str(error).split())) from error
    if not distances:
        return found
    good = np.isfinite(sum(_galaxy_column(found, name) for name in ("ra", "dec", "radius", "distance")))
    return found.filter(
        pa.array(good & (_galaxy_column(found, "radius") > 0.0) & (_galaxy_column(found, "distance") > 0.0))
    )


def _beginnings(file: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positions at the beginning of lines; lines that begin otherwise are headers or comments."""
    rows = []
    try:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split(maxsplit=2)
            try:
                rows.append((float(words[0]), float(words[1])))
            except (ValueError, IndexError):
                continue
    except OSError as error:
        raise BadTable(path=str(file), what=" ".join(str(error).split())) from error
    if not rows:
        raise BadTable(path=str(file), what="no line begins with right ascension and declination in degrees")
    ra, dec = np.array(rows, dtype=np.float64).T
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
    return ra[good], dec[good]


def _names(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return list(pq.read_schema(file).names)
    with pyarrow.csv.open_csv(file) as reader:
        return list(reader.schema.names)


def _column(file: Path, names: list[str], wanted: tuple[str, ...]) -> str:
    found = [name for alias in wanted for name in names if name.lower() == alias]
    if not found:
        raise BadTable(path=str(file), what=f"it has no column called {' or '.join(wanted)}, only {', '.join(names)}")
    return found[0]


def _read(file: Path, columns: list[str]) -> pa.Table:
    if file.suffix == ".parquet":
        return pq.read_table(file, columns=columns)
    return pyarrow.csv.read_csv(file, convert_options=pyarrow.csv.ConvertOptions(include_columns=columns))


def _extended(table: pa.Table) -> pa.Table:
    """Columns `EXTENDED` of a table that may lack names and redshifts."""
    unknown = pa.array(np.full(table.num_rows, np.nan))
    for name in EXTENDED:
        if name not in table.column_names:
            table = table.append_column(name, table["object_id"] if name == "name" else unknown)
    return table.select(EXTENDED)


def _of_glade(table: pa.Table, labels: list[str], distances: bool) -> pa.Table:
    columns = {name: _galaxy_column(table, of) for name, of in ISOPHOTAL.items()}
    ratio = np.where(np.isfinite(columns["r25"]), 10 ** -np.abs(columns["r25"]), 1.0)
    identity = next(name for name in IDENTITIES if name in labels)
    found = {
        "object_id": table[identity].cast(pa.string()), "ra": columns["ra"], "dec": columns["dec"],
        "radius": HALF_LIGHT * 6.0 * 10 ** columns["d25"], "axis_ratio": np.clip(ratio, 0.1, 1.0),
        "angle": np.nan_to_num(columns["angle"]), "mag": columns["mag"],
    }  # fmt: skip
    if distances:
        distance, kind = _galaxy_column(table, FOUND["distance"]), _galaxy_column(table, FOUND["kind"])
        error = _distance_errors(distance, kind)
        known = REDSHIFT in table.column_names
        found |= {
            "name": _galaxy_names(table, labels), "distance": distance, "distance_err": error,
            "redshift": _galaxy_column(table, REDSHIFT) if known else np.full(len(distance), np.nan),
            # a distance that was not measured is the redshift, in other units
            "redshift_err": np.where(known & (kind != _MEASURED), error / HUBBLE, np.nan),
        }  # fmt: skip
    placed = np.isfinite(columns["d25"]) & np.isfinite(columns["ra"] + columns["dec"])
    return pa.table(found).filter(pa.array(placed))


def _distance_errors(distance: Values, kind: Values) -> Values:
    """Standard deviations of distances (Mpc) by the flag ``f_dL`` of GLADE+; unknown kinds count as photometric."""
    redshift = distance / HUBBLE  # to first order, which is enough for an error
    photometric = HUBBLE * PHOTOMETRIC * (1.0 + redshift)
    spectroscopic = np.hypot(PECULIAR, 1e-3 * distance)
    kinds = [kind == _MEASURED, kind == _SPECTROSCOPIC]
    return np.asarray(np.select(kinds, [MEASURED * distance, spectroscopic], photometric))


def _galaxy_names(table: pa.Table, labels: list[str]) -> pa.Array:
    """The name that people know best."""
    columns = [[_text(value) for value in table[name].to_pylist()] for name in labels]
    named = []
    for row in zip(*columns, strict=True):
        label, value = next(((a, b) for a, b in zip(labels, row, strict=True) if b), ("", ""))
        named.append(value if label == NAMES[0] else f"{label} {value}")
    return pa.array(named, pa.string())


def _text(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text in ("null", "nan", "None", "--") else text


def _galaxy_column(table: pa.Table, name: str) -> Values:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
