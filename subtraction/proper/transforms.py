"""Fourier transforms of small images that are centred on the origin: filters and point sources.

See docs/algorithms.md, section 13.1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]

TRANSFORM = 96
"""Side of the transforms (pixel): larger than a PSF and a filter together."""


def transform(small: Float64) -> Complex128:
    """Real transform of a small image centred on the origin.

    Parameters
    ----------
    small : ndarray of float64, shape (size, size)
        The image, of odd size.

    Returns
    -------
    ndarray of complex128, shape (TRANSFORM, TRANSFORM // 2 + 1)
        Its transform.
    """
    half = small.shape[0] // 2
    padded = np.zeros((TRANSFORM, TRANSFORM))
    padded[: 2 * half + 1, : 2 * half + 1] = small
    return np.asarray(fft.rfft2(np.roll(padded, (-half, -half), axis=(0, 1))))


def image(spectrum: Complex128, half: int) -> Float64:
    """Centre of the image of a real transform.

    Parameters
    ----------
    spectrum : ndarray of complex128, shape (TRANSFORM, TRANSFORM // 2 + 1)
        The transform.
    half : int
        Half width of what is wanted (pixel).

    Returns
    -------
    ndarray of float64, shape (2 half + 1, 2 half + 1)
        The image.
    """
    whole = np.roll(fft.irfft2(spectrum, s=(TRANSFORM, TRANSFORM)), (half, half), axis=(0, 1))
    return np.asarray(whole[: 2 * half + 1, : 2 * half + 1])
