"""From many p-values to few alarms: combined within one night of one unit, controlled over units.

==================== =============================================================================================
Cauchy combination   one p-value of many tests of the same night, dependent in any way (Liu and Xie 2020, J. Am. Stat.
                     Assoc. 115, 393)
Benjamini-Hochberg   part of the alarms that are false, over units that are independent or strange together, as those
                     under one cloud are (1995, J. R. Stat. Soc. B 57, 289)
Benjamini-Yekutieli  the same for units that depend on each other in any way (2001, Ann. Stat. 29, 1165)
==================== =============================================================================================
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]

SMALLEST = 1e-15
"""P-values below this count as this: the tangent of the combination must stay finite."""


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
