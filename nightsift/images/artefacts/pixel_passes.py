"""Passes over whole images that find, mark or bin what the searches for artefacts then look at more closely."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.images.background.mesh import Surface, evaluate

_TILE = 64  # rows
_CHUNK = 64  # pixels looked at together


def residual_and_noise(
    data: FloatImage, variance: FloatImage, mask: MaskImage, *, unusable: np.uint16, sky: Surface, factor: float
) -> tuple[FloatImage, FloatImage]:
    """Subtract the sky and tell the noise of each pixel.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Image (ADU) and its variance (ADU^2).
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    unusable : uint16
        Bits of pixels without data.
    sky : Surface
        The sky.
    factor : float
        Factor on the noise.

    Returns
    -------
    residual, noise : ndarray of float32, shape (ny, nx)
        Data less the sky, 0 where there are none; standard deviation, infinite where there are no data.
    """
    residual, noise = np.empty_like(data), np.empty_like(data)

    def band(first: int, last: int) -> None:
        pieces = sky.pieces(np.arange(first, last))
        _subtract(data, variance, mask, unusable, pieces, np.float32(factor), first, residual, noise)

    over_rows(band, data.shape[0], _TILE)
    return residual, noise


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    unusable: np.uint16,
    pieces: npt.NDArray[np.float32],
    factor: np.float32,
    first: int,
    residual: FloatImage,
    noise: FloatImage,
) -> None:
    level = np.empty(data.shape[1], np.float32)
    zero, one, huge = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
    for k in range(len(pieces)):
        evaluate(pieces[k], level)
        values, spread, bits = data[first + k], variance[first + k], mask[first + k]
        difference, sigma = residual[first + k], noise[first + k]
        for x in range(len(values)):
            good = (bits[x] & unusable) == 0
            difference[x] = values[x] - level[x] if good else zero
            good = good and spread[x] > zero
            sigma[x] = factor * np.sqrt(spread[x] if good else one) if good else huge


def bright_pixels(residual: FloatImage, noise: FloatImage, snr: float) -> npt.NDArray[np.int64]:
    """Return the flat indices (int64, ascending) of pixels whose `residual` exceeds `snr` times their `noise`."""
    bands: dict[int, npt.NDArray[np.int64]] = {}

    def band(first: int, last: int) -> None:
        bands[first] = _bright(residual, noise, np.float32(snr), first, last)

    over_rows(band, residual.shape[0], _TILE)
    return np.concatenate([bands[first] for first in sorted(bands)])


@njit(cache=True, nogil=True)
def _bright(residual: FloatImage, noise: FloatImage, snr: np.float32, first: int, last: int) -> npt.NDArray[np.int64]:
    nx = residual.shape[1]
    places = np.empty(nx, np.int64)
    found = 0
    for j in range(first, last):
        if found + nx > len(places):
            places = np.concatenate((places, np.empty(len(places) + nx, np.int64)))
        for start in range(0, nx, _CHUNK):
            values, sigma = residual[j, start : start + _CHUNK], noise[j, start : start + _CHUNK]
            count = 0
            for i in range(len(values)):
                count += 1 if values[i] > snr * sigma[i] else 0
            if count == 0:
                continue
            for i in range(len(values)):
                if values[i] > snr * sigma[i]:
                    places[found] = j * nx + start + i
                    found += 1
    return places[:found].copy()


def mark(mask: MaskImage, bit: Mask, where: npt.NDArray[np.bool_]) -> None:
    """Set a bit of a mask (uint16) in place, where a boolean image of the same shape is true."""
    over_rows(lambda first, last: _mark(mask, np.uint16(bit.value), where, first, last), mask.shape[0], _TILE)


@njit(cache=True, nogil=True)
def _mark(mask: MaskImage, bit: np.uint16, where: npt.NDArray[np.bool_], first: int, last: int) -> None:
    for j in range(first, last):
        row, yes = mask[j], where[j]
        for i in range(len(row)):
            row[i] |= bit if yes[i] else np.uint16(0)


def count_bits(mask: MaskImage, bits: np.uint16) -> int:
    """Return the number of pixels of a mask (uint16) with any of some bits."""
    return int(_count(mask, bits))


@njit(cache=True, nogil=True)
def _count(mask: MaskImage, bits: np.uint16) -> int:
    count = 0
    for j in range(mask.shape[0]):
        row = mask[j]
        inside = 0
        for i in range(len(row)):
            inside += 1 if row[i] & bits else 0
        count += inside
    return count


def binned_snr(
    residual: FloatImage, noise: FloatImage, mask: MaskImage, *, skip: np.uint16, size: int, clip: float
) -> FloatImage:
    """Signal-to-noise ratio of blocks of pixels.

    Parameters
    ----------
    residual, noise : ndarray of float32, shape (ny, nx)
        Sky-subtracted image and its standard deviation.
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    skip : uint16
        Bits of pixels to leave out.
    size : int
        Pixels a side of a block.
    clip : float
        Most that a single pixel counts, either way (sigma).

    Returns
    -------
    ndarray of float32, shape (ny // size, nx // size)
        The ratio; 0 where half of a block or more is left out.
    """
    shape = (residual.shape[0] // size, residual.shape[1] // size)
    binned = np.zeros(shape, dtype=np.float32)

    def band(first: int, last: int) -> None:
        _bin(residual, noise, mask, skip, size, np.float32(clip), first, last, binned)

    over_rows(band, shape[0], 8)
    return binned


@njit(cache=True, nogil=True, error_model="numpy")
def _bin(
    residual: FloatImage,
    noise: FloatImage,
    mask: MaskImage,
    skip: np.uint16,
    size: int,
    clip: np.float32,
    first: int,
    last: int,
    binned: FloatImage,
) -> None:
    width = residual.shape[1]
    total, used = np.empty(width, np.float32), np.empty(width, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(first, last):
        total[:], used[:] = 0.0, 0.0
        for b in range(j * size, (j + 1) * size):
            values, sigma, bits = residual[b], noise[b], mask[b]
            for i in range(width):
                good = (bits[i] & skip) == 0
                total[i] += min(max(values[i] / sigma[i], -clip), clip) if good else zero
                used[i] += one if good else zero
        for k in range(binned.shape[1]):
            all_of, number = zero, zero
            for i in range(k * size, (k + 1) * size):
                all_of += total[i]
                number += used[i]
            if 2.0 * number > size * size:
                binned[j, k] = all_of / np.sqrt(number)
