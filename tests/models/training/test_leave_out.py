"""What is left out is not learnt from, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.network.card import render
from models.training.dataset import leave_out
from models.training.examples import TrainingSet
from nightsift.core.errors import NothingLeft, UnknownSource

REAL_SOURCES = ("detected", "minor_planet", "injected", "transplanted")
BOGUS_SOURCES = ("random", "galaxy_residual")


@pytest.fixture
def sourced(separable: TrainingSet) -> TrainingSet:
    """Examples of every source in every part, and some whose source nobody wrote down."""
    number = np.arange(len(separable))
    source = np.where(
        separable.labels == 1, np.take(REAL_SOURCES, number % len(REAL_SOURCES)), np.take(BOGUS_SOURCES, number % 2)
    ).astype(object)
    source[::50] = None
    place = separable.table.schema.get_field_index("source")
    table = separable.table.set_column(place, separable.table.schema.field(place), pa.array(source, pa.string()))
    return TrainingSet(separable.stamps, table, separable.card)


def _columns(examples: TrainingSet) -> tuple[np.ndarray, np.ndarray]:
    source = np.array([one or "" for one in examples.table["source"].to_pylist()])
    return source, np.asarray(examples.table["split"]).astype(str)


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        (["synthetic"], {"injected", "transplanted"}),
        (["real-but-minor-planets"], {"injected", "transplanted", "detected"}),
        (["transplanted", "galaxy_residual", "transplanted"], {"transplanted", "galaxy_residual"}),
    ],
)
def test_what_is_left_out_stays_in_the_test_part_and_is_counted(
    sourced: TrainingSet, names: list[str], gone: set[str]
) -> None:
    kept = leave_out(sourced, names)
    source, before = _columns(sourced)
    _, after = _columns(kept)
    left = np.isin(source, sorted(gone)) & (before != "test")
    assert set(after[left]) == {"aside"}
    assert np.array_equal(after[~left], before[~left]), "everything else keeps its part"
    assert len(kept) == len(sourced), "nothing is dropped"
    counts = kept.card["not_learnt_from"]
    assert set(counts) == gone
    assert sum(counts.values()) == left.sum()
    assert {one["part"] for one in kept.card["parts"]} == {"train", "validation", "test", "aside"}
    assert "not learnt from" in render({"name": "m", "data": kept.card}).lower()
    assert "not_learnt_from" not in sourced.card


def test_nothing_left_out_is_the_same_set(sourced: TrainingSet) -> None:
    assert leave_out(sourced, ()) is sourced


def test_an_unknown_source_is_refused_with_those_that_are_there(sourced: TrainingSet) -> None:
    with pytest.raises(UnknownSource, match="'galaxy_pixel'; there are detected, galaxy_residual, injected") as told:
        leave_out(sourced, ["random", "galaxy_pixel"])
    assert "synthetic, real-but-minor-planets" in str(told.value)


def test_what_stands_in_the_test_part_alone_cannot_be_left_out(sourced: TrainingSet) -> None:
    source, part = _columns(sourced)
    rows = np.flatnonzero((part == "test") | (source != "injected"))
    with pytest.raises(UnknownSource, match="'injected'"):
        leave_out(sourced.take(rows), ["injected"])


def test_too_much_left_out_is_refused(sourced: TrainingSet) -> None:
    rows = np.flatnonzero(_columns(sourced)[0] != "")
    with pytest.raises(NothingLeft, match="no bogus examples are left in the part 'train'"):
        leave_out(sourced.take(rows), list(BOGUS_SOURCES))
