"""Stamps of anchor stars, each frame passed through its cross filter, for the fit of what the PSF models leave.

See docs/algorithms.md, section 13.2.
"""

from __future__ import annotations

import dataclasses

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nightsift.flags import Mask
from nightsift.frames import Frame
from nightsift.parallel import over_rows
from subtraction.kernel.anchor_stamps import Stamps, cut_stamps
from subtraction.kernel.basis import Basis, gauss_hermite
from subtraction.kernel.spatial import ImageField
from subtraction.masks.union import HARD
from subtraction.proper.filters import CrossFilters

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

DEGREES = (4, 3, 2)
"""Degrees of the polynomials on the narrow, middle and wide Gaussian of a correction: the PSF models did most."""

PRIOR = 0.1
"""Expected strength of a correction's shapes, as a part of those of a whole kernel."""

MISSING = 0.02
"""Part of a filter's absolute weight that may fall on masked pixels."""


def correction_basis(fwhm: float) -> Basis:
    """Basis of a kernel that is nearly a spike.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum of stars after the cross filters (pixel).

    Returns
    -------
    Basis
        The spike first, which carries the flux; then functions of sum zero that change the shape, with a prior of
        `PRIOR` times that of a kernel that has to match all of the shape.
    """
    basis = gauss_hermite(fwhm, fwhm, degrees=DEGREES)
    images = basis.images.copy()
    images[0] = 0
    images[0, basis.half, basis.half] = 1
    return Basis(images, basis.strength * PRIOR**2, basis.widths)


