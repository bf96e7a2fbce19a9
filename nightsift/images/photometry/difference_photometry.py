"""Photometry of a difference: zero point, factor on the noise, PSF and aperture fluxes, limiting magnitude, area."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import sep
from astropy.wcs.utils import proj_plane_pixel_area
from scipy.spatial import cKDTree

from nightsift.core.errors import TooFewStars
from nightsift.core.frames import Difference, Frame
from nightsift.core.robust import MEDIAN_ERROR, clipped, mad_sigma, weighted_median
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.photometry.psf_photometry import UNUSABLE, PsfFluxes, psf_fluxes
from nightsift.images.stars.stars import typical_fwhm

if TYPE_CHECKING:
    from nightsift.core.frames import ApertureCorrection, StarTable, Template
    from nightsift.images.registration.align import Alignment


MAG_PER_DEX = 2.5
POGSON = MAG_PER_DEX / np.log(10.0)

# Stars that carry a zero point: well measured, so that their noise does not bias the magnitude (Malmquist).
STAR_SNR = 10.0

# Scatter of the brightest stars (mag), from flat fields and shapes: it keeps a few of them from deciding.
SAME_STAR = 0.01

# Light of neighbours in the template (part of the flux) and the distance (FWHM of the wider frame) within which it
# counts: in a crowd the aperture of the wider frame holds more of it. Below so many stars without, all are taken.
FOREIGN, NEIGHBOURHOOD, ENOUGH_ALONE = 0.02, 2.2, 20

MIN_STARS = 3
MATCH_RADIUS = 2.0  # pixel; the alignment is good to a fraction of one
SAMPLES = 4096  # positions at which the noise of a frame is sampled

_AT_ONE_TIME = 4096  # positions whose surroundings are looked at together


@dataclass(frozen=True, slots=True)
class ZeroPoint:
    """Photometric zero point of a science frame.

    Attributes
    ----------
    value : float
        Magnitude of 1 ADU (mag); NaN where the template has none.
    error : float
        Standard error of `value` from the scatter of the stars (mag).
    n_stars : int
        Stars left after clipping.
    scatter : float
        Robust standard deviation of single stars (mag).
    correction : float
        Part of `value` that makes up for unlike shares of light in the apertures of frame and template (mag); NaN
        where it is unknown, and then no part of it.
    """

    value: float
    error: float
    n_stars: int
    scatter: float
    correction: float = float("nan")

    def magnitudes(
        self, flux: npt.NDArray[np.floating], flux_err: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Magnitudes of absolute fluxes.

        Parameters
        ----------
        flux, flux_err : ndarray, shape (n,)
            Fluxes and their errors (ADU).

        Returns
        -------
        mag, mag_err : ndarray of float32, shape (n,)
            Magnitudes and errors, the error of the zero point not included; NaN where flux is 0 or unknown.
        """
        size = np.abs(np.asarray(flux, dtype=np.float64))
        known = (size > 0) & np.isfinite(size)
        safe = np.where(known, size, 1.0)
        mag = np.where(known, self.value - MAG_PER_DEX * np.log10(safe), np.nan)
        mag_err = np.where(known & np.isfinite(mag), POGSON * np.asarray(flux_err, dtype=np.float64) / safe, np.nan)
        return mag.astype(np.float32), mag_err.astype(np.float32)


