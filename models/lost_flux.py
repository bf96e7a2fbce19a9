"""Where the changed flux stands: what has brightened must be in the science frame, what has faded in the template.

A negative hole in one frame (a bad column, a reflected ghost, the trail of a subtraction inside the other) makes a
difference that looks like any point source, but its flux is in neither frame with the right sign. No classifier is
needed to call that bogus, so that such candidates are negatives that no classifier has chosen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightsift.frames import Stamps

IMPOSSIBLE = 0.3
"""A candidate with a smaller share is nothing that was or is in the sky."""


def share_of_change(
    stamps: Stamps, sign: npt.ArrayLike, radius: float = 3.0, sky: float = 12.0
) -> npt.NDArray[np.float64]:
    """Flux in the frame that must hold it, in units of the change.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps.
    sign : array_like of int, shape (n,)
        +1 where brighter than in the template (the science frame must hold the flux), -1 where fainter (the template).
    radius : float, optional
        Radius of the aperture about the centre (pixel).
    sky : float, optional
        Pixels farther from the centre than this give the background (pixel).

    Returns
    -------
    ndarray of float64, shape (n,)
        About 1 for something alone, more on top of a star or galaxy, 0 or less where nothing is there; NaN where the
        aperture holds a bad pixel, no background can be told, or the difference has not the sign told.
    """
    size = stamps.data.shape[1]
    yy, xx = np.mgrid[:size, :size] - size // 2
    inside, outside = xx**2 + yy**2 <= radius**2, xx**2 + yy**2 > sky**2
    out = np.full(len(stamps), np.nan)
    for k, one in enumerate(np.asarray(sign)):
        good = ~stamps.mask[k] & np.isfinite(stamps.data[k]).all(axis=-1)
        if not good[inside].all() or not good[outside].any():
            continue
        plane = stamps.data[k, ..., 0 if one > 0 else 1].astype(np.float64)
        change = stamps.data[k, ..., 2].astype(np.float64)
        held, changed = (float((p[inside] - np.median(p[outside & good])).sum()) for p in (plane, change))
        if changed * one > 0:
            out[k] = held / abs(changed)
    return out
