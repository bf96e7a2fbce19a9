"""Convolution with a spatially varying kernel, evaluated once a tile.

Direct sums in compiled loops: their cost does not depend on the order of the kernel's polynomial, and for the
kernels of image subtraction (some 17 x 17 pixels) they are faster than transforms. See docs/algorithms.md,
section 5.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.frames import FloatImage, MaskImage
from nightsift.psf import polynomial_terms
from subtraction.parallel import over_rows
from subtraction.spatial import ImageField

TILE = 64
"""Largest side of the tile over which a kernel is held constant (pixel)."""


def tile_size(shape: tuple[int, int]) -> int:
    """Side of the tiles over which a kernel is held constant.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    int
        16 to 64 pixels: small frames get smaller tiles, so that the kernel never jumps by much.
    """
    return int(min(max(min(shape) // 128 * 8, 16), TILE))


def convolve(data: FloatImage, mask: MaskImage, kernel: ImageField, bad: int = 0xFFFF, threads: int = 0) -> FloatImage:
    """Convolve an image with a kernel that varies over the frame.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The image.
    mask : ndarray of uint16, shape (ny, nx)
        Pixels with a bit of `bad` count as zero; so does everything outside the image.
    kernel : ImageField
        The kernel, of odd size.
    bad : int, optional
        Bits that make a pixel bad.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        ``out[y, x] = sum_ij kernel[j, i] data[y - j, x - i]`` with j, i counted from the kernel's centre.
    """
    flipped = ImageField(np.ascontiguousarray(kernel.terms[:, ::-1, ::-1]), kernel.order, kernel.shape)
    return correlate(data, mask, flipped, bad, threads)


def correlate(data: FloatImage, mask: MaskImage, kernel: ImageField, bad: int = 0xFFFF, threads: int = 0) -> FloatImage:
    """Correlate an image with a kernel that varies over the frame (a matched filter).

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The image.
    mask : ndarray of uint16, shape (ny, nx)
        Pixels with a bit of `bad` count as zero; so does everything outside the image.
    kernel : ImageField
        The kernel, of odd size.
    bad : int, optional
        Bits that make a pixel bad.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        ``out[y, x] = sum_ij kernel[j, i] data[y + j, x + i]`` with j, i counted from the kernel's centre.
    """
    tile = tile_size(kernel.shape)
    weights = tile_weights(kernel, tile)
    terms = pad_width(kernel.terms)
    out = np.empty(data.shape, dtype=np.float32)

    def band(first: int, last: int) -> None:
        _correlate_rows(data, mask, np.uint16(bad), terms, weights, tile, first, last, out)

    over_rows(band, data.shape[0], tile, threads)
    return out


def matched_filter(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    psf: ImageField,
    bad: int = 0xFFFF,
    threads: int = 0,
) -> FloatImage:
    """Signal-to-noise ratio of a point source centred on each pixel.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Image with uncorrelated noise and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Pixels with a bit of `bad` are left out of both sums.
    psf : ImageField
        Point-spread function.
    bad : int, optional
        Bits that make a pixel bad.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        ``sum(p d) / sqrt(sum(p^2 v))`` over the good pixels; 0 on bad ones. This is eq. 25 of Zackay, Ofek and
        Gal-Yam 2016 (ApJ 830, 27) for a difference with white noise.
    """
    tile = tile_size(psf.shape)
    weights = tile_weights(psf, tile)
    terms = pad_width(psf.terms)
    out = np.empty(data.shape, dtype=np.float32)

    def band(first: int, last: int) -> None:
        _matched_rows(data, variance, mask, np.uint16(bad), terms, weights, tile, first, last, out)

    over_rows(band, data.shape[0], tile, threads)
    return out


def tile_weights(kernel: ImageField, tile: int) -> npt.NDArray[np.float32]:
    """Polynomial terms at the centres of all tiles.

    Parameters
    ----------
    kernel : ImageField
        The kernel.
    tile : int
        Side of a tile (pixel).

    Returns
    -------
    ndarray of float32, shape (tiles_y, tiles_x, n_terms)
        The terms.
    """
    ny, nx = kernel.shape
    centre_y = np.arange(0, ny, tile) + (np.minimum(tile, ny - np.arange(0, ny, tile)) - 1) / 2
    centre_x = np.arange(0, nx, tile) + (np.minimum(tile, nx - np.arange(0, nx, tile)) - 1) / 2
    x, y = np.meshgrid(centre_x, centre_y)
    terms = polynomial_terms(x.ravel(), y.ravel(), kernel.shape, kernel.order)
    return np.ascontiguousarray(terms.reshape(*x.shape, -1), dtype=np.float32)


def pad_width(terms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Pad kernels with zero columns to a width that is a multiple of four.

    Parameters
    ----------
    terms : ndarray of float32, shape (n_terms, size, size)
        Kernels.

    Returns
    -------
    ndarray of float32, shape (n_terms, size, width)
        Padded kernels; the compiled loops take four columns at a time.
    """
    return np.ascontiguousarray(np.pad(terms, ((0, 0), (0, 0), (0, -terms.shape[2] % 4))), dtype=np.float32)


