"""A page on which a person labels candidates by looking at their stamps; what is answered is saved as a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nightsift import __version__
from nightsift.frames import Stamps
from nightsift.report.pictures import strip
from nightsift.report.style import page_template, stylesheet

TEMPLATE = "labelling.html.j2"


def render(unit: str, rows: Sequence[Mapping[str, Any]], stamps: Stamps, table: str, next_step: str) -> str:
    """Write the page.

    The scores are not shown: who sees them agrees with them, and the labels then teach nothing.

    Parameters
    ----------
    unit : str
        The unit.
    rows : sequence of mapping
        Rows of `models.asking.QUESTIONS`.
    stamps : Stamps
        Their stamps.
    table : str
        Name of the table that the page saves.
    next_step : str
        Command that reads it.

    Returns
    -------
    str
        A complete HTML document that needs no other file.

    Raises
    ------
    ValueError
        If stamps and rows differ in number.
    """
    if len(rows) != len(stamps):
        raise ValueError(f"a stamp is needed for each of {len(rows)} rows, got {len(stamps)}")
    page = page_template(TEMPLATE)
    names = [row["candidate_id"] for row in rows]
    cards = [
        {
            **row,
            "rule": row["rule"] or "",
            "picture": strip(Stamps(stamps.data[place : place + 1], stamps.mask[place : place + 1])),
        }
        for place, row in enumerate(rows)
    ]
    return page.render(
        unit=unit, cards=cards, table=table, next_step=next_step, style=stylesheet(), version=__version__,
        width=3 * stamps.data.shape[1] + 2, height=stamps.data.shape[1],
        key="nightsift-" + hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16],
    )  # fmt: skip
