"""Which candidates a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

FLAGGED_SHARE = 0.25
"""Part of the places that is left to flagged candidates."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Candidates to be shown.

    Attributes
    ----------
    best : pyarrow.Table
        Candidates without a flag, best score first: those above the threshold of their unit, then the next best.
    flagged : pyarrow.Table
        The best of those with a flag, best score first.
    accepted : int
        Candidates without a flag above the threshold, shown or not.
    shown_accepted : int
        Those among them that are shown: the first rows of `best`.
    """

    best: pa.Table
    flagged: pa.Table
    accepted: int
    shown_accepted: int


def choose(candidates: pa.Table, thresholds: Mapping[str, float], most: int = 200, fill: int = 24) -> Choice:
    """Choose the candidates to be shown.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.tables.CANDIDATES`.
    thresholds : mapping of str to float
        Score from which a candidate counts as accepted, by unit; units that are absent accept nothing.
    most : int, optional
        Candidates to show in all.
    fill : int, optional
        Places for candidates without a flag, also when fewer reach the threshold.

    Returns
    -------
    Choice
        The candidates.
    """
    units = candidates["unit"].to_pylist()
    limit = np.array([thresholds.get(unit, np.inf) for unit in units], dtype=np.float64)
    score = _numbers(candidates["score"], -1.0)
    clean = candidates["flags"].to_numpy() == 0
    accepted = clean & (score >= limit)
    # Without a model no score is known: then the signal-to-noise ratio alone gives the order.
    order = np.lexsort((-_numbers(candidates["snr"], 0.0), -score))
    places = most - int(most * FLAGGED_SHARE)
    n_accepted = int(accepted.sum())
    first, rest = order[accepted[order]][:places], order[(clean & ~accepted)[order]]
    best = np.concatenate([first, rest[: max(0, min(fill, places) - len(first))]])
    flagged = order[~clean[order]][: most - places]
    return Choice(candidates.take(pa.array(best)), candidates.take(pa.array(flagged)), n_accepted, len(first))


def _numbers(column: pa.ChunkedArray, missing: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.nan_to_num(pc.fill_null(column, missing).to_numpy().astype(np.float64), nan=missing))
