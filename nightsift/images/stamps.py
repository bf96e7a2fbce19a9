"""Stamps: square cut-outs of science, template and difference around candidates."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, FloatImage, MaskImage, Pair, Stamps

Orientation = Literal["none", "flip_x", "flip_y", "rot90", "rot180", "rot270"]

# The halo of a bright star is a warning about residuals, its pixels are measured well: they are not masked in stamps.
_BAD = np.uint16(sum(bit.value for bit in Mask) & ~Mask.BRIGHT_STAR.value)

# Where in the frame the pixel at (u, v) from the centre of a stamp comes from: x = xu u + xv v, y = yu u + yv v.
_TURNS = {
    "none": (1, 0, 0, 1),
    "flip_x": (-1, 0, 0, 1),
    "flip_y": (1, 0, 0, -1),
    "rot90": (0, 1, -1, 0),
    "rot180": (-1, 0, 0, -1),
    "rot270": (0, -1, 1, 0),
}


def cut(
    pair: Pair,
    difference: Difference,
    x: npt.NDArray[np.floating],
    *,
    y: npt.NDArray[np.floating],
    size: int,
    orientation: Orientation = "none",
) -> Stamps:
    """Cut stamps centred on the nearest pixel of each position.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.
    difference : Difference
        Their difference.
    x, y : ndarray, shape (n,)
        Positions (pixel).
    size : int
        Width of a stamp (pixel), odd.
    orientation : {"none", "flip_x", "flip_y", "rot90", "rot180", "rot270"}, optional
        How a stamp is turned so that every unit shows the sky the same way; rotations are counter-clockwise
        with x to the right and y upwards.

    Returns
    -------
    Stamps
        Data (ADU) as they are where finite, 0 where not finite or outside the frame; the mask is true where the
        mask of the difference has any bit but BRIGHT_STAR, where data are not finite, and outside the frame.

    Raises
    ------
    ValueError
        If `size` is not a positive odd number, positions are not finite or differ in number, or the
        orientation is unknown.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the size of a stamp must be a positive odd number, got {size}")
    if orientation not in get_args(Orientation):
        raise ValueError(f"the orientation must be one of {get_args(Orientation)}, got {orientation!r}")
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x and y must be lists of equal length, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("positions of stamps must be finite")
    if pair.science.shape != difference.shape:
        raise ValueError(f"the pair {pair.science.shape} and the difference {difference.shape} differ in shape")
    data = np.zeros((len(x), size, size, 3), dtype=np.float32)
    mask = np.ones((len(x), size, size), dtype=np.bool_)
    columns, rows = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    planes = (pair.science.data, pair.template.data, difference.data)
    _cut(*planes, difference.mask, columns, rows, _BAD, _TURNS[orientation], data, mask)
    return Stamps(data, mask)


@njit(cache=True, nogil=True)
def _cut(
    science: FloatImage,
    template: FloatImage,
    difference: FloatImage,
    planes: MaskImage,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    bad: np.uint16,
    turn: tuple[int, int, int, int],
    data: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
) -> None:
    ny, nx = difference.shape
    size = data.shape[1]
    half = size // 2
    for n in range(data.shape[0]):
        for j in range(size):
            for i in range(size):
                column = columns[n] + turn[0] * (i - half) + turn[1] * (j - half)
                row = rows[n] + turn[2] * (i - half) + turn[3] * (j - half)
                if row < 0 or row >= ny or column < 0 or column >= nx:
                    continue
                good = (planes[row, column] & bad) == 0
                s, t, d = science[row, column], template[row, column], difference[row, column]
                if np.isfinite(s):
                    data[n, j, i, 0] = s
                else:
                    good = False
                if np.isfinite(t):
                    data[n, j, i, 1] = t
                else:
                    good = False
                if np.isfinite(d):
                    data[n, j, i, 2] = d
                else:
                    good = False
                mask[n, j, i] = not good
