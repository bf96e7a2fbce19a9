"""Average resampled frames: weighted, clipped against a median, in two passes over the frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage
from nightsift.images.resampling.warp import resample

_MEDIAN_OF = 7  # frames in the first estimate, all of them in memory
_SIGMA = 5.0  # clipping limit in standard deviations
_FRACTION = 0.6  # of the local flux; seeing half as large again takes this much from the peak of a star
_BAD = np.uint16(0xFFFF & ~Mask.BRIGHT_STAR.value)
_NO_DATA = np.uint16(Mask.NO_DATA.value)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """How one frame enters a stack.

    Attributes
    ----------
    grid : ndarray of float64, shape (2, gy, gx), or None
        Frame x and y at nodes of the stack; None where the stack has the grid of the frame itself.
    step : int
        Distance of nodes (pixel).
    offset : tuple of int
        Frame position ``(x, y)`` of the first pixel of the stack, where `grid` is None.
    scale : float
        Factor from the fluxes of the frame to those of the stack.
    weight : float
        Weight of the frame: one for all of its pixels, since weights that follow the noise of each pixel
        would favour low values and bias stars.
    """

    grid: npt.NDArray[np.float64] | None
    step: int
    offset: tuple[int, int]
    scale: float
    weight: float


def stack(
    frame: Callable[[int], Frame], layers: Sequence[Layer], shape: tuple[int, int]
) -> tuple[FloatImage, FloatImage, MaskImage, npt.NDArray[np.float32]]:
    """Clipped, weighted mean of frames.

    The first pass takes the median of the first seven layers (of two, the lower value: a cosmic ray or asteroid is
    bright). The
    second adds each frame's pixels that agree with it within five standard deviations plus a fraction of the
    brightest of the median's 3x3 pixels around: better or worse seeing changes a star by such an amount, and must not
    be
    clipped, or the mean would be biased.

    Parameters
    ----------
    frame : callable
        Gives the frame of each layer by its index; called twice for the first seven, once for the others.
    layers : sequence of Layer
        Best first.
    shape : tuple of int
        ``(ny, nx)`` of the stack.

    Returns
    -------
    data, variance : ndarray of float32, shape (ny, nx)
        Mean and its variance; where no good pixel went in, one of the bad ones, or 0.
    mask : ndarray of uint16, shape (ny, nx)
        0 where at least one good pixel went in (halos of bright stars stay marked); else the bits of all
        frames, or `Mask.NO_DATA`.
    coverage : ndarray of float32, shape (ny, nx)
        Number of pixels averaged.
    """
    first = min(_MEDIAN_OF, len(layers))
    planes = np.empty((first, *shape), dtype=np.float32)
    for k in range(first):
        data, _, mask = _placed(frame(k), layers[k], shape)
        data[(mask & _BAD) != 0] = np.nan
        planes[k] = data
    middle = np.empty(shape, dtype=np.float32)
    _middle(planes, middle)
    del planes
    bright = np.empty(shape, dtype=np.float32)
    _brightest(middle, bright)
    # The median of n has 1.57 / n of the variance of one; both enter the comparison.
    sigma = np.float32(_SIGMA * np.sqrt(1.0 + 1.57 / first)) if first > 1 else np.float32(np.inf)
    total, noise, weights = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    coverage = np.zeros(shape, dtype=np.float32)
    mean_bits, lost_bits = np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.uint16)
    reference = layers[0].weight
    for k, layer in enumerate(layers):
        data, variance, mask = _placed(frame(k), layer, shape)
        weight = np.float32(layer.weight / reference)
        limits = (np.float32(sigma), middle, bright)
        _add(data, variance, mask, limits, weight, (total, noise, weights, coverage), mean_bits, lost_bits)
    return _finish(total, noise, weights, coverage=coverage, mean_bits=mean_bits, lost_bits=lost_bits)


def _placed(frame: Frame, layer: Layer, shape: tuple[int, int]) -> tuple[FloatImage, FloatImage, MaskImage]:
    """A frame on the grid and flux scale of the stack; always new arrays."""
    scale = np.float32(layer.scale)
    if layer.grid is not None:
        data, variance, mask = resample(frame.data, frame.variance, frame.mask, layer.grid, layer.step, shape)
    else:
        data, variance = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        mask = np.full(shape, _NO_DATA, dtype=np.uint16)
        x, y = -layer.offset[0], -layer.offset[1]
        place = (slice(y, y + frame.shape[0]), slice(x, x + frame.shape[1]))
        data[place], variance[place], mask[place] = frame.data, frame.variance, frame.mask
    data *= scale
    variance *= scale * scale
    return data, variance, mask


def _finish(
    total: FloatImage,
    noise: FloatImage,
    weights: FloatImage,
    *,
    coverage: npt.NDArray[np.float32],
    mean_bits: MaskImage,
    lost_bits: MaskImage,
) -> tuple[FloatImage, FloatImage, MaskImage, npt.NDArray[np.float32]]:
    good = coverage > 0
    np.divide(total, weights, out=total, where=good)
    np.divide(noise, weights * weights, out=noise, where=good)
    # Outside one frame but bad in another is bad; outside all, or clipped everywhere, is no data.
    bad = lost_bits & np.uint16(0xFFFF & ~_NO_DATA)
    mask = np.where(good, mean_bits, np.where(bad != 0, bad, _NO_DATA)).astype(np.uint16)
    return total, noise, mask, coverage


@njit(cache=True, nogil=True)
def _middle(planes: npt.NDArray[np.float32], out: FloatImage) -> None:
    """Median of the finite values; the lower of two, NaN of none."""
    count, ny, nx = planes.shape
    values = np.empty(count, dtype=np.float32)
    for y in range(ny):
        for x in range(nx):
            n = 0
            for k in range(count):
                value = planes[k, y, x]
                if not np.isfinite(value):
                    continue
                at = n
                while at > 0 and values[at - 1] > value:
                    values[at] = values[at - 1]
                    at -= 1
                values[at] = value
                n += 1
            if n == 0:
                out[y, x] = np.nan
            elif n == 2 or n % 2 == 1:
                out[y, x] = values[(n - 1) // 2]
            else:
                out[y, x] = np.float32(0.5) * (values[n // 2 - 1] + values[n // 2])


@njit(cache=True, nogil=True)
def _brightest(middle: FloatImage, out: FloatImage) -> None:
    """Largest finite value of the 3x3 pixels around, at least 0."""
    ny, nx = middle.shape
    for y in range(ny):
        for x in range(nx):
            high = np.float32(0.0)
            for j in range(max(0, y - 1), min(ny, y + 2)):
                for i in range(max(0, x - 1), min(nx, x + 2)):
                    if middle[j, i] > high:  # False for NaN
                        high = middle[j, i]
            out[y, x] = high


@njit(cache=True, nogil=True)
def _add(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    limits: tuple[np.float32, FloatImage, FloatImage],
    weight: np.float32,
    sums: tuple[FloatImage, FloatImage, FloatImage, FloatImage],
    mean_bits: MaskImage,
    lost_bits: MaskImage,
) -> None:
    sigma, middle, bright = limits
    total, noise, weights, coverage = sums
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            value, spread = data[y, x], variance[y, x]
            if mask[y, x] & _BAD:
                lost_bits[y, x] |= mask[y, x]
                if coverage[y, x] == 0.0 and not mask[y, x] & _NO_DATA and np.isfinite(value):
                    # To be seen where nothing better comes: the core of a saturated star.
                    total[y, x], noise[y, x] = value, spread
                continue
            error = np.sqrt(spread)
            # Four sigma are taken off: noise alone makes the brightest of nine pixels of empty sky about that high.
            allowed = sigma * error + _FRACTION * max(bright[y, x] - 4.0 * error, 0.0)
            if abs(value - middle[y, x]) > allowed:
                continue
            if coverage[y, x] == 0.0:
                total[y, x] = noise[y, x] = 0.0
            total[y, x] += weight * value
            noise[y, x] += weight * weight * spread
            weights[y, x] += weight
            coverage[y, x] += 1.0
            mean_bits[y, x] |= mask[y, x]
