"""Cross filters of proper image subtraction: each frame filtered by the other's PSF, so that the noise stays white.

Zackay, Ofek and Gal-Yam 2016 (ApJ 830, 27), eq. 12-17. Stamps of anchor stars pass through them for the fit of what the
PSF models leave. See docs/algorithms.md, sections 13.1 and 13.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Frame
from nightsift.core.parallel import over_rows
from nightsift.core.psf import Psf
from subtraction.fields import ImageField, effective_radius, sample_field
from subtraction.kernel.anchor_stamps import Stamps, cut_stamps
from subtraction.kernel.basis import Basis, gauss_hermite
from subtraction.psf.moffat import half_width

Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]
Float32 = npt.NDArray[np.float32]

TRANSFORM = 96
"""Side of the transforms (pixel): larger than a PSF and a filter together."""

FLOOR = 1e-3
"""Amplitude of a PSF's transform, as a part of its flux, below which it is noise of the model."""

FADE = 0.6
"""Radius, as a part of a PSF's half width, from which it is faded out: an edge would echo through the filters."""

NOISELESS = 1e-3
"""Least part of the science frame's noise that the template is taken to have: what no noise at all would divide by."""

TAIL = 0.001
"""Part of a filter's absolute sum that is cut off."""

WIDEST = 16
"""Largest half width of a filter (pixel)."""

REACH = 3.0
"""Half width of the PSF of a difference in units of the seeing."""

VARIANCE_WIDEST = 5
"""Largest half width of the kernel of a variance (pixel)."""

Levels = Callable[[float, float], tuple[float, float]]
"""``levels(x, y)`` gives the variances of the sky of science and template around a position."""

DEGREES = (4, 3, 2)
"""Degrees of the polynomials on the narrow, middle and wide Gaussian of a correction: the PSF models did most."""

PRIOR = 0.1
"""Expected strength of a correction's shapes, as a part of those of a whole kernel."""

MISSING = 0.02
"""Part of a filter's absolute weight that may fall on masked pixels."""


def transform(small: Float64) -> Complex128:
    """Return the real transform, shape (TRANSFORM, TRANSFORM // 2 + 1), of a small odd image centred on the origin."""
    half = small.shape[0] // 2
    padded = np.zeros((TRANSFORM, TRANSFORM))
    padded[: 2 * half + 1, : 2 * half + 1] = small
    return np.asarray(fft.rfft2(np.roll(padded, (-half, -half), axis=(0, 1))))


def image(spectrum: Complex128, half: int) -> Float64:
    """Return the centre of the image of a real transform, shape (2 half + 1, 2 half + 1)."""
    whole = np.roll(fft.irfft2(spectrum, s=(TRANSFORM, TRANSFORM)), (half, half), axis=(0, 1))
    return np.asarray(whole[: 2 * half + 1, : 2 * half + 1])


@dataclass(frozen=True, slots=True, eq=False)
class CrossFilters:
    """Filters that make the proper difference ``science_filter * science - template_filter * template``.

    Attributes
    ----------
    science, template : ImageField
        Filters of both frames; the first has the sum one, the second that of the flux ratio.
    psf : Psf
        PSF of a transient in the difference: the science frame's PSF through its filter, sum one.
    """

    science: ImageField
    template: ImageField
    psf: Psf


