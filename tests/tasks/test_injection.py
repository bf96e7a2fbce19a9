"""Injected sources: where they go, how bright they are, and what counts as found."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from nightsift.core.tables import CANDIDATES
from tasks.monitor import APART, SNR, draw_places, draw_snr, match_injected


def test_places_are_good_and_apart() -> None:
    bad = np.zeros((300, 400), dtype=bool)
    bad[:, :200] = True
    taken = np.array([[300.0, 150.0]])
    x, y = draw_places(bad, taken, np.random.default_rng(1))
    assert len(x) > 15
    assert (x > 199).all()
    places = np.concatenate([taken, np.stack([x, y], axis=1)])
    distances = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    assert distances[np.triu_indices(len(places), 1)].min() >= APART
    assert len(draw_places(np.zeros((20, 20), bool), taken, np.random.default_rng(1))[0]) == 0


def test_brightness_covers_its_range_evenly() -> None:
    snr = draw_snr(50, np.random.default_rng(2))
    assert snr.min() >= SNR[0]
    assert snr.max() <= SNR[1]
    steps = np.diff(np.log(np.sort(snr)))
    assert steps.max() < 2.1 * np.log(SNR[1] / SNR[0]) / 50
    assert len(draw_snr(0, np.random.default_rng(2))) == 0


def test_found_and_accepted() -> None:
    wanted = {"x": [10.0, 50.0, 90.0, 130.0], "y": [10.0] * 4, "sign": [1, 1, -1, 1], "flags": [0, 4, 0, 0]}
    wanted |= {"score": [0.9, 0.9, 0.9, 0.1]}
    columns = [pa.array(wanted[f.name], f.type) if f.name in wanted else pa.nulls(4, f.type) for f in CANDIDATES]
    candidates = pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in CANDIDATES]))
    x = np.array([11.0, 50.0, 90.0, 131.0, 200.0])
    found = match_injected(candidates, x, np.full(5, 10.5), threshold=0.5)
    assert found["detected"].tolist() == [True, True, False, True, False]
    assert found["accepted"].tolist() == [True, False, False, False, False]
    assert found["score"][4] is None
    assert not match_injected(CANDIDATES.empty_table(), x, x, threshold=0.5)["detected"].any()
