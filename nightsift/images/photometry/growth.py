"""Aperture correction of a frame: how much light its stars have beyond the aperture of their fluxes.

From curves of growth (`photutils.profiles.CurveOfGrowth`) of the brightest isolated stars. See docs/algorithms.md,
"Zero point".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.core.flags import Mask
from nightsift.core.frames import ApertureCorrection, Frame, StarTable
from nightsift.core.robust import MEDIAN_ERROR, clipped, mad_sigma, weighted_median
from nightsift.images.stars.stars import clean_stars, typical_fwhm

if TYPE_CHECKING:
    from photutils.profiles import CurveOfGrowth

Values = npt.NDArray[np.float64]

RADII = np.array([1.5, 2.1, 3.0])
"""Radii of the curve (FWHM), from that of the fluxes on; further out the light of a crowd outshines that of wings."""

SKY = (4.2, 6.0)
"""Radii (FWHM) of the ring in which the sky is measured."""

EXPONENTS = np.geomspace(8.0, 1.7, 60)
"""Exponents of Moffat profiles, from steep to shallow wings."""

MOST_STARS, FEWEST_STARS = 40, 5

LOOKED_AT = 4000
"""Brightest stars among which they are: a neighbour worth a tenth of one of them is there too, and more cost time."""

SNR = 50.0
"""Signal-to-noise ratio of a star below which its wings are only noise."""

ISOLATIONS = (6.0, 4.0)
"""Distances (FWHM) within which no star may be a tenth as bright; the second where too few are so much alone."""

NEIGHBOUR = 1.7
"""Radius (FWHM) around other stars whose pixels are left out."""

UNLIKE = 0.003
"""Scatter of the light in a ring (part of the flux) that stars without noise have: their shapes vary over the frame."""

SEEN = 0.4
"""Part of a ring, and `WHOLE` of the first aperture, that must be usable."""

WHOLE = 0.95

LARGEST_ERROR = 0.02
"""Standard error (mag) beyond which nothing is corrected."""

BOUNDS = (-0.05, 0.4)
"""What a correction can be (mag)."""

_HIDDEN = np.uint16(0xFFFF & ~Mask.BRIGHT_STAR.value)


def aperture_correction(frame: Frame, stars: StarTable) -> ApertureCorrection:
    """Measure how much light the stars of a frame have beyond the aperture of their fluxes.

    Each star gives the light in rings out to 3 FWHM over its flux, above the mean of a ring further out, masked pixels
    and those of neighbours replaced by the rest of their ring. The medians over the stars add up to the curve of
    growth; it goes on as that of the Moffat profile whose light declines as much from ring to ring.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : ndarray of STAR_DTYPE, shape (n,)
        Its stars, the brightest first.

    Returns
    -------
    ApertureCorrection
        With the number of stars and why there is no correction, where there is none: too few isolated bright stars,
        or a curve that is no curve of growth.
    """
    fwhm = typical_fwhm(stars)
    chosen = _alone(stars, frame.shape)
    if len(chosen) < FEWEST_STARS:
        return ApertureCorrection(n_stars=len(chosen), reason=f"{len(chosen)} bright isolated stars, 5 needed")
    neighbours = cKDTree(np.column_stack((stars["x"], stars["y"])))
    rings = np.array([_rings(frame, star, stars, near=neighbours, fwhm=fwhm) for star in chosen])
    whole = np.isfinite(rings[:, 0])
    chosen, rings = chosen[whole], rings[whole]
    if len(rings) < FEWEST_STARS:
        return ApertureCorrection(n_stars=len(rings), reason=f"{len(rings)} whole bright stars, 5 needed")
    noise = (chosen["flux_err"] / chosen["flux"]).astype(np.float64)[:, None] * np.sqrt(_areas() / _areas()[0])
    parts, errors = zip(*(_centre(*both) for both in zip(rings.T, noise.T, strict=True)), strict=True)
    light = sum(parts) + _beyond(parts[-2], parts[-1])
    error = float(np.hypot.reduce(errors) / max(light, 1e-9) * 2.5 / np.log(10.0))
    value = 2.5 * float(np.log10(light)) if light > 0 else float("nan")
    n = len(rings)
    if not error <= LARGEST_ERROR:
        return ApertureCorrection(n_stars=n, reason=f"known to {error:.3f} mag only, {LARGEST_ERROR} wanted")
    if not BOUNDS[0] <= value <= BOUNDS[1]:
        return ApertureCorrection(n_stars=n, reason=f"{value:+.3f} mag is no light of stars beyond their aperture")
    return ApertureCorrection(value, error, n)


def _alone(stars: StarTable, shape: tuple[int, int]) -> StarTable:
    """Bright stars far from others, the brightest first."""
    stars = stars[:LOOKED_AT]
    chosen = stars[:0]
    for isolation in ISOLATIONS:
        chosen = stars[clean_stars(stars, shape, isolation=isolation, snr=SNR)]
        if len(chosen) >= MOST_STARS / 2:
            break
    return chosen[np.argsort(-chosen["flux"], kind="stable")[:MOST_STARS]]


def _rings(frame: Frame, star: StarTable, stars: StarTable, *, near: cKDTree, fwhm: float) -> Values:
    """Light of a star in its first aperture and in the rings around it, over its flux; NaN where too little is seen."""
    x, y = float(star["x"]), float(star["y"])
    reach = int(np.ceil(SKY[1] * fwhm)) + 2
    left, bottom = max(0, int(x) - reach), max(0, int(y) - reach)
    part = (slice(bottom, int(y) + reach + 1), slice(left, int(x) + reach + 1))
    hidden = (frame.mask[part] & _HIDDEN) != 0
    rows, columns = np.mgrid[bottom : bottom + hidden.shape[0], left : left + hidden.shape[1]]
    for k in near.query_ball_point((x, y), (SKY[1] + NEIGHBOUR) * fwhm):
        dx, dy = columns - stars["x"][k], rows - stars["y"][k]
        if np.hypot(stars["x"][k] - x, stars["y"][k] - y) > 1.0:
            hidden |= dx * dx + dy * dy < (NEIGHBOUR * fwhm) ** 2
    distance = np.hypot(columns - x, rows - y)
    sky = frame.data[part][~hidden & (distance > SKY[0] * fwhm) & (distance < SKY[1] * fwhm)]
    if len(sky) < SEEN * np.pi * (SKY[1] ** 2 - SKY[0] ** 2) * fwhm**2:
        return np.full(len(RADII), np.nan)
    curve = _curve(frame.data[part] - np.mean(sky), (x - left, y - bottom), RADII * fwhm, hidden=hidden)
    whole = _areas() * fwhm**2
    light, area = np.diff(curve.profile, prepend=0.0), np.diff(curve.area, prepend=0.0)
    least = np.array([WHOLE, *[SEEN] * (len(RADII) - 1)]) * whole
    seen = area >= least
    out = np.full(len(RADII), np.nan)
    out[seen] = light[seen] * whole[seen] / area[seen] / float(star["flux"])
    return out if seen[0] else np.full(len(RADII), np.nan)


def _curve(
    data: npt.NDArray[np.float32], centre: tuple[float, float], radii: Values, *, hidden: npt.NDArray[np.bool_]
) -> CurveOfGrowth:
    from photutils.profiles import CurveOfGrowth  # a second to import

    return CurveOfGrowth(np.where(hidden, np.float32(0.0), data), centre, radii, mask=hidden)


def _beyond(inner: float, outer: float) -> float:
    """Light beyond two rings, and what was taken from them as sky: by the Moffat profile of the same decline."""
    if not (inner > 0 and outer > 0):
        return 0.0
    width = 0.5 / np.sqrt(2.0 ** (1.0 / EXPONENTS) - 1.0)
    radii = np.array([*RADII, *SKY])[:, None]
    outside = (1.0 + (radii / width) ** 2) ** (1.0 - EXPONENTS)
    rings = outside[:-1] - outside[1:]
    in_sky = rings[-1] * RADII[-1] ** 2 / (SKY[1] ** 2 - SKY[0] ** 2)
    share = (outside[2] + in_sky) / (rings[0] + rings[1])
    return float((inner + outer) * np.interp(outer / inner, rings[1] / rings[0], share))


def _areas() -> Values:
    """Areas of the first aperture and of the rings (FWHM^2)."""
    return np.asarray(np.diff(np.pi * RADII**2, prepend=0.0))


def _centre(values: Values, noise: Values) -> tuple[float, float]:
    """Clipped weighted median over the stars and its standard error."""
    good = np.isfinite(values)
    values, noise = values[good], noise[good]
    if len(values) < FEWEST_STARS:
        return float("nan"), float("nan")
    keep = clipped(values, floor=1e-3, fewest=FEWEST_STARS)
    values, weights = values[keep], 1.0 / (noise[keep] ** 2 + UNLIKE**2)
    centre = weighted_median(values, weights)
    spread = mad_sigma((values - centre) * np.sqrt(weights), 0.0)
    return centre, MEDIAN_ERROR * spread / float(np.sqrt(weights.sum()))
