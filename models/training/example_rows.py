"""Rows of a training set from candidates, the truth about them, and what lies around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.synthesis.placement import FADED, GALAXY_PIXEL, INJECTED, PLACED, TRANSPLANTED, VARIED
from models.training.examples import EXAMPLES
from models.training.labels import REAL
from nightsift.context.galaxies import Galaxies, nearest_galaxy
from nightsift.context.known_objects import ASTEROID
from nightsift.context.template_sources import TemplateSources, nearest_source
from nightsift.core.tables import table

VARIABLE = "variable"
SOURCE_OF_KIND = {TRANSPLANTED: "transplanted", ASTEROID: "minor_planet"} | dict.fromkeys(
    (INJECTED, FADED, VARIED), "injected"
)
CLASS_OF_KIND = {ASTEROID: "mover", VARIABLE: "variable", VARIED: "variable"}
IN_GALAXY = 1.5  # half-light radii within which a false detection counts as the residual of a galaxy
UNDER = 5.0  # half-light radii within which a galaxy counts as the host under an example


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Galaxies and sources of the template around the candidates of one exposure.

    Attributes
    ----------
    galaxies : Galaxies
        Galaxies that the frame shows.
    sources : TemplateSources or None
        Sources of the template.
    core : float
        Radius (pixel) around the centre of a galaxy that belongs to it however small it is.
    """

    galaxies: Galaxies
    sources: TemplateSources | None
    core: float


def rows_of(
    candidates: pa.Table,
    labels: npt.NDArray[np.int8],
    matches: npt.NDArray[np.int64],
    *,
    truth: pa.Table,
    survey: str,
    reduction: str,
    around: Surroundings | None = None,
) -> pa.Table:
    """Rows of a training set.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`; of one exposure where `around` is given.
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus.
    matches : ndarray of int64, shape (n,)
        Row of the object in `truth`, -1 where not real.
    truth : pyarrow.Table
        Schema `nightsift.core.tables.TRUTH`.
    survey : str
        Name that keeps units, fields, objects and galaxies apart from those of other surveys.
    reduction : str
        How the night was reduced.
    around : Surroundings, optional
        Galaxies and sources of the template; without them their columns hold the values of the truth, or null.

    Returns
    -------
    pyarrow.Table
        Schema `models.training.examples.EXAMPLES`, all of the split ``"train"``.
    """
    n, real = candidates.num_rows, labels == REAL
    kinds = np.full(n, "bogus", dtype=object)
    kinds[real] = np.asarray(truth["kind"].to_pylist(), dtype=object)[matches[real]]
    source = np.array([SOURCE_OF_KIND.get(one, "detected") for one in kinds], dtype=object)
    source[~real] = "random"
    source[[PLACED in one for one in candidates["candidate_id"].to_pylist()]] = GALAXY_PIXEL
    rows: dict[str, Any] = {
        "example_id": [f"{reduction}/{one}" for one in candidates["candidate_id"].to_pylist()],
        "reduction": [reduction] * n,
        "survey": [survey] * n,
        "unit": [f"{survey}/{one}" for one in candidates["unit"].to_pylist()],
        "night": candidates["night"].to_pylist(),
        "field": [f"{survey}/{one}" for one in candidates["field"].to_pylist()],
        "exposure_id": candidates["exposure_id"].to_pylist(),
        "kind": kinds.tolist(),
        "label": labels,
        "sign": np.asarray(candidates["sign"]),
        "snr": np.asarray(candidates["snr"]),
        "flags": np.asarray(candidates["flags"]),
        "split": ["train"] * n,
        "class": np.where(real, [CLASS_OF_KIND.get(one, "transient") for one in kinds], "bogus").tolist(),
        "mag": candidates["mag"],
    }
    rows |= _of_truth(truth, real, matches, survey=survey)
    if around is not None:
        rows |= _of_surroundings(candidates, rows, source, real=real, survey=survey, around=around)
    return table(rows | {"source": source.tolist()}, EXAMPLES)


def _of_truth(
    truth: pa.Table, real: npt.NDArray[np.bool_], matches: npt.NDArray[np.int64], *, survey: str
) -> Mapping[str, Any]:
    """Columns of real examples that come from the truth."""

    def taken(name: str) -> list[Any]:
        values = truth[name].to_pylist()
        return [values[row] if yes else None for row, yes in zip(matches.tolist(), real.tolist(), strict=True)]

    def named(name: str) -> list[str | None]:
        return [None if one is None else f"{survey}/{one}" for one in taken(name)]

    mags = [None if one is None or not np.isfinite(one) else one for one in taken("mag")]
    return {
        "object_id": named("object_id"), "true_mag": mags, "host_id": named("host_id"),
        "host_offset": taken("host_offset"),
    }  # fmt: skip


def _of_surroundings(
    candidates: pa.Table,
    rows: Mapping[str, Any],
    source: npt.NDArray[np.object_],
    *,
    real: npt.NDArray[np.bool_],
    survey: str,
    around: Surroundings,
) -> Mapping[str, Any]:
    """Galaxy under each example and next source of the template; false detections in galaxies change their source."""
    x, y = (np.asarray(candidates[name], dtype=np.float64) for name in ("x", "y"))
    galaxy, offset = nearest_galaxy(around.galaxies, x, y, most=UNDER)
    hosted = galaxy >= 0
    inside = _in_galaxies(around, x, y) & (source == "random")
    source[inside] = "galaxy_residual"
    hosts, offsets = list(rows["host_id"]), list(rows["host_offset"])
    for k in np.flatnonzero(hosted):
        if hosts[k] is None:
            hosts[k], offsets[k] = f"{survey}/{around.galaxies.host_id[galaxy[k]]}", float(offset[k])
    columns: dict[str, Any] = {"host_id": hosts, "host_offset": offsets}
    if around.sources is not None:
        distance, shape = nearest_source(around.sources, x, y)
        columns |= {"neighbour_distance": _nullable(distance), "star_galaxy": _nullable(shape)}
    return columns


def _in_galaxies(around: Surroundings, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which positions (pixel) are within 1.5 half-light radii of a galaxy, or within its seeing-blurred core."""
    galaxy, offset = nearest_galaxy(around.galaxies, x, y, most=np.inf)
    if not len(around.galaxies):
        return np.zeros(len(x), dtype=np.bool_)
    distance = np.hypot(around.galaxies.x[galaxy] - x, around.galaxies.y[galaxy] - y)
    return np.asarray((offset <= IN_GALAXY) | (distance <= around.core))


def _nullable(values: npt.NDArray[np.floating]) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=~np.isfinite(values))
