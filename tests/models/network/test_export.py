"""Scoring without Keras: the same scores, no TensorFlow in the process, and an export of another network is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.network import store
from models.network.classifier import Classifier
from models.network.contract import build, list_architectures
from models.network.inputs import Recipe, prepare
from models.network.normalise import normalise
from models.network.runtime import TRUNK_FILE, export, read_export
from models.network.store import load, predict
from models.training.examples import TrainingSet
from nightsift.core.errors import ModelMismatch

Saved = tuple[Path, Classifier]


def test_scores_are_those_of_keras_on_faulty_stamps_too(few: TrainingSet, untrained: Saved) -> None:
    folder = untrained[0]
    light, whole = load(folder), load(folder, engine="keras")
    assert light.model is None
    assert whole.network is not None
    with pytest.raises(ModelMismatch, match="for scoring only"):
        _ = light.network
    one, other = (predict(few.stamps, few.sign, model, samples=7) for model in (light, whole))
    for name in ("score", "score_std", "confidence"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert light.model_id == whole.model_id


def test_normalisation_in_loops_is_that_of_the_graph(few: TrainingSet, untrained: Saved) -> None:
    recipe = Recipe()
    data, mask = prepare(few.stamps, few.sign, recipe)
    layer = untrained[1].network.get_layer("trunk").get_layer("normalisation")
    np.testing.assert_allclose(normalise(data, mask, recipe), np.asarray(layer([data, mask])), rtol=1e-6, atol=1e-6)


def test_a_worker_that_only_scores_has_no_tensorflow_and_counts_no_uses(untrained: Saved, tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from models.network.store import predict; from nightsift.core.frames import Stamps;"
        "s = Stamps(np.random.default_rng(0).normal(0, 1, (70, 31, 31, 3)).astype('f4'), np.zeros((70, 31, 31), bool));"
        "print(predict(s, np.ones(70, int), sys.argv[1])['score'].sum() > 0, 'tensorflow' in sys.modules or "
        "'keras' in sys.modules)"
    )
    bare = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    answer = subprocess.run(
        [sys.executable, "-c", program, str(untrained[0])], capture_output=True, text=True, check=True,
        env={**bare, "HOME": str(tmp_path), "NUMBA_CACHE_DIR": ""},
    )  # fmt: skip
    assert answer.stdout.split() == ["True", "False"]
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_export_of_another_network_is_refused(untrained: Saved, few: TrainingSet, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(untrained[0], tmp_path / "copy"))
    with pytest.raises(ModelMismatch, match="not of the network"):
        read_export(copy, "0" * 64, Recipe())
    with pytest.raises(ModelMismatch, match="another recipe"):
        read_export(copy, untrained[1].card["sha256"], Recipe(softening=9.0))
    with pytest.raises(ModelMismatch, match="engine 'tpu' is unknown"):
        load(copy, engine="tpu")
    (copy / TRUNK_FILE).unlink()
    store._loaded.clear()
    assert load(copy).model is not None, "without the export the network itself is taken"


def test_export_that_is_off_on_this_machine_gives_way_to_keras(
    untrained: Saved, few: TrainingSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorFlow is the reference: 1e-4 is the most that an export may differ where it is loaded."""
    copy = Path(shutil.copytree(untrained[0], tmp_path / "copy"))
    with np.load(copy / store.GOLDEN) as golden:
        content = dict(golden)
    content["score"] = content["score"] + 3e-4
    np.savez(copy / store.GOLDEN, **content)
    with pytest.raises(ModelMismatch, match=r"off by 0\.0003 on this machine with onnx, at most 0\.0001"):
        load(copy, engine="onnx")
    assert not caplog.records
    assert load(copy).model is not None
    assert "scored with Keras instead" in caplog.text


def test_export_that_differs_from_keras_is_refused(
    untrained: Saved, few: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(untrained[0], tmp_path / "copy"))
    classifier = load(copy, engine="keras")
    monkeypatch.setattr(
        "models.network.runtime.normalise", lambda data, mask, recipe: normalise(2 * data + 9, mask, recipe)
    )
    with pytest.raises(ModelMismatch, match="differs from Keras by"):
        export(copy, classifier, few.stamps, sign=few.sign, digest=classifier.card["sha256"])


@pytest.mark.parametrize("name", [one for one in list_architectures() if one != "vgg"])
def test_every_architecture_can_be_exported(name: str, few: TrainingSet, tmp_path: Path) -> None:
    golden = few.take(np.arange(8))
    saved = store.save(
        tmp_path / name, build(name, Recipe()), Recipe(), card={}, golden=golden.stamps, sign=golden.sign
    )
    light = load(tmp_path / name, engine="onnx")
    one, other = (predict(few.stamps, few.sign, model, samples=3) for model in (light, saved))
    np.testing.assert_allclose(one["score"], other["score"], atol=1e-5)
