"""Stamps of anchor stars, convolved with the functions of a kernel basis.

See docs/algorithms.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.flags import HARD
from nightsift.core.frames import Frame
from nightsift.core.parallel import over_rows, thread_count
from subtraction.kernel.basis import Basis

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
        Variance of the frame that is convolved (ADU^2), smoothed by the square of the first function.
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
    reference: Frame, target: Frame, x: Float64, *, y: Float64, basis: Basis, half: int, threads: int = 0
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
    n, size, reach = len(x), 2 * half + 1, basis.half
    columns = np.empty((n, len(basis.images), size * size), dtype=np.float32)
    wanted, reference_variance, weight = (np.zeros((n, size, size), dtype=np.float32) for _ in range(3))
    variance = np.ones((n, size, size), dtype=np.float32)
    rows, cols = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
    kernels = np.ascontiguousarray(basis.images[:, ::-1, ::-1].reshape(len(basis.images), -1), dtype=np.float32)
    square = (kernels[0] / np.float32(np.abs(kernels[0]).max())) ** 2
    square = (square / square.sum()).reshape(basis.images.shape[1:])
    guard = max(1, reach // 2)
    planes = (reference.data, reference.variance, reference.mask, target.data, target.variance, target.mask)

    def some(first: int, last: int) -> None:
        source = np.empty((size + 2 * reach, size + 2 * reach), np.float32)
        patches = np.empty(((2 * reach + 1) ** 2, size * size), np.float32)
        for s in range(first, last):
            _cut(
                *planes,
                np.uint16(HARD),
                rows[s],
                cols[s],
                square,
                half,
                guard,
                source,
                patches,
                wanted[s],
                variance[s],
                reference_variance[s],
                weight[s],
            )
            # One product of matrices is the convolution with all functions.
            np.matmul(kernels, patches, out=columns[s])

    with threadpool_limits(limits=1, user_api="blas"):
        over_rows(some, n, max(1, n // (4 * thread_count(threads))), threads=threads)
    return Stamps(x, y, columns.reshape(n, -1, size, size), wanted, variance, reference_variance, weight)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _cut(  # type: ignore[no-untyped-def]
    data,
    data_var,
    data_mask,
    goal,
    goal_var,
    goal_mask,
    bad,
    row,
    col,
    square,
    half,
    guard,
    source,
    patches,
    wanted,
    variance,
    reference_variance,
    weight,
):
    ny, nx = data.shape
    size = 2 * half + 1
    wide = source.shape[0]
    reach = (wide - size) // 2
    spread = np.zeros((wide, wide), np.float32)
    blocked = np.ones((wide, wide), np.bool_)
    y0, x0 = row - half, col - half
    for j in range(wide):
        for i in range(wide):
            y, x = y0 - reach + j, x0 - reach + i
            source[j, i] = np.float32(0)
            if y < 0 or x < 0 or y >= ny or x >= nx:
                continue
            spread[j, i] = data_var[y, x]
            if (data_mask[y, x] & bad) == 0:
                source[j, i] = data[y, x]
                blocked[j, i] = False
    for v in range(2 * reach + 1):
        for u in range(2 * reach + 1):
            line = patches[v * (2 * reach + 1) + u]
            k = square[v, u]
            for j in range(size):
                part = source[j + v, u : u + size]
                line[j * size : (j + 1) * size] = part
                if k > np.float32(1e-4):
                    noise = spread[j + v, u : u + size]
                    smooth = reference_variance[j]
                    for i in range(size):
                        smooth[i] += k * noise[i]
    _weigh(goal, goal_var, goal_mask, bad, y0, x0, guard, blocked, wanted, variance, weight)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _weigh(  # type: ignore[no-untyped-def]
    goal, goal_var, goal_mask, bad, y0, x0, guard, blocked, wanted, variance, weight
):
    """Pixels of the target that are good and far enough from what is blocked in the reference."""
    ny, nx = goal.shape
    size = wanted.shape[0]
    reach = (blocked.shape[0] - size) // 2
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
            wanted[j, i] = goal[y, x]
            variance[j, i] = goal_var[y, x]
            weight[j, i] = np.float32(1)
