"""Difference to candidates."""

from __future__ import annotations

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.frames import Difference, Pair
from nightsift.images.align import Alignment
from nightsift.images.extract import extract
from nightsift.images.photometry import ZeroPoint, zero_point
from nightsift.images.stars import StarTable
from nightsift.templates import Template
from nightsift.units import Unit


@task(name="zero-point", persist_result=False, cache_policy=NO_CACHE)
def calibrate(found: StarTable, template: Template, alignment: Alignment) -> ZeroPoint:
    """Zero point of a frame against its template's stars.

    Parameters
    ----------
    found : ndarray of STAR_DTYPE
        Stars of the science frame.
    template : Template
        Its template.
    alignment : Alignment
        The mapping between them.

    Returns
    -------
    ZeroPoint
        The zero point.
    """
    return zero_point(found, template, alignment)


@task(name="extract", persist_result=False, cache_policy=NO_CACHE)
def find_candidates(difference: Difference, pair: Pair, unit: Unit, zero: ZeroPoint, template_id: str) -> pa.Table:
    """Candidates of both signs, measured and flagged; scores still null.

    Parameters
    ----------
    difference : Difference
        The difference.
    pair : Pair
        What it was made of.
    unit : Unit
        With its table ``[detection]``.
    zero : ZeroPoint
        Zero point of the frame.
    template_id : str
        Identity of the template.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.tables.CANDIDATES`.
    """
    return extract(difference, pair, unit, zero, template_id)
