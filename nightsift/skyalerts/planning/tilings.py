"""Fields that can be observed: fixed tile grids from files, and the fields that a survey has templates of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import Tiling
from nightsift.core.errors import BadTiling, FrameError
from nightsift.io.fits import read_header
from nightsift.io.headers import celestial_wcs
from nightsift.sky.fields import SkyField, polygon_field, square_field

MOST_FIELDS = 100_000
WIDTH_WORDS = ("fov", "fov_coverage")


def read_tiling(tiling: Tiling) -> tuple[SkyField, ...]:
    """Read a tile grid.

    Parameters
    ----------
    tiling : Tiling
        Its file and the size of its fields. A line of the file holds name, right ascension and declination (deg),
        separated by blanks or commas; lines that begin with ``#`` or whose second word is no number are left out.
        Without a width, the file of the same name that ends in ``.config`` is asked for ``FOV``.

    Returns
    -------
    tuple of SkyField
        The fields.

    Raises
    ------
    BadTiling
        If the file cannot be read, or holds no fields, one twice, or no size is given.
    """
    path = Path(tiling.file)
    width = tiling.width or _width_beside(path)
    if not width > 0.0:
        raise BadTiling(where=str(path), what="the size of its fields is not given: give width in [[alert.tiling]]")
    fields: dict[str, SkyField] = {}
    for number, words in enumerate(_rows(path), start=1):
        try:
            ra, dec = float(words[1]), float(words[2])
        except ValueError:
            if number == 1:
                continue  # names of columns
            raise BadTiling(where=str(path), what=f"line {number} reads {' '.join(words)[:60]!r}") from None
        name = words[0]
        if name in fields or len(fields) >= MOST_FIELDS:
            what = f"the field {name} is given twice" if name in fields else f"it has more than {MOST_FIELDS} fields"
            raise BadTiling(where=str(path), what=what)
        try:
            fields[name] = _field(name, ra % 360.0, dec, width=width, tiling=tiling)
        except ValueError as error:
            raise BadTiling(where=str(path), what=str(error)) from error
    if not fields:
        raise BadTiling(where=str(path), what="it has no fields")
    return tuple(fields.values())


def template_fields(archive: Archive, units: Iterable[str]) -> tuple[SkyField, ...]:
    """Fields that there are templates of, by the coordinates of their newest template.

    Parameters
    ----------
    archive : Archive
        The archive.
    units : iterable of str
        Units looked at.

    Returns
    -------
    tuple of SkyField
        One per unit and field, called by both; those without coordinates are left out.
    """
    found: dict[str, SkyField] = {}
    for unit in units:
        for path in sorted((archive.root / "templates").glob(f"unit={unit}/field=*/band=*/*.fits")):
            try:
                header = read_header(path, "SCI")
                shape = (int(header["NAXIS2"]), int(header["NAXIS1"]))
                wcs = celestial_wcs(header, shape).wcs
                if wcs is None:
                    continue
                ny, nx = shape
                ra, dec = wcs.all_pix2world([-0.5, nx - 0.5, nx - 0.5, -0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5], 0)
                name = f"{unit} {header.get('FIELD', path.parent.parent.name)}"
                corners = list(zip(np.asarray(ra).tolist(), np.asarray(dec).tolist(), strict=True))
                found[name] = polygon_field(name, corners, units=(unit,), grid="templates")
            except (FrameError, KeyError, ValueError, OSError):
                continue  # a damaged template is found, and reported, where it is used
    return tuple(found.values())


def _field(name: str, ra: float, dec: float, *, width: float, tiling: Tiling) -> SkyField:
    if tiling.shape == "circle":
        return SkyField(name, ra, dec, (), width / 2.0, tiling.units, tiling.name)
    return square_field(name, ra, dec, width=width, height=tiling.height or None, units=tiling.units, grid=tiling.name)


def _rows(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadTiling(where=str(path), what=error.strerror or str(error)) from error
    words = (line.replace(",", " ").split() for line in lines if not line.lstrip().startswith("#"))
    return [one for one in words if len(one) >= 3]


def _width_beside(path: Path) -> float:
    """Width in a file of ``key value`` lines beside the grid, as gwemopt has them."""
    beside = path.with_suffix(".config")
    if not beside.is_file():
        return 0.0
    for words in (line.split() for line in beside.read_text(encoding="utf-8", errors="replace").splitlines()):
        if len(words) == 2 and words[0].lower() in WIDTH_WORDS:
            try:
                return float(words[1])
            except ValueError:
                return 0.0
    return 0.0
