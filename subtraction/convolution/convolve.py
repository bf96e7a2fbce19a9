"""Convolution with a spatially varying kernel, evaluated once per tile.

Direct sums in compiled loops: their cost does not depend on the order of the kernel's polynomial, and for the
kernels of image subtraction (some 17 x 17 pixels) they are faster than transforms. See docs/algorithms.md,
section 5.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.core.psf import polynomial_terms
from subtraction.convolution.tiles import BUFFER, EDGE, SIDE, fill, kernel_at, pad_kernel, sum_tile
from subtraction.fields import ImageField, widest_radius

NOISE_TAIL = 1e-3
"""Part of a squared PSF's sum that its footprint may leave out: variance maps are smooth, and the sum is preserved."""


def tile_size(shape: tuple[int, int]) -> int:
    """Return the side of the tiles over which a kernel is constant: 16 to 64 pixels.

    Small frames get smaller tiles, so that the kernel never jumps by much.
    """
    return int(min(max(min(shape) // 128 * 8, 16), SIDE))


def convolve(
    data: FloatImage, mask: MaskImage, kernel: ImageField, *, bad: int = 0xFFFF, threads: int = 0
) -> FloatImage:
    """Convolve an image with a kernel that varies over the frame, pixels with `bad` bits of the mask counted as zero.

    ``out[y, x] = sum_ij kernel[j, i] data[y - j, x - i]`` with j, i counted from the kernel's centre; zero outside.
    """
    return correlate(data, mask, mirrored(kernel), bad=bad, threads=threads)


def mirrored(kernel: ImageField) -> ImageField:
    """Return a kernel turned by half a turn: correlation with it is convolution with the given kernel."""
    return ImageField(np.ascontiguousarray(kernel.terms[:, ::-1, ::-1]), kernel.order, kernel.shape)


def correlate(
    data: FloatImage, mask: MaskImage, kernel: ImageField, *, bad: int = 0xFFFF, threads: int = 0
) -> FloatImage:
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
    terms = pad_kernel(kernel.terms)
    out = np.empty(data.shape, dtype=np.float32)

    def band(first: int, last: int) -> None:
        _correlate_rows(data, mask, np.uint16(bad), terms, weights, tile, first, last, out)

    over_rows(band, data.shape[0], tile, threads=threads)
    return out


def matched_filter(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    *,
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
    terms = pad_kernel(psf.terms)
    radius = widest_radius(psf, NOISE_TAIL, power=2)
    out = np.empty(data.shape, dtype=np.float32)

    def band(first: int, last: int) -> None:
        _matched_rows(data, variance, mask, np.uint16(bad), terms, weights, radius, tile, first, last, out)

    over_rows(band, data.shape[0], tile, threads=threads)
    return out


def tile_weights(kernel: ImageField, tile: int) -> npt.NDArray[np.float32]:
    """Return the polynomial terms at the centres of tiles, float32 of shape (tiles_y, tiles_x, n_terms)."""
    ny, nx = kernel.shape
    terms = polynomial_terms(*_tile_centres(kernel.shape, tile), kernel.shape, kernel.order)
    return np.ascontiguousarray(terms.reshape(-(-ny // tile), -(-nx // tile), -1), dtype=np.float32)


def _tile_centres(shape: tuple[int, int], tile: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centres of all tiles of a frame."""
    starts = [np.arange(0, n, tile) for n in shape]
    middles = [start + (np.minimum(tile, n - start) - 1) / 2 for start, n in zip(starts, shape, strict=True)]
    x, y = np.meshgrid(middles[1], middles[0])
    return x.ravel(), y.ravel()


def tile_slopes(kernel: ImageField, tile: int) -> npt.NDArray[np.float32]:
    """Slopes of the polynomial terms along x and y at the centres of all tiles.

    Parameters
    ----------
    kernel : ImageField
        The kernel.
    tile : int
        Side of a tile (pixel).

    Returns
    -------
    ndarray of float32, shape (2, tiles_y, tiles_x, n_terms)
        Change of each term by a pixel along x, then along y.
    """
    ny, nx = kernel.shape
    x, y = _tile_centres(kernel.shape, tile)
    steps = ((0.5, 0.0), (0.0, 0.5))
    slopes = [
        polynomial_terms(x + dx, y + dy, (ny, nx), kernel.order)
        - polynomial_terms(x - dx, y - dy, (ny, nx), kernel.order)
        for dx, dy in steps
    ]
    return np.ascontiguousarray(np.stack(slopes).reshape(2, -(-ny // tile), -(-nx // tile), -1), dtype=np.float32)


@nb.njit(cache=True, nogil=True)
def _correlate_rows(data, mask, bad, terms, weights, tile, first, last, out):  # type: ignore[no-untyped-def]
    half = (terms.shape[1] - 2 * EDGE) // 2
    kernel = np.empty(terms.shape[1:], np.float32)
    buffer = np.zeros(BUFFER, np.float32)
    total = np.empty(SIDE * SIDE, np.float32)
    nx = data.shape[1]
    for y0 in range(first, last, tile):
        height = min(tile, last - y0)
        for x0 in range(0, nx, tile):
            width = min(tile, nx - x0)
            kernel_at(terms, weights[y0 // tile, x0 // tile], kernel)
            fill(data, mask, bad, y0, x0, half, height, width, buffer)
            sum_tile(buffer, kernel, height, total)
            for y in range(height):
                out[y0 + y, x0 : x0 + width] = total[y * SIDE : y * SIDE + width]


@nb.njit(cache=True, nogil=True, fastmath=True)
def _square(kernel, radius, square):  # type: ignore[no-untyped-def]
    """Square of a padded kernel, cut to a radius with its sum preserved."""
    half = (kernel.shape[0] - 2 * EDGE) // 2
    inside = whole = np.float32(0)
    for j in range(-half, half + 1):
        for i in range(-half, half + 1):
            power = kernel[j + half + EDGE, i + half] * kernel[j + half + EDGE, i + half]
            whole += power
            if -radius <= j <= radius and -radius <= i <= radius:
                square[j + radius + EDGE, i + radius] = power
                inside += power
    for j in range(EDGE, 2 * radius + 1 + EDGE):
        for i in range(2 * radius + 1):
            square[j, i] *= whole / inside


@nb.njit(cache=True, nogil=True)
def _matched_rows(  # type: ignore[no-untyped-def]
    data, variance, mask, bad, terms, weights, radius, tile, first, last, out
):
    half = (terms.shape[1] - 2 * EDGE) // 2
    kernel = np.empty(terms.shape[1:], np.float32)
    square = np.zeros((2 * radius + 1 + 2 * EDGE, (2 * radius + 4) // 4 * 4), np.float32)
    buffer = np.zeros(BUFFER, np.float32)
    signal = np.empty(SIDE * SIDE, np.float32)
    noise = np.empty(SIDE * SIDE, np.float32)
    nx = data.shape[1]
    for y0 in range(first, last, tile):
        height = min(tile, last - y0)
        for x0 in range(0, nx, tile):
            width = min(tile, nx - x0)
            kernel_at(terms, weights[y0 // tile, x0 // tile], kernel)
            _square(kernel, radius, square)
            fill(data, mask, bad, y0, x0, half, height, width, buffer)
            sum_tile(buffer, kernel, height, signal)
            fill(variance, mask, bad, y0, x0, radius, height, width, buffer)
            sum_tile(buffer, square, height, noise)
            for y in range(height):
                target = out[y0 + y, x0 : x0 + width]
                flags = mask[y0 + y, x0 : x0 + width]
                top = signal[y * SIDE : y * SIDE + width]
                bottom = noise[y * SIDE : y * SIDE + width]
                for x in range(width):
                    good = (flags[x] & bad) == 0 and bottom[x] > 0
                    target[x] = top[x] / np.sqrt(bottom[x]) if good else np.float32(0)
