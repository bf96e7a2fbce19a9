"""Noise of a difference: whitening filter, variance, statistics of the sky.

See docs/algorithms.md, section 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2

from nightsift.core.flags import HARD
from nightsift.core.frames import FloatImage, Frame
from nightsift.core.psf import Psf
from subtraction.fields import ImageField, effective_radius, nodes, sample_field
from subtraction.psf.moffat import half_width

Float64 = npt.NDArray[np.float64]

TRANSFORM = 64
"""Side of the transforms that make the whitening filter (pixel): larger than kernel and filter together."""

NOISE_ORDER = 3
"""Least order of the filters' polynomials where the noise of one frame against the other changes over the field."""

STEADY = 0.1
"""Relative change of that ratio which one filter for the whole field may leave unheeded."""

VARIANCE_HALF = 3
"""Half width of the kernels that smooth variances (pixel): variance maps are smooth, their sums are preserved."""


@dataclass(frozen=True, slots=True, eq=False)
class Filters:
    """What turns the residual ``target - kernel * reference`` into a difference with white noise.

    Attributes
    ----------
    whitening : ImageField
        Filter of the residual; carries sign and scale to the science frame's flux.
    target_variance, reference_variance : ImageField
        Kernels of the variances of both frames.
    psf : Psf
        PSF of a transient in the difference.
    """

    whitening: ImageField
    target_variance: ImageField
    reference_variance: ImageField
    psf: Psf


