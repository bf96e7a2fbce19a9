"""Positions from a catalogue file, whatever its columns are called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nightsift.errors import BadTable

RA_NAMES = ("ra", "raj2000", "ra_icrs", "ra_deg", "alpha_j2000", "_raj2000")
DEC_NAMES = ("dec", "dej2000", "de_icrs", "dec_deg", "delta_j2000", "_dej2000", "decj2000")


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
