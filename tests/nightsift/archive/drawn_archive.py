"""Tables of a schema for archives that are drawn instead of reduced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from nightsift.core import tables


def filled(of: pa.Schema, n: int, **given: Any) -> pa.Table:
    """A table of a schema: what is given, and something that fits elsewhere."""
    values = dict(given)
    for field in of:
        if field.name not in values and not field.nullable:
            empty: Any = "" if field.type == pa.string() else 0
            values[field.name] = [datetime.now(UTC) if pa.types.is_timestamp(field.type) else empty] * n
    return tables.table(values, of)
