"""Real or bogus by truth: detections of a simulated survey compared with what was put into its frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

REAL, BOGUS, AMBIGUOUS = 1, 0, -1


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Options of matching detections with the truth.

    Attributes
    ----------
    radius : float
        A detection closer than this to a changing object, and the closest to it, is real (pixel).
    clear_radius : float
        A detection farther than this from every object of the truth is bogus (pixel); between the two radii it
        is ambiguous: perhaps a fragment, a ring or a blend of something real.
    min_change : float
        A match is real only if the true change of flux has the sign of the detection and at least this fraction of
        its measured flux; else what was detected is something else at the same place, and ambiguous. Where the truth
        has no flux (a predicted minor planet), the detection must be brighter than the template.
    """

    radius: float = 2.5
    clear_radius: float = 10.0
    min_change: float = 0.4


def label(
    candidates: pa.Table, exposure_files: dict[str, str], truth: pa.Table, options: LabelOptions
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Label the candidates of simulated exposures.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    exposure_files : dict of str to str
        File name by exposure_id.
    truth : pyarrow.Table
        Schema `nightsift.core.tables.TRUTH`, of the same survey.
    options : LabelOptions
        What counts as a match.

    Returns
    -------
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus, -1 ambiguous.
    rows : ndarray of int64, shape (n,)
        Row of the matched object in `truth`, -1 where not real.

    Raises
    ------
    ValueError
        If the file name of an exposure is not given.
    """
    labels = np.full(candidates.num_rows, BOGUS, dtype=np.int8)
    matches = np.full(candidates.num_rows, -1, dtype=np.int64)
    absent = sorted(set(candidates["exposure_id"].unique().to_pylist()) - set(exposure_files))
    if absent:
        raise ValueError(f"the ledger names no file for {len(absent)} exposures, such as {absent[0]}")
    place = np.stack([_column(candidates, "x"), _column(candidates, "y")], axis=1)
    flux = _column(candidates, "flux")
    true_place = np.stack([_column(truth, "x"), _column(truth, "y")], axis=1)
    change = _column(truth, "flux") - _column(truth, "reference_flux")
    units, names = np.asarray(truth["unit"]), np.asarray(truth["exposure_file"])
    exposures = np.asarray(candidates["exposure_id"])
    for exposure in np.unique(exposures):
        here = np.flatnonzero(exposures == exposure)
        unit = candidates["unit"][int(here[0])].as_py()
        objects = np.flatnonzero(
            (names == exposure_files[exposure]) & (units == unit) & np.isfinite(true_place).all(axis=1)
        )
        if len(objects) == 0:
            continue
        distance, nearest = cKDTree(true_place[objects]).query(place[here])
        labels[here[distance <= options.clear_radius]] = AMBIGUOUS
        for row, detection in _closest(distance, nearest, options.radius).items():
            true_row, candidate = objects[row], here[detection]
            if _is_the_change(change[true_row], flux[candidate], options.min_change):
                labels[candidate], matches[candidate] = REAL, true_row
    return labels, matches


def _is_the_change(change: float, measured: float, least: float) -> bool:
    if np.isnan(change):
        return measured > 0
    return change * measured > 0 and abs(change) >= least * abs(measured)


def _closest(distance: npt.NDArray[np.float64], nearest: npt.NDArray[np.intp], radius: float) -> dict[int, int]:
    """The closest detection of each object within the radius, as {object: detection}."""
    found: dict[int, int] = {}
    for detection in np.argsort(distance):
        if distance[detection] > radius:
            break
        found.setdefault(int(nearest[detection]), int(detection))
    return found


def _column(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(pc.cast(table[name], pa.float64()).to_numpy(), dtype=np.float64)
