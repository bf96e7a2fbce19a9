"""The page docs/schema.md, generated from the table schemas and the flags.

Run ``python -m nightsift.schema_docs docs/schema.md`` (or ``make docs``) after a change of either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path

from nightsift import campaign_tables, tables
from nightsift.alerts.products.tables import RANKED_COLUMNS
from nightsift.alerts.tables import FIELD_COLUMNS
from nightsift.flags import Flag, Mask

_HEAD = """\
# Tables and flags

Generated from `nightsift/tables.py`, `nightsift/campaign_tables.py`, `nightsift/alerts/products/tables.py` and
`nightsift/flags.py` by `make docs`; do not edit.

Units are in the notation of the IVOA (VOUnits). The same units and descriptions stand in the metadata of every
parquet file. Each column has one writer: the module to look into when a value surprises.
"""


_TABLES: tuple[tuple[str, str, Iterable[tables.Column]], ...] = (
    (
        "Candidates",
        "One row a detection on the difference image, flagged ones included. "
        "`candidates/night=.../unit=.../<exposure_id>.parquet`",
        tables.CANDIDATE_COLUMNS,
    ),
    (
        "Ledger",
        "One row an exposure: what became of it and why. `ledger/night=.../unit=.../<exposure_id>.parquet`",
        tables.LEDGER_COLUMNS,
    ),
    (
        "Light curves",
        "One row a position and exposure that covers it, written by `nightsift photometry`: the position is held "
        "fixed, so fluxes scatter around the truth, negative ones included. The columns from `x` to `flags` are "
        "those of `nightsift.images.forced.forced_photometry`.",
        tables.LIGHT_CURVE_COLUMNS,
    ),
    (
        "Truth of a simulated survey",
        "One row an object and exposure, of those that differ from the templates. `truth.parquet`",
        tables.TRUTH_COLUMNS,
    ),
    (
        "Monitoring",
        "One row a unit, night and channel, written by `nightsift monitor`: is the unit still like the nights that "
        "its scores were calibrated on? `monitoring/night=.../unit=.../verdict.parquet`",
        tables.MONITORING_COLUMNS,
    ),
    (
        "Injections",
        "One row an injected source: what the pipeline makes of sources of known place and flux, by the model that "
        "served. `injections/night=.../unit=.../<exposure_id>.parquet`",
        tables.INJECTION_COLUMNS,
    ),
    (
        "Plan of a campaign",
        "One row an exposure that `nightsift backfill` is to reduce. `campaigns/<campaign>/plan/*.parquet`",
        campaign_tables.PLAN_COLUMNS,
    ),
    (
        "Chunks of a campaign",
        "One row a chunk that was begun: the truth about a campaign. `campaigns/<campaign>/chunks/*.parquet`",
        campaign_tables.CHUNK_COLUMNS,
    ),
    (
        "Comparison of two versions",
        "One row a difference, written by `nightsift catalog compare --out`.",
        campaign_tables.COMPARISON_COLUMNS,
    ),
    (
        "Ranked candidates of an alert",
        "One row an object seen after the event, none left out; the formula stands in "
        "[algorithms.md](algorithms.md), section 21. `alerts/<event>/<revision>/candidates.parquet`",
        RANKED_COLUMNS,
    ),
    (
        "Fields of an alert",
        "One row a field that an alert wants, best first, and those that it would want but cannot be observed. "
        "`alerts/<event>/fields.parquet`",
        FIELD_COLUMNS,
    ),
)


def schema_page() -> str:
    """Render the documentation of all tables and flags.

    Returns
    -------
    str
        The page, in Markdown.
    """
    parts = [
        _HEAD,
        *(_table(*one) for one in _TABLES),
        _flags("Candidate flags", "Bits of the column `flags` (int32). A flag never removes a candidate.", Flag),
        _flags("Mask planes", "Bits of a pixel mask (uint16). A pixel is good when no bit is set.", Mask),
    ]
    return "\n".join(parts)


def _table(title: str, text: str, columns: Iterable[tables.Column]) -> str:
    rows = [
        f"## {title}",
        "",
        text,
        "",
        "| column | type | unit | null | description | writer |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| `{c.name}` | {c.type} | {c.unit.replace('|', '')} | {'yes' if c.nullable else ''} "
        f"| {c.description.replace('|', '&#124;')} | `{c.writer}` |"
        for c in columns
    ]
    return "\n".join(rows) + "\n"


def _flags(title: str, text: str, kind: type[IntFlag]) -> str:
    rows = [f"## {title}", "", text, "", "| bit | value | name | meaning |", "|---|---|---|---|"]
    rows += [
        f"| {bit.value.bit_length() - 1} | {bit.value} | `{bit.name}` | {getattr(bit, 'description', '')} |"
        for bit in kind
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_page(), encoding="utf-8")
