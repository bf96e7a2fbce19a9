"""What a handful of labels can change: a small linear correction of a network's logit, with its uncertainty.

    z(x) = a z0(x) + b + w^T f(x),      a ~ N(1, A^2),  b ~ N(0, B^2),  w ~ N(0, t^2 / k)

z0 is the logit of the network, f its k pooled features (`models.features.pooled`), centred and scaled. The prior is
the network itself: without labels nothing changes, and with few labels little does. The width t is the one under
which the labels are most probable (evidence by Laplace's approximation, MacKay 1992, Neural Comput. 4, 448), so that
ten labels get a shift and a slope, and hundreds get new weights. The posterior is a Gaussian: samples of it serve
active learning (`models.active`) and tell how far the labels reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

Float64 = npt.NDArray[np.float64]

SLOPE, SHIFT = 0.5, 2.0
"""Prior widths A and B: another unit seldom changes the slope by more than a half, or the odds by more than e^4."""

WIDTHS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Widths t that are tried; 0 leaves the features out."""

GAIN = 2.0
"""Nats by which the labels must speak for the features: ten labels find a pattern in 64 numbers by chance."""

STEPS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """A posterior of the correction.

    Attributes
    ----------
    centre, scale : ndarray of float64, shape (k,)
        What features are centred on and divided by.
    weights : ndarray of float64, shape (k + 2,)
        Most probable a, b and w.
    covariance : ndarray of float64, shape (k + 2, k + 2)
        Their covariance.
    width : float
        Prior width t of the features' weights.
    evidence : float
        Logarithm of the probability of the labels under that prior (nat).
    """

    centre: Float64
    scale: Float64
    weights: Float64
    covariance: Float64
    width: float
    evidence: float

    def logits(self, logits: npt.NDArray[np.floating], features: npt.NDArray[np.floating]) -> Float64:
        """Corrected logits under the most probable weights.

        Parameters
        ----------
        logits : ndarray, shape (n,) or (samples, n)
            Logits of the network.
        features : ndarray, shape (n, k)
            Pooled features.

        Returns
        -------
        ndarray of float64, of the shape of `logits`
            Corrected logits.
        """
        a, b, w = self.weights[0], self.weights[1], self.weights[2:]
        return np.asarray(a * np.asarray(logits, np.float64) + b + self._standard(features) @ w)

    def sampled(
        self, logits: npt.NDArray[np.floating], features: npt.NDArray[np.floating], samples: int, seed: int = 0
    ) -> Float64:
        """Corrected logits under weights drawn from the posterior, shared by all stamps.

        Parameters
        ----------
        logits : ndarray, shape (n,)
            Logits of the network.
        features : ndarray, shape (n, k)
            Pooled features.
        samples : int
            Number of draws.
        seed : int, optional
            Seed of the draws.

        Returns
        -------
        ndarray of float64, shape (samples, n)
            Logits.
        """
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal(self.weights, self.covariance, samples, method="eigh")
        return np.asarray(drawn @ _design(np.asarray(logits, np.float64), self._standard(features)).T)

    def _standard(self, features: npt.NDArray[np.floating]) -> Float64:
        return np.asarray((np.asarray(features, np.float64) - self.centre) / self.scale)


def fit_correction(
    logits: npt.NDArray[np.floating], features: npt.NDArray[np.floating], labels: npt.ArrayLike,
    weights: npt.NDArray[np.floating] | None = None, unlabelled: npt.NDArray[np.floating] | None = None,
) -> Correction:  # fmt: skip
    """Learn a correction from few labels.

    Parameters
    ----------
    logits : ndarray, shape (n,)
        Logits of the network for the labelled stamps; n may be 0.
    features : ndarray, shape (n, k)
        Their pooled features.
    labels : array_like of int, shape (n,)
        1 real, 0 bogus.
    weights : ndarray, shape (n,), optional
        Weights of the labels; one each if not given.
    unlabelled : ndarray, shape (m, k), optional
        Features that centre and scale are taken from; those of the labelled stamps if not given.

    Returns
    -------
    Correction
        Its most probable weights and their covariance.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    z, x, y = np.asarray(logits, np.float64), np.asarray(features, np.float64), np.asarray(labels, np.float64)
    if not len(z) == len(x) == len(y) or z.ndim != 1 or x.ndim != 2:
        raise ValueError(f"{z.shape} logits, {x.shape} features and {y.shape} labels do not belong together")
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    basis = x if unlabelled is None else np.asarray(unlabelled, np.float64)
    centre = basis.mean(axis=0) if len(basis) else np.zeros(x.shape[1])
    scale = basis.std(axis=0) if len(basis) else np.ones(x.shape[1])
    scale = np.where(scale > 1e-9, scale, 1.0)
    phi, k = _design(z, (x - centre) / scale), x.shape[1]
    mean = np.concatenate([[1.0, 0.0], np.zeros(k)])
    best: Correction | None = None
    for width in WIDTHS:
        used = 2 if width == 0 else k + 2
        precision = np.concatenate([[SLOPE**-2, SHIFT**-2], np.full(k, k / max(width, 1e-9) ** 2)])[:used]
        theta, covariance, evidence = most_probable(phi[:, :used], y, w, mean[:used], precision)
        if best is None or evidence > best.evidence + (GAIN if best.width == 0 else 0.0):
            full, spread = mean.copy(), np.zeros((k + 2, k + 2))
            full[:used], spread[:used, :used] = theta, covariance
            best = Correction(centre, scale, full, spread, width, evidence)
    assert best is not None
    return best


def most_probable(
    phi: Float64, labels: Float64, weights: Float64, mean: Float64, precision: Float64
) -> tuple[Float64, Float64, float]:
    """Logistic regression under a Gaussian prior: Newton's method, and Laplace's approximation around its end.

    Parameters
    ----------
    phi : ndarray of float64, shape (n, k)
        Inputs.
    labels, weights : ndarray of float64, shape (n,)
        1 or 0, and the weight of each label.
    mean, precision : ndarray of float64, shape (k,)
        Prior means, and inverse variances.

    Returns
    -------
    theta : ndarray of float64, shape (k,)
        Most probable weights.
    covariance : ndarray of float64, shape (k, k)
        Inverse of the curvature there.
    evidence : float
        Logarithm of the probability of the labels (nat).
    """
    theta = mean.copy()

    def loss(at: Float64) -> float:
        z = phi @ at
        return float((weights * (np.logaddexp(0.0, z) - labels * z)).sum() + 0.5 * (precision * (at - mean) ** 2).sum())

    value = loss(theta)
    for _ in range(STEPS):
        p = expit(phi @ theta)
        gradient = phi.T @ (weights * (p - labels)) + precision * (theta - mean)
        curvature = (phi * (weights * p * (1 - p))[:, None]).T @ phi + np.diag(precision)
        step = cho_solve(cho_factor(curvature), gradient)
        length = 1.0
        while length > 1e-6 and loss(theta - length * step) > value:
            length *= 0.5
        theta = theta - length * step
        before, value = value, loss(theta)
        if before - value < 1e-9 * max(1.0, abs(value)):
            break
    p = expit(phi @ theta)
    curvature = (phi * (weights * p * (1 - p))[:, None]).T @ phi + np.diag(precision)
    covariance = cho_solve(cho_factor(curvature), np.eye(len(theta)))
    _, sign_free = np.linalg.slogdet(curvature)
    return theta, covariance, float(-value + 0.5 * np.log(precision).sum() - 0.5 * sign_free)


def _design(logits: Float64, standard: Float64) -> Float64:
    return np.concatenate([logits[:, None], np.ones((len(logits), 1)), standard], axis=1)
