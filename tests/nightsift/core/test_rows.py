"""Typed rows are those of the schemas that they mirror: the same columns, in order, of the same types."""

from __future__ import annotations

import typing
from datetime import datetime

import pyarrow as pa
import pytest

from nightsift.core.monitoring_tables import MONITORING
from nightsift.core.rows import CandidateRow, LedgerRow, MonitoringRow
from nightsift.core.tables import CANDIDATES, LEDGER


def kind_of(field: pa.Field) -> object:
    """What `to_pylist` makes of a column."""
    kinds = {
        pa.types.is_string: str, pa.types.is_floating: float, pa.types.is_integer: int, pa.types.is_timestamp: datetime,
    }  # fmt: skip
    (kind,) = (kind for is_of, kind in kinds.items() if is_of(field.type))
    return kind | None if field.nullable else kind


@pytest.mark.parametrize(
    ("row", "schema"), [(LedgerRow, LEDGER), (CandidateRow, CANDIDATES), (MonitoringRow, MONITORING)]
)
def test_rows_are_typed_like_their_schema(row: type, schema: pa.Schema) -> None:
    assert typing.get_type_hints(row) == {field.name: kind_of(field) for field in schema}
    assert list(typing.get_type_hints(row)) == schema.names