@nb.njit(cache=True, nogil=True)
def _fill(data, mask, bad, x0, y0, half, buffer):  # type: ignore[no-untyped-def]
    """Copy a tile with its surroundings, zero where bad or outside."""
    ny, nx = data.shape
    height, width = buffer.shape
    left = max(0, half - x0)
    right = min(width, nx - x0 + half)
    for j in range(height):
        y = y0 - half + j
        line = buffer[j]
        line[:] = np.float32(0)
        if y < 0 or y >= ny or right <= left:
            continue
        start = x0 - half + left
        values = data[y, start : start + right - left]
        flags = mask[y, start : start + right - left]
        target = line[left:right]
        for i in range(target.shape[0]):
            target[i] = values[i] if (flags[i] & bad) == 0 else np.float32(0)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _sum_tile(buffer, kernel, height, width, out):  # type: ignore[no-untyped-def]
    """Correlate one filled tile with one kernel; four columns of the kernel at a time."""
    size, padded = kernel.shape
    for y in range(height):
        total = out[y, :width]
        total[:] = np.float32(0)
        for j in range(size):
            line = buffer[y + j]
            for i in range(0, padded, 4):
                k0 = kernel[j, i]
                k1 = kernel[j, i + 1]
                k2 = kernel[j, i + 2]
                k3 = kernel[j, i + 3]
                s0 = line[i : i + width]
                s1 = line[i + 1 : i + 1 + width]
                s2 = line[i + 2 : i + 2 + width]
                s3 = line[i + 3 : i + 3 + width]
                for x in range(width):
                    total[x] += k0 * s0[x] + k1 * s1[x] + k2 * s2[x] + k3 * s3[x]


@nb.njit(cache=True, nogil=True)
def _kernel_at(terms, weights, kernel):  # type: ignore[no-untyped-def]
    """Kernel of one tile."""
    kernel[:] = np.float32(0)
    for t in range(terms.shape[0]):
        kernel += weights[t] * terms[t]


@nb.njit(cache=True, nogil=True)
def _correlate_rows(data, mask, bad, terms, weights, tile, first, last, out):  # type: ignore[no-untyped-def]
    size, padded = terms.shape[1], terms.shape[2]
    half = size // 2
    kernel = np.empty((size, padded), np.float32)
    buffer = np.empty((tile + 2 * half, tile + 2 * half + 4), np.float32)
    summed = np.empty((tile, tile), np.float32)
    nx = data.shape[1]
    for y0 in range(first, last, tile):
        height = min(tile, last - y0)
        for x0 in range(0, nx, tile):
            width = min(tile, nx - x0)
            _kernel_at(terms, weights[y0 // tile, x0 // tile], kernel)
            _fill(data, mask, bad, x0, y0, half, buffer)
            _sum_tile(buffer, kernel, height, width, summed)
            out[y0 : y0 + height, x0 : x0 + width] = summed[:height, :width]


@nb.njit(cache=True, nogil=True)
def _matched_rows(data, variance, mask, bad, terms, weights, tile, first, last, out):  # type: ignore[no-untyped-def]
    size, padded = terms.shape[1], terms.shape[2]
    half = size // 2
    kernel = np.empty((size, padded), np.float32)
    buffer = np.empty((tile + 2 * half, tile + 2 * half + 4), np.float32)
    signal = np.empty((tile, tile), np.float32)
    noise = np.empty((tile, tile), np.float32)
    nx = data.shape[1]
    for y0 in range(first, last, tile):
        height = min(tile, last - y0)
        for x0 in range(0, nx, tile):
            width = min(tile, nx - x0)
            _kernel_at(terms, weights[y0 // tile, x0 // tile], kernel)
            _fill(data, mask, bad, x0, y0, half, buffer)
            _sum_tile(buffer, kernel, height, width, signal)
            _fill(variance, mask, bad, x0, y0, half, buffer)
            for j in range(size):
                for i in range(padded):
                    kernel[j, i] = kernel[j, i] * kernel[j, i]
            _sum_tile(buffer, kernel, height, width, noise)
            for y in range(height):
                for x in range(width):
                    good = (mask[y0 + y, x0 + x] & bad) == 0 and noise[y, x] > 0
                    out[y0 + y, x0 + x] = signal[y, x] / np.sqrt(noise[y, x]) if good else np.float32(0)
