"""What a handful of labels can change: a small linear correction of a network's logit, with its uncertainty.

    z(x) = a z0(x) + b + w^T f(x),      a ~ N(1, A^2),  b ~ N(0, B^2),  w ~ N(0, t^2 / k)

z0 is the logit of the network, f its k pooled features (`models.network.classifier.pooled`), centred and scaled. The
prior is the network itself: without labels nothing changes, and with few labels little does. The width t is chosen by
cross-validation, the smallest one within one standard error of the best, so that ten labels get a shift and a slope,
and hundreds get new weights. (The evidence of Laplace's approximation was tried: where labels contradict each other
it takes widths that are too large.) The posterior is a Gaussian (Laplace's approximation, MacKay 1992, Neural Comput.
4, 720): samples of it serve active learning (`models.transfer.active`) and tell how far the labels reach.
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

WIDTHS = (0.0, 0.3, 1.0, 3.0, 10.0)
"""Widths t that are tried; 0 leaves the features out."""

LEAST, FOLDS = 10, 10
"""Labels of the rarer class without which the features are left out, and folds of the cross-validation."""

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
    held_out : dict of float to float
        Mean loss of held-out labels (nat) by width; empty where labels are too few for it.
    """

    centre: Float64
    scale: Float64
    weights: Float64
    covariance: Float64
    width: float
    held_out: dict[float, float]

    def logits(self, logits: npt.NDArray[np.floating], features: npt.NDArray[np.floating]) -> Float64:
        """Return corrected logits under the most probable weights, in the shape of `logits`: (n,) or (samples, n).

        `features` are pooled, (n, k).
        """
        a, b, w = self.weights[0], self.weights[1], self.weights[2:]
        return np.asarray(a * np.asarray(logits, np.float64) + b + self._standard(features) @ w)

    def sampled(
        self, logits: npt.NDArray[np.floating], features: npt.NDArray[np.floating], samples: int, seed: int = 0
    ) -> Float64:
        """Return corrected logits, shape (samples, n), under weights drawn from the posterior, which all stamps share.

        `logits` (n,), `features` (n, k).
        """
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal(self.weights, self.covariance, samples, method="eigh")
        return np.asarray(drawn @ _design(np.asarray(logits, np.float64), self._standard(features)).T)

    def _standard(self, features: npt.NDArray[np.floating]) -> Float64:
        return np.asarray((np.asarray(features, np.float64) - self.centre) / self.scale)


def fit_correction(
    logits: npt.NDArray[np.floating], features: npt.NDArray[np.floating], labels: npt.ArrayLike,
    weights: npt.NDArray[np.floating] | None = None, unlabelled: npt.NDArray[np.floating] | None = None, seed: int = 0,
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
    seed : int, optional
        Seed of the folds.

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
    width, held_out = _width(phi, y, w, np.random.default_rng(seed))
    theta, covariance = np.concatenate([[1.0], np.zeros(k + 1)]), np.zeros((k + 2, k + 2))
    used = 2 if width == 0 else k + 2
    theta[:used], covariance[:used, :used] = most_probable(phi[:, :used], y, w, *_prior(width, k))
    return Correction(centre, scale, theta, covariance, width, held_out)


def _prior(width: float, k: int) -> tuple[Float64, Float64]:
    """Means and inverse variances of slope, shift and, unless the width is 0, the weights of the features."""
    count = k if width else 0
    return (
        np.concatenate([[1.0, 0.0], np.zeros(count)]),
        np.concatenate([[SLOPE**-2, SHIFT**-2], np.full(count, count / max(width, 1e-9) ** 2)]),
    )


def _width(phi: Float64, y: Float64, w: Float64, rng: np.random.Generator) -> tuple[float, dict[float, float]]:
    """The smallest width whose held-out loss is within one standard error of the best one's."""
    if min((y == 1).sum(), (y == 0).sum()) < LEAST:
        return 0.0, {}
    fold = np.empty(len(y), dtype=np.int64)
    for label in (0, 1):  # every fold lacks some of both
        rows = rng.permutation(np.flatnonzero(y == label))
        fold[rows] = np.arange(len(rows)) % FOLDS
    loss = {}
    for width in WIDTHS:
        used, prior = (2 if width == 0 else phi.shape[1]), _prior(width, phi.shape[1] - 2)
        seen = np.empty(len(y))
        for one in range(FOLDS):
            out = fold == one
            theta, _ = most_probable(phi[~out][:, :used], y[~out], w[~out], *prior)
            z = phi[out][:, :used] @ theta
            seen[out] = w[out] * (np.logaddexp(0.0, z) - y[out] * z)
        loss[width] = seen
    mean_loss = {width: float(seen.mean()) for width, seen in loss.items()}
    best = min(mean_loss, key=lambda width: mean_loss[width])
    for width, seen in loss.items():
        excess = seen - loss[best]
        if excess.mean() <= excess.std() / np.sqrt(len(excess)):
            return width, mean_loss
    return best, mean_loss


def most_probable(
    phi: Float64, labels: Float64, weights: Float64, mean: Float64, precision: Float64
) -> tuple[Float64, Float64]:
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
    return theta, cho_solve(cho_factor(curvature), np.eye(len(theta)))


def _design(logits: Float64, standard: Float64) -> Float64:
    return np.concatenate([logits[:, None], np.ones((len(logits), 1)), standard], axis=1)
