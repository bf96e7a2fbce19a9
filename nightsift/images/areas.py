"""Connected areas of a mask around given pixels: one saturated star or one streak is one thing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import MaskImage


def areas_of(
    mask: MaskImage, bits: int, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Tell for each pixel in which connected area of some mask bits it lies; only these areas are walked.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        The mask.
    bits : int
        Bits that make an area; pixels that touch by a corner belong together.
    columns, rows : ndarray of int64, shape (n,)
        The pixels.

    Returns
    -------
    ndarray of int64, shape (n,)
        The same positive number for pixels of the same area, 0 outside of all.
    """
    labels = np.zeros(len(columns), dtype=np.int64)
    touched = np.flatnonzero(mask[rows, columns] & np.uint16(bits))
    if len(touched):
        labels[touched] = _walk(mask, np.uint16(bits), columns[touched], rows[touched])
    return labels


@njit(cache=True, nogil=True)
def _walk(
    mask: MaskImage, bits: np.uint16, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    ny, nx = mask.shape
    seen = np.zeros(ny * nx, np.int32)  # memory is taken only where areas lie
    labels = np.empty(len(columns), np.int64)
    stack = np.empty(1024, np.int64)
    areas = 0
    for n in range(len(columns)):
        start = rows[n] * nx + columns[n]
        if seen[start] == 0:
            areas += 1
            seen[start], stack[0], depth = areas, start, 1
            while depth > 0:
                depth -= 1
                y, x = stack[depth] // nx, stack[depth] % nx
                if depth + 9 > len(stack):
                    longer = np.empty(2 * len(stack), np.int64)
                    longer[: len(stack)] = stack
                    stack = longer
                for j in range(max(0, y - 1), min(ny, y + 2)):
                    for i in range(max(0, x - 1), min(nx, x + 2)):
                        at = j * nx + i
                        if seen[at] == 0 and (mask[j, i] & bits) != 0:
                            seen[at], stack[depth] = areas, at
                            depth += 1
        labels[n] = seen[start]
    return labels
