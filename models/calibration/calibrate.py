"""Calibration of a classifier for one unit: from sampled logits to probabilities that hold on that unit.

The trunk is shared by all units; what differs is a monotone map of the logit, learnt from that unit's own labels:

========== =============================================== =========================================
temperature ``z / T``                                       Guo et al. 2017 (ICML 34, 1321)
platt       ``a z + b``                                     Platt 1999
beta        ``a softplus(z) - b softplus(-z) + c``          Kull et al. 2017 (AISTATS 54, 623), eq. 4
isotonic    a staircase, smoothed to straight lines         Zadrozny and Elkan 2002 (KDD 8, 694)
========== =============================================== =========================================

The map is applied to every dropout sample; the parameters are those that make the mean over samples, the score, most
likely. Cross-validation over groups (fields, nights) decides which map is used: the simplest within one standard error
of the best. A map for which there are too few labels is not tried, and the calibration says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from models.calibration.metrics import TINY, ece, losses
from nightsift.core.errors import ModelMismatch

Logits = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]

LEAST = {"temperature": 10, "platt": 20, "beta": 50, "isotonic": 500}
"""Labels of the rarer class that each map needs, simplest map first."""

FOLDS = 5
"""Folds of the cross-validation."""

ONE_GROUP = "no map can be tested on labels that it did not learn from: label candidates of more fields or nights"
PRIOR = 1.0
"""Weight, in labels, of the prior that draws the parameters of a map to those of no change."""
_START = {"temperature": np.array([1.0]), "platt": np.array([1.0, 0.0]), "beta": np.array([1.0, 1.0, 0.0])}
_POSITIVE = {"temperature": (True,), "platt": (True, False), "beta": (True, True, False)}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A monotone map from logit to probability, and what it rests on.

    Attributes
    ----------
    method : str
        ``"none"`` or a key of `LEAST`.
    parameters : tuple of float
        Those of the map; of ``"isotonic"`` the logits of its knots, followed by their calibrated logits.
    model_id : str
        The model whose logits it is for.
    unit : str
        The unit whose labels it was learnt from.
    real, bogus : int
        Numbers of labels.
    prevalence : float
        Part of the candidates that is real for which the probabilities hold.
    figures : dict
        Cross-validated negative log-likelihood of every map tried; calibration error before, and cross-validated after.
    reasons : tuple of str
        Why maps were not tried.
    """

    method: str = "none"
    parameters: tuple[float, ...] = ()
    model_id: str = ""
    unit: str = ""
    real: int = 0
    bogus: int = 0
    prevalence: float = 0.5
    figures: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def __call__(self, logits: Logits) -> Float64:
        """Map logits of any shape to calibrated logits (float64) at the stated prevalence, element by element."""
        return _MAPS[self.method](np.asarray(self.parameters, dtype=np.float64), np.asarray(logits, dtype=np.float64))

    @property
    def digest(self) -> str:
        """First eight hexadecimal digits of the SHA-256 of its content: part of the identity of scores."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]

    def to_json(self) -> str:
        """The calibration as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "calibration") -> Calibration:
        """Read a calibration from the text that `to_json` gave.

        Parameters
        ----------
        text, where : str
            The text, and where it was read, for errors.

        Returns
        -------
        Calibration
            The calibration.

        Raises
        ------
        ModelMismatch
            If it is no calibration that this code knows.
        """
        try:
            values = json.loads(text)
            made = cls(**{**values, "parameters": tuple(values["parameters"]), "reasons": tuple(values["reasons"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ModelMismatch(model=where, what=f"it is no calibration: {error}") from error
        if made.method not in _MAPS:
            raise ModelMismatch(model=where, what=f"its method '{made.method}' is unknown; known: {', '.join(_MAPS)}")
        return made


def fit_calibration(
    logits: Logits,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    prevalence: float | None = None,
    model_id: str = "",
    unit: str = "",
    seed: int = 0,
    stated: float = 0.5,
) -> Calibration:
    """Learn the calibration of one unit from its labels.

    Parameters
    ----------
    logits : ndarray, shape (samples, n) or (n,)
        Logits of the labelled candidates, sampled or not.
    labels : array_like of int, shape (n,)
        1 real, 0 bogus.
    groups : array_like, shape (n,), optional
        What must not stand on both sides of a fold (field, night, exposure); each candidate by itself if not given.
    prevalence : float, optional
        Part of the candidates that is real in service; that of the labels if not given.
    model_id, unit : str, optional
        What it is for.
    seed : int, optional
        Seed of the folds.
    stated : float, optional
        Part of the candidates that is real for which the model's own scores hold, where no map can be tried.

    Returns
    -------
    Calibration
        The map; ``"none"`` with its reasons where labels are too few or no map is better than none.

    Raises
    ------
    ValueError
        If shapes or labels make no sense.
    """
    z, y = np.atleast_2d(np.asarray(logits, dtype=np.float64)), np.asarray(labels, dtype=np.int64)
    if z.shape[1] != len(y) or not np.isin(y, (0, 1)).all():
        raise ValueError(f"{z.shape[1]} logits and {len(y)} labels of 0 and 1 are needed to belong together")
    real, bogus = int((y == 1).sum()), int((y == 0).sum())
    rarer = min(real, bogus)
    reasons = tuple(
        f"{name} needs {least} labels of each class, got {real} real and {bogus} bogus"
        for name, least in LEAST.items()
        if rarer < least
    )
    fold = _folds(np.arange(len(y)) if groups is None else np.asarray(groups), y, seed)
    tried = [name for name, least in LEAST.items() if rarer >= least]
    if tried and fold is None:
        tried, reasons = [], (*reasons, ONE_GROUP)
    held = {"none": _mean(z), **{name: _held_out(name, z, y, fold=fold) for name in tried}}
    seen = {name: losses(p, y) for name, p in held.items()}
    method = _choose(seen)
    parameters = _fit(method, z, y)
    figures = {f"nll_{name}": float(loss.mean()) for name, loss in seen.items() if len(loss)}
    if len(y):
        figures |= {"ece_before": ece(held["none"], y), "ece_after": ece(held[method], y)}
    present = real / len(y) if tried else stated
    target = present if prevalence is None else prevalence
    method, parameters = _shifted(method, parameters, float(logit(target) - logit(present)))
    return Calibration(
        method, tuple(map(float, parameters)), model_id, unit, real, bogus, float(target), figures, reasons
    )


def mean_probability(logits: Logits, calibration: Calibration | None = None) -> Float64:
    """Return the mean over samples (samples, n) of the (calibrated) probabilities to be real: the score, shape (n,)."""
    return _mean(calibration(logits) if calibration else np.atleast_2d(np.asarray(logits, dtype=np.float64)))


def _mean(z: Float64) -> Float64:
    return np.asarray(expit(z).mean(axis=0))


def _folds(groups: npt.NDArray[Any], labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64] | None:
    """Fold of each example, groups undivided, folds as full as each other; None if there are not two groups."""
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    count = min(FOLDS, len(names))
    size, of_group = np.zeros(count), np.empty(len(names), dtype=np.int64)
    members = np.bincount(index)
    order = np.random.default_rng(seed).permutation(len(names))
    for group in order[np.argsort(-members[order], kind="stable")]:
        of_group[group] = int(size.argmin())
        size[of_group[group]] += members[group]
    fold = of_group[index]
    whole = all(len(np.unique(labels[fold != k])) == 2 for k in range(count))
    return fold if whole else None


def _held_out(name: str, z: Float64, y: npt.NDArray[np.int64], *, fold: npt.NDArray[np.int64] | None) -> Float64:
    """Probability of each example under the map learnt without its fold."""
    assert fold is not None
    probability = np.empty(len(y))
    for k in np.unique(fold):
        out = fold == k
        probability[out] = _mean(_MAPS[name](_fit(name, z[:, ~out], y[~out]), z[:, out]))
    return probability


def _choose(seen: dict[str, Float64]) -> str:
    """The simplest map whose loss is within one standard error of the best one's."""
    best = min(seen, key=lambda name: float(seen[name].mean()) if len(seen[name]) else 0.0)
    for name, loss in seen.items():
        excess = loss - seen[best]
        if name == best or excess.mean() <= excess.std() / np.sqrt(len(excess)):
            return name
    return best


def _fit(name: str, z: Float64, y: npt.NDArray[np.int64]) -> Float64:
    """Parameters of a map that make the mean probability over samples most likely."""
    if name == "none":
        return np.zeros(0)
    if name == "isotonic":
        return _staircase(np.asarray(logit(np.clip(_mean(z), TINY, 1 - TINY))), y)
    start = _START[name]

    def cost(parameters: Float64) -> float:
        prior = PRIOR * float(((parameters - start) ** 2).sum())
        return float(losses(_mean(_MAPS[name](parameters, z)), y).sum()) + prior

    bounds = [(1e-3, None) if positive else (None, None) for positive in _POSITIVE[name]]
    return np.asarray(minimize(cost, start, method="L-BFGS-B", bounds=bounds).x)


def _staircase(z: Float64, y: npt.NDArray[np.int64]) -> Float64:
    """Knots of the isotonic regression: the middles of its steps, with half an example of each class added to each."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(z, kind="stable")
    steps = isotonic_regression(y[order].astype(np.float64))
    edges = np.asarray(steps.blocks)
    count = np.diff(edges)
    value = (np.asarray(steps.x)[edges[:-1]] * count + 0.5) / (count + 1.0)
    knots = np.array([np.median(z[order][a:b]) for a, b in pairwise(edges)])
    return np.concatenate([knots, np.maximum.accumulate(logit(value))])


def _stairs(parameters: Float64, z: Float64) -> Float64:
    """Straight lines between the knots, of slope one beyond them."""
    x, y = np.split(parameters, 2)
    inside = np.interp(z, x, y)
    return np.asarray(inside + np.minimum(z - x[0], 0.0) + np.maximum(z - x[-1], 0.0))


def _shifted(method: str, parameters: Float64, shift: float) -> tuple[str, Float64]:
    """Shift the calibrated logit to another prevalence (Saerens et al. 2002, Neural Comput. 14, 21)."""
    if shift == 0.0:
        return method, parameters
    if method in ("none", "temperature"):
        return "platt", np.array([1.0 / parameters[0] if len(parameters) else 1.0, shift])
    if method == "isotonic":
        x, y = np.split(parameters, 2)
        return method, np.concatenate([x, y + shift])
    return method, np.concatenate([parameters[:-1], [parameters[-1] + shift]])


_MAPS: dict[str, Callable[[Float64, Float64], Float64]] = {
    "none": lambda p, z: z,
    "temperature": lambda p, z: z / p[0],
    "platt": lambda p, z: p[0] * z + p[1],
    "beta": lambda p, z: p[0] * np.logaddexp(0.0, z) - p[1] * np.logaddexp(0.0, -z) + p[2],
    "isotonic": _stairs,
}