def make_filters(
    kernel: ImageField, target: Frame, reference: Frame, *, psf: Psf, science_is_target: bool, whiten: bool = True
) -> Filters:
    """Make the filters that whiten a residual and bring it to the science frame's flux scale.

    The noise of ``target - K * reference`` has the power ``P = v_t + v_r |K|^2``; the filter
    ``W = sqrt((v_t + v_r K(0)^2) / P)`` makes it white and keeps fluxes, for ``W(0) = 1`` (Kaiser 2004; Reiss and
    Lupton, DMTN-021, eq. 4). Variances follow exactly for white input noise: ``W^2`` and ``(W * K)^2``.

    Parameters
    ----------
    kernel : ImageField
        Kernel fitted.
    target, reference : Frame
        The frame that was matched and the frame that is convolved.
    psf : Psf
        PSF of the science frame.
    science_is_target : bool
        Whether the template is convolved (the usual case).
    whiten : bool, optional
        False to leave the noise correlated; the variances are then those of single pixels.

    Returns
    -------
    Filters
        The filters, as polynomial fields of the order of the kernel, or higher where the noise asks for it.
    """
    shape, order = kernel.shape, kernel.order
    if order < NOISE_ORDER and not _is_steady(_levels(target, reference, shape, order=NOISE_ORDER), shape):
        order = NOISE_ORDER
    level = _levels(target, reference, shape, order=order)

    @cache  # the fields share their nodes
    def transfer(x: float, y: float) -> tuple[Float64, Float64]:
        """Kernel and whitening filter at a position, transformed, the flux scale included."""
        k = _transform(kernel.at(x, y))
        total = float(np.real(k[0, 0]))
        v_t, v_r = level(x, y)
        w = np.sqrt((v_t + v_r * total**2) / (v_t + v_r * np.abs(k) ** 2)) if whiten else np.ones(k.shape)
        return k, (w if science_is_target else -w / total)

    middle = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    _, w = transfer(*middle)
    half = effective_radius(_image(w, TRANSFORM // 2 - 1), tail=0.02) if whiten else 0

    @cache
    def whitening(x: float, y: float) -> Float64:
        w = transfer(x, y)[1]
        image = _image(w, half)
        return np.asarray(image * (float(np.real(w[0, 0])) / image.sum()))

    def target_variance(x: float, y: float) -> Float64:
        return _squared(transfer(x, y)[1])

    def reference_variance(x: float, y: float) -> Float64:
        k, w = transfer(x, y)
        return _squared(k * w)

    reach, fine = min(psf.size // 2, TRANSFORM // 2 - 1), psf.oversampling

    def difference_psf(x: float, y: float) -> Float64:
        k = transfer(x, y)[0]
        passed = _transform(whitening(x, y)) * (1.0 if science_is_target else -k)
        return _filtered(psf.fine_at(x, y).astype(np.float64), fine, passed, reach=reach)

    fields = [sample_field(make, shape, order) for make in (whitening, target_variance, reference_variance)]
    seen = sample_field(difference_psf, shape, max(order, psf.order))
    # The filter keeps the light, but moves some across the rim of the image; the ring it makes may be negative.
    coarse = np.ascontiguousarray(seen.terms[:, ::fine, ::fine])
    image = seen.at(*middle)[::fine, ::fine]
    wings = float(np.clip(1.0 - image.sum(), -0.2, 0.4))
    final = Psf(coarse, seen.order, shape, half_width(image), wings, None if fine == 1 else seen.terms)
    return Filters(fields[0], fields[1], fields[2], final)


def _filtered(image: Float64, fine: int, transfer: Float64, *, reach: int) -> Float64:
    """An image sampled `fine` times a pixel through a filter of whole pixels, cut to `reach` on each side."""
    size, middle = 2 * reach + 1, image.shape[0] // 2
    cut = image[middle - fine * reach : middle + fine * reach + 1, middle - fine * reach : middle + fine * reach + 1]
    # Each phase is an image sampled once per pixel; all but the first lack the last row or column.
    phases = np.zeros((fine, fine, size, size))
    places = [(j, i, cut[j::fine, i::fine].shape) for j in range(fine) for i in range(fine)]
    for j, i, (ny, nx) in places:
        phases[j, i, :ny, :nx] = cut[j::fine, i::fine]
    seen = _image(_transform(phases) * transfer, reach)
    out = np.empty_like(cut)
    for j, i, (ny, nx) in places:
        out[j::fine, i::fine] = seen[j, i, :ny, :nx]
    return out


def _levels(
    target: Frame, reference: Frame, shape: tuple[int, int], *, order: int
) -> Callable[[float, float], tuple[float, float]]:
    """Median variances of both frames around a position."""
    box = max(shape) // (order + 2) // 2 + 32

    def one(frame: Frame, x: float, y: float) -> float:
        rows = slice(max(0, int(y) - box), int(y) + box, max(1, box // 50))
        columns = slice(max(0, int(x) - box), int(x) + box, max(1, box // 50))
        values = frame.variance[rows, columns][(frame.mask[rows, columns] & HARD) == 0]
        if len(values) < 50:
            step = max(1, max(shape) // 500)
            values = frame.variance[::step, ::step][(frame.mask[::step, ::step] & HARD) == 0]
        return float(np.median(values)) if len(values) else 1.0

    cache: dict[tuple[float, float], tuple[float, float]] = {}

    def level(x: float, y: float) -> tuple[float, float]:
        if (x, y) not in cache:
            cache[x, y] = (one(target, x, y), one(reference, x, y))
        return cache[x, y]

    return level


def _is_steady(level: Callable[[float, float], tuple[float, float]], shape: tuple[int, int]) -> bool:
    """Whether the noise of both frames keeps its ratio over the field."""
    levels = np.array([level(float(x), float(y)) for x, y in zip(*nodes(shape, 1), strict=True)])
    ratio = levels[:, 0] / np.maximum(levels[:, 1], np.finfo(np.float32).tiny)
    return bool(ratio.max() <= (1.0 + STEADY) * ratio.min())


def _transform(images: Float64) -> Float64:
    """Transforms of small images centred on the origin, along the last two axes."""
    size = images.shape[-1]
    if size > TRANSFORM:
        cut = (size - TRANSFORM + 1) // 2
        images = images[..., cut : size - cut, cut : size - cut]
        size = images.shape[-1]
    place = np.arange(size) - size // 2
    padded = np.zeros((*images.shape[:-2], TRANSFORM, TRANSFORM))
    padded[..., place[:, None], place] = images
    return np.asarray(rfft2(padded))


def _image(transform: Float64, half: int) -> Float64:
    """Centre of the images of transforms."""
    place = np.arange(-half, half + 1)
    return np.asarray(irfft2(transform, (TRANSFORM, TRANSFORM))[..., place[:, None], place])


def _squared(transform: Float64) -> Float64:
    """Square of an image, cut to `VARIANCE_HALF` with its sum preserved."""
    square = _image(transform, TRANSFORM // 2 - 1) ** 2
    middle = square.shape[0] // 2
    cut = square[
        middle - VARIANCE_HALF : middle + VARIANCE_HALF + 1, middle - VARIANCE_HALF : middle + VARIANCE_HALF + 1
    ]
    return np.asarray(cut * (square.sum() / cut.sum()))


def sky_statistics(score: FloatImage, sky: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return median and robust standard deviation of the score where `sky` is true; NaN with fewer than 100 pixels."""
    values = score[sky]
    if len(values) < 100:
        return float("nan"), float("nan")
    low, centre, high = np.percentile(values, (15.8655, 50.0, 84.1345))
    return float(centre), float(high - low) / 2.0
