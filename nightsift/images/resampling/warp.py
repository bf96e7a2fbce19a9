"""Resample the template to the grid of the science frame: Lanczos-3, flux conserving, through a coarse grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.frames import FloatImage, Frame, MaskImage, Pair
from nightsift.core.parallel import over_rows
from nightsift.images.resampling.lanczos import BAD, NO_DATA, PHASES, kernel_table, one_pixel, powers
from nightsift.images.resampling.separable_resample import fits_two_passes, resample_rows

if TYPE_CHECKING:
    from nightsift.core.frames import Template
    from nightsift.images.registration.align import Alignment


def make_pair(frame: Frame, template: Template, alignment: Alignment) -> Pair:
    """Bring the template to the grid of the science frame.

    Parameters
    ----------
    frame : Frame
        Science frame, background-subtracted.
    template : Template
        Its template.
    alignment : Alignment
        From `nightsift.images.registration.align.align`.

    Returns
    -------
    Pair
        Both on the science grid with the refined WCS. The template has no PSF: its own, resampled and possibly
        rotated, is measured again on the warped frame.
    """
    data, variance, mask = resample(
        template.frame.data, template.frame.variance, template.frame.mask, alignment.grid, alignment.step, frame.shape
    )
    science = frame.replace(wcs=alignment.wcs)
    warped = Frame(data, variance, mask, template.frame.meta, wcs=alignment.wcs, psf=None, sky=template.frame.sky)
    return Pair(science, warped, coverage=1.0 - _count(mask, NO_DATA) / mask.size)


def resample(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    grid: npt.NDArray[np.float64],
    step: int,
    shape: tuple[int, int],
    threads: int = 0,
) -> tuple[FloatImage, FloatImage, MaskImage]:
    """Resample an image with its variance and mask by Lanczos-3 interpolation (Duchon 1979).

    The flux of a source is conserved by the Jacobian of the mapping. Masked pixels carry no weight, and the weights
    left are normalised again; an output pixel is masked when one of the four input pixels around its position is,
    so one bad pixel spoils only its neighbours. The variance is the mean of the input's with squared weights, times
    the area of an output pixel in pixels of the input: the noise of a sum over a star. Between pixels of the input (at
    worst, half a pixel off on both axes) the kernel takes away noise of high frequencies, so that single pixels
    scatter by 22 % less than their errors say. Images turned by
    right angles or mirrored are turned back first; where rows then run along rows, two passes take the place of one
    in two dimensions (`nightsift.images.resampling.separable_resample`).

    Parameters
    ----------
    data, variance : ndarray of float32, shape (my, mx)
        Input image (ADU) and its variance (ADU^2).
    mask : ndarray of uint16, shape (my, mx)
        Its `Mask` bits.
    grid : ndarray of float64, shape (2, gy, gx)
        Input x and y at output pixels ``(step * i, step * j)``.
    step : int
        Distance of nodes (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the output.
    threads : int, optional
        As in `nightsift.core.parallel.thread_count`.

    Returns
    -------
    data, variance : ndarray of float32, shape (ny, nx)
        Resampled image and variance; 0 where there is no data.
    mask : ndarray of uint16, shape (ny, nx)
        Resampled mask; `Mask.NO_DATA` outside the input.
    """
    out, out_variance = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    out_mask = np.empty(shape, dtype=np.uint16)
    planes, grid = _upright((data, variance, mask), np.asarray(grid, dtype=np.float64))
    one: Any = resample_rows if fits_two_passes(grid / step) else _direct
    table = kernel_table()

    def band(first: int, last: int) -> None:
        one(*planes, grid, step, table, first, last, out, out_variance, out_mask)

    over_rows(band, shape[0], step, threads=threads)
    return out, out_variance, out_mask


def _upright(planes: tuple[Any, Any, Any], grid: npt.NDArray[np.float64]) -> tuple[Any, npt.NDArray[np.float64]]:
    """Turn images by right angles, or mirror them, so that a row of the output runs forwards along their rows."""
    across, upwards = np.diff(grid, axis=2).sum(axis=(1, 2)), np.diff(grid, axis=1).sum(axis=(1, 2))
    if abs(across[1]) > abs(across[0]):
        planes, grid = tuple(plane.T for plane in planes), grid[::-1]
        across, upwards = across[::-1], upwards[::-1]
    my, mx = planes[0].shape
    x, y = grid
    if across[0] < 0:
        planes, x = tuple(plane[:, ::-1] for plane in planes), mx - 1.0 - x
    if upwards[1] < 0:
        planes, y = tuple(plane[::-1] for plane in planes), my - 1.0 - y
    return tuple(np.ascontiguousarray(plane) for plane in planes), np.ascontiguousarray(np.stack([x, y]))


@njit(cache=True, nogil=True, error_model="numpy")
def _direct(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    grid: npt.NDArray[np.float64],
    step: int,
    table: npt.NDArray[np.float32],
    first: int,
    last: int,
    out: FloatImage,
    out_variance: FloatImage,
    out_mask: MaskImage,
) -> None:
    """Any mapping, in two dimensions at once."""
    nx = out.shape[1]
    my, mx = data.shape
    power = powers(table)
    for y in range(first, last):
        out[y], out_variance[y], out_mask[y] = 0.0, 0.0, NO_DATA
        gy = min(y // step, grid.shape[1] - 2)
        v = (y - gy * step) / step
        for gx in range(grid.shape[2] - 1):
            x_first, x_end = gx * step, min((gx + 1) * step, nx)
            if gx == grid.shape[2] - 2:
                x_end = nx
            # Along a row of a cell the bilinear mapping is linear.
            ax = grid[0, gy, gx] * (1 - v) + grid[0, gy + 1, gx] * v
            bx = grid[0, gy, gx + 1] * (1 - v) + grid[0, gy + 1, gx + 1] * v
            ay = grid[1, gy, gx] * (1 - v) + grid[1, gy + 1, gx] * v
            by = grid[1, gy, gx + 1] * (1 - v) + grid[1, gy + 1, gx + 1] * v
            dx, dy = (bx - ax) / step, (by - ay) / step
            ex = 0.5 * (grid[0, gy + 1, gx] - grid[0, gy, gx] + grid[0, gy + 1, gx + 1] - grid[0, gy, gx + 1]) / step
            ey = 0.5 * (grid[1, gy + 1, gx] - grid[1, gy, gx] + grid[1, gy + 1, gx + 1] - grid[1, gy, gx + 1]) / step
            area = np.float32(abs(dx * ey - dy * ex))
            for x in range(x_first, x_end):
                px, py = ax + dx * (x - x_first), ay + dy * (x - x_first)
                # The 1e-6 keeps an exact edge pixel inside in spite of rounding.
                if not (px > -1e-6 and py > -1e-6 and px < mx - 1 + 1e-6 and py < my - 1 + 1e-6):
                    continue
                px, py = min(max(px, 0.0), mx - 1.0), min(max(py, 0.0), my - 1.0)
                ix, iy = min(int(px), mx - 1), min(int(py), my - 1)
                kx, ky = int((px - ix) * PHASES + 0.5), int((py - iy) * PHASES + 0.5)
                wx, wy = table[kx], table[ky]
                inner = 2 <= ix < mx - 5 and 2 <= iy < my - 3
                bits = _bits(mask, ix, iy) if inner else BAD
                if bits & BAD:
                    value, noise, bits = one_pixel(data, variance, mask, ix, iy, wx, wy)
                else:
                    value, noise = _plain(data, variance, ix - 2, iy - 2, wx, wy)
                    bits = mask[iy, ix] | mask[iy, ix + 1] | mask[iy + 1, ix] | mask[iy + 1, ix + 1]
                out[y, x] = value * area
                out_variance[y, x] = noise * area / (power[kx] * power[ky])
                out_mask[y, x] = bits


@njit(cache=True, nogil=True)
def _bits(mask: MaskImage, ix: int, iy: int) -> np.uint16:
    """All bits of the 6 x 8 pixels that `_plain` looks at."""
    bits = np.uint16(0)
    for j in range(iy - 2, iy + 4):
        row = mask[j, ix - 2 : ix + 6]
        bits |= row[0] | row[1] | row[2] | row[3] | row[4] | row[5] | row[6] | row[7]
    return bits


@njit(cache=True, nogil=True, fastmath=True)
def _plain(
    data: FloatImage,
    variance: FloatImage,
    x: int,
    y: int,
    wx: npt.NDArray[np.float32],
    wy: npt.NDArray[np.float32],
) -> tuple[np.float32, np.float32]:
    """Far from masked pixels and edges: eight columns at once, the last two without weight."""
    value, noise = np.float32(0.0), np.float32(0.0)
    for j in range(6):
        a, b, w = data[y + j, x : x + 8], variance[y + j, x : x + 8], wy[j]
        for k in range(8):
            value += w * wx[k] * a[k]
            noise += w * w * wx[k] * wx[k] * b[k]
    return value, noise


@njit(cache=True, nogil=True)
def _count(mask: MaskImage, bit: np.uint16) -> int:
    count = 0
    for y in range(mask.shape[0]):
        for value in mask[y]:
            count += 1 if value & bit else 0
    return count
