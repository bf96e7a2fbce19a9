"""Scores of candidates: mean, spread and confidence over dropout samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.calibrate import Calibration
from models.classifier import Classifier
from models.inputs import prepare
from models.sampling import draw_gates
from models.store import NO_MODEL, load
from nightsift.frames import Stamps

BATCH = 1024


def predict(
    stamps: Stamps,
    sign: npt.ArrayLike,
    model: Classifier | str,
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
        ``score`` float32, mean of the sampled probabilities to be real; ``score_std`` float32, their standard
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
    logits: npt.NDArray[np.floating] = sample_logits(stamps, sign, classifier, samples, seed)
    if calibration is not None:
        logits = calibration(logits)
    identity = classifier.model_id + (f"+{calibration.digest}" if calibration is not None else "")
    return {**summarise(logits), "model_id": np.full(len(stamps), identity, dtype=object)}


def sample_logits(
    stamps: Stamps, sign: npt.ArrayLike, classifier: Classifier, samples: int, seed: int
) -> npt.NDArray[np.float32]:
    """Logits of every dropout sample.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps.
    sign : array_like of int, shape (n,)
        +1 or -1.
    classifier : Classifier
        A loaded model.
    samples : int
        Dropout samples.
    seed : int
        Seed of the samples.

    Returns
    -------
    ndarray of float32, shape (samples, n)
        Logits; a stamp's values do not depend on the other stamps.

    Raises
    ------
    ModelMismatch
        If the stamps do not fit the recipe.
    ValueError
        If signs or samples make no sense.
    """
    gates = draw_gates(classifier.gates, samples, seed)
    signs = np.asarray(sign).reshape(-1)
    if len(signs) != len(stamps):
        raise ValueError(f"sign must hold {len(stamps)} values of +1 or -1, got {len(signs)}")
    logits = np.empty((samples, len(stamps)), dtype=np.float32)
    for start in range(0, max(len(stamps), 1), BATCH):
        part = slice(start, start + BATCH)
        # prepared part by part: fresh memory for all stamps at once costs as much as normalising them
        data, mask = prepare(Stamps(stamps.data[part], stamps.mask[part]), signs[part], classifier.recipe)
        logits[:, part] = classifier.sample(data, mask, gates)
    return logits


def summarise(logits: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.generic]]:
    """Mean, spread and confidence of sampled probabilities.

    Parameters
    ----------
    logits : ndarray of float, shape (samples, n)
        Sampled logits.

    Returns
    -------
    dict of str to ndarray of float32, each of shape (n,)
        ``score``, ``score_std`` and ``confidence``, see `predict`.
    """
    wide = logits.astype(np.float64)
    probability = np.exp(-np.logaddexp(0.0, -wide))
    # -log p = softplus(-z) and -log(1 - p) = softplus(z): no logarithm of zero, however sure the network is
    entropy = probability * np.logaddexp(0.0, -wide) + (1.0 - probability) * np.logaddexp(0.0, wide)
    return {
        "score": probability.mean(axis=0).astype(np.float32),
        "score_std": probability.std(axis=0).astype(np.float32),
        "confidence": np.clip(1.0 - entropy.mean(axis=0) / np.log(2.0), 0.0, 1.0).astype(np.float32),
    }
