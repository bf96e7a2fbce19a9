from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.dataset import NEVER_SHARED, assign_splits, set_aside, with_test_set
from models.training.examples import EXAMPLES, TrainingSet
from models.training.split import SPLITS, groups_of, split, split_by
from nightsift.core.errors import SharedWithTest, TooFewGroups
from nightsift.core.frames import Stamps
from nightsift.core.tables import table

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


def survey(fields: int, nights: int, each: int = 40, seed: int = 0) -> TrainingSet:
    """One unit; variables of a field are seen every night, galaxies of one field reach into the next."""
    rng = np.random.default_rng(seed)
    n = fields * nights * each
    field, night = np.arange(n) // (nights * each), np.arange(n) // each % nights
    variable = rng.random(n) < 0.2
    rows = {
        "example_id": [f"e{k}" for k in range(n)], "reduction": ["standard"] * n, "survey": ["s"] * n,
        "unit": ["s/u"] * n, "night": [f"n{k}" for k in night], "field": [f"s/f{k}" for k in field],
        "exposure_id": [f"x{f}-{k}" for f, k in zip(field, night, strict=True)],
        "object_id": [f"s/v{field[k]}-{k % 5}" if variable[k] else None for k in range(n)],
        "host_id": [f"s/g{field[k]}-{rng.integers(30)}" if rng.random() < 0.3 else None for k in range(n)],
        "kind": ["bogus"] * n, "label": rng.integers(0, 2, n), "sign": np.ones(n), "snr": np.ones(n),
        "flags": np.zeros(n), "split": ["train"] * n,
    }  # fmt: skip
    return TrainingSet(Stamps(np.zeros((n, 3, 3, 3), np.float32), np.zeros((n, 3, 3), bool)), table(rows, EXAMPLES), {})


@pytest.mark.parametrize(("fields", "nights", "by"), [(12, 3, "field"), (1, 12, "night_of_unit")])
def test_no_frame_galaxy_or_object_stands_on_both_sides(fields: int, nights: int, by: str) -> None:
    """Fault: stamps split at random put the same galaxy and the same frame on both sides."""
    dealt = assign_splits(survey(fields, nights), seed=2)
    assert by in dealt.card["split_by"]
    part = np.asarray(dealt.table["split"].to_pylist())
    for name in (*NEVER_SHARED, by.replace("night_of_unit", "night")):
        values = np.array(dealt.table[name].to_pylist(), dtype=object)
        for value in {one for one in values if one is not None}:
            assert len(set(part[values == value]) - {"aside"}) <= 1, f"{name} {value} stands on two sides"
    assert all((part == name).sum() >= 20 for name in SPLITS)
    assert ("aside" in part) == (fields == 1)
    assert len(dealt) == fields * nights * 40, "what is set aside stays in the table"


def test_set_aside_keeps_the_side_with_most() -> None:
    part = np.array(["train", "train", "test", "test", "validation"])
    shared = {"host_id": np.array(["a", "a", "a", "b", None], dtype=object)}
    assert set_aside(part, shared).tolist() == ["train", "train", "aside", "test", "validation"]


def renamed(found: TrainingSet, prefix: str) -> TrainingSet:
    """The same examples of another survey."""
    columns = found.table.to_pydict()
    for name in ("example_id", "survey", "unit", "field", "exposure_id", "object_id", "host_id"):
        columns[name] = [None if one is None else f"{prefix}{one}" for one in columns[name]]
    return TrainingSet(found.stamps, table(columns, EXAMPLES), found.card)


def test_sets_of_other_units_become_the_test_part_and_nothing_else_does() -> None:
    learn, test = survey(12, 2), renamed(survey(2, 2), "other-")
    whole = with_test_set(learn, test, seed=3)
    part, unit = (np.asarray(whole.table[name].to_pylist()) for name in ("split", "unit"))
    assert set(part[unit == "s/u"]) == {"train", "validation"}
    assert set(part[unit == "other-s/u"]) == {"test"}
    told = {one["part"]: one for one in whole.card["parts"]}
    assert told["test"]["real"] == int(test.labels.sum())
    assert sum(one["real"] + one["bogus"] for one in told.values()) == len(learn) + len(test)


def test_what_is_learnt_from_cannot_be_tested_on() -> None:
    with pytest.raises(SharedWithTest, match="unit"):
        with_test_set(survey(12, 2), survey(2, 2), seed=3)
