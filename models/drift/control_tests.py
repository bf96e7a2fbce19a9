"""Is a night like the nights of the calibration set? Tests whose null distribution is the scatter from night to night.

A night gives one value in each *channel* (seeing, noise, distance of its scores from those of the calibration set,
recovery of injected sources, ...). Nights differ for good reasons: weather, the Moon, other fields. By what they differ
is measured on the calibration nights, and a new night is compared with the prediction from them:

    t = (mean of the last w nights - m) / (s sqrt(1/w + 1/n)),     n calibration nights, mean m, deviation s,

with the quantiles of Student's distribution; two nights in a row are also tested as a pair (`pair_p`). With few
calibration nights s is poorly known. Where several units are watched, s borrows strength from the other units by the
empirical Bayes rule of Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3, 3): s2 = (d0 s0^2 + d s^2) / (d0 + d) with
d0 + d degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, polygamma
from scipy.stats import t as student

Values = npt.NDArray[np.floating]

LEAST_NIGHTS = 5
"""Calibration nights below which a channel is not tested."""
MOST_FREEDOM = 200.0
"""Degrees of freedom of a prior beyond which more make no difference."""
TAIL = 8.0
"""Degrees of freedom of a prediction at most, whatever the number of nights, before the tails are known from the nights
of all units (`tail_freedom`)."""
TAILS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 30.0)
"""Degrees of freedom that tails of nights may have: 1 is a Cauchy distribution, 30 is as good as normal."""
TAIL_FROM = 1.5
"""Departures below this say nothing of the tails: a few wild nights must not hide in a well-behaved middle."""
TAIL_PRIOR = 0.7
"""Scatter of the log of the degrees of freedom of the tails from channel to channel, around `TAIL`."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Knowledge of a channel from other units: its variance from night to night (Smyth 2004), and its tails.

    Attributes
    ----------
    variance : float
        Prior variance; NaN where there is no prior.
    freedom : float
        Its weight in degrees of freedom; 0 where there is no prior.
    tail : float
        Degrees of freedom of a prediction at most.
    """

    variance: float = float("nan")
    freedom: float = 0.0
    tail: float = TAIL


NO_PRIOR = Prior()


@dataclass(frozen=True, slots=True)
class Baseline:
    """Mean and scatter of a channel on the calibration nights.

    Attributes
    ----------
    nights : int
        Number of them.
    mean : float
        Mean of their values.
    deviation : float
        Standard deviation from night to night, moderated by the prior and not below the floor.
    freedom : float
        Degrees of freedom of the prediction, at most those of the tails.
    """

    nights: int
    mean: float
    deviation: float
    freedom: float


def baseline(values: Values, prior: Prior = NO_PRIOR, floor: float = 0.0) -> Baseline | None:
    """Learn mean, deviation and degrees of freedom of a channel from the calibration nights.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Values of the calibration nights; NaN for nights without.
    prior : Prior, optional
        What other units say of its variance.
    floor : float, optional
        Smallest deviation: changes of this size do not matter, however steady the channel was.

    Returns
    -------
    Baseline or None
        None for fewer than `LEAST_NIGHTS` nights.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    if n < LEAST_NIGHTS:
        return None
    freedom = n - 1.0
    variance = float(known.var(ddof=1))
    if prior.freedom > 0:
        variance = (prior.freedom * prior.variance + freedom * variance) / (prior.freedom + freedom)
    total = min(freedom + prior.freedom, prior.tail)
    return Baseline(n, float(known.mean()), max(float(np.sqrt(variance)), floor), total)


def departure(latest: Values, of: Baseline) -> float:
    """Return Student's t of the mean of the latest nights (w,) against the prediction from the calibration nights.

    0 where the channel never changed and has not changed now, infinite where it has.
    """
    width = of.deviation * np.sqrt(1.0 / len(latest) + 1.0 / of.nights)
    difference = float(np.mean(latest)) - of.mean
    if width == 0:
        return 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    return float(difference / width)


def departure_p(t: float, freedom: float, tail: str = "both") -> float:
    """Return the p-value of a departure t; `tail` says which departures count: both, high or low.

    Raises `ValueError` if the tail is unknown.
    """
    if tail == "both":
        return float(2.0 * student.sf(abs(t), freedom))
    if tail not in ("high", "low"):
        raise ValueError(f"the tail is both, high or low, got {tail!r}")
    return float(student.sf(t if tail == "high" else -t, freedom))


