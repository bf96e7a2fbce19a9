"""Clouds told from instruments: which exposures were taken through them, and when a loss of light is none of theirs.

Clouds dim one exposure and not the next, and they do it on good nights of a good instrument. So they make no scatter to
be averaged: an exposure is clear or it is not. The clear level and its scatter are those of the shortest half of the
calibration exposures (Rousseeuw and Leroy 1988, Statistica Neerlandica 42, 103), which up to half of them under cloud
do not move. A mirror with dew and a camera with another gain dim every exposure alike, and are told by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.robust import SIGMA_TO_IQR

Float64 = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]

LEAST_CLOUD = 0.1
"""Extinction (mag) below which no exposure counts as cloudy."""
SIGMAS = 5.0
"""The same in scatters of clear exposures; the greater counts."""
STEADY = 0.1
"""Range (mag) of the extinction over all exposures of two nights within which it is no cloud's."""
LEAST_OF_FIELD = 5
"""Calibration exposures of a field from which it has a level of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class ClearSky:
    """Zero points of clear exposures.

    Attributes
    ----------
    levels : dict of str to (float, float)
        Zero point and its scatter (mag) by field; the field ``""`` stands for all.
    """

    levels: Mapping[str, tuple[float, float]]

    def extinction(self, zero_point: Float64, fields: Texts) -> Float64:
        """Light that each exposure lost against the clear sky.

        Parameters
        ----------
        zero_point : ndarray, shape (n,)
            Zero points (mag).
        fields : ndarray of str, shape (n,)
            Field of each exposure.

        Returns
        -------
        ndarray of float64, shape (n,)
            Extinction (mag); NaN where the zero point is not known.
        """
        return np.asarray(self._of(fields)[:, 0] - zero_point, dtype=np.float64)

    def cloudy(self, zero_point: Float64, fields: Texts) -> npt.NDArray[np.bool_]:
        """Which exposures were taken through clouds.

        Parameters
        ----------
        zero_point : ndarray, shape (n,)
            Zero points (mag).
        fields : ndarray of str, shape (n,)
            Field of each exposure.

        Returns
        -------
        ndarray of bool, shape (n,)
            False where the zero point is not known.
        """
        limit = np.maximum(SIGMAS * self._of(fields)[:, 1], LEAST_CLOUD)
        return np.asarray(self.extinction(zero_point, fields) > limit)

    def _of(self, fields: Texts) -> Float64:
        whole = self.levels.get("", (np.nan, np.nan))
        return np.array([self.levels.get(str(one), whole) for one in fields], dtype=np.float64).reshape(-1, 2)


def learn_clear_sky(zero_point: Float64, fields: Texts) -> ClearSky:
    """Learn the zero points of clear exposures.

    Parameters
    ----------
    zero_point : ndarray, shape (n,)
        Zero points of the calibration exposures (mag); NaN where not known.
    fields : ndarray of str, shape (n,)
        Field of each.

    Returns
    -------
    ClearSky
        Levels by field.
    """
    known = np.isfinite(zero_point)
    levels = {}
    for field in ("", *np.unique(fields[known])):
        own = zero_point[known & (fields == field)] if field else zero_point[known]
        if len(own) >= (LEAST_OF_FIELD if field else 1):
            levels[str(field)] = shortest_half(own)
    return ClearSky(levels)


def shortest_half(values: Float64) -> tuple[float, float]:
    """Location and scatter of the densest half of a sample.

    Parameters
    ----------
    values : ndarray, shape (n,)
        The sample, of one value at least.

    Returns
    -------
    location, scatter : float
        Mean of the shortest half, and the standard deviation of a normal distribution with a half so short.
    """
    ordered = np.sort(values)
    size = len(ordered) // 2 + 1
    lengths = ordered[size - 1 :] - ordered[: len(ordered) - size + 1]
    first = int(np.argmin(lengths))
    return float(ordered[first : first + size].mean()), float(lengths[first] / SIGMA_TO_IQR)


def steady_loss(nights: Float64) -> bool:
    """Whether nights without a clear exposure all lost the same light: an instrument's loss, not that of clouds.

    Parameters
    ----------
    nights : ndarray, shape (n, 2)
        Least and greatest extinction of each night (mag); NaN for nights with a clear exposure.

    Returns
    -------
    bool
        True for two nights or more within `STEADY` of each other.
    """
    return bool(len(nights) > 1 and np.isfinite(nights).all() and np.ptp(nights) <= STEADY)
