"""Our tables and images as those of astropy: columns with units and descriptions, images as `CCDData`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.core.flags import HARD
from nightsift.core.frames import FloatImage, MaskImage

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.table import Table
    from astropy.wcs import WCS

FORMATS = {"deg": ".6f", "mag": ".3f", "pixel": ".2f", "adu": ".1f", "d": ".5f", "arcsec": ".2f", "s": ".1f"}
"""Digits shown of numbers in a unit."""

SCORES = {"score": ".7f", "score_std": ".2g", "confidence": ".5f"}
"""Digits shown of scores, most of which lie near 0 or 1."""


def to_table(table: pa.Table, **meta: Any) -> Table:
    """Make an astropy table of an Arrow table.

    Parameters
    ----------
    table : pyarrow.Table
        The table; fields may say ``unit`` and ``description`` in their metadata.
    **meta
        What the ``meta`` of the result is to hold.

    Returns
    -------
    astropy.table.Table
        Columns with their units and descriptions. A column that may be null is masked where it is.
    """
    from astropy.table import Column, MaskedColumn, Table

    columns = []
    for field in table.schema:
        column = table[field.name].combine_chunks()
        null = np.asarray(column.is_null())
        notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        given: dict[str, Any] = {
            "name": field.name, "unit": notes.get("unit") or None, "description": notes.get("description"),
            "format": _format(field, notes.get("unit", "")),
        }  # fmt: skip
        values = _values(column, field.type)
        columns.append(MaskedColumn(values, mask=null, **given) if null.any() else Column(values, **given))
    return Table(columns, meta=meta)


def _format(field: pa.Field, unit: str) -> str | None:
    """How numbers are shown; what they are stays as it is."""
    if not pa.types.is_floating(field.type):
        return None
    return SCORES.get(field.name) or FORMATS.get(unit, ".5g")


def _values(column: pa.Array, kind: pa.DataType) -> npt.NDArray[Any]:
    """Values of a column; what is null is zero, empty or false: its mask says so."""
    if pa.types.is_string(kind):
        return np.array(pc.fill_null(column, "").to_pylist(), dtype=str)
    if pa.types.is_timestamp(kind):
        return np.array(["" if one is None else one.isoformat() for one in column.to_pylist()], dtype=str)
    filled = pc.fill_null(column, False if pa.types.is_boolean(kind) else 0)
    return np.array(filled.to_numpy(zero_copy_only=False), dtype=kind.to_pandas_dtype())


def to_ccddata(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    *,
    unit: Any,
    wcs: WCS | None = None,
    meta: Mapping[str, Any] | None = None,
) -> CCDData:
    """Make a `CCDData` of an image; all planes are copies.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Image and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Bits of `nightsift.core.flags.Mask`.
    unit : str or astropy.units.Unit
        Unit of `data`.
    wcs : astropy.wcs.WCS, optional
        Celestial coordinates.
    meta : mapping, optional
        What is known of it.

    Returns
    -------
    astropy.nddata.CCDData
        Its uncertainty is a `VarianceUncertainty`; its mask is true where a pixel holds no usable value (any bit but
        BRIGHT_STAR); its flags are all bits.
    """
    from astropy.nddata import CCDData, VarianceUncertainty

    return CCDData(
        data.copy(), unit=unit, uncertainty=VarianceUncertainty(variance.copy()), mask=(mask & np.uint16(HARD)) != 0,
        flags=mask.copy(), wcs=wcs, meta=dict(meta or {}),
    )  # fmt: skip
