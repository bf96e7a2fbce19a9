"""What the pixels around a peak tell: whether it is a star, its position and shape.

Positions and shapes are Gaussian-weighted moments, the weight taken out again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows

# Lines through a peak on which light on both sides is looked for, where (FWHM), and what a star is to rise above the
# darker side (sigma).
_LINES, _ARM, _ABOVE = 8, (1.8, 2.4, 3.0), 4.0
_SATURATED = np.uint16(Mask.SATURATED.value)

_CHUNK = 256  # peaks, the fewest that a thread works on at a time


@njit(cache=True, nogil=True)
def moments(
    data: FloatImage,
    mask: MaskImage,
    no_light: np.uint16,
    xs: npt.NDArray[np.float64],
    ys: npt.NDArray[np.float64],
    sigma: float,
    core: float,
) -> npt.NDArray[np.float64]:
    """Gaussian-weighted centroids and second moments of stars.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Background-subtracted image (ADU).
    mask : ndarray of uint16, shape (ny, nx)
        `Mask` bits.
    no_light : uint16
        Bits of pixels to leave out.
    xs, ys : ndarray of float64, shape (n,)
        First positions (pixel).
    sigma : float
        Standard deviation of the weight (pixel).
    core : float
        Radius for peak and flag (pixel).

    Returns
    -------
    ndarray of float64, shape (n, 9)
        x, y, size (mean standard deviation), a, b (pixel), theta (rad), weighted flux, peak (ADU) and mask bits;
        size NaN where the moments make no sense.
    """
    ny, nx = data.shape
    out = np.empty((len(xs), 9), dtype=np.float64)
    reach = int(np.ceil(4.0 * sigma))
    inverse = 0.5 / (sigma * sigma)
    across = np.empty(2 * reach + 2)
    for k in range(len(xs)):
        x, y = xs[k], ys[k]
        mxx = myy = mxy = total = 0.0
        for iteration in range(16):
            y0, y1 = max(0, int(y) - reach), min(ny, int(y) + reach + 2)
            x0, x1 = max(0, int(x) - reach), min(nx, int(x) + reach + 2)
            total = sx = sy = mxx = myy = mxy = 0.0
            # The weight is a product of one along each axis.
            for i in range(x0, x1):
                across[i - x0] = np.exp(-((i - x) ** 2) * inverse)
            for j in range(y0, y1):
                dy = j - y
                along = np.exp(-dy * dy * inverse)
                row = row_x = row_xx = 0.0
                for i in range(x0, x1):
                    if mask[j, i] & no_light:
                        continue
                    dx = i - x
                    value = data[j, i] * across[i - x0]
                    row += value
                    row_x += value * dx
                    row_xx += value * dx * dx
                total += along * row
                sx += along * row_x
                sy += along * row * dy
                mxx += along * row_xx
                myy += along * row * dy * dy
                mxy += along * row_x * dy
            if not total > 0.0:
                break
            # The weight holds the centroid back; for a star as wide as the window, twice the offset is the right step.
            step_x, step_y = 2.0 * sx / total, 2.0 * sy / total
            if step_x * step_x + step_y * step_y < 1e-7 or iteration == 15:
                break
            x += min(max(step_x, -1.0), 1.0)
            y += min(max(step_y, -1.0), 1.0)
            if abs(x - xs[k]) > 3.0 * sigma + 1.0 or abs(y - ys[k]) > 3.0 * sigma + 1.0:
                total = -1.0
                break
        _shape(out[k], x, y, total, mxx, myy, mxy, sigma)
        if not total > 0.0:
            out[k, 0], out[k, 1] = xs[k], ys[k]
        out[k, 7], out[k, 8] = _core(data, mask, out[k, 0], out[k, 1], core)
    return out


@njit(cache=True, nogil=True)
def _shape(
    row: npt.NDArray[np.float64], x: float, y: float, total: float, mxx: float, myy: float, mxy: float, sigma: float
) -> None:
    """Fill position and Gaussian shape: inverse covariances of star and weight add up in what was measured."""
    row[:] = np.nan
    row[0], row[1], row[6] = x, y, total
    if not total > 0.0:
        return
    mxx, myy, mxy = mxx / total, myy / total, mxy / total
    det = mxx * myy - mxy * mxy
    if det <= 0.0 or mxx <= 0.0:
        return
    w = 1.0 / (sigma * sigma)
    ixx, iyy, ixy = myy / det - w, mxx / det - w, -mxy / det
    det = ixx * iyy - ixy * ixy
    if det <= 0.0 or ixx <= 0.0:
        # Wider than the weight can tell (a galaxy or a blend), or a single pixel.
        if mxx + myy > 0.5 / w:
            row[2] = row[3] = row[4] = 4.0 * sigma
            row[5] = 0.0
        return
    sxx, syy, sxy = iyy / det, ixx / det, -ixy / det
    mean, half = 0.5 * (sxx + syy), np.sqrt(0.25 * (sxx - syy) ** 2 + sxy * sxy)
    row[2] = np.sqrt(mean)
    row[3], row[4] = np.sqrt(mean + half), np.sqrt(max(mean - half, 0.0))
    row[5] = 0.5 * np.arctan2(2.0 * sxy, sxx - syy)


@njit(cache=True, nogil=True)
def _core(data: FloatImage, mask: MaskImage, x: float, y: float, radius: float) -> tuple[float, float]:
    """Highest value and all mask bits within a radius."""
    ny, nx = data.shape
    peak, bits = -np.inf, 0
    for j in range(max(0, int(y - radius)), min(ny, int(y + radius) + 2)):
        for i in range(max(0, int(x - radius)), min(nx, int(x + radius) + 2)):
            if (i - x) ** 2 + (j - y) ** 2 <= radius * radius + 0.5:
                bits |= int(mask[j, i])
                peak = max(peak, data[j, i])
    return peak, float(bits)


def stand_out(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    *,
    dark: np.uint16,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    snr: npt.NDArray[np.float32],
    fwhm: float,
) -> npt.NDArray[np.bool_]:
    """Tell peaks that stand out of what lies on both sides of them from noise on a halo, a ghost or a spike.

    A star has dark sky on at least one side, whichever line is drawn through it; on extended light there is a line
    with light on both sides, and on it the peak is only as significant as it is higher. Saturated peaks always count.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    dark : uint16
        Bits of pixels that hold no light of the sky.
    columns, rows : ndarray of int64, shape (n,)
        Peak pixels.
    snr : ndarray of float32, shape (n,)
        Signal-to-noise ratio there, in the filter of `star_peaks.find_star_peaks`.
    fwhm : float
        Full width at half maximum of the stars (pixel).

    Returns
    -------
    ndarray of bool, shape (n,)
        False for a peak that is less than four sigma above the light on both of its sides.
    """
    angles = np.arange(_LINES) * np.pi / _LINES
    direction = np.column_stack((np.cos(angles), np.sin(angles)))
    offsets = np.rint(max(fwhm, 1.5) * np.multiply.outer(direction, np.array(_ARM))).astype(np.int64)
    offsets = np.ascontiguousarray(offsets.transpose(0, 2, 1))
    out = np.empty(len(snr), dtype=np.bool_)

    def some(first: int, last: int) -> None:
        _stand_out(data, variance, mask, dark, columns, rows, snr, offsets, first, last, out)

    over_rows(some, len(snr), _CHUNK)
    return out


@njit(cache=True, nogil=True)
def _stand_out(  # type: ignore[no-untyped-def]
    data, variance, mask, dark, columns, rows, snr, offsets, first, last, out
):
    side = np.arange(-2, 3) / 1.2
    taps = np.exp(-0.5 * side * side).astype(np.float32)
    for k in range(first, last):
        x, y, most = columns[k], rows[k], snr[k] - _ABOVE
        out[k] = True
        if mask[y, x] & _SATURATED:
            continue
        for line in offsets:
            if _along(data, variance, mask, dark, x, y, line, taps) <= most:
                continue
            if _along(data, variance, mask, dark, x, y, -line, taps) > most:
                out[k] = False
                break


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _along(data, variance, mask, dark, x, y, line, taps):  # type: ignore[no-untyped-def]
    """Mean signal-to-noise ratio of the filter's core at some pixels beside a peak; 0 where nothing is seen."""
    ny, nx = data.shape
    total = np.float32(0.0)
    for m in range(len(line)):
        i, j = x + line[m, 0], y + line[m, 1]
        if i < 2 or j < 2 or i >= nx - 2 or j >= ny - 2 or not variance[j, i] > 0.0:
            continue
        light = squares = np.float32(0.0)
        for b in range(5):
            row, bits = data[j + b - 2, i - 2 : i + 3], mask[j + b - 2, i - 2 : i + 3]
            for a in range(5):
                weight = taps[b] * taps[a] if bits[a] & dark == 0 else np.float32(0.0)
                light += weight * (row[a] if weight > 0 else np.float32(0.0))
                squares += weight * weight
        if squares > 0.0:
            total += light / np.sqrt(squares * variance[j, i])
    return total / len(line)
