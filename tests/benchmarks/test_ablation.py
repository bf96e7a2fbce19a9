"""The ablation recovers what it says at the number of false alerts that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.realbogus import ablation, ablation_figure, trained_networks
from models.calibration.metrics import missed_and_fpr, threshold_at_fpr, threshold_at_missed
from models.training.examples import EXAMPLES, TrainingSet
from nightsift.core.frames import Stamps
from nightsift.core.tables import table

KINDS = ("asteroid", "supernova", "nuclear", "injected", "bogus")


@pytest.fixture(scope="module")
def found() -> TrainingSet:
    """A test set of twelve fields; its stamps are never looked at."""
    rng, n = np.random.default_rng(3), 6000
    kind = np.take(KINDS, rng.integers(0, len(KINDS), n))
    real = kind != "bogus"
    offset = np.where(kind == "nuclear", 0.0, rng.uniform(0, 5, n))
    hosted = np.isin(kind, ("supernova", "nuclear", "injected"))
    source = np.select([kind == "bogus", kind == "injected", kind == "asteroid"],
                       ["random", "injected", "minor_planet"], "detected")  # fmt: skip
    rows = {
        "example_id": [f"e{i}" for i in range(n)], "reduction": ["standard"] * n, "survey": ["s"] * n,
        "unit": ["s/u"] * n, "night": ["2026-11-20"] * n, "field": [f"f{i % 12}" for i in range(n)],
        "exposure_id": [f"x{i % 12}" for i in range(n)],
        "object_id": [f"o{i}" if one else None for i, one in enumerate(real)],
        "kind": kind.tolist(), "label": real.astype(np.int8), "sign": np.ones(n, np.int8),
        "snr": np.exp(rng.uniform(np.log(4), np.log(60), n)).astype(np.float32), "flags": np.zeros(n, np.int32),
        "split": ["test"] * n, "source": source.tolist(), "host_offset": np.where(hosted, offset, None).tolist(),
    }  # fmt: skip
    return TrainingSet(Stamps(np.zeros((n, 1, 1, 3), np.float32), np.zeros((n, 1, 1), bool)), table(rows, EXAMPLES), {})


def scores_that_miss(found: TrainingSet, kind: str, seed: int) -> np.ndarray:
    """Good scores, but for half of one kind of real example."""
    rng = np.random.default_rng(seed)
    logit = np.where(found.labels == 1, 6.0, -6.0) + rng.normal(0, 1, len(found))
    lost = (np.asarray(found.table["kind"]).astype(str) == kind) & (rng.random(len(found)) < 0.5)
    return 1 / (1 + np.exp(-np.where(lost, -8.0, logit)))


@pytest.fixture
def compared(found: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Two networks that miss nothing beside two that miss half of what stands on the nucleus."""
    given = {name: scores_that_miss(found, kind, seed) for name, kind, seed in (
        ("w0", "none", 0), ("w1", "none", 1), ("o0", "nuclear", 2), ("o1", "nuclear", 3),
    )}  # fmt: skip
    monkeypatch.setattr(trained_networks, "scores_of", lambda name, _: given[name])
    monkeypatch.setattr(ablation, "learnt", lambda name: {"name": name, "left_out": [], "examples": 100, "real": 50})
    return ablation.compare({"with": ["w0", "w1"], "without": ["o0", "o1"]}, found, draws=40)


@pytest.mark.parametrize("part", [0.01, 0.1])
def test_thresholds_are_those_of_the_models(part: float) -> None:
    rng = np.random.default_rng(0)
    score, labels = np.round(rng.random(1000), 2), rng.integers(0, 2, 1000)
    for above, judged, known in ((True, 0, threshold_at_fpr), (False, 1, threshold_at_missed)):
        own = score[labels == judged]
        cut = ablation.threshold(own, np.ones(len(own)), np.argsort(own), part, above)
        assert cut == known(score, labels, part)
    once, twice = own[:50], np.repeat(own[:50], 2)  # drawn twice is there twice
    weighed = ablation.threshold(once, np.full(50, 2.0), np.argsort(once), part, above=False)
    assert weighed == ablation.threshold(twice, np.ones(100), np.argsort(twice), part, above=False)


def test_parts_are_those_above_the_threshold(found: TrainingSet) -> None:
    score, cells = scores_that_miss(found, "nuclear", 5), ablation.cells_of(found)
    parts = ablation.accepted_parts([score], found, cells, draws=3)["fpr"][0, 0]
    cut = threshold_at_fpr(score, found.labels, 0.01)
    kind = np.asarray(found.table["kind"]).astype(str)
    place = cells.names.index(("kind", "simulated transients on the nucleus"))
    assert parts[place] == pytest.approx(np.mean(score[kind == "nuclear"] >= cut))
    place = cells.names.index(("kind", "random false detections"))
    assert parts[place] == pytest.approx(missed_and_fpr(score, found.labels, cut)[1])
    assert parts[place] <= 0.01


def test_every_example_with_an_offset_stands_in_one_bin(found: TrainingSet) -> None:
    cells = ablation.cells_of(found)
    held = cells.members[cells.rows("offset supernova")].sum(axis=0)
    assert held.max() == 1
    assert held.sum() == np.sum(np.asarray(found.table["kind"]).astype(str) == "supernova")


def test_what_one_kind_misses_is_told_with_its_range(compared: dict, found: TrainingSet) -> None:
    for point in ablation.POINTS:
        less = dict(zip([name for _, name in compared["cells"]], compared["less"][point]["with"], strict=True))
        gain, low, high = less["simulated transients on the nucleus"]
        assert low <= gain <= high
        assert gain == pytest.approx(0.5, abs=0.1)
        assert abs(less["simulated transients off the nucleus"][0]) < 0.02
    text = ablation.as_markdown(compared, found)
    assert "with may have learnt from simulated transients" in text, "nothing was left out"
    assert "| simulated transients on the nucleus |" in text
    assert "nan" not in text


def test_networks_without_simulated_transients_are_not_warned_of(compared: dict, found: TrainingSet) -> None:
    for arm, left in (("with", ["detected"]), ("without", ["real-but-minor-planets"])):
        for one in compared["arms"][arm]:
            one.update(left_out=left)
    text = ablation.as_markdown(compared, found)
    assert "not fair" not in text
    assert "- without: 2 networks, left out: real-but-minor-planets; 100 examples, 50 real" in text
    assert len(ablation.as_markdown(compared, found, everything=True)) > 1.5 * len(text)


def test_a_card_tells_what_a_released_model_learnt_from() -> None:
    facts = ablation.learnt("base")
    assert facts["left_out"] == []
    assert facts["examples"] > facts["real"] > 1000


def test_the_figure_is_drawn(compared: dict, tmp_path: Path) -> None:
    ablation_figure.draw(compared, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 20_000
