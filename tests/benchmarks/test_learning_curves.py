"""Learning curves learn from what they say, share their work, and are drawn from what is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.realbogus import learning_curves, learning_figure, release, trained_networks
from models.network.store import load, predict
from models.training import examples
from models.training.examples import EXAMPLES, TrainingSet
from nightsift.core.frames import Stamps
from nightsift.core.tables import table

TINY = {"filters": [4, 6], "dense": 8}
SOURCES = ("detected", "minor_planet", "injected", "transplanted")


def make_unit(name: str, n: int, seed: int) -> TrainingSet:
    """Blobs on noise against noise, from every source, in three fields of one unit."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    yy, xx = np.mgrid[:31, :31] - 15
    data = rng.normal(0, 1, (n, 31, 31, 3))
    blob = rng.uniform(2, 20, (n, 1, 1)) * np.exp(-0.5 * (xx**2 + yy**2) / 2.0**2) * labels[:, None, None]
    data[..., 0] += blob
    data[..., 2] += blob
    real, field = labels == 1, np.arange(n) * 3 // n
    source = np.where(real, np.take(SOURCES, np.arange(n) // 2 % 4), "random")
    rows = {
        "example_id": [f"{name}-{i}" for i in range(n)], "reduction": ["standard"] * n, "survey": [name] * n,
        "unit": [name] * n, "night": ["2026-11-20"] * n, "field": [f"{name}/f{i}" for i in field],
        "exposure_id": [f"{name}/x{i}" for i in field],
        "object_id": [f"{name}/o{i}" if labels[i] else None for i in range(n)],
        "kind": np.where(real, "supernova", "bogus").tolist(), "label": labels.astype(np.int8),
        "sign": np.ones(n, np.int8), "snr": rng.uniform(5, 60, n).astype(np.float32), "flags": np.zeros(n, np.int32),
        "split": ["train"] * n, "source": source.tolist(),
    }  # fmt: skip
    return TrainingSet(Stamps(data.astype(np.float32), np.zeros((n, 31, 31), bool)), table(rows, EXAMPLES), {})


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight units to learn from, two to test on."""
    root = tmp_path_factory.mktemp("sets")
    for number in range(10):
        folder = root / ("learn" if number < 8 else "test") / f"u{number}"
        examples.write(folder, make_unit(f"u{number}", 24, number))
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object, script: ModuleType = learning_curves) -> None:
    """The command, as it is typed."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
    script.main()


def test_networks_are_made_once_scored_and_drawn(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, common = tmp_path / "out", ("--epochs", 1, "--network", json.dumps(TINY), "--threads", 1)
    learn = ("--sets", sets / "learn", "--out", out, *common)
    run(monkeypatch, *learn, "--fractions", 0.2, 1, "--seeds", 0)
    run(monkeypatch, *learn, "--fractions", 0.5, "--seeds", 0, "--leave-out", "real-but-minor-planets")
    names = [folder.name for folder in learning_curves.networks_in(out)]
    assert names == [
        "all-0001-units-seed-0", "all-0007-units-seed-0", "without-real-but-minor-planets-0004-units-seed-0",
    ]  # fmt: skip
    small, large, without = (trained_networks.training_of(out / name) for name in names)
    assert small["examples"] == 24
    assert small["steps"] >= large["steps"], "as many steps, whatever it learns from"
    assert without["real"] == 4 * 3, "an eighth of the examples are minor planets"
    assert without["examples"] == 4 * (3 + 12)
    assert not list(out.glob(".*.npz")), "the state of a finished training is gone"
    written = {name: (out / name / "model.keras").stat().st_mtime_ns for name in names}
    capsys.readouterr()
    run(monkeypatch, *learn, "--fractions", 0.2, 1, "--seeds", 0, "--test", sets / "test")
    assert {name: (out / name / "model.keras").stat().st_mtime_ns for name in names} == written
    assert "only minor planets real | 4 | 60 | 12 | 1 |" in capsys.readouterr().out
    assert (out / "learning_curves.png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="learnt from units of the test sets: u"):
        run(monkeypatch, "--out", out, "--test", sets)
    given = ("--sets", sets / "learn", "--test", sets / "test", "--out", tmp_path / "mine")
    run(monkeypatch, "--network", out / names[1], *given, script=release)
    released, plain = load(tmp_path / "mine"), trained_networks.load(out / names[1])
    assert released.card["data"]["counts"]["split"]["test"] == 48
    assert released.card["training"]["network"] == TINY
    tested = make_unit("u9", 24, 9)
    scores = [predict(tested.stamps, tested.sign, one)["score"] for one in (released, plain)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    with pytest.raises(SystemExit, match="learnt from 24 examples of 2 units, these sets give 168 of 8"):
        run(monkeypatch, "--network", out / names[0], *given, script=release)


def test_a_network_that_another_process_makes_is_left_to_it(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with learning_curves.alone(tmp_path / ".all-0001-units-seed-0.lock") as free:
        assert free
        run(monkeypatch, "--sets", sets / "learn", "--out", tmp_path, "--fractions", 0.1, "--seeds", 0)
    assert not learning_curves.networks_in(tmp_path)


def test_stamps_are_read_for_what_is_wanted_alone(sets: Path) -> None:
    opened = trained_networks.open_sets([sets / "learn"], seed=1)
    parts = opened.column("split")
    assert set(parts) == {"train", "validation"}
    wanted = np.zeros(len(parts), bool)
    wanted[[3, 30, 31]] = True
    found = opened.read(wanted)
    assert found.table["example_id"].to_pylist() == ["u0-3", "u1-6", "u1-7"]
    np.testing.assert_array_equal(found.stamps.data[1], examples.read(sets / "learn" / "u1").stamps.data[6])
    assert np.asarray(found.table["split"]).tolist() == parts[wanted].tolist()


def test_at_most_so_many_real_examples(sets: Path) -> None:
    opened = trained_networks.open_sets([sets / "learn"], seed=1)
    label, part = opened.column("label"), opened.column("split")
    rows = learning_curves.rows_to_learn(opened, np.unique(opened.column("unit")), 10, seed=0)
    assert np.sum(rows & (part == "train") & (label == 1)) == 10
    assert np.sum(rows & (part == "train") & (label == 0)) == np.sum((part == "train") & (label == 0))


def test_power_laws_are_found_again() -> None:
    n = np.array([100.0, 1000.0, 10000.0])
    exponent, factor = learning_figure.power_law(n, 3.0 * n**-0.4)
    assert (exponent, np.exp(factor)) == pytest.approx((-0.4, 3.0))
    rng, labels, fields = np.random.default_rng(0), np.arange(4000) % 2, np.arange(4000) // 200
    points = [
        {"kind": "all", "name": f"{size}-{seed}", "seed": seed, "units": size, "examples": 100 * size, "real": size,
         "best_epoch": 1, "steps": 1,
         "scores": 1 / (1 + np.exp(-(labels - 0.5) * 3 * size**0.3 - rng.normal(0, 1, 4000)))}
        for size in (1, 4, 16) for seed in (0, 1)
    ]  # fmt: skip
    curves = learning_figure.curves(points, labels, fields, draws=20)["all"]
    assert len(curves["networks"]) == 6
    for law in curves["laws"].values():
        low, high = law["range"]
        assert low <= law["exponent"] <= high < 0
