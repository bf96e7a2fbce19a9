"""The difference that perfect knowledge makes of a drawn pair: its PSF, and how its noise varies over the frame."""

from __future__ import annotations

import numpy as np

from benchmarks.subtraction.truth import Truth
from nightsift.core.frames import Pair

HALF = 24
SIZE = (2 * HALF + 1, 2 * HALF + 1)


def _kernels(truth: Truth, x: float, y: float, white: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fourier transforms of what the optimal subtraction convolves both frames with, and of the science PSF."""
    s, t = (np.fft.rfft2(np.fft.ifftshift(optics.stamp(x, y, HALF))) for optics in (truth.science, truth.template))
    vs, vt = truth.sky_variance[0], truth.sky_variance[1] / truth.scale**2
    if white:
        root = np.sqrt(vs * abs(t) ** 2 + vt * abs(s) ** 2)
        return t / root, s / root, s
    if truth.template.fwhm <= 1.03 * truth.science.fwhm:
        return np.ones_like(s), s / np.where(abs(t) > 0.01, t, 0.01), s
    return t / np.where(abs(s) > 0.01, s, 0.01), np.ones_like(s), s


def _filters(truth: Truth, x: float, y: float, white: bool) -> tuple[np.ndarray, np.ndarray]:
    """Squared kernels (Fourier transforms of) by which the optimal subtraction passes noise on."""
    a, b = (np.fft.rfft2(np.fft.irfft2(one, s=SIZE) ** 2) for one in _kernels(truth, x, y, white)[:2])
    return a, b / truth.scale**2


def true_psf(truth: Truth, x: float, y: float, white: bool) -> np.ndarray:
    """What a transient looks like in an optimal difference, at its sub-pixel position, of unit flux."""
    a, _, s = _kernels(truth, x, y, white)
    return moved(np.fft.fftshift(np.fft.irfft2(a * s / a[0, 0].real, s=SIZE)), x - round(x), y - round(y))


def moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """An image shifted by a part of a pixel."""
    ky, kx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])
    return np.fft.irfft2(np.fft.rfft2(image) * np.exp(-2j * np.pi * (kx * dx + ky * dy)), s=image.shape)


def expected_variance(pair: Pair, truth: Truth, x: int, y: int, white: bool) -> np.ndarray:
    """Expected variance of the difference around a pixel, up to a factor."""
    box = slice(y - HALF, y + HALF + 1), slice(x - HALF, x + HALF + 1)
    total = sum(
        np.fft.irfft2(kernel * np.fft.rfft2(frame.variance[box]), s=SIZE)
        for kernel, frame in zip(_filters(truth, x, y, white), (pair.science, pair.template), strict=True)
    )
    return np.asarray(total)
