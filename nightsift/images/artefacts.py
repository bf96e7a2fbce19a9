"""Everything on a frame that is not the sky: found and marked in the mask, nothing removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import sep

from nightsift.flags import Mask
from nightsift.frames import FloatImage, Frame, MaskImage
from nightsift.images.bleed import bleed_trails
from nightsift.images.cosmic_rays import find_cosmic_rays
from nightsift.images.defects import find_defects
from nightsift.images.saturation import grow_cores, halos, saturated_stars
from nightsift.images.sharpness import star_sharpness
from nightsift.images.streaks import find_streaks

if TYPE_CHECKING:
    from nightsift.units import Unit

# With more of the frame saturated than this there are no single stars to look at.
_MOST_SATURATED = 0.25


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
    usable = (mask & _bits(Mask.NONFINITE, Mask.NO_DATA)) == 0
    saturated = np.count_nonzero(mask & _bits(Mask.SATURATED))
    if usable.sum() < 64 * 64 or saturated > _MOST_SATURATED * usable.sum():
        return frame
    residual, noise, sigma = _residual(frame, usable, unit.background.mesh)
    stars, lone = saturated_stars(residual, mask)
    _set(mask, Mask.COSMIC_RAY, lone)
    _set(mask, Mask.DEFECT, find_defects(residual, noise, mask))
    sharpness = star_sharpness(residual, noise, mask)
    if options.bleed:
        _set(mask, Mask.BLEED, bleed_trails(stars, residual, sigma, sharpness.fwhm))
    _set(mask, Mask.SATURATED, grow_cores(stars, options.saturation_grow, mask))
    if options.cosmic_rays:
        _set(mask, Mask.COSMIC_RAY, find_cosmic_rays(residual, noise, mask, sharpness))
    if options.streaks:
        _set(mask, Mask.STREAK, find_streaks(residual, noise, mask, sharpness.fwhm))
    _set(mask, Mask.BRIGHT_STAR, halos(stars, residual, sigma, sharpness.fwhm, options.bright_star_radius))
    return frame.replace(mask=mask)


def _residual(frame: Frame, usable: npt.NDArray[np.bool_], mesh: int) -> tuple[FloatImage, FloatImage, float]:
    """Data less the sky (0 where there are none), noise of each pixel, and noise of the sky."""
    data = np.where(usable, frame.data, np.float32(0))
    sky = sep.Background(data, mask=~usable, bw=mesh, bh=mesh)
    sigma = float(sky.globalrms)
    data -= sky.back(dtype=np.float32)
    data[~usable] = 0
    noise = np.sqrt(np.where(usable & (frame.variance > 0), frame.variance, np.float32(np.inf)))
    told = float(np.median(noise[::8, ::8][usable[::8, ::8]])) if usable[::8, ::8].any() else sigma
    if sigma > told > 0:  # the sky is noisier than its photons: pattern noise, faint stars, a wrong gain
        noise *= np.float32(sigma / told)
    return np.asarray(data, dtype=np.float32), np.asarray(noise, dtype=np.float32), max(sigma, told)


def _bits(*bits: Mask) -> np.uint16:
    return np.uint16(sum(bit.value for bit in bits))


def _set(mask: MaskImage, bit: Mask, where: npt.NDArray[np.bool_]) -> None:
    mask[where] |= np.uint16(bit.value)
