"""How far apart two samples of candidates are, whatever their shape: three statistics, each free of the sample's size.

=============== ================================================== ==========================================
Kolmogorov      largest distance of two distribution functions     of one number a candidate: the score
MMD             distance of mean embeddings in a kernel space      of many: the features of the network's trunk
classifier      how well a linear classifier tells the samples     of many, and it says in which direction
                apart that never saw the candidates it judges
=============== ================================================== ==========================================

Gretton et al. 2012 (J. Mach. Learn. Res. 13, 723) for the MMD; Lopez-Paz and Oquab 2017 (ICLR) for the classifier;
Rabanser et al. 2019 (NeurIPS 32) for which of them see which shift.

Candidates of one exposure share its sky and its faults, and exposures of one night share that night. So p-values from
permuting candidates are far too small, and none are made here: what a value of a night means is told by the nights of
the calibration set (`models.night_tests`). The permutations only set the scale.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

Array = npt.NDArray[np.floating]
Groups = npt.NDArray[np.generic]

LEAST = 5
"""Candidates of either sample below which nothing is said."""


def ks_statistic(sample: Array, reference: Array) -> float:
    """Two-sample Kolmogorov-Smirnov statistic in units of its width under equal distributions.

    Parameters
    ----------
    sample, reference : ndarray, shape (n,), (m,)
        Values, such as logits of scores.

    Returns
    -------
    float
        ``sqrt(n m / (n + m)) D`` with the largest distance D of the distribution functions; about 0.87 in the mean
        for independent draws of one distribution. NaN for fewer than `LEAST` values.
    """
    n, m = len(sample), len(reference)
    if min(n, m) < LEAST:
        return float("nan")
    places = np.sort(np.concatenate([sample, reference]))
    own = np.searchsorted(np.sort(sample), places, side="right") / n
    other = np.searchsorted(np.sort(reference), places, side="right") / m
    return float(np.abs(own - other).max() * np.sqrt(n * m / (n + m)))


def median_bandwidth(reference: Array, most: int = 500, seed: int = 0) -> float:
    """Width of the kernel of the MMD: the median distance of two candidates (Gretton et al. 2012, section 8).

    Parameters
    ----------
    reference : ndarray, shape (m, d)
        Features.
    most : int, optional
        Candidates drawn for it.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    float
        The width; 1 where all candidates are the same.
    """
    rows = np.random.default_rng(seed).permutation(len(reference))[:most]
    distances = cdist(reference[rows], reference[rows])[np.triu_indices(len(rows), 1)]
    width = float(np.median(distances)) if len(distances) else 0.0
    return width if width > 0 else 1.0


def mmd_statistic(
    sample: Array, reference: Array, bandwidth: float, permutations: int = 100, most: int = 400, seed: int = 0
) -> float:
    """Maximum mean discrepancy over what permutations give.

    Its square has the long right tail of a weighted sum of chi-squares, and nights that differ a little draw it out
    further; the distance itself, of nights that are alike, is near a normal variable.

    Parameters
    ----------
    sample, reference : ndarray, shape (n, d), (m, d)
        Features.
    bandwidth : float
        Width of the Gaussian kernel.
    permutations : int, optional
        Permutations that give the mean.
    most : int, optional
        Candidates drawn of either sample.
    seed : int, optional
        Seed of permutations and draws.

    Returns
    -------
    float
        sqrt(MMD2 / mean), of the biased estimate (Gretton et al. 2012, eq. 5); about 1 for draws of one distribution,
        whatever their number. NaN for fewer than `LEAST` candidates.
    """
    rng = np.random.default_rng(seed)
    x, y = (np.asarray(a)[np.sort(rng.permutation(len(a))[:most])] for a in (sample, reference))
    n, m = len(x), len(y)
    if min(n, m) < LEAST:
        return float("nan")
    both = np.concatenate([x, y]).astype(np.float64)
    kernel = np.exp(-cdist(both, both, "sqeuclidean") / (2.0 * bandwidth**2))
    weights = np.concatenate([np.full(n, 1.0 / n), np.full(m, -1.0 / m)])
    drawn = np.stack([weights, *(weights[rng.permutation(n + m)] for _ in range(permutations))])
    values = np.einsum("ij,ij->i", drawn @ kernel, drawn)
    expected = float(values[1:].mean())
    return float(np.sqrt(max(values[0] / expected, 0.0))) if expected > 1e-12 else 1.0


def classifier_statistic(
    sample: Array, reference: Array, sample_groups: Groups, reference_groups: Groups, ridge: float = 1.0, seed: int = 0
) -> float:
    """How well a classifier tells two samples apart, judged on candidates of exposures that it was not trained on.

    A linear discriminant with ridge: with some hundred candidates a deeper one learns noise.

    Parameters
    ----------
    sample, reference : ndarray, shape (n, d), (m, d)
        Features, of scatter about 1 each.
    sample_groups, reference_groups : ndarray, shape (n,), (m,)
        Exposure of each candidate: whole exposures are held out.
    ridge : float, optional
        Variance added to every feature.
    seed : int, optional
        Seed of the two folds.

    Returns
    -------
    float
        (AUC - 1/2) in units of its width under equal distributions, ``sqrt((n + m + 1) / (12 n m))``. NaN for fewer
        than `LEAST` candidates.
    """
    n, m = len(sample), len(reference)
    if min(n, m) < LEAST:
        return float("nan")
    rng = np.random.default_rng(seed)
    fold = np.concatenate([_halves(sample_groups, rng), _halves(reference_groups, rng)])
    both = np.concatenate([sample, reference]).astype(np.float64)
    is_sample = np.arange(n + m) < n
    ranks = np.empty(n + m)
    for held in (0, 1):
        direction = _discriminant(both[fold != held], is_sample[fold != held], ridge)
        inside = fold == held
        # ranks within a fold: the two discriminants have scales of their own
        ranks[inside] = (rankdata(both[inside] @ direction) - 0.5) / max(int(inside.sum()), 1)
    placed = rankdata(ranks)[:n].sum()
    auc = (placed - n * (n + 1) / 2) / (n * m)
    return float((auc - 0.5) / np.sqrt((n + m + 1) / (12.0 * n * m)))


def _halves(groups: Groups, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Fold 0 or 1 of each candidate, whole groups at a time; a single group is cut in two."""
    names, code = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return rng.permutation(len(groups)) % 2
    return (rng.permutation(len(names)) % 2)[code]


def _discriminant(features: Array, is_sample: npt.NDArray[np.bool_], ridge: float) -> npt.NDArray[np.float64]:
    """Fisher's direction with ridge; zero where a class is absent."""
    width = features.shape[1]
    if not is_sample.any() or is_sample.all():
        return np.zeros(width)
    own, other = features[is_sample], features[~is_sample]
    scatter = np.zeros((width, width))
    for part in (own, other):
        centred = part - part.mean(axis=0)
        scatter += 0.5 * centred.T @ centred / max(len(part), 1)
    solved = np.linalg.solve(scatter + ridge * np.eye(width), own.mean(axis=0) - other.mean(axis=0))
    return np.asarray(solved, dtype=np.float64)
