"""Cross filters of proper image subtraction: each frame filtered by the other's PSF, so that the noise stays white.

Zackay, Ofek and Gal-Yam 2016 (ApJ 830, 27), eq. 12-17. See docs/algorithms.md, section 13.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.psf import Psf
from subtraction.kernel.spatial import ImageField, sample_field
from subtraction.masks.union import effective_radius
from subtraction.proper.transforms import Complex128, image, transform
from subtraction.psf.profiles import half_width

Float64 = npt.NDArray[np.float64]

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


def make_cross_filters(science: Psf, template: Psf, ratio: float, levels: Levels, order: int) -> CrossFilters:
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
    """Filters over the frame from their transforms at positions; their sums are kept."""
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
    return CrossFilters(a, b, filtered_psf(science, a))


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


def filtered_psf(psf: Psf, field: ImageField) -> Psf:
    """PSF of a frame after a filter.

    Parameters
    ----------
    psf : Psf
        PSF of the frame.
    field : ImageField
        The filter, of sum one.

    Returns
    -------
    Psf
        The PSF, three FWHM to each side where the frame's own reaches as far.
    """
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


def correct(filters: CrossFilters, correction: ImageField, science: Psf, levels: Levels) -> CrossFilters:
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
        The squares, cut where little is left, their sums kept.
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
