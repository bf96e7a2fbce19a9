"""Last-layer Laplace: the posterior of a head's last weights as a Gaussian, in closed form.

With activations phi (a 1 appended), weights theta and probabilities p of the training examples (MacKay 1992, Neural
Comput. 4, 720, eq. 4; Kristiadi et al. 2020, ICML 119, 5436)::

    Lambda  = sum_i w_i p_i (1 - p_i) phi_i phi_i^T + tau I           precision at the maximum
    m(x)    = theta^T phi(x)                                           mean of the logit
    v(x)    = s phi(x)^T Lambda^-1 phi(x)                              its variance
    P(real) = E[sigma(z)], z ~ N(m, v)

The prior precision tau and the factor s are chosen on the validation part, whose groups were not learnt from. s = 1 is
the textbook's value, which counts every example as independent evidence; examples of one unit share its faults, so
that there are fewer independent ones, and s is larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, ndtri

from benchmarks.uncertainty.ensemble import FeatureSet, Float32, Heads
from models.calibration.metrics import losses

Float64 = npt.NDArray[np.float64]

PRECISIONS = tuple(10.0**k for k in range(-2, 5))
FACTORS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True, eq=False)
class Laplace:
    """Posterior of the last layer of one head.

    Attributes
    ----------
    weights : ndarray of float64, shape (hidden + 1,)
        Most probable weights, the bias last.
    covariance : ndarray of float64, shape (hidden + 1, hidden + 1)
        Their covariance, with the factor.
    precision : float
        Prior precision tau that was chosen.
    factor : float
        Factor s that was chosen.
    """

    weights: Float64
    covariance: Float64
    precision: float
    factor: float

    def moments(self, hidden: Float32) -> tuple[Float64, Float64]:
        """Return mean and variance of the Gaussian posterior of the logit.

        Each (n,), of activations before the last layer (n, hidden).
        """
        phi = _with_one(hidden)
        return phi @ self.weights, np.einsum("ni,ij,nj->n", phi, self.covariance, phi, optimize=True)

    def logits(self, hidden: Float32, samples: int) -> Float32:
        """Return the posterior of the logit as equally probable values, shape (samples, n).

        Its quantiles (k + 1/2) / samples; no draw, no seed.
        """
        mean, variance = self.moments(hidden)
        return (mean + np.sqrt(variance) * quantiles(samples)[:, None]).astype(np.float32)

    def drawn_logits(self, hidden: Float32, samples: int, seed: int) -> Float32:
        """Return logits, shape (samples, n), by weights drawn from the posterior, which all stamps share."""
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal(self.weights, self.covariance, samples, method="eigh")
        return np.asarray(drawn @ _with_one(hidden).T, dtype=np.float32)


def quantiles(samples: int) -> Float64:
    """Return standard normal quantiles of equal probability, increasing, of mean zero, scaled to a variance of one.

    ValueError for fewer than one.
    """
    if samples < 1:
        raise ValueError(f"at least one sample is needed, got {samples}")
    values = ndtri((np.arange(samples) + 0.5) / samples)
    return np.asarray(values / max(float(np.sqrt((values**2).mean())), 1e-12))


def fit_laplace(heads: Heads, learn: FeatureSet, check: FeatureSet, member: int = 0, samples: int = 20) -> Laplace:
    """Fit the posterior of one head's last layer.

    Parameters
    ----------
    heads : Heads
        Trained heads.
    learn : FeatureSet
        What the head was trained on.
    check : FeatureSet
        Other groups, on which prior precision and factor are chosen by their likelihood.
    member : int, optional
        Which head.
    samples : int, optional
        Values that stand for the posterior in that choice.

    Returns
    -------
    Laplace
        The posterior.
    """
    theta = np.append(heads.outer[member], heads.outer_bias[member]).astype(np.float64)
    phi, held = (_with_one(heads.hidden(one.features, member)) for one in (learn, check))
    p = expit(phi @ theta)
    evidence = (phi * (learn.weights * p * (1 - p))[:, None]).T @ phi
    mean, z = held @ theta, quantiles(samples)[:, None]
    best: tuple[float, float, float, Float64] | None = None
    for precision in PRECISIONS:
        covariance = cho_solve(cho_factor(evidence + precision * np.eye(len(theta))), np.eye(len(theta)))
        variance = np.einsum("ni,ij,nj->n", held, covariance, held, optimize=True)
        for factor in FACTORS:
            probability = expit(mean + np.sqrt(factor * variance) * z).mean(axis=0)
            loss = float(np.mean(check.weights * losses(probability, check.labels)))
            if best is None or loss < best[0]:
                best = (loss, precision, factor, covariance)
    assert best is not None
    _, precision, factor, covariance = best
    return Laplace(theta, factor * covariance, precision, factor)


def _with_one(hidden: Float32) -> Float64:
    return np.concatenate([hidden, np.ones((len(hidden), 1), np.float32)], axis=1).astype(np.float64)
