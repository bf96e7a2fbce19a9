"""What the wings of saturated stars leave in a difference, taken off ring by ring.

See docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.robust import MAD_TO_SIGMA, MEDIAN_ERROR
from nightsift.flags import Mask
from nightsift.frames import FloatImage, MaskImage
from subtraction.masks.saturated_stars import find_blobs, find_cores, gather_ring
from subtraction.masks.union import HARD

PROVEN = 2.5
"""Least median of a ring that is a halo, in units of its error."""

FEWEST = 24
"""Fewest usable pixels of a ring."""


def subtract_halos(
    data: FloatImage, variance: FloatImage, mask: MaskImage, saturated: MaskImage, fwhm: float, limit: float = 12.0
) -> npt.NDArray[np.float64]:
    """Take the round part of what saturated stars leave outside their masks off a difference, in place.

    A kernel ends where the wings of a saturated star do not, and there it leaves the difference of both wings, of one
    sign all round. It is measured star by star as the median in rings, from the mask outwards as far as it stands out
    of the noise; a transient, which fills a small part of a ring, keeps its light.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Difference (ADU), changed on usable pixels.
    variance : ndarray of float32, shape (ny, nx)
        Its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    saturated : ndarray of uint16, shape (ny, nx)
        Mask of both frames as they were given.
    fwhm : float
        Seeing (pixel).
    limit : float, optional
        Farthest ring outside a saturated core, in units of `fwhm`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Radius to which each star's halo was taken off (pixel), 0 where there was none.
    """
    runs, starts = find_blobs(saturated, Mask.SATURATED.value)
    cores = find_cores(runs, starts)
    # The largest first: its halo lies under those of the others.
    cores = cores[np.argsort(-cores[:, 2], kind="stable")]
    reached = np.zeros(len(cores))
    _subtract(data, variance, mask, np.uint16(HARD), cores, int(np.ceil(limit * fwhm)), PROVEN, FEWEST, reached)
    return reached


@nb.njit(cache=True, nogil=True)
def _subtract(data, variance, mask, bad, cores, limit, proven, fewest, reached):  # type: ignore[no-untyped-def]
    none = np.float32(0)
    for k in range(len(cores)):
        y, x, core = int(cores[k, 0]), int(cores[k, 1]), cores[k, 2]
        size = int(np.ceil(core)) + limit
        values = np.empty(8 * (size + 2), np.float32)
        level, error = np.zeros(size + 2), np.full(size + 2, np.inf)
        first, last = -1, size
        for r in range(int(core), size + 1):
            count = gather_ring(data, variance, mask, bad, y, x, r, np.float32(1), none, values)
            if count < fewest:
                if first >= 0:
                    last = r - 1
                    break
                continue
            first = r if first < 0 else first
            middle = np.median(values[:count])
            level[r] = middle
            error[r] = MEDIAN_ERROR * MAD_TO_SIGMA * np.median(np.abs(values[:count] - middle)) / np.sqrt(count)
            # The first rings lie partly under the mask: none of them decides alone.
            if r < first + 2:
                continue
            light, noise = _mean(level, error, r - 2, r + 1)
            if abs(light) < proven * noise:
                last = r - 2 if r > first + 2 else first - 1
                break
        if first < 0 or last < first:
            continue
        profile = np.zeros(size + 3)
        for r in range(first, last + 1):
            # As many rings on either side, so that the slope does no harm.
            reach = min(1, r - first, last - r)
            profile[r] = _mean(level, error, r - reach, r + reach + 1)[0]
        _take_off(data, mask, bad, y, x, first, last, profile)
        reached[k] = last + 1


@nb.njit(cache=True, nogil=True)
def _mean(level, error, start, stop):  # type: ignore[no-untyped-def]
    """Mean of rings by their errors, and its error."""
    total = weight = 0.0
    for k in range(start, stop):
        w = 1.0 / (error[k] * error[k] + 1e-30)
        total += w * level[k]
        weight += w
    return total / weight, 1.0 / np.sqrt(weight)


@nb.njit(cache=True, nogil=True)
def _take_off(data, mask, bad, y, x, first, last, profile):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    outer = last + 1
    for row in range(max(0, y - outer), min(ny, y + outer + 1)):
        for column in range(max(0, x - outer), min(nx, x + outer + 1)):
            if (mask[row, column] & bad) != 0:
                continue
            # Rings are those at r <= distance < r + 1: their middle is at r + 1/2.
            r = np.sqrt(float((row - y) ** 2 + (column - x) ** 2)) - 0.5
            if r >= outer:
                continue
            inner = int(np.floor(max(r, float(first))))
            part = max(r, float(first)) - inner
            value = (1.0 - part) * profile[inner] + part * profile[inner + 1]
            data[row, column] -= np.float32(value)
