"""Normal equations of a delta kernel, from all source pixels of each cell of the frame.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.frames import FloatImage
from nightsift.core.parallel import over_rows
from subtraction.delta_basis.basis import Support
from subtraction.delta_basis.source_pixels import Clip, SourcePixels, drop_pixels

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FLUX_FLOOR = 0.005
"""Error of the model as a part of the flux of a pixel: keeps the few brightest stars from ruling the fit."""

CHUNK = 8192
"""Pixels whose design matrix is held at a time."""


@nb.njit(cache=True, nogil=True, fastmath=True)
def _convolve_at(flat, index, offsets, kernel, out):  # type: ignore[no-untyped-def]
    """Add a convolution at some pixels."""
    for p in range(index.shape[0]):
        total = np.float32(0)
        base = index[p]
        for k in range(offsets.shape[0]):
            total += kernel[k] * flat[base + offsets[k]]
        out[p] += total


@nb.njit(cache=True, nogil=True)
def _gather(flat, index, offsets, root, design):  # type: ignore[no-untyped-def]
    """Rows of the design matrix: the reference under the kernel, over the standard deviation of the pixel."""
    n = offsets.shape[0]
    start = 0
    # Offsets come in runs of neighbours; each run is one slice of memory.
    while start < n:
        stop = start + 1
        while stop < n and offsets[stop] == offsets[stop - 1] + 1:
            stop += 1
        for p in range(index.shape[0]):
            base = index[p] + offsets[start]
            source = flat[base : base + stop - start]
            line = design[p, start:stop]
            r = root[p]
            for k in range(stop - start):
                line[k] = r * source[k]
        start = stop


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """What the fit sees of a pair.

    Attributes
    ----------
    target, target_variance : ndarray of float32, shape (ny, nx)
        The frame that is matched and its variance.
    reference, reference_variance : ndarray of float32, shape (ny, nx)
        The frame that is convolved, finite everywhere, and its variance.
    """

    target: FloatImage
    target_variance: FloatImage
    reference: FloatImage
    reference_variance: FloatImage


@dataclass(frozen=True, slots=True, eq=False)
class CellEquations:
    """Weighted sums over the pixels of every cell.

    Attributes
    ----------
    normal : ndarray of float32, shape (n_cells, n, n)
        ``D^T W D``: D holds the reference pixels under the kernel, W the inverse variances.
    right : ndarray of float64, shape (n_cells, n)
        ``D^T W r``, with r the residual of `kernels`.
    column : ndarray of float64, shape (n_cells, n)
        ``D^T w``.
    weight, residual, square : ndarray of float64, shape (n_cells,)
        Sums of the weights, of the weighted residuals and of their squares.
    noise : ndarray of float64, shape (n_cells,)
        Sum of weight times variance of the reference: its white noise adds this times `products` to `normal`.
    count : ndarray of int64, shape (n_cells,)
        Pixels.
    x, y : ndarray of float64, shape (n_cells,)
        Centres of light (pixel).
    kernels : ndarray of float64, shape (n_cells, n)
        Kernels to which the residuals belong.
    products : ndarray of float64, shape (n, n)
        Products of the kernel's functions (`Support.products`).
    """

    normal: Float32
    right: Float64
    column: Float64
    weight: Float64
    residual: Float64
    square: Float64
    noise: Float64
    count: npt.NDArray[np.int64]
    x: Float64
    y: Float64
    kernels: Float64
    products: Float64


def sum_cells(
    planes: Planes,
    pixels: SourcePixels,
    support: Support,
    *,
    kernels: Float64,
    clip: Clip | None,
    keep: npt.NDArray[np.bool_],
    threads: int = 0,
) -> CellEquations:
    """Sum the normal equations of all cells.

    Parameters
    ----------
    planes : Planes
        The pair.
    pixels : SourcePixels
        Pixels of the fit.
    support : Support
        The kernel's pixels.
    kernels : ndarray of float64, shape (n_cells, n)
        A first kernel for every cell: for the weights, and to find what changed.
    clip : Clip or None
        What is left out; None to keep all.
    keep : ndarray of bool, shape (n_pixels,)
        Pixels that take part; those clipped become False.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    CellEquations
        The sums.
    """
    n_cells, n = len(pixels.first) - 1, len(support)
    x, y = _middles(pixels)
    sums = CellEquations(
        normal=np.zeros((n_cells, n, n), dtype=np.float32),
        right=np.zeros((n_cells, n)),
        column=np.zeros((n_cells, n)),
        weight=np.zeros(n_cells),
        residual=np.zeros(n_cells),
        square=np.zeros(n_cells),
        noise=np.zeros(n_cells),
        count=np.zeros(n_cells, dtype=np.int64),
        x=x,
        y=y,
        kernels=kernels.copy(),
        products=support.products,
    )

    def some(first: int, last: int) -> None:
        for cell in range(first, last):
            _sum_cell(planes, pixels, support, cell=cell, clip=clip, keep=keep, sums=sums)

    with threadpool_limits(limits=1, user_api="blas"):
        over_rows(some, n_cells, 1, threads=threads)
    return sums


def drop_changed(
    planes: Planes,
    pixels: SourcePixels,
    support: Support,
    *,
    kernels: Float64,
    clip: Clip,
    keep: npt.NDArray[np.bool_],
    sums: CellEquations,
    threads: int = 0,
) -> int:
    """Take pixels that changed out of sums, in place, judged by a better kernel.

    Parameters
    ----------
    planes : Planes
        The pair.
    pixels : SourcePixels
        Pixels of the fit.
    support : Support
        The kernel's pixels.
    kernels : ndarray of float64, shape (n_cells, n)
        The better kernels.
    clip : Clip
        What is left out.
    keep : ndarray of bool, shape (n_pixels,)
        Pixels that take part; those clipped become False.
    sums : CellEquations
        The sums; changed.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    int
        Pixels taken out.
    """
    before = int(keep.sum())

    def some(first: int, last: int) -> None:
        for cell in range(first, last):
            _drop_cell(planes, pixels, support, kernel=kernels[cell], cell=cell, clip=clip, keep=keep, sums=sums)

    with threadpool_limits(limits=1, user_api="blas"):
        over_rows(some, len(sums.count), 1, threads=threads)
    return before - int(keep.sum())


def _middles(pixels: SourcePixels) -> tuple[Float64, Float64]:
    """Geometric centres of all cells."""
    ny, nx = pixels.shape
    rows = np.arange(pixels.grid[0]) * pixels.cell
    columns = np.arange(pixels.grid[1]) * pixels.cell
    y = (rows + np.minimum(rows + pixels.cell, ny) - 1) / 2
    x = (columns + np.minimum(columns + pixels.cell, nx) - 1) / 2
    return np.tile(x, pixels.grid[0]), np.repeat(y, pixels.grid[1])


def _offsets(dx: npt.NDArray[np.int64], dy: npt.NDArray[np.int64], nx: int) -> npt.NDArray[np.int64]:
    """Flat offsets of the reference pixels that the kernel's pixels multiply."""
    return -(dy * nx + dx)


