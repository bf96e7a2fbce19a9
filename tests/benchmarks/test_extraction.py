"""The benchmark of extraction counts what it says it counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from benchmarks.subtraction import extraction


def test_found_false_and_shared_are_counted() -> None:
    transients = np.zeros(3, [("x", "f8"), ("y", "f8"), ("flux", "f8"), ("snr", "f8")])
    transients["x"], transients["y"], transients["flux"] = (50, 100, 150), (50, 50, 50), (1, -1, 1)
    transients["snr"] = (5.5, 12, 40)
    truth = SimpleNamespace(transients=transients, science=SimpleNamespace(fwhm=3.0))
    rows = {
        "x": np.array([50.5, 100.2, 160.0, 30.0, 200.0]),
        "y": np.full(5, 50.0),
        "sign": np.array([1, 1, 1, -1, 1]),
        "flags": np.array([0, 0, 0, 512, 1]),
    }
    got = extraction.judged(rows, truth)  # type: ignore[arg-type]
    assert got["S/N 5-6"] == "1/1"
    assert got["S/N 10-20"] == "0/1"  # of the wrong sign
    assert got["S/N 20-50"] == "0/1"  # too far, but near a bright one: not false
    assert (got["false, no flag"], got["false, flag"]) == ("1", "1")
    other = {name: values[:3] for name, values in rows.items()} | {"sign": np.array([1, -1, 1])}
    assert extraction.shared(rows, other) == 2


def test_blends_are_drawn_and_found() -> None:
    got = extraction.blends(size=300, stars=40)
    assert float(got["stars of S/N 7-15"]) > 0.8
    assert got["4 wide ones of S/N 60"] == "4 candidates"
