"""Whether numbers beside the pixels improve the score.

    python benchmarks/realbogus/side_inputs.py --sets FOLDER --bases FOLDER --out FOLDER

Heads on the same features of one trunk (`base_models`), trained on its units and tested on units never seen, by the
same rules and seeds:

``pixels``      the features alone
``catalogue``   with S/N, sign, flags and, where the sets have them, magnitude, distance to the next template source and
                star-galaxy score, taken away from a part of the stamps in training (modality dropout)
``unit``        with weights of its own for each unit, taken away from half of the stamps; a new unit has none

``catalogue`` is tested once more on stamps of a survey that has no such numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.realbogus import base_models, figures_of_merit
from models.network.contract import TRUNK
from models.network.inputs import prepare
from models.training.examples import TrainingSet, weights
from models.training.planes import planes_of
from models.training.train import TrainOptions

FLAG_BITS = 16
OPTIONAL = ("mag", "neighbour_distance", "star_galaxy")


def side_numbers(found: TrainingSet) -> tuple[np.ndarray, list[str]]:
    """Numbers beside the pixels (n, k), scaled to about one; 0 with a 0 beside it where a number is absent."""
    columns = [np.log(np.maximum(np.asarray(found.table["snr"], dtype=float), 1.0)) - 2.5, found.sign.astype(float)]
    names = ["snr", "sign"]
    flags = np.asarray(found.table["flags"]).astype(np.int64)
    for bit in range(FLAG_BITS):
        one = (flags >> bit & 1).astype(float)
        if 0 < one.mean() < 1:
            columns.append(one)
            names.append(f"flag{bit}")
    for name in OPTIONAL:
        if name in found.table.column_names and found.table[name].null_count < len(found):
            values = np.array(found.table[name].to_pylist(), dtype=float)
            there = np.isfinite(values)
            spread = max(float(np.nanstd(values)), 1e-9)
            columns += [np.where(there, (values - np.nanmean(values)) / spread, 0.0), there.astype(float)]
            names += [name, f"has_{name}"]
    return np.stack(columns, axis=1).astype(np.float32), names


def features_of(model: Any, found: TrainingSet, recipe: Any) -> np.ndarray:
    import keras

    trunk = model.get_layer(TRUNK)
    network = keras.Model(trunk.get_layer("normalisation").output, trunk.output)
    planes = planes_of(*prepare(found.stamps, found.sign, recipe), recipe)
    parts = [network.predict_on_batch(planes[at : at + 512]) for at in range(0, len(planes), 512)]
    return np.concatenate(parts).reshape(len(planes), -1)


def head(pixels: int, numbers: int) -> Any:
    import keras
    from keras import layers

    inputs = [keras.Input((pixels,)), keras.Input((numbers,))]
    x = layers.Dropout(0.15)(inputs[0])
    x = layers.Concatenate()([x, inputs[1]]) if numbers else x
    x = layers.Dense(80, activation="relu", kernel_initializer="he_normal")(x)
    return keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.4)(x)))


def train_head(
    x: np.ndarray, side: np.ndarray, groups: list[tuple[slice, float]], y: np.ndarray, seed: int, epochs: int
) -> Any:
    """A head, with groups of side inputs taken away from a part of the stamps of each batch."""
    import keras

    keras.utils.set_random_seed(seed)
    network, rng = head(x.shape[1], side.shape[1]), np.random.default_rng(seed)
    steps = -(-len(x) // 256)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * steps)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    weight = weights(y.astype(np.int8))
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for at in range(0, len(order), 256):
            rows = order[at : at + 256]
            numbers = side[rows].copy()
            for part, gone in groups:
                numbers[:, part] *= rng.random((len(rows), 1)) >= gone
            network.train_on_batch([x[rows], numbers], y[rows, None].astype(np.float32), sample_weight=weight[rows])
    return network


def scores_of(network: Any, x: np.ndarray, side: np.ndarray) -> np.ndarray:
    starts = range(0, len(x), 1024)
    z = np.concatenate([network.predict_on_batch([x[at : at + 1024], side[at : at + 1024]]) for at in starts])
    return 1.0 / (1.0 + np.exp(-z[:, 0].astype(float)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    found = base_models.read_sets(arguments.sets)
    folds = base_models.fold_of_units(np.asarray(found.table["unit"]))
    base = base_models.base_of(arguments.bases, found, arguments.fold, folds, TrainOptions(epochs=12))
    parts = base_models.with_parts(found, arguments.fold, folds)
    numbers, names = side_numbers(found)
    features, y = features_of(base.network, found, base.recipe), found.labels.astype(int)
    part = np.asarray(parts.table["split"]).astype(str)
    learn, test = np.flatnonzero(part != "test"), np.flatnonzero(part == "test")
    unit = np.asarray(found.table["unit"]).astype(str)
    known = np.unique(unit[learn])
    one_hot = (unit[:, None] == known[None]).astype(np.float32)
    kinds = {
        "pixels": (numbers[:, :0], []),
        "catalogue": (numbers, [(slice(0, numbers.shape[1]), 0.3)]),
        "unit": (one_hot, [(slice(0, len(known)), 0.5)]),
        "catalogue, absent in service": (numbers, [(slice(0, numbers.shape[1]), 0.3)]),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for seed in range(arguments.seeds):
        for name, (side, groups) in kinds.items():
            network = train_head(features[learn], side[learn], groups, y[learn], seed, arguments.epochs)
            shown = np.zeros_like(side[test]) if "absent" in name else side[test]
            rows[name].append(figures_of_merit.figures(scores_of(network, features[test], shown), y[test]))
    wanted = ("auc", "fpr_1_missed", "tpr_1e-2", "tpr_1e-3", "nll", "ece")
    means = {name: {k: float(np.mean([r[k] for r in of_draws])) for k in wanted} for name, of_draws in rows.items()}
    print(f"side inputs: {', '.join(names)}; mean of {arguments.seeds} seeds, {len(test)} stamps of units never seen\n")
    print(figures_of_merit.table(means, "head"))
    for name in list(kinds)[1:]:
        for key in ("auc", "nll", "fpr_1_missed"):
            one, other = (np.array([r[key] for r in rows[k]]) for k in (name, "pixels"))
            p = float(stats.ttest_rel(one, other).pvalue)
            print(f"{name} against pixels, {key}: {np.mean(one - other):+.5f}, paired p {p:.3g}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "side_inputs.json").write_text(json.dumps({"inputs": names, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
