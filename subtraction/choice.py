"""Which method suits a pair: the choice that ``method = "auto"`` makes, and why.

See docs/algorithms.md, section 15. The rules stand in `choose`, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.errors import TooFewStars
from nightsift.frames import Frame, Pair
from nightsift.images.stars import clean_stars, find_stars, typical_fwhm

AUTO = "auto"
"""The name that stands for the choice."""

WINDOW = 3000
"""Side of the middle part of the frames that is looked at (pixel); the choice must cost little."""

FEW_STARS = 20
"""Clean stars on a frame below which its PSF is not to be trusted; the kernel needs none."""

SHARPEST = 1.9
"""FWHM below which a PSF is undersampled (pixel)."""

CROWDED = 0.05
"""Part of the sky within one FWHM of a star above which a field is crowded."""

ELONGATED = 1.15
"""Median axis ratio of the stars above which a PSF is elongated."""

SHARPER = 1.03
"""Ratio of the seeings, template to science, above which the science frame is the sharper one."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a frame is like, as far as it matters for the choice.

    Attributes
    ----------
    clean : float
        Isolated, unsaturated stars, on the whole frame.
    fwhm : float
        Usual FWHM of the stars (pixel).
    elongation : float
        Median axis ratio of the clean stars.
    crowding : float
        Part of the sky within one FWHM of a star.
    """

    clean: float
    fwhm: float
    elongation: float
    crowding: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A method and the reason.

    Attributes
    ----------
    method : str
        Name of a module of `subtraction.methods`.
    why : str
        One clause for people.
    """

    method: str
    why: str


def traits(frame: Frame) -> Traits:
    """Look at the stars in the middle of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.

    Returns
    -------
    Traits
        What it is like; without stars all but the FWHM are zero.
    """
    ny, nx = frame.shape
    y, x = max(0, (ny - WINDOW) // 2), max(0, (nx - WINDOW) // 2)
    part = (slice(y, y + WINDOW), slice(x, x + WINDOW))
    middle = frame.replace(
        data=np.ascontiguousarray(frame.data[part]),
        variance=np.ascontiguousarray(frame.variance[part]),
        mask=np.ascontiguousarray(frame.mask[part]),
    )
    try:
        stars = find_stars(middle, minimum=1)
    except TooFewStars:
        return Traits(0.0, float("nan"), 0.0, 0.0)
    fwhm = typical_fwhm(stars)
    clean = stars[clean_stars(stars, middle.shape, isolation=4.0, snr=20.0)]
    share = frame.data.size / middle.data.size
    covered = 1.0 - np.exp(-len(stars) * np.pi * fwhm**2 / middle.data.size)
    ratio = float(np.median(clean["a"] / clean["b"])) if len(clean) else 1.0
    return Traits(len(clean) * share, float(fwhm), ratio, float(covered))


def choose(pair: Pair) -> Choice:
    """Choose a method for a pair.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.

    Returns
    -------
    Choice
        The method and the reason.
    """
    science, template = traits(pair.science), traits(pair.template)
    fewest = min(science.clean, template.clean)
    sharpest = np.fmin(science.fwhm, template.fwhm)
    if sharpest < SHARPEST:
        return Choice("hotpants", f"the PSF is undersampled (FWHM {sharpest:.1f} px): only a kernel is fitted to it")
    if max(science.crowding, template.crowding) > CROWDED and fewest < 5 * FEW_STARS:
        crowding = max(science.crowding, template.crowding)
        return Choice("sfft", f"stars cover {crowding:.0%} of the sky and few stand alone: every lit pixel is used")
    if fewest < FEW_STARS:
        return Choice("hotpants", f"only {fewest:.0f} stars stand alone, too few for a PSF of each frame")
    if max(science.elongation, template.elongation) > ELONGATED:
        ratio = max(science.elongation, template.elongation)
        return Choice("zogy", f"stars are elongated (axis ratio {ratio:.2f}), which both PSFs follow")
    if template.fwhm > SHARPER * science.fwhm:
        return Choice("zogy", f"the science frame is sharper ({science.fwhm:.1f} against {template.fwhm:.1f} px)")
    if max(science.crowding, template.crowding) > CROWDED:
        crowding = max(science.crowding, template.crowding)
        return Choice("zogy", f"stars cover {crowding:.0%} of the sky")
    return Choice("hotpants", "nothing speaks against the quickest method")
