"""Figures of an evaluation, on scores whose truth is known, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from models.calibration.metrics import nll
from models.network.store import load
from models.training import examples
from models.training.evaluation import (
    Evaluated,
    by_unit,
    card_figures,
    confusion,
    cross_calibrated,
    evaluate,
    headline,
    recovery,
    reliability_bins,
    risk_curves,
    threshold_curves,
    worst,
)
from models.training.examples import EXAMPLES, TrainingSet
from nightsift.cli.root import app
from nightsift.core.frames import Stamps
from nightsift.core.tables import table

N = 600


def scored(seed: int = 0, **columns: object) -> Evaluated:
    rng = np.random.default_rng(seed)
    labels = (rng.random(N) < 0.5).astype(np.int64)
    z = np.where(labels == 1, 2.5, -2.5) + rng.normal(0, 1.5, N)
    scores = 1 / (1 + np.exp(-z))
    base = {
        "unit": np.array([f"u{i % 3}" for i in range(N)], dtype=object),
        "kind": np.where(labels == 1, "supernova", "bogus").astype(object),
        "snr": rng.uniform(4, 60, N).astype(object),
    }
    groups = np.array([f"f{i % 12}/n" for i in range(N)])
    return Evaluated(
        "m", "m-1", 0.5, labels, scores, 0.1 * rng.random(N), rng.random(N), scores, {**base, **columns}, groups
    )


def test_headline_gives_ranges_and_notes_what_the_set_is_too_small_for() -> None:
    rows = {row["name"]: row for row in headline(scored(), draws=40)}
    assert 0.9 < rows["AUC"]["low"] <= rows["AUC"]["value"] <= rows["AUC"]["high"] <= 1.0
    assert rows["TPR at FPR 0.01"]["value"] >= rows["TPR at FPR 0.0001"]["value"]
    assert "expected above" in rows["TPR at FPR 0.0001"]["note"]
    assert not rows["AUC"]["note"]


def test_curves_run_the_right_way() -> None:
    one = scored(kind=np.array(["asteroid"] * 100 + ["supernova"] * (N - 100), dtype=object))
    curves = threshold_curves(one)
    assert (np.diff(curves["fpr"]) <= 0).all()
    assert all((np.diff(missed) >= 0).all() for missed in curves["missed"].values())
    assert [name.rsplit(" (")[0] for name in curves["missed"]] == [
        "all real",
        "minor planets",
        "transients and variables",
    ]
    for curve in risk_curves(one).values():
        assert curve["coverage"][-1] == 1.0
        assert curve["risk"][-1] == pytest.approx(((one.scores >= 0.5) != (one.labels == 1)).mean())
    assert sum(confusion(one).values()) == N
    assert sum(row["real"] + row["bogus"] for row in by_unit(one)) == N


def test_recovery_tells_observed_and_synthetic_apart() -> None:
    one = scored()
    synthetic = np.arange(N) % 2 == 0
    source = np.where(synthetic, "injected", "detected").astype(object)
    source[:5] = None
    offset = np.where(one.labels == 1, np.linspace(0, 4.99, N), np.nan).astype(object)
    with_columns = scored(source=source, host_offset=offset)
    bins = recovery(with_columns, "host_offset", (0.0, 1.0, 2.5, 5.0))
    assert set(bins) == {"all", "without synthetic", "synthetic only"}
    assert sum(bins["all"]["n"]) == (one.labels == 1).sum()
    assert sum(bins["all"]["n"]) == sum(bins["without synthetic"]["n"]) + sum(bins["synthetic only"]["n"])
    assert recovery(one, "mag") == {}
    assert set(recovery(one, "snr", (3, 10, 100))) == {"all"}


def test_calibration_of_the_other_half_mends_overconfidence() -> None:
    one = scored()
    logits = 6.0 * np.log(one.scores / (1 - one.scores))[None]
    before = 1 / (1 + np.exp(-logits[0]))
    after = cross_calibrated(logits, one.labels, one.groups)
    assert nll(after, one.labels) < 0.7 * nll(before, one.labels)
    bins = reliability_bins(before, one.labels)
    assert len(bins["score"]) == 16
    assert (np.diff(bins["score"]) >= 0).all()


def test_worst_are_the_surest_errors() -> None:
    one = scored()
    found = worst(one, 5)
    assert (one.labels[found["missed"]] == 1).all()
    assert (one.scores[found["missed"]] < 0.5).all()
    assert (np.diff(one.scores[found["missed"]]) >= 0).all()
    assert one.scores[found["accepted"]][0] == one.scores[one.labels == 0].max()


@pytest.fixture
def drawn_set(tmp_path: Path) -> Path:
    """A set of drawn stamps: sources and single hot pixels."""
    rng = np.random.default_rng(1)
    n, size = 80, 31
    data = rng.normal(0, 3, (n, size, size, 3)).astype(np.float32)
    y, x = np.indices((size, size)) - size // 2
    source = 60 * np.exp(-(x**2 + y**2) / 8.0)
    labels = np.arange(n) % 2
    for i in range(n):
        shape = source if labels[i] else 200.0 * ((x == 0) & (y == 0))
        data[i, ..., 0] += shape
        data[i, ..., 2] += shape
    given = {
        "label": labels, "sign": [1] * n, "snr": rng.uniform(5, 30, n), "flags": [4096] * n, "split": ["test"] * n,
        "kind": np.where(labels == 1, "supernova", "bogus"), "field": [f"f{i % 4}" for i in range(n)],
        "example_id": [f"e{i}" for i in range(n)], "unit": [f"u{i % 2}" for i in range(n)],
    }  # fmt: skip
    rest = {f.name: [""] * n for f in EXAMPLES if f.name not in given and f.type == pa.string() and not f.nullable}
    made = TrainingSet(Stamps(data, np.zeros((n, size, size), bool)), table({**rest, **given}, EXAMPLES), {})
    examples.write(tmp_path / "set", made)
    return tmp_path / "set"


def test_command_writes_one_page_with_everything(drawn_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    asked = ["evaluate", "base", "--set", str(drawn_set), "--out", str(out), "--samples", "3", "--threshold", "1"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    page = out.read_text()
    assert "suspect frame" in page, "flags by their names, not by their number"
    assert "80 examples (40 real, 40 bogus) of the part &#39;test&#39;" in page
    assert page.count("data:image/png") >= 5
    assert "http" not in page.replace("http-equiv", "")
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers[0]["headline"][0]["name"] == "AUC"
    missing = CliRunner().invoke(app, ["evaluate", "base", "--set", str(tmp_path / "none"), "--out", str(out)])
    assert missing.exit_code != 0
    part = CliRunner().invoke(app, ["evaluate", "base", "--set", str(drawn_set), "--part", "train", "--out", str(out)])
    assert part.exit_code != 0


def test_evaluate_takes_threshold_of_the_card(drawn_set: Path) -> None:
    classifier = load("base")
    one = evaluate(classifier, examples.read(drawn_set), samples=2)
    assert one.threshold == classifier.card["threshold"]
    assert one.scores.shape == (80,)
    assert set(one.groups.tolist()) == {f"f{i}/" for i in range(4)}


def test_figures_by_snr_and_kind_add_up(rng: np.random.Generator) -> None:
    n = 3000
    labels = rng.integers(0, 2, n)
    kinds = np.where(labels == 1, rng.choice(["supernova", "asteroid"], n), "bogus")
    snr, scores = rng.uniform(3, 90, n), np.clip(0.5 * labels + 0.5 * rng.random(n), 0, 1)
    found = card_figures(scores, labels, snr, kinds=kinds, threshold=0.6)
    assert sum(row["real"] for row in found["by_snr"]) == found["real"] == labels.sum()
    assert [row["kind"] for row in found["by_kind"]] == ["asteroid", "supernova"]
    mean = sum(row["missed"] * row["real"] for row in found["by_kind"]) / found["real"]
    assert mean == pytest.approx(found["missed_at_threshold"])
    json.dumps(found)
