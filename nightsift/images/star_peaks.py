"""Peaks of the matched-filtered image, found in one pass over the pixels and one over those that stand out."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage, MaskImage
from nightsift.images.deblend import deblend
from nightsift.parallel import over_rows

_TRUNCATE = 4.0  # sigma at which the filter ends
_TILE = 64  # rows
_CROWDED = 0.2  # part of the frame above the threshold, from which the threshold rises to keep it there


def find_star_peaks(
    data: FloatImage, variance: FloatImage, mask: MaskImage, dark: np.uint16, sigma: float, threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Find peaks in the signal-to-noise image of a Gaussian matched filter.

    Pixels above the threshold are taken in the order of their height; each joins the object of its neighbours or
    founds one. Where two objects meet, the lower one is an object of its own if enough of its light lies above the
    saddle (the contrast criterion of Bertin & Arnouts 1996, section 4, with every level a threshold).

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    dark : uint16
        Bits of pixels that hold no light of the sky; they count as 0 and are no peaks.
    sigma : float
        Width of the filter (pixel).
    threshold : float
        Lowest signal-to-noise ratio; it rises in frames so crowded that a fifth of them lies above it.

    Returns
    -------
    columns, rows : ndarray of int64, shape (n,)
        Peak pixels, the brightest objects first.
    snr : ndarray of float32, shape (n,)
        Signal-to-noise ratio there.
    """
    ny, nx = data.shape
    reach = math.ceil(_TRUNCATE * sigma)
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    norm = float(taps[0] ** 2 + 2.0 * (taps[1:] ** 2).sum())
    taps = (taps / np.sqrt(norm)).astype(np.float32)
    bands: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}

    def band(first: int, last: int) -> None:
        bands[first] = _significant(data, variance, mask, dark, taps, np.float32(threshold), first, last)

    over_rows(band, ny, _TILE)
    place = np.concatenate([bands[first][0] for first in sorted(bands)])
    value = np.concatenate([bands[first][1] for first in sorted(bands)])
    most = int(_CROWDED * ny * nx)
    if len(value) > most:
        keep = value > np.partition(value, len(value) - most)[len(value) - most]
        place, value = place[keep], value[keep]
    peak, total = deblend(place, value, nx)
    brightest = peak[np.argsort(-total, kind="stable")]
    return place[brightest] % nx, place[brightest] // nx, value[brightest]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _filtered(
    data: npt.NDArray[np.float32],
    variance: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint16],
    dark: np.uint16,
    taps: npt.NDArray[np.float32],
    unit: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """One row in units of its noise, filtered along x."""
    nx, reach = len(data), len(taps) - 1
    zero, one = np.float32(0.0), np.float32(1.0)
    inner = unit[reach : reach + nx]
    for x in range(nx):
        lit = (mask[x] & dark) == 0 and variance[x] > zero
        inner[x] = (data[x] if lit else zero) / np.sqrt(variance[x] if lit else one)
    weight = taps[0]
    for x in range(nx):
        out[x] = weight * inner[x]
    for k in range(1, reach + 1):
        weight, left, right = taps[k], unit[reach - k : reach - k + nx], unit[reach + k : reach + k + nx]
        for x in range(nx):
            out[x] += weight * (left[x] + right[x])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _significant(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    dark: np.uint16,
    taps: npt.NDArray[np.float32],
    threshold: np.float32,
    first: int,
    last: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Flat indices and values of the pixels of some rows whose filtered value is above the threshold."""
    ny, nx = data.shape
    reach = len(taps) - 1
    height = 2 * reach + 1
    ring, unit = np.zeros((height, nx), np.float32), np.zeros(nx + 2 * reach, np.float32)
    score = np.empty(nx, np.float32)
    places, values = np.empty(nx, np.int64), np.empty(nx, np.float32)
    found = 0
    for y in range(first - reach, last + reach):
        line = ring[y % height]
        if 0 <= y < ny:
            _filtered(data[y], variance[y], mask[y], dark, taps, unit, line)
        else:
            line[:] = 0.0
        middle = y - reach
        if middle < first:
            continue
        weight, centre = taps[0], ring[middle % height]
        for x in range(nx):
            score[x] = weight * centre[x]
        for k in range(1, reach + 1):
            weight, above, below = taps[k], ring[(middle - k) % height], ring[(middle + k) % height]
            for x in range(nx):
                score[x] += weight * (above[x] + below[x])
        if found + nx > len(places):
            places = np.concatenate((places, np.empty(len(places) + nx, np.int64)))
            values = np.concatenate((values, np.empty(len(values) + nx, np.float32)))
        for x in range(nx):
            if score[x] > threshold and (mask[middle, x] & dark) == 0:
                places[found], values[found] = middle * nx + x, score[x]
                found += 1
    return places[:found].copy(), values[:found].copy()
