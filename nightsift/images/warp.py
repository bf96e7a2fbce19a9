"""Resample the template to the grid of the science frame: Lanczos-3, flux conserving, through a coarse grid."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.flags import Mask
from nightsift.frames import FloatImage, Frame, MaskImage, Pair

if TYPE_CHECKING:
    from nightsift.images.align import Alignment
    from nightsift.templates import Template

_PHASES = 512  # sub-pixel positions of the kernel table: positions are right to 1/1024 px
# Pixels in halos of bright stars hold good data; all other masked pixels are left out of the kernel.
_BAD = np.uint16(0xFFFF & ~Mask.BRIGHT_STAR.value)
_NO_DATA = np.uint16(Mask.NO_DATA.value)


def make_pair(frame: Frame, template: Template, alignment: Alignment) -> Pair:
    """Bring the template to the grid of the science frame.

    Parameters
    ----------
    frame : Frame
        Science frame, background-subtracted.
    template : Template
        Its template.
    alignment : Alignment
        From `nightsift.images.align.align`.

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
    return Pair(science, warped, coverage=float(np.mean((mask & _NO_DATA) == 0)))


def resample(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    grid: npt.NDArray[np.float64],
    step: int,
    shape: tuple[int, int],
) -> tuple[FloatImage, FloatImage, MaskImage]:
    """Resample an image with its variance and mask by Lanczos-3 interpolation (Duchon 1979).

    The flux of a source is conserved by the Jacobian of the mapping. Masked pixels carry no weight, and the weights
    left are
    normalised again; an output pixel is masked when one of the four input pixels around its position is, so one
    bad pixel spoils only its neighbours. The variance is that of each output pixel, the sum of squared weights
    times input variances; neighbouring pixels become correlated, so that sums over pixels are noisier than the sum
    of their variances where the kernel smooths.

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

    Returns
    -------
    data, variance : ndarray of float32, shape (ny, nx)
        Resampled image and variance; 0 where there is no data.
    mask : ndarray of uint16, shape (ny, nx)
        Resampled mask; `Mask.NO_DATA` outside the input.
    """
    out = np.zeros(shape, dtype=np.float32)
    out_variance = np.zeros(shape, dtype=np.float32)
    out_mask = np.full(shape, _NO_DATA, dtype=np.uint16)
    spoiled = _windows_with_bad(np.ascontiguousarray(mask), _BAD)
    _resample(
        np.ascontiguousarray(data),
        np.ascontiguousarray(variance),
        np.ascontiguousarray(mask),
        spoiled,
        np.ascontiguousarray(grid),
        step,
        _kernel_table(),
        out,
        out_variance,
        out_mask,
    )
    return out, out_variance, out_mask


@lru_cache(maxsize=1)
def _kernel_table() -> npt.NDArray[np.float32]:
    """Weights of pixels -2 .. +5 at each phase, the last two 0; shape (phases + 1, 8).

    Plain Lanczos-3 weights have a first moment of up to 0.02 px, by which well-sampled stars are displaced, and do
    not add up
    to one. The least change under the window that makes polynomials up to third order come out exactly mends both:
    centroids are then right to 0.002 px for a FWHM above 3 px.
    """
    phase = np.arange(_PHASES + 1, dtype=np.float64)[:, None] / _PHASES
    t = np.arange(-2, 4, dtype=np.float64)[None, :] - phase
    window = np.where(np.abs(t) < 3.0, np.sinc(t / 3.0), 0.0)
    weights = np.sinc(t) * window
    powers = np.stack([t**k for k in range(4)], axis=1)
    wanted = np.array([1.0, 0.0, 0.0, 0.0])
    missing = wanted - np.einsum("pkj,pj->pk", powers, weights)
    change = np.linalg.solve(np.einsum("pkj,pj,plj->pkl", powers, window, powers), missing[:, :, None])
    weights += window * np.einsum("pk,pkj->pj", change[:, :, 0], powers)
    table = np.zeros((_PHASES + 1, 8), dtype=np.float32)
    table[:, :6] = weights
    table.flags.writeable = False
    return table