def _model(
    planes: Planes, index: npt.NDArray[np.int64], kernel: Float64, *, support: Support
) -> tuple[Float32, Float32, Float32]:
    """Model, variance and residual at pixels, the residual's own background still in it."""
    model = np.zeros(len(index), dtype=np.float32)
    nx, flat = planes.reference.shape[1], planes.reference.ravel()
    n_core = len(support.core_dx)
    wing = support.wings @ kernel[n_core:]
    core_offsets = _offsets(support.core_dx, support.core_dy, nx)
    _convolve_at(flat, index, core_offsets, kernel[:n_core].astype(np.float32), model)
    _convolve_at(flat, index, _offsets(support.wing_dx, support.wing_dy, nx), wing.astype(np.float32), model)
    power = np.float32((kernel[:n_core] ** 2).sum() + (wing**2).sum())
    floor = np.float32(FLUX_FLOOR) * model
    variance = planes.target_variance.ravel()[index] + power * planes.reference_variance.ravel()[index] + floor * floor
    return model, variance, planes.target.ravel()[index] - model


def _sum_cell(
    planes: Planes,
    pixels: SourcePixels,
    support: Support,
    *,
    cell: int,
    clip: Clip | None,
    keep: npt.NDArray[np.bool_],
    sums: CellEquations,
) -> None:
    """Clip one cell and sum it."""
    part = slice(int(pixels.first[cell]), int(pixels.first[cell + 1]))
    index, chosen = pixels.index[part], keep[part]
    if not bool(chosen.any()):
        return
    model, variance, residual = _model(planes, index, sums.kernels[cell], support=support)
    if clip is not None:
        drop_pixels(index, pixels, cell, planes=(model, variance, residual), clip=clip, keep=chosen)
    _add(
        planes,
        support,
        index[chosen],
        model=model[chosen],
        variance=variance[chosen],
        residual=residual[chosen],
        cell=cell,
        sums=sums,
        sign=np.float32(1),
    )


