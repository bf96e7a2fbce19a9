"""The counting of the drift benchmark, without its nights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import alarms, nights


def test_partings_use_every_night_once() -> None:
    first, judged = alarms.parting(50, 0, 12)
    assert first.tolist() == list(range(12))
    other, rest = alarms.parting(50, 3, 12)
    assert other.tolist() != first.tolist()
    assert sorted([*other, *rest]) == list(range(50))
    assert len(judged) == 38


def test_range_of_a_rate() -> None:
    low, high = alarms.wilson(0, 300)
    assert low == 0.0
    assert 0.012 < high < 0.013
    low, high = alarms.wilson(30, 300)
    assert low < 0.1 < high


def test_table_counts_by_fault_and_strength() -> None:
    base = {"fault": "gain", "strength": "strong", "p": [1e-3, 1e-5], "reasons": ["noise"]}
    rows = [{**base, "delay": 1}, {**base, "delay": 2}, {**base, "delay": None, "reasons": []}]
    line = alarms.table(rows)[1].split()
    assert line[:6] == ["gain", "strong", "3", "1", "2", "2"]
    assert line[-2:] == ["noise", "2"]


def test_faults_change_one_thing() -> None:
    clean = nights.options_of(0, nights.nights(50, 2))
    for fault in nights.FAULTS:
        options = nights.planted(fault, "strong", 0)
        unit, was = options.units[0], clean.units[0]
        assert (unit.name, unit.shape, unit.zero_point) == (was.name, was.shape, was.zero_point)
        changed = (unit.optics != was.optics, unit.detector != was.detector, options.artefacts != clean.artefacts)
        expected = {"defocus": (1, 0, 0), "gain": (0, 1, 0), "node": (1, 1, 0), "flat": (0, 1, 0), "cloud": (0, 0, 1)}
        assert np.array_equal(changed, expected.get(fault, (0, 0, 0)))


def test_stored_nights_are_the_same(tmp_path: Path) -> None:
    from models.drift.night_channels import NightData

    def night(name: str, n: int) -> NightData:
        draw = np.random.default_rng(n)
        inputs = {"seeing": np.array([2.0, np.nan]), "field": np.array(["a/r", "b/r"])}
        exposures = np.array([f"x{k}" for k in range(n)], dtype=np.str_)
        features = draw.normal(size=(n, 4)).astype(np.float32).astype(np.float64)
        return NightData("u-1", name, inputs, draw.normal(size=n), features, exposures, 5, 3)

    clean = {"unit-00": [night("2026-09-01", 6), night("2026-09-02", 0)]}
    faulty = {("cloud", "strong", "unit-00"): [night("2026-10-21", 3)]}
    alarms.pack(tmp_path / "nights.npz", clean, faulty)
    again, sick = alarms.read_nights(None, tmp_path / "nights.npz")
    assert list(again) == list(clean)
    assert list(sick) == list(faulty)
    pairs = [*zip(again["unit-00"], clean["unit-00"], strict=True)]
    for one, was in [*pairs, (sick["cloud", "strong", "unit-00"][0], faulty["cloud", "strong", "unit-00"][0])]:
        assert (one.unit, one.night, one.injected, one.recovered) == (was.unit, was.night, 5, 3)
        for name in ("logits", "features", "exposures"):
            np.testing.assert_array_equal(getattr(one, name), getattr(was, name))
        np.testing.assert_array_equal(one.inputs["seeing"], was.inputs["seeing"])
    with pytest.raises(SystemExit, match="--nights"):
        alarms.read_nights(None, tmp_path / "absent.npz")


def test_clouds_named_as_weather_count_for_clouds_only() -> None:
    row = {"fault": "cloud", "delay": None, "weather": 1}
    assert alarms.seen_within(row, 2)
    assert not alarms.seen_within({**row, "fault": "gain"}, 2)
    assert not alarms.seen_within({**row, "weather": None}, 2)
