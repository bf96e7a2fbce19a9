"""What a stamp may look like as well: the changes under which real stays real and bogus stays bogus.

Validation and test stamps are never augmented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inputs import PLANES, BoolStamps, FloatStamps

_TEMPLATE = PLANES.index("template")


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How much to change.

    Attributes
    ----------
    turn : bool
        Flip and turn by multiples of 90 degrees, all eight ways equally often.
    shift : int
        Largest shift along each axis (pixel): centroids of faint detections are off by as much. What comes in at
        the edge is masked.
    edge : float
        Part of the stamps of which one side is masked, as at the edge of a frame.
    scale : float
        Part of the stamps whose template is multiplied by a factor of 0.5 to 2: templates made elsewhere or
        of another exposure time are not on the flux scale of the science frame.
    """

    turn: bool = True
    shift: int = 1
    edge: float = 0.04
    scale: float = 0.25


def augment(
    data: FloatStamps, mask: BoolStamps, options: AugmentOptions, rng: np.random.Generator
) -> tuple[FloatStamps, BoolStamps]:
    """Change each stamp of a batch in its own random way.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference.
    mask : ndarray of bool, shape (n, size, size)
        True where bad.
    options : AugmentOptions
        How much to change.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    data, mask : ndarray
        New arrays of the same shapes and types.
    """
    n = len(data)
    data, mask = data.copy(), mask.copy()
    if options.turn:
        _turn(data, mask, rng)
    if options.shift:
        data, mask = _shift(data, mask, options.shift, rng)
    _cover_a_side(data, mask, np.flatnonzero(rng.random(n) < options.edge), rng)
    rows = np.flatnonzero(rng.random(n) < options.scale)
    data[rows, ..., _TEMPLATE] *= np.exp2(rng.uniform(-1, 1, len(rows))).astype(np.float32)[:, None, None]
    return data, mask


def _cover_a_side(data: FloatStamps, mask: BoolStamps, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    """Mask one side in place, at most up to the core of the candidate, as the edge of a frame does."""
    size = mask.shape[1]
    for row in rows:
        turn, deep = int(rng.integers(4)), int(rng.integers(1, size // 2 - 2))
        np.rot90(data[row], turn)[:deep] = 0.0  # a view: the stamp itself changes
        np.rot90(mask[row], turn)[:deep] = True


def _turn(data: FloatStamps, mask: BoolStamps, rng: np.random.Generator) -> None:
    """Flip and turn in place, one of the eight ways of a square for each stamp."""
    way = rng.integers(8, size=len(data))
    for number in range(1, 8):
        rows = np.flatnonzero(way == number)
        if len(rows):
            for array in (data, mask):
                turned = np.rot90(array[rows], number % 4, axes=(1, 2))
                array[rows] = turned[:, ::-1] if number >= 4 else turned


def _shift(data: FloatStamps, mask: BoolStamps, most: int, rng: np.random.Generator) -> tuple[FloatStamps, BoolStamps]:
    """Shift by whole pixels, so that the noise stays as it is; interpolation would smooth it."""
    n, size = mask.shape[:2]
    wide = np.zeros((n, size + 2 * most, size + 2 * most, data.shape[3]), dtype=np.float32)
    covered = np.ones(wide.shape[:3], dtype=np.bool_)
    inner = slice(most, most + size)
    wide[:, inner, inner], covered[:, inner, inner] = data, mask
    offset = rng.integers(0, 2 * most + 1, size=(n, 2))
    for dy in range(2 * most + 1):
        for dx in range(2 * most + 1):
            rows = np.flatnonzero((offset == (dy, dx)).all(axis=1))
            data[rows] = wide[rows, dy : dy + size, dx : dx + size]
            mask[rows] = covered[rows, dy : dy + size, dx : dx + size]
    return data, mask