def cross_transforms(
    science: Float64, template: Float64, ratio: float, science_level: float, template_level: float
) -> tuple[Complex128, Complex128]:
    """Transforms of both cross filters for one position.

    With the flux of the template as the unit and F the flux ratio, the proper difference (eq. 13) brought to the flux
    scale of the science frame is ``D = A S - B T`` with ``A = s P_t / d``, ``B = s F P_s / d``,
    ``d^2 = v_s |P_t|^2 + v_t F^2 |P_s|^2`` and ``s = d(0)``. Its noise is white with the variance s^2; no
    frame is deconvolved, whichever is the sharper. Where neither PSF has power, their ratio is noise: a spike that
    both get there lets A and B go to one and F, which leaves the noise white too.

    Parameters
    ----------
    science, template : ndarray of float64, shape (size, size)
        PSFs of both frames, sum one.
    ratio : float
        Flux of a star on the science frame over that on the template.
    science_level, template_level : float
        Variances of the sky (ADU^2).

    Returns
    -------
    science_filter, template_filter : ndarray of complex128, shape (TRANSFORM, TRANSFORM // 2 + 1)
        Real transforms, centred on the origin.
    """
    p_s, p_t = transform(science), transform(template)
    spike = FLOOR**2 / (FLOOR + np.abs(p_s) + np.abs(p_t))
    p_s, p_t = p_s + spike, p_t + spike
    template_noise = max(template_level * ratio**2, NOISELESS * science_level)
    d = np.sqrt(science_level * np.abs(p_t) ** 2 + template_noise * np.abs(p_s) ** 2)
    s = d[0, 0]
    # Sums are those of the plain ratio, so that fluxes and sky keep their scale.
    return s * p_t / d / np.real(p_t[0, 0]), ratio * s * p_s / d / np.real(p_s[0, 0])


def make_cross_filters(science: Psf, template: Psf, ratio: float, *, levels: Levels, order: int) -> CrossFilters:
    """Cross filters over the frame, as polynomial fields.

    Parameters
    ----------
    science, template : Psf
        PSFs of both frames.
    ratio : float
        Flux ratio science to template.
    levels : callable
        ``levels(x, y)`` gives the variances of the sky of both frames.
    order : int
        Order of the polynomials.

    Returns
    -------
    CrossFilters
        The filters.
    """
    half = min(science.size, template.size) // 2
    smooth = _faded(science, half), _faded(template, half)

    def both(x: float, y: float) -> tuple[Complex128, Complex128]:
        return cross_transforms(smooth[0](x, y), smooth[1](x, y), ratio, *levels(x, y))

    return _fields(both, science, order)


def _fields(both: Callable[[float, float], tuple[Complex128, Complex128]], science: Psf, order: int) -> CrossFilters:
    """Filters over the frame from their transforms at positions; their sums are preserved."""
    shape = science.shape
    cache: dict[tuple[float, float], tuple[Complex128, Complex128]] = {}

    def at(x: float, y: float) -> tuple[Complex128, Complex128]:
        if (x, y) not in cache:
            cache[x, y] = both(x, y)
        return cache[x, y]

    def one(which: int) -> ImageField:
        half = max(effective_radius(image(at(x, y)[which], WIDEST), TAIL) for x, y in _corners(shape))

        def small(x: float, y: float) -> Float64:
            spectrum = at(x, y)[which]
            cut = image(spectrum, half)
            return np.asarray(cut * (float(np.real(spectrum[0, 0])) / cut.sum()))

        return sample_field(small, shape, order)

    a, b = one(0), one(1)
    return CrossFilters(a, b, _filtered_psf(science, a))


