"""One scale for planes that were normalised each by itself, as published stamps of classifiers often are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter


def restore_scale(data: npt.NDArray[np.float32], box: int = 7) -> npt.NDArray[np.float32]:
    """Give planes that were normalised one by one a common scale again.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference, each of unknown scale and level; scales positive.
    box : int, optional
        Width of the mean that hides the difference of the PSFs (pixel).

    Returns
    -------
    ndarray of float32, shape (n, size, size, 3)
        Planes for which difference = science - template, as well as scales and levels allow.
    """
    out = data.copy()
    for one in out:
        smooth = [uniform_filter(one[..., k].astype(np.float64), box).ravel() for k in range(3)]
        basis = np.stack([smooth[0] - np.median(smooth[0]), np.median(smooth[1]) - smooth[1]], axis=1)
        wanted = smooth[2] - np.median(smooth[2])
        (a, b), *_ = np.linalg.lstsq(basis, wanted, rcond=None)
        if not a > 0 or not b > 0:  # one source only: its science flux must be that of template and difference
            a = b = max(float(wanted.max()), 1e-12) / max(float((basis[:, 0] + basis[:, 1]).max()), 1e-12)
        one[..., 0] = a * (one[..., 0] - np.median(one[..., 0]))
        one[..., 1] = b * (one[..., 1] - np.median(one[..., 1]))
    return out
