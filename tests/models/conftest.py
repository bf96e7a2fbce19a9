"""Stamps with a known answer, and an untrained network on disk, for the tests of real/bogus models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.network.classifier import Classifier
from models.network.contract import build
from models.network.inputs import Recipe, prepare
from models.network.store import save
from models.training.examples import EXAMPLES, TrainingSet
from nightsift.core.frames import Stamps
from nightsift.core.tables import table


def make_examples(n: int, seed: int, size: int = 31) -> TrainingSet:
    """Transients on noise against dipoles at bright stars, in eight units; the first six units are trained on."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    yy, xx = np.mgrid[:size, :size] - size // 2
    noise = rng.uniform(2, 20, (n, 1, 1, 1))
    data = rng.normal(0, 1, (n, size, size, 3)) * noise
    width = rng.uniform(0.9, 2.5, (n, 1, 1))
    flux = rng.uniform(8, 60, (n, 1, 1)) * noise[..., 0]
    source = flux * np.exp(-0.5 * (xx**2 + yy**2) / width**2)
    dipole = flux * (
        np.exp(-0.5 * ((xx - 1) ** 2 + yy**2) / width**2) - np.exp(-0.5 * ((xx + 1) ** 2 + yy**2) / width**2)
    )
    real = (labels == 1)[:, None, None]
    data[..., 0] += np.where(real, source, 10 * source)
    data[..., 1] += np.where(real, 0, 10 * source)
    data[..., 2] += np.where(real, source, dipole)
    unit = np.arange(n) * 8 // n
    sign = np.where(rng.random(n) < 0.3, -1, 1)
    fading = sign < 0
    data[fading] = data[fading][..., [1, 0, 2]] * [1, 1, -1]
    rows = {
        "example_id": [f"e{i}" for i in range(n)],
        "reduction": ["standard"] * n,
        "survey": ["s"] * n,
        "unit": [f"s/u{i}" for i in unit],
        "night": ["2026-11-20"] * n,
        "field": [f"s/f{i}" for i in unit],
        "exposure_id": [f"x{i}" for i in unit],
        "object_id": [f"s/o{i}" if labels[i] else None for i in range(n)],
        "kind": np.where(labels == 1, "supernova", "bogus").tolist(),
        "label": labels.astype(np.int8),
        "sign": sign.astype(np.int8),
        "snr": rng.uniform(5, 60, n).astype(np.float32),
        "flags": np.zeros(n, dtype=np.int32),
        "split": np.select([unit < 6, unit < 7], ["train", "validation"], "test").tolist(),
    }
    stamps = Stamps(data.astype(np.float32), np.zeros((n, size, size), dtype=np.bool_))
    return TrainingSet(stamps, table(rows, EXAMPLES), {"surveys": 1, "left_out": {}})


@pytest.fixture(scope="session")
def separable() -> TrainingSet:
    """A set on which a network must learn quickly."""
    return make_examples(1600, seed=5)


@pytest.fixture(scope="session")
def few() -> TrainingSet:
    """A handful of stamps, wider than a network needs, some of them with faults."""
    examples = make_examples(24, seed=6, size=37)
    data, mask = examples.stamps.data.copy(), examples.stamps.mask.copy()
    data[0, :9] = np.nan
    data[1, ..., 1] = np.inf
    mask[2] = True
    mask[3, :, :20] = True
    data[4] = 0.0
    data[5, 18, 18] = 1e30
    return TrainingSet(Stamps(data, mask), examples.table, examples.card)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, few: TrainingSet) -> tuple[Path, Classifier]:
    """A network with fresh weights, right more often than not, saved."""
    import keras

    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("models") / "fresh"
    recipe = Recipe()
    golden = few.take(np.arange(8))
    model = build("vgg", recipe, filters=(6, 8, 12), dense=16)
    logits = np.asarray(model(list(prepare(few.stamps, few.sign, recipe))))[:, 0]
    if logits[few.labels == 1].mean() < logits[few.labels == 0].mean():
        last = model.get_layer("head").layers[-1]
        last.set_weights([-one for one in last.get_weights()])
    return folder, save(folder, model, recipe, card={"note": "not trained"}, golden=golden.stamps, sign=golden.sign)
