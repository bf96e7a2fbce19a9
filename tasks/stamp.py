"""Candidates to stamps."""

from __future__ import annotations

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.frames import Difference, Pair, Stamps
from nightsift.stamps import cut
from nightsift.units import Unit


@task(name="stamp", persist_result=False, cache_policy=NO_CACHE)
def cut_stamps(pair: Pair, difference: Difference, candidates: pa.Table, unit: Unit) -> Stamps:
    """Cut science, template and difference around every candidate.

    Parameters
    ----------
    pair : Pair
        Science and template.
    difference : Difference
        Their difference.
    candidates : pyarrow.Table
        Where to cut.
    unit : Unit
        With its table ``[stamps]``.

    Returns
    -------
    Stamps
        One a candidate, in their order.
    """
    x, y = candidates["x"].to_numpy(), candidates["y"].to_numpy()
    return cut(pair, difference, x, y, unit.stamps.size, unit.stamps.orientation)
