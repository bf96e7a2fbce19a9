"""Small gaps of a frame filled from their surroundings, before filters reach over them.

See docs/algorithms.md, section 13.3.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from nightsift.flags import Mask
from subtraction.masks.union import HARD

DARK = int(HARD & ~Mask.SATURATED.value)
"""Bits of pixels that hold no light of their own: a saturated star's wings, to which its bit is grown, are light."""


@nb.njit(cache=True, nogil=True)
def inside(data, mask, bad, row, column):  # type: ignore[no-untyped-def]
    """Value of a bad pixel from its good surroundings.

    A filter gives a bad pixel's neighbours a small part of what it holds. Zero there is a hole in a star's light, the
    worse the brighter the star; interpolation makes most of it good. The pixel stays masked.

    Parameters
    ----------
    data, mask : ndarray, shape (ny, nx)
        Image and its mask.
    bad : uint16
        Bits that make a pixel bad.
    row, column : int
        The pixel.

    Returns
    -------
    float32
        Where its twelve nearest are good, the value of the smoothest surface through them (zero fourth differences);
        with three good neighbours at least their mean; zero otherwise.
    """
    ny, nx = data.shape
    near = smooth = np.float32(0)
    count = all_good = 0
    for j in range(-2, 3):
        for i in range(-2, 3):
            distance = abs(j) + abs(i)
            y, x = row + j, column + i
            if distance == 0 or distance > 2 or y < 0 or x < 0 or y >= ny or x >= nx:
                continue
            if (mask[y, x] & bad) != 0 or not np.isfinite(data[y, x]):
                continue
            value = data[y, x]
            all_good += 1
            if distance == 1:
                smooth += np.float32(8) * value
            elif j != 0 and i != 0:
                smooth -= np.float32(2) * value
            else:
                smooth -= value
            if abs(j) < 2 and abs(i) < 2:
                near += value
                count += 1
    if all_good == 12:
        return smooth / np.float32(20)
    return near / np.float32(count) if count >= 3 else np.float32(0)
