"""Everything on a frame that is not the sky: found and marked in the mask, nothing removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nightsift.flags import Mask
from nightsift.frames import FloatImage, Frame
from nightsift.images.bleed import bleed_trails
from nightsift.images.cosmic_rays import SEED_SNR, find_cosmic_rays
from nightsift.images.defects import find_defects
from nightsift.images.mesh import fit_surface
from nightsift.images.saturation import grow_cores, halos, saturated_stars
from nightsift.images.sharpness import star_sharpness
from nightsift.images.standing import bright_pixels, count_bits, mark, residual_and_noise
from nightsift.images.streaks import find_streaks

if TYPE_CHECKING:
    from nightsift.units import Unit

# With more of the frame saturated than this there are no single stars to look at.
_MOST_SATURATED = 0.25
_UNUSABLE = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)


def mask_artefacts(frame: Frame, unit: Unit) -> Frame:
    """Mark saturated stars with their trails and halos, cosmic rays, streaks, and bad lines and pixels.

    Parameters
    ----------
    frame : Frame
        Calibrated frame with its sky; SATURATED marks the pixels at the saturation level.
    unit : Unit
        Which artefacts are looked for, and the mesh of the sky.

    Returns
    -------
    Frame
        The frame with more bits of its mask set: SATURATED grown around stars, BLEED, BRIGHT_STAR, COSMIC_RAY (also
        hot pixels: one frame cannot tell them apart), STREAK, DEFECT. Data and variance are unchanged.
    """
    options, mask = unit.artefacts, frame.mask.copy()
    usable = mask.size - count_bits(mask, _UNUSABLE)
    if usable < 64 * 64 or count_bits(mask, np.uint16(Mask.SATURATED.value)) > _MOST_SATURATED * usable:
        return frame
    residual, noise, sigma = _residual(frame, unit.background.mesh)
    stars, lone = saturated_stars(residual, mask)
    mark(mask, Mask.COSMIC_RAY, lone)
    mark(mask, Mask.DEFECT, find_defects(residual, noise, mask))
    bright = bright_pixels(residual, noise, SEED_SNR)
    sharpness = star_sharpness(residual, noise, mask, bright)
    if options.bleed:
        mark(mask, Mask.BLEED, bleed_trails(stars, residual, sigma, sharpness.fwhm))
    mark(mask, Mask.SATURATED, grow_cores(stars, options.saturation_grow, mask))
    if options.cosmic_rays:
        mark(mask, Mask.COSMIC_RAY, find_cosmic_rays(residual, noise, mask, sharpness, bright))
    if options.streaks:
        mark(mask, Mask.STREAK, find_streaks(residual, noise, mask, sharpness.fwhm))
    mark(mask, Mask.BRIGHT_STAR, halos(stars, residual, sigma, sharpness.fwhm, options.bright_star_radius))
    return frame.replace(mask=mask)


def _residual(frame: Frame, mesh: int) -> tuple[FloatImage, FloatImage, float]:
    """Data less the sky (0 where there are none), noise of each pixel, and noise of the sky."""
    sky = fit_surface(frame.data, frame.mask, _UNUSABLE, mesh, 4 if mesh >= 64 else 2)
    usable = (frame.mask[::8, ::8] & _UNUSABLE) == 0
    told = float(np.sqrt(np.median(frame.variance[::8, ::8][usable]))) if usable.any() else sky.sigma
    sigma = sky.sigma if np.isfinite(sky.sigma) else told
    # the sky may be noisier than its photons: pattern noise, faint stars, a wrong gain
    factor = sigma / told if sigma > told > 0 else 1.0
    residual, noise = residual_and_noise(frame.data, frame.variance, frame.mask, _UNUSABLE, sky, factor)
    return residual, noise, max(sigma, told)
