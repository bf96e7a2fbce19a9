"""What is watched of a night: one value in each channel, from its exposures, its candidates and what was injected.

The values of the calibration nights are made the same way, each night against all the others, so that they tell how
far a night is from its fellows when nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.drift import classifier_statistic, ks_statistic, median_bandwidth, mmd_statistic
from models.errors import TooFewNights
from models.exposure_inputs import INPUTS
from models.input_model import InputModel, learn_inputs

Float64 = npt.NDArray[np.float64]

COMPONENTS = 12
"""Principal components of the features that are compared."""
REACH = 6.0
"""Features are cut at so many standard deviations: one strange candidate is no drift."""


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
CLOUDS = ("cloud_least", "cloud_most")
"""Beside the channels: least and greatest extinction (mag) of a night without a clear exposure, NaN of others."""


@dataclass(frozen=True, slots=True, eq=False)
class NightData:
    """A night of one unit, as far as it is watched.

    Attributes
    ----------
    unit, night : str
        Which it is.
    inputs : dict of str to ndarray, shape (n_exposures,)
        Ledger columns of its exposures (`models.exposure_inputs.COLUMNS`), NaN where null; ``field`` of str;
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
        rows.append(_values(one, embedded[held], others, rest, without, bandwidth))
    values = {channel.name: np.array([row[channel.name] for row in rows]) for channel in CHANNELS}
    return Reference(nights[0].unit, tuple(nights), inputs, centre, directions, bandwidth, values)


def night_values(night: NightData, reference: Reference) -> dict[str, float]:
    """Values of a night in all channels, against the calibration nights.

    Parameters
    ----------
    night : NightData
        The night.
    reference : Reference
        The unit's calibration set.

    Returns
    -------
    dict of str to float
        Value by channel, and what clouds took (`CLOUDS`); NaN where the night has too little to tell it.
    """
    embedded = _embed(night.features, reference.centre, reference.directions)
    rest = np.concatenate([_embed(one.features, reference.centre, reference.directions) for one in reference.nights])
    return _values(night, embedded, reference.nights, rest, reference.inputs, reference.bandwidth)


def _values(
    night: NightData,
    embedded: Float64,
    others: Sequence[NightData],
    rest: Float64,
    inputs: InputModel,
    bandwidth: float,
) -> dict[str, float]:
    seed = sum(night.night.encode())  # told by the night: a second look gives the same values
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
        "classifier": classifier_statistic(embedded, rest, night.exposures, exposures, seed=seed),
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
