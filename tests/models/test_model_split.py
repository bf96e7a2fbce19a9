from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TooFewGroups
from models.split import SPLITS, groups_of, split, split_by

names = st.one_of(st.none(), st.sampled_from([f"n{i}" for i in range(12)]))


@st.composite
def examples(draw: st.DrawFn) -> dict[str, np.ndarray]:
    n = draw(st.integers(3, 60))
    return {
        key: np.array(draw(st.lists(names, min_size=n, max_size=n)), dtype=object)
        for key in ("unit", "field", "object")
    }


@settings(max_examples=150, deadline=None)
@given(keys=examples(), seed=st.integers(0, 99))
def test_nothing_stands_on_two_sides(keys: dict[str, np.ndarray], seed: int) -> None:
    n_groups = groups_of(keys).max() + 1
    if n_groups < 3:
        with pytest.raises(TooFewGroups):
            split(keys, seed=seed)
        return
    part = split(keys, seed=seed)
    assert set(part) == set(SPLITS), "every part gets something"
    for values in keys.values():
        for value in {one for one in values if one is not None}:
            assert len(set(part[values == value])) == 1, f"{value} stands on two sides"


@settings(max_examples=50, deadline=None)
@given(keys=examples())
def test_groups_are_no_bigger_than_needed(keys: dict[str, np.ndarray]) -> None:
    """Two examples are in one group only if a chain of shared values leads from one to the other."""
    group = groups_of(keys)
    n = len(group)
    reach = np.eye(n, dtype=bool)
    for values in keys.values():
        reach |= (values[:, None] == values[None, :]) & np.array([value is not None for value in values])[:, None]
    for _ in range(n.bit_length()):
        reach = reach @ reach
    np.testing.assert_array_equal(reach, group[:, None] == group[None, :])


def test_fractions_hold_for_many_groups() -> None:
    part = split({"unit": np.array([f"u{i}" for i in range(100)], dtype=object)}, (0.6, 0.2, 0.2))
    assert [int((part == name).sum()) for name in SPLITS] == [60, 20, 20]


def test_strictest_choice_that_leaves_enough_groups() -> None:
    unit = np.array(["a", "b"] * 8, dtype=object)
    field = np.array([f"f{i // 2}" for i in range(16)], dtype=object)
    part, used = split_by({"unit": unit, "field": field}, (("unit", "field"), ("field",)))
    assert used == ("field",)
    assert set(part) == set(SPLITS)
    with pytest.raises(TooFewGroups, match="2 groups"):
        split_by({"unit": unit}, (("unit",),))