def zero_point(
    frame_stars: StarTable, template: Template, alignment: Alignment, *, growth: ApertureCorrection | None = None
) -> ZeroPoint:
    """Zero point of a science frame from the stars that it shares with its template.

    Parameters
    ----------
    frame_stars : ndarray of STAR_DTYPE
        Stars of the science frame.
    template : Template
        Its template, with its stars, their aperture correction and zero point.
    alignment : Alignment
        Mapping from science to template pixels.
    growth : ApertureCorrection, optional
        Aperture correction of the science frame. Both sides are corrected to total fluxes, such as PSF fluxes are,
        or, where that of either is unknown, none. That of a template whose file has none is measured here.

    Returns
    -------
    ZeroPoint
        Weighted median of the clipped differences, its error from their scatter and those of the corrections.

    Raises
    ------
    TooFewStars
        If fewer than three unmasked stars with a signal-to-noise ratio above ten match.
    """
    ours, theirs = _usable(frame_stars), _usable(template.stars)
    if len(ours) and len(theirs):
        tree = cKDTree(np.column_stack([theirs["x"], theirs["y"]]))
        positions = np.column_stack(alignment.to_template(ours["x"], ours["y"]))
        positions = np.where(np.isfinite(positions), positions, -1e9)
        distance, index = tree.query(positions, distance_upper_bound=MATCH_RADIUS)
        matched = np.flatnonzero(np.isfinite(distance))
    else:
        matched, index = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if len(matched) < MIN_STARS:
        raise TooFewStars(
            found=len(matched), where="the match of frame and template for the zero point", needed=MIN_STARS
        )
    matched = _apart(matched, index, theirs, reach=NEIGHBOURHOOD * max(typical_fwhm(ours), typical_fwhm(theirs)))
    science, reference = ours[matched], theirs[index[matched]]
    values = MAG_PER_DEX * np.log10(science["flux"].astype(np.float64) / reference["flux"])
    noise = np.hypot(*(POGSON * (one["flux_err"] / one["flux"]).astype(np.float64) for one in (science, reference)))
    keep = clipped(values, floor=3.0 * 1e-4, fewest=MIN_STARS)
    values, weights = values[keep], 1.0 / (noise[keep] ** 2 + SAME_STAR**2)
    centre = weighted_median(values, weights)
    scatter = mad_sigma(values, centre)
    error = MEDIAN_ERROR * mad_sigma((values - centre) * np.sqrt(weights), 0.0) / float(np.sqrt(weights.sum()))
    correction, more = _growth_difference(growth, template)
    value = template.zero_point + centre + (correction if np.isfinite(correction) else 0.0)
    return ZeroPoint(value, float(np.hypot(error, more)), int(keep.sum()), scatter, correction)


def _apart(
    matched: npt.NDArray[np.int64], index: npt.NDArray[np.int64], stars: StarTable, *, reach: float
) -> npt.NDArray[np.int64]:
    """Matches whose star of the template has no neighbour worth `FOREIGN` of its flux; all where too few have none."""
    places = np.column_stack([stars["x"], stars["y"]])
    pairs = cKDTree(places).query_pairs(reach, output_type="ndarray") if np.isfinite(reach) else np.empty((0, 2), int)
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    foreign = np.bincount(first, weights=stars["flux"][second], minlength=len(stars))
    alone = matched[foreign[index[matched]] <= FOREIGN * stars["flux"][index[matched]]]
    return alone if len(alone) >= ENOUGH_ALONE else matched


def _growth_difference(frame: ApertureCorrection | None, template: Template) -> tuple[float, float]:
    """Difference of the aperture corrections of frame and template, and its error (mag); NaN and 0 where unknown."""
    if frame is None or not np.isfinite(frame.value):
        return float("nan"), 0.0
    theirs = template.growth or aperture_correction(template.frame, template.stars)
    if not np.isfinite(theirs.value):
        return float("nan"), 0.0
    return frame.value - theirs.value, float(np.hypot(frame.error, theirs.error))


def _usable(stars: StarTable) -> StarTable:
    good: StarTable = stars[(stars["flag"] == 0) & (stars["snr"] > STAR_SNR) & (stars["flux"] > 0)]
    return good