@njit(cache=True, nogil=True)
def _windows_with_bad(mask: MaskImage, bad: np.uint16) -> npt.NDArray[np.uint8]:
    """1 at ``[y, x]`` where the pixels of ``y - 2 .. y + 3`` and ``x - 2 .. x + 5`` hold a bad or missing one."""
    ny, nx = mask.shape
    out = np.ones((ny, nx), dtype=np.uint8)
    columns = np.zeros(nx, dtype=np.int32)  # last bad row seen in each column
    columns[:] = -10
    for y in range(ny):
        for x in range(nx):
            if mask[y, x] & bad:
                columns[x] = y
        top = y - 3
        if top < 2:
            continue
        last = -10
        for x in range(nx):
            if columns[x] >= y - 5:
                last = x
            if x >= 7:
                out[top, x - 5] = 1 if last >= x - 7 else 0
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _resample(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    spoiled: npt.NDArray[np.uint8],
    grid: npt.NDArray[np.float64],
    step: int,
    table: npt.NDArray[np.float32],
    out: FloatImage,
    out_variance: FloatImage,
    out_mask: MaskImage,
) -> None:
    ny, nx = out.shape
    my, mx = data.shape
    phases = table.shape[0] - 1
    flat, flat_variance = data.ravel(), variance.ravel()
    for y in range(ny):
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
                wx, wy = table[int((px - ix) * phases + 0.5)], table[int((py - iy) * phases + 0.5)]
                if spoiled[iy, ix]:
                    value, noise, bits = _careful(data, variance, mask, ix, iy, wx, wy)
                else:
                    value, noise = _plain(flat, flat_variance, np.uint64((iy - 2) * mx + ix - 2), np.uint64(mx), wx, wy)
                    bits = mask[iy, ix] | mask[iy, ix + 1] | mask[iy + 1, ix] | mask[iy + 1, ix + 1]
                out[y, x] = value * area
                out_variance[y, x] = noise * area * area
                out_mask[y, x] = bits


@njit(cache=True, nogil=True, fastmath=True)
def _plain(
    data: npt.NDArray[np.float32],
    variance: npt.NDArray[np.float32],
    start: np.uint64,
    width: np.uint64,
    wx: npt.NDArray[np.float32],
    wy: npt.NDArray[np.float32],
) -> tuple[np.float32, np.float32]:
    """Far from masked pixels and edges, on flattened planes: eight columns at once, the last two without weight.

    Unsigned indices spare the test for negative ones, and eight columns fill a vector register.
    """
    value = np.float32(0.0)
    noise = np.float32(0.0)
    w0, w1, w2, w3, w4, w5 = wy[0], wy[1], wy[2], wy[3], wy[4], wy[5]
    q0, q1, q2, q3, q4, q5 = w0 * w0, w1 * w1, w2 * w2, w3 * w3, w4 * w4, w5 * w5
    a, b = start, start + width
    c, d = b + width, b + width + width
    e, f = d + width, d + width + width
    for k in range(8):
        i = np.uint64(k)
        value += wx[i] * (
            w0 * data[a + i]
            + w1 * data[b + i]
            + w2 * data[c + i]
            + w3 * data[d + i]
            + w4 * data[e + i]
            + w5 * data[f + i]
        )
    for k in range(8):
        i = np.uint64(k)
        noise += (wx[i] * wx[i]) * (
            q0 * variance[a + i] + q1 * variance[b + i] + q2 * variance[c + i]
            + q3 * variance[d + i] + q4 * variance[e + i] + q5 * variance[f + i]
        )  # fmt: skip
    return value, noise


@njit(cache=True, nogil=True)
def _careful(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    ix: int,
    iy: int,
    wx: npt.NDArray[np.float32],
    wy: npt.NDArray[np.float32],
) -> tuple[np.float32, np.float32, np.uint16]:
    """Near masked pixels and edges: only good pixels carry weight."""
    my, mx = data.shape
    value = noise = total = 0.0
    bits = 0
    for j in range(6):
        y = iy + j - 2
        for i in range(6):
            x = ix + i - 2
            w = wy[j] * wx[i]
            if w == 0.0 or y < 0 or y >= my or x < 0 or x >= mx:
                continue
            if 2 <= j <= 3 and 2 <= i <= 3:
                bits |= int(mask[y, x])
            if mask[y, x] & _BAD:
                continue
            value += w * data[y, x]
            noise += w * w * variance[y, x]
            total += w
    if total < 0.3:
        # Nothing to interpolate from, as in a saturated core: the nearest pixel, masked, for those who look at it.
        x, y = ix + int(wx[3] > wx[2]), iy + int(wy[3] > wy[2])
        bits = bits if bits else int(_NO_DATA)
        if x < mx and y < my and np.isfinite(data[y, x]) and np.isfinite(variance[y, x]):
            return data[y, x], variance[y, x], np.uint16(bits)
        return np.float32(0.0), np.float32(0.0), np.uint16(bits)
    return np.float32(value / total), np.float32(noise / (total * total)), np.uint16(bits)