def pair_p(t: Values, freedom: float, tail: str = "both") -> float:
    """P-value of two nights in a row that depart to the same side (Fisher's method over nights).

    The mean of two nights is as strange as one wild night makes it; that two independent nights are both strange to
    the same side is far rarer. Nights share the error of the calibration set, so that the product of two heavy tails
    is as far as this goes: more nights are not multiplied.

    Parameters
    ----------
    t : ndarray, shape (2,)
        What `departure` gives for each night.
    freedom : float
        Degrees of freedom.
    tail : {"both", "high", "low"}, optional
        Which departures count.

    Returns
    -------
    float
        The p-value.
    """

    def side(sign: float) -> float:
        p = np.maximum(student.sf(sign * np.asarray(t), freedom), 1e-300)
        product = float(p.prod())
        return product * (1.0 - float(np.log(max(product, 1e-300))))  # chi-square of four degrees of freedom

    if tail == "both":
        return min(1.0, 2.0 * min(side(1.0), side(-1.0)))
    return side(1.0 if tail == "high" else -1.0)


def departures_within(values: Values, prior: Prior = NO_PRIOR, floor: float = 0.0) -> npt.NDArray[np.float64]:
    """Departure of each calibration night from the others: what departures are like when nothing is wrong.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Values of the calibration nights; NaN for nights without.
    prior : Prior, optional
        What other units say of the variance.
    floor : float, optional
        Smallest deviation.

    Returns
    -------
    ndarray of float64, shape (n,)
        Departures; NaN where a night has no value or too few others have one.
    """
    known = np.asarray(values, dtype=np.float64)
    out = np.full(len(known), np.nan)
    for place in np.flatnonzero(np.isfinite(known)):
        rest = baseline(np.delete(known, place), prior, floor)
        if rest is not None:
            out[place] = departure(known[place : place + 1], rest)
    return out


def tail_freedom(departures: Values, tail: str = "both") -> float:
    """Learn the degrees of freedom of the tails of nights from departures of the calibration nights of all units.

    The degrees of freedom of Student's distribution of greatest posterior: the likelihood counts departures up to
    `TAIL_FROM` and takes those beyond by their density; the prior is log-normal around `TAIL`.

    Parameters
    ----------
    departures : ndarray, shape (n,)
        What `departures_within` gives, of all units.
    tail : {"both", "high", "low"}, optional
        Which departures count.

    Returns
    -------
    float
        One of `TAILS`.
    """
    t = np.asarray(departures, dtype=np.float64)
    t = t[np.isfinite(t)]
    sides = 2.0 if tail == "both" else 1.0
    t = np.abs(t) if tail == "both" else t if tail == "high" else -t
    beyond, within = t[t > TAIL_FROM], int((t <= TAIL_FROM).sum())
    posterior = [
        within * float(np.log1p(-sides * student.sf(TAIL_FROM, freedom)))
        + float(student.logpdf(beyond, freedom).sum())
        - 0.5 * (np.log(freedom / TAIL) / TAIL_PRIOR) ** 2
        for freedom in TAILS
    ]
    return TAILS[int(np.argmax(posterior))]


def variance_prior(variances: Sequence[float], freedoms: Sequence[float]) -> Prior:
    """Learn the scatter of variances from unit to unit (Smyth 2004, section 6.2).

    Parameters
    ----------
    variances, freedoms : sequence of float
        Variance of a channel on the calibration nights of each unit, with its degrees of freedom.

    Returns
    -------
    Prior
        Weight by the likeness of the units; no prior for fewer than three units.
    """
    s2, d = np.asarray(variances, dtype=np.float64), np.asarray(freedoms, dtype=np.float64)
    used = np.isfinite(s2) & (s2 > 0) & (d > 0)
    s2, d = s2[used], d[used]
    if len(s2) < 3:
        return NO_PRIOR
    e = np.log(s2) - digamma(d / 2.0) + np.log(d / 2.0)
    excess = float(e.var(ddof=1) - polygamma(1, d / 2.0).mean())
    if excess <= 0:  # as alike as one unit
        return Prior(float(np.exp(e.mean())), MOST_FREEDOM)
    half = _inverse_trigamma(excess)
    freedom = min(2.0 * half, MOST_FREEDOM)
    return Prior(float(np.exp(e.mean() + digamma(half) - np.log(half))), freedom)


def _inverse_trigamma(value: float) -> float:
    """X with trigamma(x) = value, by Newton's iteration (Smyth 2004, appendix)."""
    x = 0.5 + 1.0 / value
    for _ in range(50):
        tri = float(polygamma(1, x))
        step = tri * (1.0 - tri / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x
