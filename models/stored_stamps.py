"""Stamps of candidates, from an archive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.frames import Stamps
from nightsift.io.parquet import read_stamps
from nightsift.io.paths import Archive


def read_rows(archive: Archive, candidates: pa.Table, rows: npt.NDArray[np.int64], size: int) -> Stamps:
    """Read the stamps of some candidates, cropped to one size.

    Parameters
    ----------
    archive : Archive
        The archive.
    candidates : pyarrow.Table
        Schema `nightsift.tables.CANDIDATES`.
    rows : ndarray of int64, shape (n,)
        Rows wanted.
    size : int
        Width to which stamps are cropped (pixel, odd).

    Returns
    -------
    Stamps
        One a row, in their order.
    """
    exposures = np.asarray(candidates["exposure_id"])[rows]
    index = np.asarray(candidates["stamp_index"])[rows]
    data = np.zeros((len(rows), size, size, 3), dtype=np.float32)
    mask = np.ones((len(rows), size, size), dtype=np.bool_)
    for exposure in np.unique(exposures):
        here = np.flatnonzero(exposures == exposure)
        one = candidates.slice(int(rows[here[0]]), 1)
        path = archive.stamps(one["night"][0].as_py(), one["unit"][0].as_py(), str(exposure))
        _, stamps = read_stamps(path)
        low = (stamps.data.shape[1] - size) // 2
        inner = slice(low, low + size)
        data[here], mask[here] = stamps.data[index[here]][:, inner, inner], stamps.mask[index[here]][:, inner, inner]
    return Stamps(data, mask)
