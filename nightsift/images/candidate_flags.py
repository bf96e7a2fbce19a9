"""Flags of candidates from what was measured on them; none removes a candidate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightsift.flags import Flag, Mask
from nightsift.images.psf_photometry import PsfFluxes

# Mask bits under a candidate that are passed on as a flag of their own.
FROM_MASK = (
    (Mask.SATURATED, Flag.SATURATED),
    (Mask.BLEED, Flag.BLEED),
    (Mask.BRIGHT_STAR, Flag.NEAR_BRIGHT_STAR),
    (Mask.STREAK, Flag.STREAK),
    (Mask.COSMIC_RAY, Flag.COSMIC_RAY),
    (Mask.DEFECT, Flag.DEFECT),
)
MASKED_FRACTION = 0.25
# A dipole has an opposite lobe of this share, which noise alone (about 2 sigma over the area searched) does not make.
DIPOLE_SHARE = 0.3
DIPOLE_SNR = 3.5
# Reduced chi-square that a point source hardly reaches; the allowance for bright ones is a PSF known to 3 per cent.
CHI2 = 3.0
PSF_ERROR = 0.03
# Central pixel over the PSF's, by which a candidate is sharper, and the significance (sigma) of that.
SHARPNESS = 1.5
SHARPNESS_SNR = 3.0


def candidate_flags(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    snr: npt.NDArray[np.float32],
    sign: npt.NDArray[np.int8],
    fits: PsfFluxes,
    lobes: npt.NDArray[np.float32],
    shape: tuple[int, int],
    stamp_size: int,
    verdict: str,
) -> npt.NDArray[np.int32]:
    """Set the flags that one frame alone can tell.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    snr : ndarray of float32, shape (n,)
        Height of the peak (sigma), positive for both signs.
    sign : ndarray of int8, shape (n,)
        +1 or -1.
    fits : PsfFluxes
        PSF fits at the positions.
    lobes : ndarray of float32, shape (n,)
        Signal-to-noise ratio of the opposite lobe.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    stamp_size : int
        Width of a stamp (pixel).
    verdict : str
        Verdict on the difference: good, suspect or bad.

    Returns
    -------
    ndarray of int32, shape (n,)
        Bits of `nightsift.flags.Flag`.
    """
    flags = np.zeros(len(x), dtype=np.int32)

    def raise_flag(flag: Flag, where: npt.NDArray[np.bool_]) -> None:
        flags[where] |= flag.value

    half = stamp_size // 2
    raise_flag(Flag.EDGE, (x < half) | (y < half) | (x > shape[1] - 1 - half) | (y > shape[0] - 1 - half))
    for bit, flag in FROM_MASK:
        raise_flag(flag, (fits.bits & np.uint16(bit.value)) != 0)
    raise_flag(Flag.MASKED, fits.masked_fraction > MASKED_FRACTION)
    raise_flag(Flag.NEGATIVE, sign < 0)
    raise_flag(Flag.DIPOLE, (lobes > DIPOLE_SNR) & (lobes > DIPOLE_SHARE * snr))
    raise_flag(Flag.COSMIC_RAY, fits.peak - SHARPNESS_SNR * fits.peak_err > SHARPNESS)
    raise_flag(Flag.BAD_FIT, ~(fits.chi2 <= CHI2 + (PSF_ERROR * snr) ** 2))
    if verdict != "good":
        flags |= Flag.SUSPECT_FRAME.value
    return flags
