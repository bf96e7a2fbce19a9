"""Hot and dead columns and rows, whole or in part, and dead pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.flags import Mask
from nightsift.frames import FloatImage, MaskImage

# Length of the pieces in which lines are tested (pixel): a column may be bad in part only.
PIECE = 128
# Offset of a bad line from its neighbours (sky sigma), below which it does no harm to detection.
LEAST_OFFSET = 1.0
# Significance of the sign test that picks pieces for a closer look, and of their offset (sigma).
SIGNIFICANCE = 5.0
# Offset of the better neighbouring line over that of a bad line; a streak along the axis is wider than one line.
MOST_SPILL = 0.35
MOST_CREST = 1.3
DEAD_SNR = 6.0
_SKIP = np.uint16(Mask.NONFINITE.value | Mask.SATURATED.value | Mask.NO_DATA.value)


def find_defects(residual: FloatImage, noise: FloatImage, mask: MaskImage) -> npt.NDArray[np.bool_]:
    """Find bad lines and dead pixels.

    Pieces of columns and of rows are compared with the lines three and four pixels away on both sides: first by
    the number of pixels that are higher (a sign test, blind to stars), then by the median of the difference. The
    line on at least one side must be good, or else it is the streak of a satellite along the axis.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image (ADU).
    noise : ndarray of float32, shape (ny, nx)
        Standard deviation of each pixel (ADU).
    mask : ndarray of uint16, shape (ny, nx)
        Missing and saturated pixels are left out.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True on defects.
    """
    bad = np.zeros(residual.shape, dtype=np.bool_)
    _lines(residual, noise, mask, bad)
    _lines(residual.T, noise.T, mask.T, bad.T)
    _dead(residual, noise, mask, bad)
    return bad


@njit(cache=True, nogil=True)
def _lines(residual: FloatImage, noise: FloatImage, mask: MaskImage, bad: npt.NDArray[np.bool_]) -> None:
    """Test columns, in pieces."""
    ny, nx = residual.shape
    higher = np.empty(nx, np.int64)
    used = np.empty(nx, np.int64)
    for start in range(0, ny, PIECE):
        stop = min(start + PIECE, ny)
        if stop - start < PIECE // 2:
            start = max(0, stop - PIECE)
        higher[:] = 0
        used[:] = 0
        for j in range(start, stop):
            for i in range(4, nx - 4):
                if (mask[j, i] & _SKIP) == 0:
                    used[i] += 1
                    if 2.0 * residual[j, i] > residual[j, i - 3] + residual[j, i + 3]:
                        higher[i] += 1
        for i in range(4, nx - 4):
            if used[i] < 32 or abs(higher[i] - 0.5 * used[i]) <= 0.5 * SIGNIFICANCE * np.sqrt(used[i]):
                continue
            if _is_offset(residual, noise, mask, start, stop, i):
                bad[start:stop, i] = True


@njit(cache=True, nogil=True)
def _is_offset(residual: FloatImage, noise: FloatImage, mask: MaskImage, start: int, stop: int, i: int) -> bool:
    differences = np.empty((3, stop - start), np.float32)  # the line itself and those on both sides
    around = np.empty(4, np.float32)
    used, sigma = 0, 0.0
    for j in range(start, stop):
        if (mask[j, i] & _SKIP) != 0:
            continue
        around[0], around[1] = residual[j, i - 4], residual[j, i - 3]
        around[2], around[3] = residual[j, i + 3], residual[j, i + 4]
        level = np.median(around)
        if np.isfinite(level + residual[j, i - 1] + residual[j, i] + residual[j, i + 1]):
            for k in range(3):
                differences[k, used] = residual[j, i + (0, -1, 1)[k]] - level
            sigma += noise[j, i]
            used += 1
    if used < 32:
        return False
    sigma /= used
    offset = abs(np.median(differences[0, :used]))
    if offset <= LEAST_OFFSET * sigma or offset <= SIGNIFICANCE * 1.5 * sigma / np.sqrt(used):
        return False
    one, other = abs(np.median(differences[1, :used])), abs(np.median(differences[2, :used]))
    # the flank of a streak has the brighter crest beside it
    return bool(min(one, other) < MOST_SPILL * offset and max(one, other) < MOST_CREST * offset)


@njit(cache=True, nogil=True)
def _dead(residual: FloatImage, noise: FloatImage, mask: MaskImage, bad: npt.NDArray[np.bool_]) -> None:
    """Single pixels far below the sky, which no light can cause."""
    ny, nx = residual.shape
    for j in range(ny):
        for i in range(nx):
            if residual[j, i] < -DEAD_SNR * noise[j, i] and (mask[j, i] & _SKIP) == 0:
                bad[j, i] = True
