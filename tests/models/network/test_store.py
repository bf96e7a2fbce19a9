from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from models.network import store
from models.network.card import render
from models.network.classifier import Classifier
from models.network.inputs import Recipe
from models.network.runtime import HEAD_FILE, TRUNK_FILE
from models.network.store import find, load, model_id, predict, save, verify
from models.training.examples import TrainingSet
from nightsift.core.errors import ModelMismatch

Saved = tuple[Path, Classifier]


@pytest.fixture
def copy(untrained: Saved, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained[0], tmp_path / "copy"))


def test_loaded_model_scores_as_the_saved_one(few: TrainingSet, untrained: Saved) -> None:
    folder, saved = untrained
    loaded = load(folder)
    assert loaded.model_id == saved.model_id == model_id(folder)
    one, other = (predict(few.stamps, few.sign, model)["score"] for model in (saved, loaded))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert verify(loaded, folder) < 1e-6
    assert not [entry for entry in folder.parent.iterdir() if entry.name.startswith(".")], "nothing half-written stays"


def test_loaded_a_single_time_per_process_by_all_threads(copy: Path) -> None:
    found: list[Classifier] = []
    threads = [threading.Thread(target=lambda: found.append(load(copy))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(one is found[0] for one in found)


def test_found_by_name_in_the_folders_of_the_environment(
    untrained: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTSIFT_MODELS", f"{tmp_path}:{untrained[0].parent}")
    assert find("fresh") == untrained[0].resolve()
    monkeypatch.delenv("NIGHTSIFT_MODELS")
    with pytest.raises(ModelMismatch, match="fresh"):
        find("fresh")


def test_no_model_has_an_identity_too() -> None:
    assert model_id("none") == "none"


def test_another_recipe_than_the_stored_one_is_refused(copy: Path) -> None:
    load(copy, recipe=Recipe())
    with pytest.raises(ModelMismatch, match="softening=9"):
        load(copy, recipe=Recipe(softening=9.0))
    values = json.loads((copy / store.RECIPE).read_text())
    (copy / store.RECIPE).write_text(json.dumps({**values, "softening": 9.0}))
    store._loaded.clear()
    for engine in ("onnx", "keras"):
        with pytest.raises(ModelMismatch, match="recipe"):
            load(copy, engine=engine)


def test_network_of_another_card_is_refused(copy: Path) -> None:
    card = json.loads((copy / store.CARD).read_text())
    (copy / store.CARD).write_text(json.dumps({**card, "sha256": "0" * 64}))
    with pytest.raises(ModelMismatch, match="is not the file"):
        load(copy)


def test_a_copy_of_a_model_keeps_its_identity(copy: Path, tmp_path: Path) -> None:
    """What an archive keeps of a model that was replaced must be able to serve again, with its calibration."""
    kept = Path(shutil.copytree(copy, tmp_path / store.model_id(copy)))
    assert store.model_id(kept) == store.model_id(copy) == load(kept).model_id


def test_other_golden_scores_are_refused(copy: Path) -> None:
    with np.load(copy / store.GOLDEN) as golden:
        content = dict(golden)
    content["score"] = content["score"] + 0.01
    np.savez(copy / store.GOLDEN, **content)
    with pytest.raises(ModelMismatch, match=r"golden scores are off by 0\.01"):
        load(copy)


@pytest.mark.parametrize("name", [store.RECIPE, store.CARD, store.GOLDEN])
def test_incomplete_folder_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelMismatch, match=name):
        load(copy)


def test_saving_again_replaces_the_whole_model(copy: Path, untrained: Saved, few: TrainingSet) -> None:
    (copy / "stray").write_text("from before")
    golden = few.take(np.arange(4))
    again = save(copy, untrained[1].model, Recipe(), card={"note": "second"}, golden=golden.stamps, sign=golden.sign)
    assert load(copy).model_id == again.model_id
    assert sorted(entry.name for entry in copy.iterdir()) == sorted(
        (store.MODEL, store.RECIPE, store.CARD, store.CARD_TEXT, store.GOLDEN, HEAD_FILE, TRUNK_FILE)
    )


def test_failed_saving_leaves_the_old_model(copy: Path, untrained: Saved, few: TrainingSet) -> None:
    before = store.model_id(copy)
    small = TrainingSet(few.stamps, few.table, {})
    cut = type(few.stamps)(small.stamps.data[:, :9, :9], small.stamps.mask[:, :9, :9])
    with pytest.raises(ModelMismatch, match="9 px wide"):
        save(copy, untrained[1].model, Recipe(), card={}, golden=cut, sign=few.sign)
    assert store.model_id(copy) == before
    assert [entry.name for entry in copy.parent.iterdir()] == ["copy"]


def test_card_shows_values_lists_and_tables() -> None:
    text = render(
        {"model_id": "m-1", "auc": 0.98765, "parts": [{"part": "train", "real": 3}], "seeds": {"a": 1, "b": [1, 2]}}
    )
    assert text.startswith("# Model card: m-1\n")
    assert "- auc: 0.9877" in text
    assert "| part | real |\n|---|---|\n| train | 3 |" in text
    assert "## Seeds" in text
    assert "- b: 1, 2" in text
