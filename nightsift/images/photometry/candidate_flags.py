"""Flags of candidates from what was measured on them, and of detector pixels that fire again and again in a night.

No flag removes a candidate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from nightsift.core.flags import Flag, Mask
from nightsift.images.photometry.psf_photometry import PsfFluxes
from nightsift.sky.sphere import separation

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

# Chance that candidates of several exposures fall on one spot of the detector by accident, for which a candidate is
# not flagged; keeps crowded nights from flagging themselves.
CHANCE = 1e-6


def candidate_flags(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    snr: npt.NDArray[np.float32],
    *,
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
        Bits of `nightsift.core.flags.Flag`.
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


def repeated_pixels(
    candidates: pa.Table, radius: float = 1.5, min_exposures: int = 3, *, sky_radius: float = 5.0
) -> npt.NDArray[np.bool_]:
    """Find candidates whose detector pixel fired in several exposures that saw different sky there.

    A real source stays at one place on the sky; a hot pixel stays at one place on the detector. Without a WCS, or
    while the pointing does not change, the two cannot be distinguished and nothing is flagged.

    Parameters
    ----------
    candidates : pyarrow.Table
        Candidates of one unit and night; the columns exposure_id, x, y, ra, dec and sign are used.
    radius : float, optional
        Distance on the detector that counts as the same pixel (pixel).
    min_exposures : int, optional
        Exposures, with its own, in which the pixel must have fired; more where candidates are so many that
        such coincidences happen by chance.
    sky_radius : float, optional
        Distance on the sky beyond which two positions are different sky (arcsec); a few times the error of a
        position.

    Returns
    -------
    ndarray of bool, shape (n,)
        True on candidates of repeated pixels, in the order of the table.
    """
    n = len(candidates)
    flagged = np.zeros(n, dtype=np.bool_)
    if n < 2:
        return flagged
    x, y, ra, dec, sign = (
        np.asarray(candidates[name].to_numpy(zero_copy_only=False), dtype=np.float64)
        for name in ("x", "y", "ra", "dec", "sign")
    )
    exposures = pc.dictionary_encode(candidates["exposure_id"].combine_chunks()).indices.to_numpy()
    usable = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(usable) < 2:
        return flagged
    # signs apart: a pixel is either hot or dead
    tree = cKDTree(np.column_stack([x, y, 1e6 * sign])[usable])
    pairs = tree.query_pairs(radius, output_type="ndarray")
    first, second = usable[pairs[:, 0]], usable[pairs[:, 1]]
    apart = separation(ra[first], dec[first], ra[second], dec[second])
    other = (exposures[first] != exposures[second]) & (apart > sky_radius / 3600.0)
    first, second = first[other], second[other]
    # each candidate with the exposures that hit its pixel, every exposure counted once
    rows = np.concatenate([first, second])
    seen = np.concatenate([exposures[second], exposures[first]])
    unique = np.unique(np.column_stack([rows, seen]), axis=0) if len(rows) else np.empty((0, 2), dtype=np.int64)
    counts = 1 + np.bincount(unique[:, 0], minlength=n)
    return np.asarray(counts >= max(min_exposures, _by_chance(x, y, radius)), dtype=np.bool_)


def flag_repeated_pixels(
    candidates: pa.Table, radius: float = 1.5, min_exposures: int = 3, *, sky_radius: float = 5.0
) -> pa.Table:
    """Set the flag REPEATED_PIXEL where `repeated_pixels` finds one.

    Parameters
    ----------
    candidates : pyarrow.Table
        Candidates of one unit and night, schema `nightsift.core.tables.CANDIDATES`.
    radius : float, optional
        As for `repeated_pixels` (pixel).
    min_exposures : int, optional
        As for `repeated_pixels`.
    sky_radius : float, optional
        As for `repeated_pixels` (arcsec).

    Returns
    -------
    pyarrow.Table
        The table with the flags set anew: a flag of an earlier run that no longer holds is taken back.
    """
    repeated = repeated_pixels(candidates, radius, min_exposures, sky_radius=sky_radius)
    bit = Flag.REPEATED_PIXEL.value
    flags = candidates["flags"].to_numpy().astype(np.int32) & ~np.int32(bit)
    flags[repeated] |= bit
    index = candidates.schema.get_field_index("flags")
    return candidates.set_column(index, candidates.schema.field(index), pa.array(flags, type=pa.int32()))


def _by_chance(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], radius: float) -> int:
    """Number of exposures at one spot that chance alone practically never reaches."""
    area = max(np.ptp(x) * np.ptp(y), 1.0)
    expected = len(x) * np.pi * radius**2 / area
    from scipy.stats import poisson  # slow to import

    return 1 + int(poisson.isf(CHANCE, expected)) if expected > 0 else 0
