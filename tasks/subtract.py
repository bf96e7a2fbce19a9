"""Pair to difference."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.frames import Difference, Pair
from nightsift.units import Unit
from subtraction import subtract


@task(name="subtract", persist_result=False, cache_policy=NO_CACHE)
def subtract_pair(pair: Pair, unit: Unit) -> Difference:
    """Subtract the template by the method that the unit names.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.
    unit : Unit
        With its table ``[subtraction]``.

    Returns
    -------
    Difference
        The difference.
    """
    return subtract(pair, unit.subtraction.method, unit.subtraction.options)