def _sample_positions(difference: Difference, n: int = SAMPLES) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Unmasked pixels spread evenly over a difference."""
    ny, nx = difference.shape
    step = max(1, int(np.sqrt(ny * nx / n)))
    rows, columns = (a.ravel() for a in np.mgrid[step // 2 : ny : step, step // 2 : nx : step])
    good = difference.mask[rows, columns] == 0
    return columns[good].astype(np.int64), rows[good].astype(np.int64)


def noise_factor(difference: Difference) -> float:
    """How much larger the noise of a point-source flux is than the variance of single pixels tells.

    Convolution correlates the noise of neighbouring pixels. The score of the difference accounts for it; so the ratio
    of the plain signal-to-noise ratio of a PSF fit to the score, sampled over the frame, gives the factor by which
    errors of PSF fits (and of apertures of about that size) must be enlarged.

    Parameters
    ----------
    difference : Difference
        The difference with its score.

    Returns
    -------
    float
        Factor on errors, clipped to 0.5 to 5; 1 where nothing can be sampled.
    """
    columns, rows = _sample_positions(difference)
    if len(columns) == 0:
        return 1.0
    fits = psf_fluxes(difference.data, difference.variance, difference.mask, psf=difference.psf, x=columns, y=rows)
    plain, score = fits.flux / fits.flux_err, difference.score[rows, columns]
    used = np.isfinite(plain) & np.isfinite(score) & (np.abs(plain) < 4.0) & (score != 0) & (fits.masked_fraction == 0)
    norm = float(np.sum(plain[used].astype(np.float64) * score[used]))
    if used.sum() < 16 or norm <= 0:
        return 1.0
    # both hold the same noise: the slope of one on the other, symmetric in both
    ratio = np.sqrt(
        float(np.sum(plain[used].astype(np.float64) ** 2)) / float(np.sum(score[used].astype(np.float64) ** 2))
    )
    return float(np.clip(ratio, 0.5, 5.0))


def fluxes_at(difference: Difference, x: npt.ArrayLike, y: npt.ArrayLike, *, factor: float | None = None) -> PsfFluxes:
    """Return PSF fluxes (ADU) at positions (pixel) of a difference, whether or not anything was detected there.

    Their errors agree with the score of the difference; `factor` scales them for correlated noise (`noise_factor` if
    None).
    """
    factor = noise_factor(difference) if factor is None else factor
    fits = psf_fluxes(difference.data, difference.variance, difference.mask, psf=difference.psf, x=x, y=y)
    return dataclasses.replace(fits, flux_err=(fits.flux_err * np.float32(factor)).astype(np.float32))


def limiting_magnitude(difference: Difference, zero: ZeroPoint, threshold: float = 5.0) -> float:
    """Magnitude of a point source at the detection threshold, median over the unmasked frame.

    Parameters
    ----------
    difference : Difference
        The difference.
    zero : ZeroPoint
        Zero point of the science frame.
    threshold : float, optional
        Signal-to-noise ratio.

    Returns
    -------
    float
        Limiting magnitude (mag); NaN where nothing is unmasked or the zero point is unknown.
    """
    columns, rows = _sample_positions(difference, SAMPLES // 4)
    errors = fluxes_at(difference, columns, rows).flux_err
    errors = errors[np.isfinite(errors)]
    if len(errors) == 0 or not np.isfinite(zero.value):
        return float("nan")
    return float(zero.value - MAG_PER_DEX * np.log10(threshold * float(np.median(errors))))


def searched_area(difference: Difference, science: Frame) -> float:
    """Sky area in which transients could be found.

    Parameters
    ----------
    difference : Difference
        The difference; pixels with any mask bit but BRIGHT_STAR do not count.
    science : Frame
        Its science frame, for the pixel area: by its WCS where it has one, else by the nominal pixel scale.

    Returns
    -------
    float
        Area (deg2).
    """
    if science.wcs is not None:
        pixel = float(proj_plane_pixel_area(science.wcs.celestial))
    else:
        pixel = (science.meta.pixel_scale / 3600.0) ** 2
    mask = difference.mask
    bands = range(0, mask.shape[0], 256)
    good = sum(int(np.count_nonzero((mask[first : first + 256] & UNUSABLE) == 0)) for first in bands)
    return good * pixel


def aperture_fluxes(
    difference: Difference,
    x: npt.NDArray[np.floating],
    y: npt.NDArray[np.floating],
    *,
    radius: float,
    factor: float = 1.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Measure fluxes within circles, by `sep.sum_circle`.

    Masked pixels are replaced by the mean of the others; light outside of the circle or of the frame is not corrected
    for.

    Parameters
    ----------
    difference : Difference
        The difference.
    x, y : ndarray, shape (n,)
        Centres (pixel).
    radius : float
        Radius (pixel).
    factor : float, optional
        Factor on errors for correlated noise.

    Returns
    -------
    flux, error : ndarray of float32, shape (n,)
        Fluxes and standard deviations (ADU); 0 where nothing is usable.
    """
    ny, nx = difference.shape
    masked = np.zeros(difference.shape, dtype=np.uint8)
    near = np.arange(-math.ceil(radius + 1.0), math.ceil(radius + 1.0) + 1)
    for first in range(0, len(x), _AT_ONE_TIME):
        part = slice(first, first + _AT_ONE_TIME)
        rows = np.clip(np.rint(y[part]).astype(np.int64)[:, None, None] + near[:, None], 0, ny - 1)
        columns = np.clip(np.rint(x[part]).astype(np.int64)[:, None, None] + near, 0, nx - 1)
        data, variance = difference.data[rows, columns], difference.variance[rows, columns]
        usable = (difference.mask[rows, columns] & UNUSABLE) == 0
        masked[rows, columns] = ~(usable & (variance > 0) & np.isfinite(data + variance))
    data, variance = (np.ascontiguousarray(a, dtype=np.float32) for a in (difference.data, difference.variance))
    flux, error, _ = sep.sum_circle(data, x, y, radius, var=variance, mask=masked, subpix=0)
    measured = np.isfinite(flux + error)  # by no pixel: 0 / 0
    flux, error = (np.where(measured, values, 0.0).astype(np.float32) for values in (flux, error))
    return flux, error * np.float32(factor)
