"""Values of a night in the channels of the drift test: from its exposures, its candidates and what was injected.

The values of the calibration nights are made the same way, each night against all the others, so that they show the
distance of a night from its fellows when nothing is wrong.

Two samples of candidates are compared by three statistics, each free of the sample's size:

=============== ================================================== ==========================================
Kolmogorov      largest distance of two distribution functions     of one number per candidate: the score
MMD             distance of mean embeddings in a kernel space      of many: the features of the network's trunk
classifier      AUC of a linear classifier between the samples,    of many, and it says in which direction
                on candidates that it never saw
=============== ================================================== ==========================================

Gretton et al. 2012 (J. Mach. Learn. Res. 13, 723) for the MMD; Lopez-Paz and Oquab 2017 (ICLR) for the classifier;
Rabanser et al. 2019 (NeurIPS 32) for which of them see which shift.

Candidates of one exposure share its sky and its faults, and exposures of one night share that night. So p-values from
permuting candidates are far too small, and none are made here: the null distribution of a value comes from the nights
of the calibration set (`models.drift.control_tests`). The permutations only set the scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from models.drift.exposure_inputs import INPUTS, InputModel, learn_inputs
from nightsift.core.errors import TooFewNights

Array = npt.NDArray[np.floating]
Groups = npt.NDArray[np.generic]

LEAST = 5
"""Candidates of either sample below which nothing is said."""
Float64 = npt.NDArray[np.float64]
COMPONENTS = 12
"""Principal components of the features that are compared."""
REACH = 6.0
"""Features are cut at so many standard deviations: one strange candidate is no drift."""
CLOUDS = ("cloud_least", "cloud_most")
"""Beside the channels: least and greatest extinction (mag) of a night without a clear exposure, NaN of others."""


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
    """Return the kernel width of the MMD: the median distance of two candidates (Gretton et al. 2012, section 8).

    Of at most `most` rows of the features (m, d), drawn by the seed; 1 where all candidates are the same.
    """
    rows = np.random.default_rng(seed).permutation(len(reference))[:most]
    distances = cdist(reference[rows], reference[rows])[np.triu_indices(len(rows), 1)]
    width = float(np.median(distances)) if len(distances) else 0.0
    return width if width > 0 else 1.0


def mmd_statistic(
    sample: Array, reference: Array, bandwidth: float, *, permutations: int = 100, most: int = 400, seed: int = 0
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
    sample: Array,
    reference: Array,
    sample_groups: Groups,
    *,
    reference_groups: Groups,
    ridge: float = 1.0,
    seed: int = 0,
) -> float:
    """Return the AUC of a classifier between two samples, on candidates of exposures that it was not trained on.

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


@dataclass(frozen=True, slots=True)
class Channel:
    """One thing that is watched.

    Attributes
    ----------
    name : str
        Its name in tables.
    title : str
        What it is, for people.
    tail : str
        Which departures count: ``"both"``, ``"high"`` or ``"low"``.
    floor : float
        Smallest deviation from night to night that is believed: changes of this size do not matter.
    """

    name: str
    title: str
    tail: str
    floor: float


CHANNELS: tuple[Channel, ...] = (
    *(Channel(one.name, one.title, one.tail, one.floor) for one in INPUTS),
    Channel("scores", "scores, Kolmogorov-Smirnov distance (root)", "high", 0.05),
    Channel("embedding", "features of the network, MMD", "high", 0.05),
    Channel("classifier", "features of the network, classifier that tells nights apart", "high", 0.3),
    Channel("recovery", "injected sources found and scored high enough (arcsine of the root)", "low", 0.03),
)
"""All channels, in the order in which people read them."""


