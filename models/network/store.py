"""Models on disk: saving, loading (a single time per process), and scoring by name.

::

    <name>/model.keras   the network, its normalisation inside the graph
           recipe.json   the recipe again, for people; loading refuses one that differs from the graph's
           card.json     how it was made, on what, and what it reaches; card.md is the same for reading
           golden.npz    a few stamps and the scores they had when the model was saved
           trunk.onnx, head.onnx    the network for scoring without Keras (`models.network.runtime`)

A name is looked for in the folders of ``$NIGHTSIFT_MODELS`` and then among the models that ship with nightsift; a
path is taken as it is. On loading, the golden stamps are scored and compared, which also warms the network up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.calibration.calibrate import Calibration
from models.network import runtime
from models.network.card import render
from models.network.classifier import Classifier, of_network, sample_logits, summarise
from models.network.contract import check
from models.network.inputs import Recipe, normalisation_layer
from models.network.runtime import start_keras
from nightsift.core.errors import ModelMismatch
from nightsift.core.frames import Stamps

if TYPE_CHECKING:
    import keras

NO_MODEL = "none"
ENGINES = ("auto", "onnx", "keras")
MODEL, RECIPE, CARD, CARD_TEXT, GOLDEN = "model.keras", "recipe.json", "card.json", "card.md", "golden.npz"
GOLDEN_SAMPLES, GOLDEN_SEED = 20, 0
GOLDEN_TOLERANCE = {"keras": 1e-3, "onnx": 1e-4}  # other CPUs round otherwise: 1e-5 seen, faults give > 0.01

_logger = logging.getLogger("nightsift.models")
_lock = threading.Lock()
_loaded: dict[tuple[str, str, str], Classifier] = {}
BATCH = 1024


def find(name_or_path: str | Path) -> Path:
    """Find the folder of a model.

    Parameters
    ----------
    name_or_path : str or Path
        Name, or path of its folder.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ModelMismatch
        If there is none.
    """
    shipped = Path(str(files("models"))) / "weights"
    extra = [Path(part) for part in os.environ.get("NIGHTSIFT_MODELS", "").split(os.pathsep) if part]
    places = [Path(name_or_path), *(folder / name_or_path for folder in (*extra, shipped))]
    for place in places:
        if (place / MODEL).is_file():
            return place.resolve()
    looked = ", ".join(str(place) for place in places)
    raise ModelMismatch(model=str(name_or_path), what=f"no {MODEL} was found in {looked}")


def model_id(name_or_path: str | Path) -> str:
    """Identity of a model, without loading it.

    Parameters
    ----------
    name_or_path : str or Path
        Name, or path of its folder; ``"none"`` stands for no model.

    Returns
    -------
    str
        Name by its card and the first 12 hexadecimal digits of the SHA-256 of its network, wherever its folder was
        copied to; ``"none"`` for no model.

    Raises
    ------
    ModelMismatch
        If there is none.
    """
    if name_or_path == NO_MODEL:
        return NO_MODEL
    folder = find(name_or_path)
    digest = _digest(folder / MODEL)
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        card = {}  # an error when it is loaded
    return _identity(folder, card, digest)


def load(
    name_or_path: str | Path, recipe: Recipe | None = None, threads: int | None = None, *, engine: str = "auto"
) -> Classifier:
    """Load a model, a single time per process, and verify it against its golden scores.

    Parameters
    ----------
    name_or_path : str or Path
        Name, or path of its folder.
    recipe : Recipe, optional
        The recipe that the caller counts on; a model with another one is refused.
    threads : int, optional
        Threads of the network, if this is the first use of Keras in the process (see `models.network.runtime`).
    engine : str, optional
        ``"onnx"`` to score without Keras, ``"keras"`` to have the network too, ``"auto"`` for the first where the
        model has been exported and the export gives the golden scores to 1e-4, else for the second.

    Returns
    -------
    Classifier
        The model, the same object for every caller in the process.

    Raises
    ------
    ModelMismatch
        If there is no such model, its files do not belong together, its recipe is not the one asked for, or it
        does not give its golden scores on this machine.
    """
    folder = find(name_or_path)
    if engine not in ENGINES:
        raise ModelMismatch(model=folder.name, what=f"the engine '{engine}' is unknown; known: {', '.join(ENGINES)}")
    may_fall_back = engine == "auto"
    if engine == "auto":
        engine = "onnx" if runtime.is_exported(folder) else "keras"
    # one lock around everything: two threads that import TensorFlow at the same time load it twice
    with _lock:
        key = (str(folder), _digest(folder / MODEL), engine)
        classifier = _loaded.get(key)
        if classifier is None:
            try:
                classifier = _read(folder, key[1], threads, engine=engine)
            except ModelMismatch as error:
                if engine == "keras" or not may_fall_back:
                    raise
                # refused as well where it is not the export's fault
                classifier = _read(folder, key[1], threads, engine="keras")
                _logger.warning("%s; scored with Keras instead, more slowly", error)
            _loaded[key] = classifier
    if recipe is not None and recipe != classifier.recipe:
        raise ModelMismatch(
            model=classifier.name, what=f"it was trained with {classifier.recipe}, and {recipe} is asked for"
        )
    return classifier


def _read(folder: Path, digest: str, threads: int | None, *, engine: str) -> Classifier:
    absent = [name for name in (RECIPE, CARD, GOLDEN) if not (folder / name).is_file()]
    if absent:
        raise ModelMismatch(model=folder.name, what=f"{folder} lacks {', '.join(absent)}")
    card = json.loads((folder / CARD).read_text())
    if card.get("sha256") != digest:
        raise ModelMismatch(model=folder.name, what=f"{MODEL} is not the file that {CARD} describes")
    recipe = Recipe.from_mapping(json.loads((folder / RECIPE).read_text()))
    identity = _identity(folder, card, digest)
    if engine == "onnx":
        sample, gates, trunk = runtime.read_export(folder, digest, recipe, threads=threads)
        classifier = Classifier(folder.name, identity, recipe, sample, gates, card, trunk)
    else:
        classifier = _read_keras(folder, recipe, identity, card=card, threads=threads)
    worst = verify(classifier, folder)
    most = GOLDEN_TOLERANCE[engine]
    if not worst <= most:
        raise ModelMismatch(
            model=folder.name,
            what=f"its golden scores are off by {worst:.3g} on this machine with {engine}, at most {most:g} is allowed",
        )
    return classifier


def _read_keras(
    folder: Path, recipe: Recipe, identity: str, *, card: dict[str, Any], threads: int | None
) -> Classifier:
    keras = start_keras(threads)
    normalisation_layer()  # registers the layer under its name, which reading needs
    model = keras.saving.load_model(folder / MODEL, compile=False)
    check(model, recipe, folder.name)
    return of_network(model, recipe, folder.name, identity=identity, card=card)


def verify(classifier: Classifier, folder: str | Path | None = None) -> float:
    """Score the golden stamps of a model again; `folder` is found by the model's name when not given.

    Returns the largest deviation from the scores (mean and spread) that were saved with it; NaN never passes `load`.
    Raises `ModelMismatch` if the folder is not found.
    """
    with np.load((Path(folder) if folder else find(classifier.name)) / GOLDEN) as golden:
        stamps = Stamps(golden["data"].astype(np.float32), golden["mask"])
        scores = predict(stamps, golden["sign"], classifier, samples=GOLDEN_SAMPLES, seed=GOLDEN_SEED)
        return float(max(np.abs(scores[name] - golden[name]).max() for name in ("score", "score_std")))


def save(
    folder: str | Path, model: keras.Model, recipe: Recipe, *, card: dict[str, Any], golden: Stamps, sign: np.ndarray
) -> Classifier:
    """Write a model, all or nothing: a reader finds the old folder or the new one, never a mixture.

    Parameters
    ----------
    folder : str or Path
        Where to; its last part is the name of the model. A model that is there is replaced.
    model : keras.Model
        The network.
    recipe : Recipe
        Its recipe.
    card : dict
        What `models.network.card.render` shows; identity and recipe are added.
    golden : Stamps
        Some stamps, whose scores are saved too.
    sign : ndarray of int, shape (n,)
        Signs of the golden stamps.

    Returns
    -------
    Classifier
        The model, as it was written.

    Raises
    ------
    ModelMismatch
        If the network does not keep the contract or follows another recipe.
    OSError
        If it cannot be written.
    """
    target = Path(folder).resolve()
    check(model, recipe, target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        model.save(partial / MODEL)
        digest = _digest(partial / MODEL)
        name = target.name
        card = {
            **card,
            "name": name,
            "model_id": f"{name}-{digest[:12]}",
            "sha256": digest,
            "recipe": json.loads(recipe.to_json()),
        }
        classifier = of_network(model, recipe, name, identity=card["model_id"], card=card)
        scores = predict(golden, sign, classifier, samples=GOLDEN_SAMPLES, seed=GOLDEN_SEED)
        np.savez_compressed(
            partial / GOLDEN, data=golden.data, mask=golden.mask, sign=np.asarray(sign, dtype=np.int8),
            score=scores["score"], score_std=scores["score_std"],
        )  # fmt: skip
        if runtime.can_export():
            runtime.export(partial, classifier, golden, sign=sign, digest=digest)
        (partial / RECIPE).write_text(recipe.to_json() + "\n")
        (partial / CARD).write_text(json.dumps(card, indent=2) + "\n")
        (partial / CARD_TEXT).write_text(render(card))
        _replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return classifier


def _replace(partial: Path, target: Path) -> None:
    """Put a complete folder in its place; os.replace cannot, where the target is a folder that is not empty."""
    for file in partial.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)


def _identity(folder: Path, card: dict[str, Any], digest: str) -> str:
    """Name and digest of a model; the name is that of its card, also in a copy of its folder, as in an archive."""
    name = card.get("name") if card.get("sha256") == digest else None
    return f"{name or folder.name}-{digest[:12]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def predict(
    stamps: Stamps,
    sign: npt.ArrayLike,
    model: Classifier | str,
    *,
    samples: int = 20,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """Score candidates.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps, as cut; bigger ones than the model needs are cropped.
    sign : array_like of int, shape (n,)
        +1 for candidates brighter than in the template, -1 for fainter ones.
    model : Classifier or str
        A loaded model, or its name or folder; ``"none"`` scores nothing.
    samples : int, optional
        Dropout samples.
    seed : int, optional
        Seed of the samples. Scores of different exposures are comparable to the last digit only under one seed.
    calibration : Calibration, optional
        The unit's map of the logits.

    Returns
    -------
    dict of str to ndarray, each of shape (n,)
        ``score`` float64, mean of the sampled probabilities to be real; ``score_std`` float64, their standard
        deviation; ``confidence`` float32, 1 - mean binary entropy of the samples (bit), 1 where all samples are
        sure (Killestein et al. 2021, eq. 2); ``model_id`` str. Empty for the model ``"none"``.

    Raises
    ------
    ModelMismatch
        If the model cannot be loaded or the stamps do not fit its recipe.
    ValueError
        If signs or samples make no sense.
    """
    if model == NO_MODEL:
        return {}
    classifier = load(model) if isinstance(model, str) else model
    logits: npt.NDArray[np.floating] = sample_logits(stamps, sign, classifier, samples=samples, seed=seed)
    if calibration is not None:
        logits = calibration(logits)
    identity = classifier.model_id + (f"+{calibration.digest}" if calibration is not None else "")
    return {**summarise(logits), "model_id": np.full(len(stamps), identity, dtype=object)}
