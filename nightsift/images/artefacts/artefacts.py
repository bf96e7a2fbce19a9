"""Mark everything on a frame that is not the sky, defective columns, rows and pixels among it; nothing is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.images.artefacts.cosmic_rays import SEED_SNR, find_cosmic_rays, star_sharpness
from nightsift.images.artefacts.pixel_passes import bright_pixels, count_bits, mark, residual_and_noise
from nightsift.images.artefacts.saturation import bleed_trails, grow_cores, halos, saturated_stars
from nightsift.images.artefacts.streaks import find_streaks
from nightsift.images.background.mesh import fit_surface

if TYPE_CHECKING:
    from nightsift.unit.units import Unit


# Length of the pieces in which lines are tested (pixel): a column may be bad in part only.
PIECE = 128

# Offset of a bad line from its neighbours (sky sigma), below which it does no harm to detection.
LEAST_OFFSET = 1.0

# Significance of the sign test that picks pieces for a closer look, and of their offset (sigma).
SIGNIFICANCE = 5.0

# Offset of the better neighbouring line over that of a bad line; a streak along the axis is wider than one line.
MOST_SPILL = 0.35

MOST_CREST = 1.3
DEAD_SNR = 6.0
_SKIP = np.uint16(Mask.NONFINITE.value | Mask.SATURATED.value | Mask.NO_DATA.value)

# With more of the frame saturated than this there are no single stars to look at.
_MOST_SATURATED = 0.25

_UNUSABLE = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)


def _find_defects(residual: FloatImage, noise: FloatImage, mask: MaskImage) -> npt.NDArray[np.bool_]:
    """Find bad lines and dead pixels.

    Pieces of columns and of rows are compared with the lines three and four pixels away on both sides: first by
    the number of pixels that are higher (a sign test, blind to stars), then by the median of the difference. The
    line on at least one side must be good, or else it is the streak of a satellite along the axis.
    """
    bad = np.zeros(residual.shape, dtype=np.bool_)
    pieces = -(-residual.shape[0] // PIECE)
    over_rows(lambda first, last: _columns(residual, noise, mask, first, last, bad), pieces, 1)
    over_rows(lambda first, last: _rows(residual, noise, mask, first, last, bad), residual.shape[0], PIECE)
    return bad


@njit(cache=True, nogil=True)
def _begin(piece: int, length: int) -> int:
    """First pixel of a piece; a short last one is made longer."""
    start = piece * PIECE
    return max(0, length - PIECE) if length - start < PIECE // 2 else start


@njit(cache=True, nogil=True)
def _odd(higher: int, used: int) -> bool:
    """Whether so many pixels lie above their neighbours, or so few, that chance does not explain it."""
    return bool(used >= 32 and abs(higher - 0.5 * used) > 0.5 * SIGNIFICANCE * np.sqrt(used))


@njit(cache=True, nogil=True)
def _columns(
    residual: FloatImage, noise: FloatImage, mask: MaskImage, first: int, last: int, bad: npt.NDArray[np.bool_]
) -> None:
    """Test columns, in pieces."""
    ny, nx = residual.shape
    n = nx - 8
    if n < 1:
        return
    higher, used = np.empty(n, np.int32), np.empty(n, np.int32)
    for piece in range(first, last):
        start, stop = _begin(piece, ny), min((piece + 1) * PIECE, ny)
        higher[:], used[:] = 0, 0
        for j in range(start, stop):
            bits, line = mask[j, 4 : 4 + n], residual[j, 4 : 4 + n]
            before, after = residual[j, 1 : 1 + n], residual[j, 7 : 7 + n]
            for i in range(n):
                good = (bits[i] & _SKIP) == 0
                used[i] += 1 if good else 0
                higher[i] += 1 if good and line[i] + line[i] > before[i] + after[i] else 0
        for i in range(n):
            if _odd(higher[i], used[i]) and _is_offset(residual, noise, mask, start, stop, i + 4):
                bad[start:stop, i + 4] = True


@njit(cache=True, nogil=True)
def _rows(
    residual: FloatImage, noise: FloatImage, mask: MaskImage, first: int, last: int, bad: npt.NDArray[np.bool_]
) -> None:
    """Test rows, in pieces, and single pixels far below the sky, which no light can cause."""
    ny, nx = residual.shape
    for j in range(first, last):
        _dead(residual[j], noise[j], mask[j], bad[j])
        if j < 4 or j >= ny - 4:
            continue
        for piece in range(-(-nx // PIECE)):
            start, stop = _begin(piece, nx), min((piece + 1) * PIECE, nx)
            line, bits = residual[j, start:stop], mask[j, start:stop]
            before, after = residual[j - 3, start:stop], residual[j + 3, start:stop]
            higher, used = 0, 0
            for i in range(len(line)):
                good = (bits[i] & _SKIP) == 0
                used += 1 if good else 0
                higher += 1 if good and line[i] + line[i] > before[i] + after[i] else 0
            if _odd(higher, used) and _is_offset(residual.T, noise.T, mask.T, start, stop, j):
                bad[j, start:stop] = True


@njit(cache=True, nogil=True)
def _is_offset(residual: FloatImage, noise: FloatImage, mask: MaskImage, start: int, stop: int, i: int) -> bool:
    differences = np.empty((3, stop - start), np.float32)  # the line itself and those on both sides
    around = np.empty(4, np.float32)
    used, sigma = 0, 0.0
    for j in range(start, stop):
        if (mask[j, i] & _SKIP) != 0:
            continue
        around[0], around[1] = residual[j, i - 4], residual[j, i - 3]
        around[2], around[3] = residual[j, i + 3], residual[j, i + 4]
        level = np.median(around)
        if np.isfinite(level + residual[j, i - 1] + residual[j, i] + residual[j, i + 1]):
            for k in range(3):
                differences[k, used] = residual[j, i + (0, -1, 1)[k]] - level
            sigma += noise[j, i]
            used += 1
    if used < 32:
        return False
    sigma /= used
    offset = abs(np.median(differences[0, :used]))
    if offset <= LEAST_OFFSET * sigma or offset <= SIGNIFICANCE * 1.5 * sigma / np.sqrt(used):
        return False
    one, other = abs(np.median(differences[1, :used])), abs(np.median(differences[2, :used]))
    # the flank of a streak has the brighter crest beside it
    return bool(min(one, other) < MOST_SPILL * offset and max(one, other) < MOST_CREST * offset)


@njit(cache=True, nogil=True)
def _dead(
    line: npt.NDArray[np.float32],
    sigma: npt.NDArray[np.float32],
    bits: npt.NDArray[np.uint16],
    bad: npt.NDArray[np.bool_],
) -> None:
    for i in range(len(line)):
        bad[i] = bad[i] or (line[i] < -np.float32(DEAD_SNR) * sigma[i] and (bits[i] & _SKIP) == 0)


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
    mark(mask, Mask.DEFECT, _find_defects(residual, noise, mask))
    bright = bright_pixels(residual, noise, SEED_SNR)
    sharpness = star_sharpness(residual, noise, mask, bright=bright)
    if options.bleed:
        mark(mask, Mask.BLEED, bleed_trails(stars, residual, sigma, fwhm=sharpness.fwhm))
    mark(mask, Mask.SATURATED, grow_cores(stars, options.saturation_grow, mask))
    if options.cosmic_rays:
        mark(mask, Mask.COSMIC_RAY, find_cosmic_rays(residual, noise, mask, sharpness=sharpness, bright=bright))
    if options.streaks:
        mark(mask, Mask.STREAK, find_streaks(residual, noise, mask, fwhm=sharpness.fwhm))
    mark(mask, Mask.BRIGHT_STAR, halos(stars, residual, sigma, fwhm=sharpness.fwhm, radius=options.bright_star_radius))
    return frame.replace(mask=mask)


def _residual(frame: Frame, mesh: int) -> tuple[FloatImage, FloatImage, float]:
    """Data less the sky (0 where there are none), noise of each pixel, and noise of the sky."""
    sky = fit_surface(frame.data, frame.mask, _UNUSABLE, cell=mesh, stride=4 if mesh >= 64 else 2)
    usable = (frame.mask[::8, ::8] & _UNUSABLE) == 0
    expected = float(np.sqrt(np.median(frame.variance[::8, ::8][usable]))) if usable.any() else sky.sigma
    sigma = sky.sigma if np.isfinite(sky.sigma) else expected
    # the sky may be noisier than its photons: pattern noise, faint stars, a wrong gain
    factor = sigma / expected if sigma > expected > 0 else 1.0
    residual, noise = residual_and_noise(
        frame.data, frame.variance, frame.mask, unusable=_UNUSABLE, sky=sky, factor=factor
    )
    return residual, noise, max(sigma, expected)
