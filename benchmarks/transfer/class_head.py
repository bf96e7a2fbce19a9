"""What kind of real thing: supernova-like, variable or mover, below the real/bogus score and without touching it.

    P(class) = P(real) P(class | real),     P(bogus) = 1 - P(real)

The three add up to P(real) exactly, so that a calibrated real/bogus score stays calibrated; a flat softmax over four
classes would have to learn it again from the few examples that have a class. P(class | real) is a multinomial logistic
head on the features of the trunk, learnt from examples with a class only::

    P(c | real, f) ~ prevalence_c exp(w_c^T f + b_c),      w_c ~ N(w0_c, 1 / strength)

w0 is zero, or the head learnt elsewhere (simulated units): transfer with few examples a class moves it only as far as
they say. The strength is chosen by cross-validation over groups. Every class weighs the same in learning; the
prevalence is given apart, because the classes of a labelled set never come as often as those of the sky.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from nightsift.core.errors import TooFewLabels

Float64 = npt.NDArray[np.float64]

CLASSES = ("transient", "variable", "mover")
BOGUS = "bogus"
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
LEAST = 3
"""Examples that a class needs."""
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class ClassHead:
    """A head that tells classes of real candidates.

    Attributes
    ----------
    names : tuple of str
        The classes.
    centre, scale : ndarray of float64, shape (k,)
        What features are centred on and divided by.
    weights : ndarray of float64, shape (k + 1, classes)
        Weights, the biases last; each class as often as the others.
    strength : float
        Prior precision that was chosen.
    counts : dict of str to int
        Examples of each class that it was learnt from.
    prevalence : dict of str to float
        Part of the real candidates that is of each class, for which the probabilities hold.
    held_out : float
        Mean negative log-likelihood of held-out groups, each class weighing the same (nat); NaN where not measured.
    """

    names: tuple[str, ...]
    centre: Float64
    scale: Float64
    weights: Float64
    strength: float
    counts: dict[str, int]
    prevalence: dict[str, float]
    held_out: float = float("nan")

    def conditional(self, features: npt.NDArray[np.floating]) -> Float64:
        """Return the probability of each class given that a candidate is real, shape (n, classes), rows add up to 1.

        `features` (n, k) as in training.
        """
        odds = np.log(np.maximum([self.prevalence[name] for name in self.names], 1e-12))
        return np.asarray(np.exp(log_softmax(_design(features, self.centre, self.scale) @ self.weights + odds, axis=1)))

    def with_prevalence(self, prevalence: Mapping[str, float]) -> ClassHead:
        """Return the head for a sky with another part of each class, scaled to add up to 1.

        ValueError if a class is absent or none has a positive part.
        """
        total = sum(prevalence.get(name, 0.0) for name in self.names)
        if set(prevalence) != set(self.names) or min(prevalence.values()) < 0 or not total > 0:
            raise ValueError(f"the prevalence of {', '.join(self.names)} is needed, got {dict(prevalence)}")
        return replace(self, prevalence={name: prevalence[name] / total for name in self.names})


def hierarchical(real: npt.NDArray[np.floating], conditional: Float64) -> Float64:
    """Return the probabilities of all classes and, last, of bogus.

    Shape (n, classes + 1), rows add up to 1 and all but the last to `real`, the calibrated ``score``; `conditional` is
    that of `ClassHead.conditional`.
    """
    p = np.asarray(real, dtype=np.float64)[:, None]
    return np.concatenate([p * conditional, 1.0 - p], axis=1)


def fit_classes(
    features: npt.NDArray[np.floating],
    classes: npt.NDArray[np.object_],
    groups: npt.NDArray[np.generic] | None = None,
    source: ClassHead | None = None,
    names: tuple[str, ...] = CLASSES,
    seed: int = 0,
) -> ClassHead:
    """Learn a head from real candidates with a class.

    Parameters
    ----------
    features : ndarray, shape (n, k)
        Features, one row a candidate.
    classes : ndarray of str, shape (n,)
        Their classes, all among `names`.
    groups : ndarray, shape (n,), optional
        What must not stand on both sides of a fold (object, exposure, night); each candidate by itself if not given.
    source : ClassHead, optional
        A head learnt elsewhere on the same features; what is learnt here are deviations from it.
    names : tuple of str, optional
        The classes, two or more.
    seed : int, optional
        Seed of the folds.

    Returns
    -------
    ClassHead
        The head, for classes of equal prevalence.

    Raises
    ------
    TooFewLabels
        If a class has fewer than `LEAST` examples.
    ValueError
        If a class is unknown or shapes do not fit.
    """
    code = _codes(classes, names, len(features))
    count = np.bincount(code, minlength=len(names))
    if count.min() < LEAST:
        rarest = int(count.argmin())
        raise TooFewLabels(rule="classes", found=int(count[rarest]), needed=LEAST, label=names[rarest])
    x = np.asarray(features, dtype=np.float64)
    if source is not None and source.names != names:
        raise ValueError(f"the other head tells {source.names}, and {names} are asked for")
    centre = x.mean(axis=0) if source is None else source.centre
    scale = x.std(axis=0) if source is None else source.scale
    scale = np.where(scale > 1e-9, scale, 1.0)
    phi, start = _design(x, centre, scale), np.zeros((x.shape[1] + 1, len(names)))
    start = start if source is None else source.weights
    fold = _folds(np.arange(len(code)) if groups is None else np.asarray(groups), code, seed)
    losses = [_held_out(phi, code, fold, start, strength) for strength in STRENGTHS]
    best = int(np.argmin(losses))
    weights = _fit(phi, code, start, STRENGTHS[best])
    counts = {name: int(n) for name, n in zip(names, count, strict=True)}
    return ClassHead(
        names, centre, scale, weights, STRENGTHS[best], counts, dict.fromkeys(names, 1 / len(names)), losses[best]
    )


def _codes(classes: npt.NDArray[np.object_], names: tuple[str, ...], n: int) -> npt.NDArray[np.int64]:
    unknown = sorted({str(one) for one in classes} - set(names))
    if unknown or len(classes) != n or len(names) < 2:
        raise ValueError(f"{n} features and {len(classes)} classes among {names} are needed, got also {unknown}")
    return np.array([names.index(str(one)) for one in classes], dtype=np.int64)


def _fit(phi: Float64, code: npt.NDArray[np.int64], start: Float64, strength: float) -> Float64:
    """Most probable weights, classes weighing the same; the biases have a prior a hundred times as wide."""
    k, c = start.shape
    count = np.maximum(np.bincount(code, minlength=c), 1)
    weight = (len(code) / c / count)[code]
    precision = np.full((k, 1), strength)
    precision[-1] = 0.01 * strength
    hot = np.eye(c)[code]

    def cost(flat: Float64) -> tuple[float, Float64]:
        w = flat.reshape(k, c)
        logp = log_softmax(phi @ w, axis=1)
        shift = w - start
        value = -(weight * logp[np.arange(len(code)), code]).sum() + 0.5 * (precision * shift**2).sum()
        gradient = phi.T @ (weight[:, None] * (np.exp(logp) - hot)) + precision * shift
        return float(value), gradient.ravel()

    return np.asarray(minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x).reshape(
        k, c
    )


def _held_out(
    phi: Float64, code: npt.NDArray[np.int64], fold: npt.NDArray[np.int64], start: Float64, strength: float
) -> float:
    """Negative log-likelihood of the held-out folds, classes weighing the same."""
    loss = np.empty(len(code))
    for k in np.unique(fold):
        out = fold == k
        z = phi[out] @ _fit(phi[~out], code[~out], start, strength)
        loss[out] = logsumexp(z, axis=1) - z[np.arange(out.sum()), code[out]]
    return float(np.mean([loss[code == one].mean() for one in np.unique(code)]))


def _folds(groups: npt.NDArray[np.generic], code: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Fold of each example: groups whole, those of the rarest class dealt first, so that each fold lacks some of it."""
    _, index = np.unique(groups, return_inverse=True)
    count = np.bincount(code)
    rare = np.zeros(index.max() + 1)
    np.maximum.at(rare, index, 1.0 / count[code])
    order = np.random.default_rng(seed).permutation(len(rare))
    order = order[np.argsort(-rare[order], kind="stable")]
    of_group = np.empty(len(rare), dtype=np.int64)
    of_group[order] = np.arange(len(order)) % min(FOLDS, len(order))
    return of_group[index]


def _design(features: npt.NDArray[np.floating], centre: Float64, scale: Float64) -> Float64:
    x = (np.asarray(features, dtype=np.float64) - centre) / scale
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
