"""Fluxes of stars within a circle, on a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage, MaskImage

_FINE = 5  # parts a side into which a pixel on the rim is divided


@njit(cache=True, nogil=True, error_model="numpy")
def circle_fluxes(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    dark: np.uint16,
    xs: npt.NDArray[np.float64],
    ys: npt.NDArray[np.float64],
    radius: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Sum an image within circles; what is hidden there is taken to be as bright as the rest.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image (ADU) and its variance (ADU^2).
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    dark : uint16
        Bits of pixels to leave out.
    xs, ys : ndarray of float64, shape (n,)
        Centres (pixel).
    radius : float
        Radius (pixel).
    out : ndarray of float64, shape (n, 2)
        Filled with the fluxes and their standard deviations; NaN where nothing is seen.
    """
    ny, nx = data.shape
    inside, outside = max(radius - 0.7072, 0.0) ** 2, (radius + 0.7072) ** 2
    for k in range(len(xs)):
        x, y = xs[k], ys[k]
        flux = noise = seen = whole = 0.0
        for j in range(max(0, int(y - radius - 0.5)), min(ny, int(y + radius + 1.5) + 1)):
            for i in range(max(0, int(x - radius - 0.5)), min(nx, int(x + radius + 1.5) + 1)):
                square = (i - x) ** 2 + (j - y) ** 2
                if square > outside:
                    continue
                part = 1.0
                if square > inside:
                    count = 0
                    for b in range(_FINE):
                        dy = j - y + (b + 0.5) / _FINE - 0.5
                        for a in range(_FINE):
                            dx = i - x + (a + 0.5) / _FINE - 0.5
                            count += 1 if dx * dx + dy * dy < radius * radius else 0
                    part = count / (_FINE * _FINE)
                whole += part
                if mask[j, i] & dark:
                    continue
                flux += part * data[j, i]
                noise += part * variance[j, i]
                seen += part
        if seen > 0.0:
            out[k, 0], out[k, 1] = flux * whole / seen, np.sqrt(noise * whole / seen)
        else:
            out[k, 0], out[k, 1] = np.nan, np.nan
