"""Scatter of samples with outliers, from their median absolute deviation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""

SIGMA_TO_MAD = 0.6744897501960817
"""Median absolute deviation of a Gaussian over its standard deviation."""

SIGMA_TO_IQR = 1.349
"""Interquartile range of a Gaussian over its standard deviation."""

MEDIAN_ERROR = 1.2533
"""Error of the median of a Gaussian sample over that of its mean: the root of pi / 2."""


def mad(values: npt.NDArray[np.floating], centre: float | npt.NDArray[np.floating] | None = None) -> float:
    """Return the median absolute deviation from `centre`, the median if None; NaN (with a warning) of an empty sample.

    NaN and infinities among the values are not looked for.
    """
    return float(np.median(np.abs(values - (np.median(values) if centre is None else centre))))


def mad_sigma(values: npt.NDArray[np.floating], centre: float | npt.NDArray[np.floating] | None = None) -> float:
    """Return the standard deviation of the Gaussian with this `mad`: 1.4826 times the median absolute deviation."""
    return MAD_TO_SIGMA * mad(values, centre)


def nan_mad_sigma(
    values: npt.NDArray[np.floating], centre: float | npt.NDArray[np.floating] | None = None, axis: int | None = None
) -> Any:
    """Return `mad_sigma` of the values that are not NaN: a float of all, or an array along an axis.

    A `centre` keeps the axis that is measured along; NaN (with the warning of numpy) where all values are NaN.
    """
    if centre is None:
        centre = np.nanmedian(values, axis=axis, keepdims=True)
    spread = np.nanmedian(np.abs(values - centre), axis=axis)
    return MAD_TO_SIGMA * (float(spread) if axis is None else spread)


def clipped(values: npt.NDArray[np.floating], floor: float, fewest: int = 0) -> npt.NDArray[np.bool_]:
    """Values within three robust standard deviations of the median of each other, found in up to five turns.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        The sample.
    floor : float
        Values as near as this to the median always stay.
    fewest : int, optional
        A turn that would leave fewer values is not taken.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for values that stay; what was left out in one turn may come back in the next.
    """
    keep = np.ones(len(values), dtype=np.bool_)
    for _ in range(5):
        centre = float(np.median(values[keep]))
        inside = np.abs(values - centre) <= max(3.0 * mad_sigma(values[keep], centre), floor)
        if int(inside.sum()) < fewest or bool((inside == keep).all()):
            break
        keep = inside
    return keep


def weighted_median(values: npt.NDArray[np.floating], weights: npt.NDArray[np.floating]) -> float:
    """Return the value with half of the weight on either side, interpolated; the median where weights are equal."""
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(0.5 * np.sum(weights), below, values[order]))
