"""Growing parts of a set: whole units, each part holding the smaller ones, gone through as often as is said."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from models.training.dataset import split_without_test
from models.training.examples import TrainingSet
from models.training.subsets import first_units, learning_curve, more_epochs
from models.training.train import TrainOptions

NETWORK = {"filters": (4, 6), "dense": 8}


def test_each_part_holds_the_smaller_ones() -> None:
    units = np.repeat([f"u{i}" for i in range(20)], 5)
    parts = [first_units(units, fraction, seed=2) for fraction in (0.0, 0.1, 0.5, 1.0)]
    assert [len(part) for part in parts] == [1, 2, 10, 20]
    for small, large in pairwise(parts):
        assert set(small) <= set(large)
    assert set(parts[1]) != set(first_units(units, 0.1, seed=3)), "another seed takes other units"


@pytest.mark.parametrize(("power", "epochs"), [(0.0, 10), (0.5, 20), (1.0, 40)])
def test_a_quarter_is_gone_through_more_often(power: float, epochs: int) -> None:
    options = more_epochs(TrainOptions(epochs=10, patience=5), 0.25, power)
    assert (options.epochs, options.patience) == (epochs, epochs // 2)
    assert more_epochs(TrainOptions(epochs=10), 1.0, power) == TrainOptions(epochs=10)


def test_the_curve_tells_what_each_network_learnt_from(separable: TrainingSet) -> None:
    done: list[tuple[int, int]] = []
    options = TrainOptions(network=NETWORK, epochs=1, batch=64, seed=1)
    points = learning_curve(separable, options, (0.2, 1.0), progress=lambda one, of: done.append((one, of)))
    assert done == [(1, 2), (2, 2)]
    assert [point["units"] for point in points] == [1, 6]
    assert points[1]["examples"] == len(separable.part("train"))
    assert all(0 < point["one_minus_auc"] < 1 and 0 < point["fpr_1"] <= 1 for point in points)


def test_what_is_tested_elsewhere_leaves_no_test_part(separable: TrainingSet) -> None:
    dealt = split_without_test(separable, seed=1)
    unit, part = (np.asarray(dealt.table[name]).astype(str) for name in ("unit", "split"))
    assert set(part) == {"train", "validation"}
    assert not set(unit[part == "train"]) & set(unit[part == "validation"])
