"""The identity of what is found in an exposure: options of its pixels are part of it, others are not."""

from __future__ import annotations

from typing import Any

import pytest

from nightsift.unit.units import Unit, load_unit
from tasks.record import key_of


def changed(unit: Unit, table: str, **options: Any) -> Unit:
    return unit.model_copy(update={table: getattr(unit, table).model_copy(update=options)})


@pytest.mark.parametrize(
    ("table", "option", "value", "counts"),
    [
        ("site", "latitude", 1.0, False),
        ("template", "max_frames", 3, False),
        ("template", "max_seeing", 9.0, False),
        ("template", "catalogue", "other.csv", False),
        ("model", "threshold", 0.123, False),
        ("site", "longitude", 1.0, True),
        ("template", "min_coverage", 0.123, True),
        ("psf", "order", 3, True),
        ("detection", "threshold", 9.0, True),
    ],
)
def test_only_options_of_pixels_change_the_key(table: str, option: str, value: Any, counts: bool) -> None:
    unit = load_unit("panoptes")
    other = changed(unit, table, **{option: value})
    assert other != unit
    assert (key_of("c", "t", other) != key_of("c", "t", unit)) == counts
