"""Stamps of anchor stars, convolved with the functions of a kernel basis.

See docs/algorithms.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.frames import Frame
from subtraction.basis import Basis
from subtraction.masks import HARD
from subtraction.parallel import over_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """What the fit sees of the anchors.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions of the stars (pixel).
    columns : ndarray of float32, shape (n, n_basis, size, size)
        The convolved frame, convolved with each function of the basis.
    target, variance : ndarray of float32, shape (n, size, size)
        The frame to match and its variance (ADU^2).
    reference_variance : ndarray of float32, shape (n, size, size)
        Variance of the frame that is convolved (ADU^2).
    weight : ndarray of float32, shape (n, size, size)
        1 for pixels that take part, 0 for others.
    """

    x: Float64
    y: Float64
    columns: Float32
    target: Float32
    variance: Float32
    reference_variance: Float32
    weight: Float32


def cut_stamps(
    reference: Frame, target: Frame, x: Float64, y: Float64, basis: Basis, half: int, threads: int = 0
) -> Stamps:
    """Cut the anchors' stamps and convolve them with the basis.

    Parameters
    ----------
    reference : Frame
        The frame to convolve.
    target : Frame
        The frame to match.
    x, y : ndarray of float64, shape (n,)
        Positions of the anchors (pixel).
    basis : Basis
        Kernel functions.
    half : int
        Half width of the stamps (pixel).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    Stamps
        Pixels whose convolution would touch a masked pixel with more than the outermost part of the kernel have
        weight 0.
    """
    n, size = len(x), 2 * half + 1
    columns = np.zeros((n, len(basis.images), size, size), dtype=np.float32)
    wanted = np.zeros((n, size, size), dtype=np.float32)
    variance = np.ones((n, size, size), dtype=np.float32)
    reference_variance = np.zeros((n, size, size), dtype=np.float32)
    weight = np.zeros((n, size, size), dtype=np.float32)
    rows, cols = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
    flipped = np.ascontiguousarray(basis.images[:, ::-1, ::-1])
    guard = max(1, basis.half // 2)

    def some(first: int, last: int) -> None:
        _cut(
            reference.data,
            reference.variance,
            reference.mask,
            target.data,
            target.variance,
            target.mask,
            np.uint16(HARD),
            rows,
            cols,
            flipped,
            half,
            guard,
            first,
            last,
            columns,
            wanted,
            variance,
            reference_variance,
            weight,
        )

    over_rows(some, n, 1, threads)
    return Stamps(x, y, columns, wanted, variance, reference_variance, weight)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _cut(  # type: ignore[no-untyped-def]
    data,
    data_var,
    data_mask,
    goal,
    goal_var,
    goal_mask,
    bad,
    rows,
    cols,
    kernels,
    half,
    guard,
    first,
    last,
    columns,
    wanted,
    variance,
    reference_variance,
    weight,
):
    ny, nx = data.shape
    reach = kernels.shape[1] // 2
    size = 2 * half + 1
    wide = size + 2 * reach
    source = np.empty((wide, wide), np.float32)
    blocked = np.empty((wide, wide), np.bool_)
    for s in range(first, last):
        y0, x0 = rows[s] - half, cols[s] - half
        for j in range(wide):
            for i in range(wide):
                y, x = y0 - reach + j, x0 - reach + i
                out = y < 0 or x < 0 or y >= ny or x >= nx or (data_mask[y, x] & bad) != 0
                blocked[j, i] = out
                source[j, i] = np.float32(0) if out else data[y, x]
        for b in range(kernels.shape[0]):
            for j in range(size):
                line = columns[s, b, j]
                for v in range(2 * reach + 1):
                    for u in range(2 * reach + 1):
                        k = kernels[b, v, u]
                        part = source[j + v, u : u + size]
                        for i in range(size):
                            line[i] += k * part[i]
        for j in range(size):
            for i in range(size):
                y, x = y0 + j, x0 + i
                if y < 0 or x < 0 or y >= ny or x >= nx or (goal_mask[y, x] & bad) != 0:
                    continue
                touched = False
                for v in range(-guard, guard + 1):
                    for u in range(-guard, guard + 1):
                        touched = touched or blocked[j + reach + v, i + reach + u]
                if touched:
                    continue
                wanted[s, j, i] = goal[y, x]
                variance[s, j, i] = goal_var[y, x]
                reference_variance[s, j, i] = data_var[y, x]
                weight[s, j, i] = np.float32(1)