@dataclass(frozen=True, slots=True, eq=False)
class NightData:
    """A night of one unit, as far as it is watched.

    Attributes
    ----------
    unit, night : str
        Which it is.
    inputs : dict of str to ndarray, shape (n_exposures,)
        Ledger columns of its exposures (`models.drift.exposure_inputs.COLUMNS`), NaN where null; ``field`` of str;
        ``refused`` and ``good`` (verdict on the difference), 0 or 1.
    logits : ndarray, shape (n,)
        Logits of the scores of its candidates.
    features : ndarray, shape (n, d)
        Pooled features of the trunk.
    exposures : ndarray of str, shape (n,)
        Exposure of each candidate.
    injected, recovered : int
        Sources that were injected into its exposures where the difference is good, and those that were found and scored
        above the threshold; 0 where none were.
    """

    unit: str
    night: str
    inputs: Mapping[str, npt.NDArray[np.generic]]
    logits: Float64
    features: Float64
    exposures: npt.NDArray[np.generic]
    injected: int = 0
    recovered: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The calibration set of a unit, as new nights are compared with it.

    Attributes
    ----------
    unit : str
        The unit.
    nights : tuple of NightData
        The calibration nights.
    inputs : InputModel
        What the exposures were like.
    centre : ndarray, shape (d,)
        Mean of the features.
    directions : ndarray, shape (d, k)
        Principal components, each over its standard deviation.
    bandwidth : float
        Width of the kernel of the MMD.
    values : dict of str to ndarray, shape (n_nights,)
        Values of the calibration nights by channel, each night against the others.
    """

    unit: str
    nights: tuple[NightData, ...]
    inputs: InputModel
    centre: Float64
    directions: Float64
    bandwidth: float
    values: dict[str, Float64]


def learn_reference(nights: Sequence[NightData]) -> Reference:
    """Learn what the nights of a unit are like.

    Parameters
    ----------
    nights : sequence of NightData
        The calibration nights of one unit.

    Returns
    -------
    Reference
        Their model and their values.

    Raises
    ------
    TooFewNights
        For fewer than two nights.
    """
    if len(nights) < 2:
        raise TooFewNights(found=len(nights), needed=2, unit=nights[0].unit if nights else "?")
    inputs = learn_inputs([one.inputs for one in nights])
    width = max(one.features.shape[1] for one in nights)
    centre, directions = _principal(np.concatenate([one.features.reshape(-1, width) for one in nights]))
    embedded = [_embed(one.features, centre, directions) for one in nights]
    bandwidth = median_bandwidth(np.concatenate(embedded))
    rows = []
    for held, one in enumerate(nights):
        others = [other for place, other in enumerate(nights) if place != held]
        without = learn_inputs([other.inputs for other in others])
        rest = np.concatenate([part for place, part in enumerate(embedded) if place != held])
        rows.append(_values(one, embedded[held], others, rest=rest, inputs=without, bandwidth=bandwidth))
    values = {channel.name: np.array([row[channel.name] for row in rows]) for channel in CHANNELS}
    return Reference(nights[0].unit, tuple(nights), inputs, centre, directions, bandwidth, values)


def night_values(night: NightData, reference: Reference) -> dict[str, float]:
    """Return the values of a night by channel, against the calibration nights, and the light lost to clouds (`CLOUDS`).

    NaN where the night has too little data.
    """
    embedded = _embed(night.features, reference.centre, reference.directions)
    rest = np.concatenate([_embed(one.features, reference.centre, reference.directions) for one in reference.nights])
    return _values(night, embedded, reference.nights, rest=rest, inputs=reference.inputs, bandwidth=reference.bandwidth)


def _values(
    night: NightData,
    embedded: Float64,
    others: Sequence[NightData],
    *,
    rest: Float64,
    inputs: InputModel,
    bandwidth: float,
) -> dict[str, float]:
    seed = sum(night.night.encode())  # of the night itself, so that computing again gives the same values
    exposures = np.concatenate([one.exposures for one in others])
    recovery = float("nan")
    if night.injected:
        # Anscombe's transform: the scatter of a binomial that does not depend on its rate
        recovery = float(np.arcsin(np.sqrt((night.recovered + 0.375) / (night.injected + 0.75))))
    distance = ks_statistic(night.logits, np.concatenate([one.logits for one in others]))
    return {
        **inputs.night(night.inputs),
        **dict(zip(CLOUDS, inputs.clouds(night.inputs), strict=True)),
        "scores": float(np.sqrt(distance)),
        "embedding": mmd_statistic(embedded, rest, bandwidth, seed=seed),
        "classifier": classifier_statistic(embedded, rest, night.exposures, reference_groups=exposures, seed=seed),
        "recovery": recovery,
    }


def _principal(features: Float64) -> tuple[Float64, Float64]:
    """Centre and leading principal components of unit variance; features that never vary are left out."""
    width = features.shape[1]
    if len(features) < 2 or not width:
        return np.zeros(width), np.zeros((width, 1))
    centre = features.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(features, rowvar=False).reshape(width, width))
    order = np.argsort(variances)[::-1][:COMPONENTS]
    order = order[variances[order] > 1e-9 * max(float(variances.max()), 1e-30)]
    if not len(order):
        return centre, np.zeros((width, 1))
    return centre, np.asarray(vectors[:, order] / np.sqrt(variances[order]))


def _embed(features: Float64, centre: Float64, directions: Float64) -> Float64:
    features = features.reshape(-1, len(centre))  # a night without candidates does not know how many features there are
    return np.asarray(np.clip((features - centre) @ directions, -REACH, REACH), dtype=np.float64)
