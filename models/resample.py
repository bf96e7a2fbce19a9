"""Small changes of stamps by interpolation and smoothing, in compiled loops: sub-pixel shifts, worse seeing.

Both are separable filters whose taps differ from stamp to stamp. Pixels that are masked or not finite hold no light:
they are filled with the median of their plane before, and their neighbours are masked after. A plane without any
good pixel (`models.inputs`) is left as it is.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from models.inputs import BoolStamps, FloatStamps

REACH = 3  # taps on each side
Taps = npt.NDArray[np.float32]


def shift_taps(shift: npt.NDArray[np.floating]) -> Taps:
    """Taps of a sub-pixel shift: Lanczos-3, of sum one (Duchon 1979, J. Appl. Meteor. 18, 1016).

    Parameters
    ----------
    shift : ndarray of float, shape (n,)
        How far light moves to larger indices, between -1 and 1 (pixel).

    Returns
    -------
    ndarray of float32, shape (n, 7)
        Weight of the pixels at offsets -3 to 3.
    """
    distance = np.arange(-REACH, REACH + 1)[None] + np.asarray(shift, dtype=np.float64)[:, None]
    taps = np.where(np.abs(distance) < REACH, np.sinc(distance) * np.sinc(distance / REACH), 0.0)
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), dtype=np.float32)


def smoothing_taps(sigma: npt.NDArray[np.floating]) -> Taps:
    """Taps of a smoothing of given width, of sum one: three that are not zero, v/2, 1 - v, v/2 of variance v.

    A sampled Gaussian as narrow as this is narrower than its name says.

    Parameters
    ----------
    sigma : ndarray of float, shape (n,)
        Standard deviation of the smoothing, at most 0.7 (pixel).

    Returns
    -------
    ndarray of float32, shape (n, 7)
        Weight of the pixels at offsets -3 to 3.
    """
    variance = np.asarray(sigma, dtype=np.float32) ** 2
    taps = np.zeros((len(variance), 2 * REACH + 1), dtype=np.float32)
    taps[:, REACH - 1] = taps[:, REACH + 1] = variance / 2
    taps[:, REACH] = 1 - variance
    return taps


def filtered(
    data: FloatStamps, mask: BoolStamps, taps_y: Taps, taps_x: Taps, planes: tuple[int, ...]
) -> tuple[FloatStamps, BoolStamps]:
    """Filter some planes of stamps; beyond the edge the last pixel is repeated.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, planes)
        Stamps.
    mask : ndarray of bool, shape (n, size, size)
        True where bad.
    taps_y, taps_x : ndarray of float32, shape (n, 7)
        Taps of each stamp along both axes.
    planes : tuple of int
        Which planes are filtered.

    Returns
    -------
    data, mask : ndarray
        New arrays; the mask has grown by one pixel.
    """
    out = np.ascontiguousarray(data).copy()
    fill = np.zeros((len(data), data.shape[3]), dtype=np.float32)
    usable = ~mask[..., None] & np.isfinite(data)
    for stamp in np.flatnonzero(~usable.all(axis=(1, 2, 3))):
        for plane in planes:
            values = data[stamp, ..., plane][usable[stamp, ..., plane]]
            fill[stamp, plane] = np.median(values) if len(values) else np.nan
    _filter(np.ascontiguousarray(data), usable, fill, taps_y, taps_x, np.array(planes), out)
    return out, _grown(mask)


@nb.njit(cache=True, nogil=True)
def _filter(data, usable, fill, taps_y, taps_x, planes, out):  # type: ignore[no-untyped-def]
    n, size = data.shape[:2]
    plane, rows = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    for s in range(n):
        for c in planes:
            if not np.isfinite(fill[s, c]):
                continue
            for y in range(size):
                for x in range(size):
                    plane[y, x] = data[s, y, x, c] if usable[s, y, x, c] else fill[s, c]
            for y in range(size):
                for x in range(size):
                    total = np.float32(0)
                    for k in range(-REACH, REACH + 1):
                        total += taps_x[s, k + REACH] * plane[y, min(max(x + k, 0), size - 1)]
                    rows[y, x] = total
            for y in range(size):
                for x in range(size):
                    total = np.float32(0)
                    for k in range(-REACH, REACH + 1):
                        total += taps_y[s, k + REACH] * rows[min(max(y + k, 0), size - 1), x]
                    out[s, y, x, c] = total


def _grown(mask: BoolStamps) -> BoolStamps:
    """The mask with the four neighbours of each bad pixel."""
    grown = mask.copy()
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    grown[:, :, 1:] |= mask[:, :, :-1]
    grown[:, :, :-1] |= mask[:, :, 1:]
    return grown