def _drop_cell(
    planes: Planes,
    pixels: SourcePixels,
    support: Support,
    *,
    kernel: Float64,
    cell: int,
    clip: Clip,
    keep: npt.NDArray[np.bool_],
    sums: CellEquations,
) -> None:
    """Clip one cell by a better kernel and take what changed out of its sums."""
    part = slice(int(pixels.first[cell]), int(pixels.first[cell + 1]))
    index, chosen = pixels.index[part], keep[part]
    if not bool(chosen.any()):
        return
    before = chosen.copy()
    model, variance, residual = _model(planes, index, kernel, support=support)
    drop_pixels(index, pixels, cell, planes=(model, variance, residual), clip=clip, keep=chosen)
    gone = index[before & ~chosen]
    if len(gone):
        model, variance, residual = _model(planes, gone, sums.kernels[cell], support=support)
        _add(
            planes,
            support,
            gone,
            model=model,
            variance=variance,
            residual=residual,
            cell=cell,
            sums=sums,
            sign=np.float32(-1),
        )


def _add(
    planes: Planes,
    support: Support,
    index: npt.NDArray[np.int64],
    *,
    model: Float32,
    variance: Float32,
    residual: Float32,
    cell: int,
    sums: CellEquations,
    sign: np.float32,
) -> None:
    """Add pixels to the sums of a cell, or take them out."""
    nx, flat = planes.reference.shape[1], planes.reference.ravel()
    core = _offsets(support.core_dx, support.core_dy, nx)
    around = _offsets(support.wing_dx, support.wing_dy, nx)
    wings, n_core = support.wings.astype(np.float32), len(core)
    root = 1.0 / np.sqrt(variance)
    for start in range(0, len(index), CHUNK):
        part = slice(start, start + CHUNK)
        design = np.empty((len(index[part]), len(support)), dtype=np.float32)
        _gather(flat, index[part], core, root[part], design)
        if len(around):
            outer = np.empty((len(design), len(around)), dtype=np.float32)
            _gather(flat, index[part], around, root[part], outer)
            design[:, n_core:] = outer @ wings
        sums.normal[cell] += sign * (design.T @ design)
        sums.right[cell] += sign * (design.T @ (root[part] * residual[part]))
        sums.column[cell] += sign * (design.T @ root[part])
    weight = (root * root).astype(np.float64)
    sums.weight[cell] += sign * weight.sum()
    sums.residual[cell] += sign * (weight @ residual)
    sums.square[cell] += sign * (weight @ (residual.astype(np.float64) ** 2))
    sums.noise[cell] += sign * (weight @ planes.reference_variance.ravel()[index])
    sums.count[cell] += int(sign) * len(index)
    if sign > 0:
        light = weight * np.maximum(model, 0.0) ** 2
        total = float(light.sum())
        if total > 0:
            sums.x[cell] = float(light @ (index % nx)) / total
            sums.y[cell] = float(light @ (index // nx)) / total
