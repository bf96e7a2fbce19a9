"""Flux ratio of two frames and variances of their skies: what proper subtraction has to know beside the PSFs.

See docs/algorithms.md, section 13.1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nightsift.errors import SubtractionFailed
from nightsift.frames import Frame
from nightsift.psf import Psf
from subtraction.masks.union import HARD

Float64 = npt.NDArray[np.float64]


def flux_ratio(science: Frame, template: Frame, psfs: tuple[Psf, Psf], x: Float64, y: Float64) -> float:
    """Median ratio of the PSF fluxes of stars, science over template.

    Parameters
    ----------
    science, template : Frame
        Both frames.
    psfs : tuple of Psf
        Their PSFs.
    x, y : ndarray of float64, shape (n,)
        Positions of stars (pixel).

    Returns
    -------
    float
        The ratio.

    Raises
    ------
    SubtractionFailed
        If no star has a positive flux on both frames.
    """
    fluxes = [_psf_flux(frame, psf, x, y) for frame, psf in zip((science, template), psfs, strict=True)]
    good = np.isfinite(fluxes[0]) & np.isfinite(fluxes[1]) & (fluxes[0] > 0) & (fluxes[1] > 0)
    if not bool(good.any()):
        where = science.meta.path or science.meta.exposure_id
        raise SubtractionFailed(
            where=where, method="flux ratio", what=f"none of {len(x)} anchors shines on both frames"
        )
    return float(np.median(fluxes[0][good] / fluxes[1][good]))


def _psf_flux(frame: Frame, psf: Psf, x: Float64, y: Float64) -> Float64:
    """Least-squares fluxes with the PSF on each star's nearest pixel; NaN at edges and where little is left."""
    half = min(psf.size // 2, max(2, int(np.ceil(psf.fwhm))))
    middle = psf.size // 2
    part = slice(middle - half, middle + half + 1)
    flux = np.full(len(x), np.nan)
    for s, (a, b) in enumerate(zip(x, y, strict=True)):
        row, column = int(np.rint(b)), int(np.rint(a))
        if row < half or column < half or row + half >= frame.shape[0] or column + half >= frame.shape[1]:
            continue
        window = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
        image = psf.at(float(a), float(b))[part, part].astype(np.float64)
        image[(frame.mask[window] & HARD) != 0] = 0.0
        power = float((image**2).sum())
        if power > 0:
            flux[s] = float((image * np.where(image > 0, frame.data[window], 0.0)).sum()) / power
    return flux


def sky_levels(science: Frame, template: Frame, box: int) -> Callable[[float, float], tuple[float, float]]:
    """Median variances of both frames around positions.

    Parameters
    ----------
    science, template : Frame
        Both frames.
    box : int
        Half width of the surroundings (pixel).

    Returns
    -------
    callable
        ``levels(x, y)``; where little is unmasked around a position, the medians of the whole frames.
    """

    def whole(frame: Frame) -> float:
        step = max(1, max(frame.shape) // 500)
        values = frame.variance[::step, ::step][(frame.mask[::step, ::step] & HARD) == 0]
        return float(np.median(values)) if len(values) else 1.0

    usual = (whole(science), whole(template))

    def around(x: float, y: float) -> tuple[float, float]:
        step = max(1, box // 50)
        window = tuple(slice(max(0, int(c) - box), int(c) + box, step) for c in (y, x))
        good = ((science.mask[window] | template.mask[window]) & HARD) == 0
        if int(good.sum()) < 50:
            return usual
        return float(np.median(science.variance[window][good])), float(np.median(template.variance[window][good]))

    return around
