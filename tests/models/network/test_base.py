"""The model that ships: it verifies, its card is honest about what was measured, and it separates what it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.calibration import metrics
from models.network import store
from models.network.classifier import Classifier
from models.network.inputs import Recipe
from models.network.runtime import HEAD_FILE, TRUNK_FILE
from models.network.store import find, load, predict, verify
from models.training.examples import TrainingSet, join
from nightsift.archive.survey import load_survey
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tasks.examples import harvest


@pytest.fixture(scope="module")
def base() -> Classifier:
    return load("base", recipe=Recipe())


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """Two small surveys of seeds that no training run uses."""
    folders = [tmp_path_factory.mktemp(f"survey-{seed}") for seed in (9001, 9002)]
    surveys = [
        simulate(folder, SimulationOptions.preset("tiny", seed))
        for folder, seed in zip(folders, (9001, 9002), strict=True)
    ]
    return join([harvest(load_survey(one), one.parent.name) for one in surveys])


def test_golden_scores_hold_on_this_machine(base: Classifier) -> None:
    assert verify(base) <= min(store.GOLDEN_TOLERANCE.values())


def test_it_is_small_and_complete() -> None:
    folder = find("base")
    files = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
    assert set(files) == {store.MODEL, store.RECIPE, store.CARD, store.CARD_TEXT, store.GOLDEN, TRUNK_FILE, HEAD_FILE}
    assert sum(files.values()) <= 5_000_000
    assert 30_000 <= load("base", engine="keras").network.count_params() <= 150_000


def test_card_tells_what_was_measured_on_unseen_units(base: Classifier) -> None:
    card = base.card
    parts = {part["part"]: part for part in card["data"]["parts"]}
    assert card["data"]["split_by"] == ["unit", "field", "exposure_id", "object_id", "host_id"]
    assert parts["test"]["units"] >= 2
    found = card["figures_on_unseen_units"]["all"]
    assert found["real"] == parts["test"]["real"]
    assert found["bogus"] == parts["test"]["bogus"]
    assert found["auc"] > 0.97
    assert 0 < card["threshold"] < 1


def test_golden_stamps_are_separated(base: Classifier) -> None:
    with np.load(find("base") / store.GOLDEN) as golden:
        half = len(golden["score"]) // 2
        assert golden["score"][:half].mean() > 0.85
        assert golden["score"][half:].mean() < 0.15


def test_separates_simulated_nights_that_it_never_saw(base: Classifier, unseen: TrainingSet) -> None:
    scores = np.asarray(predict(unseen.stamps, unseen.sign, base)["score"])
    assert (unseen.labels == 1).sum() > 20
    assert (unseen.labels == 0).sum() > 10
    assert metrics.auc(scores, unseen.labels) > 0.95


def test_what_turns_the_stamp_hardly_turns_the_score(base: Classifier, unseen: TrainingSet) -> None:
    plain = np.asarray(predict(unseen.stamps, unseen.sign, base)["score"])
    data, mask = unseen.stamps.data, unseen.stamps.mask
    turned = type(unseen.stamps)(
        np.ascontiguousarray(np.rot90(data, 1, (1, 2))), np.ascontiguousarray(np.rot90(mask, 1, (1, 2)))
    )
    other = np.asarray(predict(turned, unseen.sign, base)["score"])
    assert np.median(np.abs(other - plain)) < 0.05


def test_shipped_models_are_found_whatever_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("base").name == "base"