def cut_cross_stamps(
    science: Frame,
    template: Frame,
    filters: CrossFilters,
    x: Float64,
    y: Float64,
    basis: Basis,
    half: int,
    smoothing: float = 0.0,
    threads: int = 0,
) -> Stamps:
    """Stamps of both frames after their cross filters, the template's convolved with a basis.

    A slight smoothing takes the noise of high frequencies out of both, where stars have no power. Without it least
    squares would use the correction to smooth the template's noise away, at the cost of the stars.

    Parameters
    ----------
    science, template : Frame
        Both frames.
    filters : CrossFilters
        Their filters.
    x, y : ndarray of float64, shape (n,)
        Positions of the anchors (pixel).
    basis : Basis
        Functions of the correcting kernel.
    half : int
        Half width of the stamps (pixel).
    smoothing : float, optional
        Width of a Gaussian that smooths both alike (sigma, pixel).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    Stamps
        As `subtraction.kernel.anchor_stamps.cut_stamps` makes them: the science frame is the target.
    """
    side = 2 * (half + basis.half) + 1
    sheets = [
        _sheet(frame, _smoothed(field, smoothing), x, y, side, threads)
        for frame, field in ((science, filters.science), (template, filters.template))
    ]
    columns = _columns(len(x))
    on_x = (np.arange(len(x)) % columns) * side + side // 2
    on_y = (np.arange(len(x)) // columns) * side + side // 2
    stamps = cut_stamps(sheets[1], sheets[0], on_x.astype(np.float64), on_y.astype(np.float64), basis, half, threads)
    return dataclasses.replace(stamps, x=x, y=y)


def column_noise(field: ImageField, basis: Basis, smoothing: float) -> Float64:
    """Covariance of the noise of the columns of one pixel, that of the first as the unit.

    Parameters
    ----------
    field : ImageField
        Filter of the template.
    basis : Basis
        Functions that follow it.
    smoothing : float
        Width of the Gaussian that smooths all (sigma, pixel).

    Returns
    -------
    ndarray of float64, shape (n_basis, n_basis)
        ``<b_i, b_j> / <b_0, b_0>`` with b the whole way from the template's white noise to a column.
    """
    smooth = _smoothed(field, smoothing)
    middle = smooth.at((field.shape[1] - 1) / 2, (field.shape[0] - 1) / 2)
    size = middle.shape[0] + basis.images.shape[1] - 1
    ways = np.fft.rfft2(middle, (size, size)) * np.fft.rfft2(basis.images.astype(np.float64), (size, size))
    flat = np.fft.irfft2(ways, (size, size)).reshape(len(basis.images), -1)
    matrix = flat @ flat.T
    return np.asarray(matrix / matrix[0, 0])


def _smoothed(field: ImageField, sigma: float) -> ImageField:
    """A filter with a Gaussian behind it."""
    if not sigma > 0:
        return field
    reach = int(np.ceil(3.0 * sigma))
    wide = np.pad(field.terms.astype(np.float64), ((0, 0), (reach, reach), (reach, reach)))
    terms = ndimage.gaussian_filter(wide, (0.0, sigma, sigma), mode="constant", radius=(0, reach, reach))
    return ImageField(np.ascontiguousarray(terms, dtype=np.float32), field.order, field.shape)


def _columns(count: int) -> int:
    return max(1, int(np.ceil(np.sqrt(count))))


def _sheet(frame: Frame, field: ImageField, x: Float64, y: Float64, side: int, threads: int) -> Frame:
    """All stars' surroundings after the filter, side by side on one small frame."""
    n, columns = len(x), _columns(len(x))
    lines = -(-n // columns)
    kernels = np.stack([field.at(float(a), float(b)) for a, b in zip(x, y, strict=True)]).astype(np.float32)
    kernels = np.ascontiguousarray(kernels[:, ::-1, ::-1])
    data = np.zeros((lines * side, columns * side), dtype=np.float32)
    variance = np.ones_like(data)
    mask = np.full(data.shape, np.uint16(Mask.NO_DATA.value))
    rows, cols = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)

    def some(first: int, last: int) -> None:
        _filter_stars(
            frame.data, frame.variance, frame.mask, np.uint16(HARD), rows, cols, kernels, side, columns,
            np.float32(MISSING), first, last, data, variance, mask,
        )  # fmt: skip

    over_rows(some, n, 1, threads)
    return Frame(data, variance, mask, frame.meta)


@nb.njit(cache=True, nogil=True, fastmath=True)
def _filter_stars(  # type: ignore[no-untyped-def]
    data, variance, mask, bad, rows, cols, kernels, side, columns, missing, first, last, out, out_variance, out_mask
):
    ny, nx = data.shape
    size = kernels.shape[1]
    reach = side // 2 + size // 2
    wide = 2 * reach + 1
    planes = np.empty((3, wide, wide), np.float32)
    sums = np.empty((3, side), np.float32)
    for s in range(first, last):
        n_bad = 0
        for j in range(wide):
            for i in range(wide):
                y, x = rows[s] - reach + j, cols[s] - reach + i
                dark = y < 0 or x < 0 or y >= ny or x >= nx or (mask[y, x] & bad) != 0
                planes[0, j, i] = np.float32(0) if dark else data[y, x]
                planes[1, j, i] = np.float32(0) if dark else variance[y, x]
                planes[2, j, i] = np.float32(1) if dark else np.float32(0)
                n_bad += dark
        count = 3 if n_bad > 0 else 2
        weight = np.float32(0)
        for v in range(size):
            for u in range(size):
                weight += abs(kernels[s, v, u])
        y0, x0 = (s // columns) * side, (s % columns) * side
        for j in range(side):
            sums[:] = np.float32(0)
            for v in range(size):
                for u in range(size):
                    k = kernels[s, v, u]
                    for p in range(count):
                        f = k if p == 0 else (k * k if p == 1 else abs(k))
                        line = sums[p]
                        part = planes[p, j + v, u : u + side]
                        for i in range(side):
                            line[i] += f * part[i]
            for i in range(side):
                good = sums[2, i] <= missing * weight and sums[1, i] > 0
                out[y0 + j, x0 + i] = sums[0, i] if good else np.float32(0)
                out_variance[y0 + j, x0 + i] = sums[1, i] if good else np.float32(1)
                out_mask[y0 + j, x0 + i] = np.uint16(0) if good else bad
