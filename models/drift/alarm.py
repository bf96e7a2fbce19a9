"""Has a unit drifted? The latest nights against the calibration set, with false alarms under control.

Each channel is tested on tonight's value, on the latest two nights as a pair and on the mean of the latest five since
the reference: grave faults stand out at once, others by lasting, slow ones in the mean. All tests of a unit are
combined to one p-value per night, and those of all units of the night are adjusted for their number. Under a steady
instrument that gives at most `rate` false alarms per unit-night, for one unit or for a hundred.

==================== =============================================================================================
Cauchy combination   one p-value of many tests of the same night, dependent in any way (Liu and Xie 2020, J. Am. Stat.
                     Assoc. 115, 393)
Benjamini-Hochberg   part of the alarms that are false, over units that are independent or strange together, as those
                     under one cloud are (1995, J. R. Stat. Soc. B 57, 289)
Benjamini-Yekutieli  the same for units that depend on each other in any way (2001, Ann. Stat. 29, 1165)
==================== =============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.drift.control_tests import (  # fmt: skip
    NO_PRIOR,
    Baseline,
    Prior,
    baseline,
    departure,
    departure_p,
    departures_within,
    pair_p,
    tail_freedom,
    variance_prior,
)
from models.drift.exposure_inputs import steady_loss
from models.drift.night_channels import CHANNELS, CLOUDS, Channel, Reference

Values = npt.NDArray[np.floating]

SMALLEST = 1e-15
"""P-values below this count as this: the tangent of the combination must stay finite."""
RATE = 0.005
"""False alarms per unit-night that are accepted."""
WINDOWS = (1, 2, 5)
"""Latest nights that are tested together: two as a pair, more by their mean."""
TOGETHER = Channel("together", "all channels together: mean square of their departures (log)", "high", 0.1)
"""Faults that move many channels a little show here before they show in any."""
CUT = 5.0
"""Departures count as this at most when they are taken together: one wild channel is an alarm by itself."""
NAMED = 0.05
"""Part of the channels named as reasons of an alarm that may be innocent (Benjamini-Hochberg)."""


def cauchy_combination(p: Values) -> float:
    """Combine p-values that may depend on each other.

    Parameters
    ----------
    p : ndarray, shape (k,)
        P-values; those that are not finite are passed over.

    Returns
    -------
    float
        The combined p-value: ``P(C > mean tan((1/2 - p) pi))`` of a standard Cauchy variable C (Liu and Xie 2020,
        eq. 3). NaN where there is none to combine.
    """
    known = np.asarray(p, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return float("nan")
    # Where p is tiny, tan((1/2 - p) pi) is 1 / (p pi); near 1 one value must not drown all others, so it is cut.
    inside = np.clip(known, SMALLEST, 0.99)
    mean = float(np.mean(1.0 / np.tan(inside * np.pi)))
    return float(np.arctan2(1.0, mean) / np.pi)


def adjust(p: Values, dependent: bool = True) -> npt.NDArray[np.float64]:
    """Adjusted p-values: a test is discovered at the rate q where its adjusted value is at most q.

    Parameters
    ----------
    p : ndarray, shape (k,)
        P-values; NaN was not tested and stays NaN.
    dependent : bool, optional
        By Benjamini and Yekutieli, valid for any dependence, instead of Benjamini and Hochberg.

    Returns
    -------
    ndarray of float64, shape (k,)
        Adjusted p-values, at most 1, in the order of `p`.
    """
    p = np.asarray(p, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    k = len(tested)
    if not k:
        return out
    order = tested[np.argsort(p[tested], kind="stable")]
    factor = float(np.sum(1.0 / np.arange(1, k + 1))) if dependent else 1.0
    raised = p[order] * k * factor / np.arange(1, k + 1)
    out[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return out


@dataclass(frozen=True, slots=True)
class ChannelVerdict:
    """Verdict on one channel of a night.

    Attributes
    ----------
    channel : str
        Name of the channel.
    value : float
        Value of the night; NaN where it has none.
    mean, deviation : float
        Of the calibration nights; NaN where they are too few.
    nights : int
        Number of calibration nights with a value.
    t : float
        Departure in the window with the smallest p-value, in deviations of the prediction.
    window : int
        Nights in that window.
    p : float
        Combined p-value of all windows; NaN where the channel was not tested.
    named : bool
        Whether the channel is a reason of an alarm.
    """

    channel: str
    value: float
    mean: float = float("nan")
    deviation: float = float("nan")
    nights: int = 0
    t: float = float("nan")
    window: int = 0
    p: float = float("nan")
    named: bool = False


@dataclass(frozen=True, slots=True)
class NightVerdict:
    """Verdict on one night of one unit.

    Attributes
    ----------
    unit : str
        The unit.
    channels : tuple of ChannelVerdict
        One per channel, in their order.
    p : float
        Combined p-value; NaN where nothing could be tested.
    q : float
        The same, adjusted for the number of units.
    drifted : bool
        Whether an alarm is raised.
    clouds : float
        Least extinction (mag) of a night without a clear exposure; NaN of others.
    """

    unit: str
    channels: tuple[ChannelVerdict, ...]
    p: float
    q: float = float("nan")
    drifted: bool = False
    clouds: float = float("nan")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Channels that are named, the strangest first."""
        named = sorted((one for one in self.channels if one.named), key=lambda one: one.p)
        return tuple(one.channel for one in named)


