"""Mask planes of pixels, flags of candidates and of catalogued sources, each defined in one place.

Nothing is dropped because of a flag: flags say why a candidate is doubtful. The tables in the documentation
and the decoder are made from `description`.
"""

from __future__ import annotations

from enum import IntFlag


class Mask(IntFlag):
    """Bit planes of a pixel mask (uint16); a pixel is good when no bit is set."""

    NONFINITE = 1, "NaN or infinite in the file"
    SATURATED = 2, "at or above the saturation level, or grown from such a pixel"
    BLEED = 4, "charge bled along the column of a saturated star"
    COSMIC_RAY = 8, "hit by a cosmic ray"
    STREAK = 16, "under the streak of a satellite or aircraft"
    DEFECT = 32, "hot, dead or otherwise unreliable detector pixel"
    NO_DATA = 64, "outside the template or the detector"
    BRIGHT_STAR = 128, "inside the halo of a bright star, where residuals are expected"

    description: str

    def __new__(cls, value: int, description: str = "") -> Mask:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


HARD = int(0xFFFF & ~Mask.BRIGHT_STAR.value)
"""Bits of pixels that hold no usable value. The halo of a bright star is doubtful but usable."""

OBSCURED = int(Mask.SATURATED.value | Mask.BLEED.value | Mask.STREAK.value)
"""Bits of areas of the sky that are masked but hold its light; a hit or a defect holds none."""


class Flag(IntFlag):
    """Flags of a candidate (int32)."""

    EDGE = 1, "closer to the edge of the frame than half a stamp"
    SATURATED = 2, "touches saturated pixels"
    BLEED = 4, "touches a bleed trail"
    NEAR_BRIGHT_STAR = 8, "inside the halo of a bright star"
    STREAK = 16, "lies on a streak"
    DIPOLE = 32, "positive and negative lobes side by side: misregistration"
    COSMIC_RAY = 64, "sharper than the PSF or on a pixel hit by a cosmic ray"
    REPEATED_PIXEL = 128, "the same detector pixel fired in other exposures of the night"
    MASKED = 256, "more than a quarter of the PSF core is masked"
    NEGATIVE = 512, "fainter than in the template"
    BAD_FIT = 1024, "the PSF fits badly (chi2)"
    DEFECT = 2048, "touches an unreliable detector pixel"
    SUSPECT_FRAME = 4096, "the difference image as a whole is suspect or bad"

    description: str

    def __new__(cls, value: int, description: str = "") -> Flag:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


class SourceFlag(IntFlag):
    """Flags of a source of a catalogue (int32)."""

    EDGE = 1, "cut off by the edge of the image"
    DEBLENDED = 2, "was one with another source"
    MASKED = 4, "pixels masked or of a neighbour in its Kron aperture, replaced by the mean of the others"
    SATURATED = 8, "saturated or bled pixels among its own"
    CIRCLE = 16, "Kron radius too small or without light: flux within a circle"
    NO_WINDOW = 32, "no windowed centre: x and y are isophotal"
    UNDIVIDED = 64, "too large an area to be divided: may be several"

    description: str

    def __new__(cls, value: int, description: str = "") -> SourceFlag:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


def names(value: int, kind: type[IntFlag] = Flag) -> list[str]:
    """Return the names of the bits set in `value`, in order of their bits; `kind` is one of these."""
    return [str(bit.name) for bit in kind if value & bit.value]