def _faded(psf: Psf, half: int) -> Callable[[float, float], Float64]:
    """A PSF whose wings fade out towards the edge of a box that is the same for both frames."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    phase = np.clip((np.hypot(x, y) / half - FADE) / (1.0 - FADE), 0.0, 1.0)
    window = 0.5 + 0.5 * np.cos(np.pi * phase)
    part = slice(psf.size // 2 - half, psf.size // 2 + half + 1)

    def at(x: float, y: float) -> Float64:
        faded = window * psf.at(x, y)[part, part]
        return np.asarray(faded / faded.sum())

    return at


def _filtered_psf(psf: Psf, field: ImageField) -> Psf:
    """PSF of a frame after a filter."""
    half = min(psf.size // 2, int(np.ceil(REACH * psf.fwhm)))

    def at(x: float, y: float) -> Float64:
        return image(transform(psf.at(x, y).astype(np.float64)) * transform(field.at(x, y)), half)

    seen = sample_field(at, psf.shape, max(psf.order, field.order))
    middle = seen.at((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2)
    wings = float(np.clip(1.0 - middle.sum(), 0.0, 0.2))
    return Psf(_levelled(seen.terms, 1.0 - wings), seen.order, psf.shape, half_width(middle), wings)


def _levelled(terms: npt.NDArray[np.float32], total: float) -> npt.NDArray[np.float32]:
    """Terms of a PSF whose sum is the same everywhere."""
    sums = terms.sum(axis=(1, 2), dtype=np.float64)
    out = terms.astype(np.float64) * (total / sums[0])
    out[1:] -= (sums[1:] / sums[0])[:, None, None] * out[:1]
    return np.ascontiguousarray(out, dtype=np.float32)


def correct(filters: CrossFilters, correction: ImageField, science: Psf, *, levels: Levels) -> CrossFilters:
    """Filters with a correction behind the template's, the noise made white again.

    The correction changes the ratio B / A that cancels the stars. What it does to the power of the noise,
    ``v_s |A|^2 + v_t |B|^2``, is divided out of both filters alike.

    Parameters
    ----------
    filters : CrossFilters
        Filters from the PSF models.
    correction : ImageField
        What the filtered template is convolved with to match the filtered science frame.
    science : Psf
        PSF of the science frame.
    levels : callable
        ``levels(x, y)`` gives the variances of the sky of both frames.

    Returns
    -------
    CrossFilters
        The corrected filters.
    """

    def both(x: float, y: float) -> tuple[Complex128, Complex128]:
        a, b, k = (transform(field.at(x, y)) for field in (filters.science, filters.template, correction))
        # What stars have no power in, they do not determine.
        power = np.abs(a * transform(science.at(x, y).astype(np.float64))) ** 2
        total = np.real(k[0, 0])
        b = b * (total + (k - total) * power / (power + FLOOR**2))
        v_s, v_t = levels(x, y)
        noise = v_s * np.abs(a) ** 2 + v_t * np.abs(b) ** 2
        whiten = np.sqrt(noise[0, 0] / noise)
        return a * whiten, b * whiten

    return _fields(both, science, max(filters.science.order, correction.order))


def variance_kernel(field: ImageField) -> ImageField:
    """Kernel that takes the variance of white noise through a filter: its square.

    Parameters
    ----------
    field : ImageField
        The filter.

    Returns
    -------
    ImageField
        The squares, cut where little is left, their sums preserved.
    """
    middle = field.half
    square = field.at((field.shape[1] - 1) / 2, (field.shape[0] - 1) / 2) ** 2
    half = min(effective_radius(square, TAIL), VARIANCE_WIDEST)
    part = slice(middle - half, middle + half + 1)

    def at(x: float, y: float) -> Float64:
        square = field.at(x, y) ** 2
        return np.asarray(square[part, part] * (square.sum() / square[part, part].sum()))

    return sample_field(at, field.shape, field.order)


def _corners(shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Corners of a frame."""
    return [(x, y) for x in (0.0, shape[1] - 1.0) for y in (0.0, shape[0] - 1.0)]


def correction_basis(fwhm: float) -> Basis:
    """Return the basis of a kernel that is nearly a spike, for stars of a FWHM (pixel) after the cross filters.

    The spike comes first and carries the flux; then functions of sum zero that change the shape, with a prior of
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
    *,
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
        _sheet(frame, _smoothed(field, smoothing), x, y=y, side=side, threads=threads)
        for frame, field in ((science, filters.science), (template, filters.template))
    ]
    columns = _columns(len(x))
    on_x = (np.arange(len(x)) % columns) * side + side // 2
    on_y = (np.arange(len(x)) // columns) * side + side // 2
    stamps = cut_stamps(
        sheets[1],
        sheets[0],
        on_x.astype(np.float64),
        y=on_y.astype(np.float64),
        basis=basis,
        half=half,
        threads=threads,
    )
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


def _sheet(frame: Frame, field: ImageField, x: Float64, *, y: Float64, side: int, threads: int) -> Frame:
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

    over_rows(some, n, 1, threads=threads)
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