class HasValues(Protocol):
    """A calibration set, learnt or stored: its values by channel."""

    @property
    def values(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Values of the calibration nights by channel, NaN where a night has none."""


def priors(references: Sequence[HasValues]) -> dict[str, Prior]:
    """Learn from all watched units the scatter of each channel from night to night, and its tails.

    Parameters
    ----------
    references : sequence of HasValues
        Calibration sets of all units that are watched: only their values count.

    Returns
    -------
    dict of str to Prior
        By channel.
    """
    by_channel = {}
    for channel in CHANNELS:
        known = [one.values[channel.name][np.isfinite(one.values[channel.name])] for one in references]
        known = [values for values in known if len(values) > 1]
        variances = [max(float(values.var(ddof=1)), channel.floor**2) for values in known]
        prior = variance_prior(variances, [len(values) - 1.0 for values in known])
        apart = [departures_within(values, prior, channel.floor) for values in known]
        by_channel[channel.name] = replace(prior, tail=tail_freedom(np.concatenate([*apart, []]), channel.tail))
    return by_channel


def judge_unit(
    reference: Reference,
    history: Sequence[Mapping[str, float]],
    prior: Mapping[str, Prior] | None = None,
    *,
    windows: Sequence[int] = WINDOWS,
) -> NightVerdict:
    """Judge the latest night of one unit.

    Parameters
    ----------
    reference : Reference
        Its calibration set.
    history : sequence of mapping of str to float
        Values by channel (`models.drift.night_channels.night_values`) of the nights since, the latest last.
    prior : mapping of str to Prior, optional
        What `priors` gives.
    windows : sequence of int, optional
        Latest nights that are tested together; only whole windows are.

    Returns
    -------
    NightVerdict
        Not yet adjusted for other units (`judge_night`).
    """
    verdicts, tests = [], []
    history = _with_steady_losses(history)
    own, nights = _mean_square_departures(reference, history)
    for channel in (*CHANNELS, TOGETHER):
        values = own if channel is TOGETHER else reference.values[channel.name]
        known = baseline(values, (prior or {}).get(channel.name, NO_PRIOR), channel.floor)
        series = nights if channel is TOGETHER else np.array([night.get(channel.name, np.nan) for night in history])
        one, p = _judge_channel(channel.name, channel.tail, series, known=known, windows=windows)
        verdicts.append(one)
        tests.append(p)
    named = adjust(np.array([one.p for one in verdicts]), dependent=False) <= NAMED
    channels = tuple(replace(one, named=bool(is_it)) for one, is_it in zip(verdicts, named, strict=True))
    clouds = history[-1].get(CLOUDS[0], np.nan) if history else np.nan
    return NightVerdict(reference.unit, channels, cauchy_combination(np.concatenate(tests)), clouds=float(clouds))


def _with_steady_losses(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Give the latest two nights their zero points back where clouds cannot have taken the same from all exposures."""
    out = [dict(night) for night in history]
    lost = np.array([[night.get(name, np.nan) for name in CLOUDS] for night in out[-2:]]).reshape(-1, len(CLOUDS))
    if steady_loss(lost):
        for night, (least, most) in zip(out[-2:], lost, strict=True):
            night["zero_point"] = -0.5 * float(least + most)
    return out


def _mean_square_departures(
    reference: Reference, history: Sequence[Mapping[str, float]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Log of the mean square departure over the channels: of calibration nights, each against the others, and of later.

    NaN where fewer than three channels have a value.
    """
    parts: list[npt.NDArray[np.float64]] = []
    for channel in CHANNELS:
        known = np.asarray(reference.values[channel.name], dtype=np.float64)
        later = np.array([night.get(channel.name, np.nan) for night in history], dtype=np.float64)
        whole = baseline(known, NO_PRIOR, channel.floor)
        after = np.full(len(later), np.nan)
        if whole is not None:
            for place in np.flatnonzero(np.isfinite(later)):
                after[place] = departure(later[place : place + 1], whole)
        departures = np.concatenate([departures_within(known, NO_PRIOR, channel.floor), after])
        if channel.tail != "both":
            departures = np.maximum(departures if channel.tail == "high" else -departures, 0.0)
        parts.append(np.clip(departures, -CUT, CUT) ** 2)
    squares = np.stack(parts)
    count = np.isfinite(squares).sum(axis=0)
    total = np.where(np.isfinite(squares), squares, 0.0).sum(axis=0)
    out = np.where(count >= 3, np.log((total + 0.5) / np.maximum(count, 1)), np.nan)
    n = len(out) - len(history)
    return out[:n], out[n:]


def judge_night(verdicts: Sequence[NightVerdict], rate: float = RATE, dependent: bool = False) -> list[NightVerdict]:
    """Raise the alarms of one night, over all its units.

    Parameters
    ----------
    verdicts : sequence of NightVerdict
        One per unit, of the same night.
    rate : float, optional
        Part of the alarms that may be false; with nothing wrong anywhere, the probability of any alarm in the night.
    dependent : bool, optional
        Adjust by Benjamini and Yekutieli, for any dependence between units. Benjamini and Hochberg hold for independent
        units and for units that are strange together, as those under one sky are (2001, theorem 1.2).

    Returns
    -------
    list of NightVerdict
        The same with `q` and `drifted`. An alarm names its reasons: the channels that are strange by themselves, or
        else the strangest.
    """
    adjusted = adjust(np.array([one.p for one in verdicts]), dependent)
    out = []
    for one, q in zip(verdicts, adjusted, strict=True):
        drifted = bool(q <= rate)
        channels = one.channels
        if drifted and not one.reasons:
            least = min((c for c in channels if np.isfinite(c.p)), key=lambda c: c.p).channel
            channels = tuple(replace(c, named=c.channel == least) for c in channels)
        if not drifted:
            channels = tuple(replace(c, named=False) for c in channels)
        out.append(replace(one, channels=channels, q=float(q), drifted=drifted))
    return out


def _judge_channel(
    name: str, tail: str, series: npt.NDArray[np.float64], *, known: Baseline | None, windows: Sequence[int]
) -> tuple[ChannelVerdict, npt.NDArray[np.float64]]:
    value = float(series[-1]) if len(series) else float("nan")
    if known is None:
        return ChannelVerdict(name, value), np.empty(0)
    plain = ChannelVerdict(name, value, known.mean, known.deviation, known.nights)
    if not np.isfinite(value):
        return plain, np.empty(0)
    finite = series[np.isfinite(series)]
    used = [w for w in windows if w <= len(finite)]
    t = [departure(finite[-w:], known) for w in used]
    p = np.array([_p_of(finite[-w:], one, known, tail=tail) for w, one in zip(used, t, strict=True)])
    best = int(np.argmin(p))
    verdict = ChannelVerdict(
        name, value, known.mean, known.deviation, known.nights, t[best], used[best], cauchy_combination(p)
    )
    return verdict, p


def _p_of(latest: npt.NDArray[np.float64], t: float, known: Baseline, *, tail: str) -> float:
    if len(latest) != 2:
        return departure_p(t, known.freedom, tail)
    each = np.array([departure(latest[i : i + 1], known) for i in (0, 1)])
    return pair_p(each, known.freedom, tail)
