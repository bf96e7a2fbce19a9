"""Extraction: every peak of both signs of a difference becomes a row, measured and flagged, none dropped.

A saturated star or a streak, a connected area of the mask, gives no more than its highest peak. The opposite lobe
beside a candidate is what a misregistered star leaves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS
from numba import njit

from nightsift.core import tables
from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, FloatImage, MaskImage, Pair
from nightsift.images.detection.peaks import find_peaks, floor_of, significant
from nightsift.images.photometry.candidate_flags import candidate_flags
from nightsift.images.photometry.difference_photometry import ZeroPoint, aperture_fluxes, noise_factor
from nightsift.images.photometry.psf_photometry import PsfFluxes, psf_fluxes
from nightsift.images.stars.shapes import centroids, widths

if TYPE_CHECKING:
    from nightsift.unit.units import Unit


# How far the other lobe may lie, in FWHM of the PSF: lobes of a small shift stand about one FWHM apart.
REACH = 1.5

# One saturated star or one streak is one thing, not thousands: each connected area keeps its highest peak of each sign.
_ONE_EACH = np.uint16(Mask.SATURATED.value | Mask.BLEED.value | Mask.STREAK.value)


def areas_of(
    mask: MaskImage, bits: int, columns: npt.NDArray[np.int64], *, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Number the connected area of mask bits that each pixel lies in, 0 outside of all; only these areas are walked.

    Pixels (`columns`, `rows`, int64 of shape (n,)) of the same area have the same number; corners connect.
    """
    labels = np.zeros(len(columns), dtype=np.int64)
    touched = np.flatnonzero(mask[rows, columns] & np.uint16(bits))
    labels[touched] = _walk(mask, np.uint16(bits), columns[touched], rows[touched])
    return labels


@njit(cache=True, nogil=True)
def _walk(
    mask: MaskImage, bits: np.uint16, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    ny, nx = mask.shape
    seen = np.zeros(ny * nx, np.int32)  # memory is taken only where areas lie
    labels = np.empty(len(columns), np.int64)
    stack = np.empty(1024, np.int64)
    areas = 0
    for n in range(len(columns)):
        start = rows[n] * nx + columns[n]
        if seen[start] == 0:
            areas += 1
            seen[start], stack[0], depth = areas, start, 1
            while depth > 0:
                depth -= 1
                y, x = stack[depth] // nx, stack[depth] % nx
                if depth + 9 > len(stack):
                    longer = np.empty(2 * len(stack), np.int64)
                    longer[: len(stack)] = stack
                    stack = longer
                for j in range(max(0, y - 1), min(ny, y + 2)):
                    for i in range(max(0, x - 1), min(nx, x + 2)):
                        at = j * nx + i
                        if seen[at] == 0 and (mask[j, i] & bits) != 0:
                            seen[at], stack[depth] = areas, at
                            depth += 1
        labels[n] = seen[start]
    return labels


def _opposite_lobes(
    score: FloatImage, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], *, fwhm: float
) -> npt.NDArray[np.float32]:
    """Highest signal-to-noise ratio of the opposite sign near each peak."""
    opposite = np.zeros(len(columns), dtype=np.float32)
    _opposite(score, columns, rows, max(REACH * fwhm, 2.0), opposite)
    return opposite


@njit(cache=True, nogil=True)
def _opposite(
    score: FloatImage,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    radius: float,
    opposite: npt.NDArray[np.float32],
) -> None:
    ny, nx = score.shape
    reach = math.floor(radius)
    for n in range(len(columns)):
        column, row = columns[n], rows[n]
        sign = np.float32(1.0) if score[row, column] >= 0 else np.float32(-1.0)
        highest = np.float32(0.0)
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                if (i - column) ** 2 + (j - row) ** 2 <= radius * radius:
                    value = -sign * score[j, i]
                    if value > highest:
                        highest = value
        opposite[n] = highest


def extract(difference: Difference, pair: Pair, unit: Unit, *, zero_point: ZeroPoint, template_id: str) -> pa.Table:
    """Find, measure and flag the candidates of a difference.

    Parameters
    ----------
    difference : Difference
        The difference with its signal-to-noise map.
    pair : Pair
        Science and template it was made of; the WCS and the facts are those of the science frame.
    unit : Unit
        Threshold and least number of pixels, aperture and stamp size.
    zero_point : ZeroPoint
        Zero point of the science frame; magnitudes are null where it is NaN.
    template_id : str
        Identity of the template.

    Returns
    -------
    pyarrow.Table
        One row a peak of either sign, highest first, schema `nightsift.core.tables.CANDIDATES`; the columns of the
        classifier are null. Also peaks on masked pixels that hold data are there, with their flags; of a connected
        saturated area or streak only the highest peak of each sign.
    """
    factor = noise_factor(difference)
    threshold, least = unit.detection.threshold, unit.detection.min_pixels
    high = significant(difference, factor, floor_of(threshold))
    peaks = find_peaks(high, threshold, least, where=f"the difference of {pair.science.meta.exposure_id}")
    peaks = peaks[_highest_of_each_area(difference, peaks.column, peaks.row, sign=peaks.sign)]
    x, y = centroids(high.score, peaks.column, peaks.row)
    fits = psf_fluxes(difference.data, difference.variance, difference.mask, psf=difference.psf, x=x, y=y)
    lobes = _opposite_lobes(high.score, peaks.column, peaks.row, fwhm=difference.psf.fwhm)
    flags = candidate_flags(
        x,
        y,
        peaks.value,
        sign=peaks.sign,
        fits=fits,
        lobes=lobes,
        shape=difference.shape,
        stamp_size=unit.stamps.size,
        verdict=difference.verdict,
    )
    measured = {"sign": peaks.sign, "snr": peaks.value, "n_pixels": peaks.n_pixels, "dipole": lobes / peaks.value}
    return _table(
        difference, pair, unit, zero_point=zero_point, template_id=template_id, factor=factor, x=x, y=y, fits=fits,
        flags=flags, measured=measured,
    )  # fmt: skip


def _table(
    difference: Difference,
    pair: Pair,
    unit: Unit,
    *,
    zero_point: ZeroPoint,
    template_id: str,
    factor: float,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    fits: PsfFluxes,
    flags: npt.NDArray[np.int32],
    measured: dict[str, Any],
) -> pa.Table:
    n, meta = len(x), pair.science.meta
    flux_err = (fits.flux_err * np.float32(factor)).astype(np.float32)
    # where no pixel could be fitted the peak itself is all that is known
    flux = np.where(np.isfinite(fits.flux), fits.flux, 0.0).astype(np.float32)
    flux_err = np.where(np.isfinite(flux_err), flux_err, np.inf).astype(np.float32)
    aperture, aperture_err = aperture_fluxes(
        difference, x, y, radius=unit.detection.aperture * difference.psf.fwhm, factor=factor
    )
    mag, mag_err = zero_point.magnitudes(flux, flux_err)
    fwhm, elongation = widths(difference.data, x, y, sign=measured["sign"], fwhm=difference.psf.fwhm)
    ra, dec = sky_positions(pair.science.wcs, x, y)
    x_file, y_file = unit.image.in_file(x, y)
    constant = {
        "exposure_id": meta.exposure_id, "unit": meta.unit, "night": meta.night, "field": meta.field,
        "band": meta.band, "template_id": template_id,
    }  # fmt: skip
    return tables.table(
        {
            "candidate_id": [f"{meta.exposure_id}-{k:05d}" for k in range(n)],
            **{name: [value] * n for name, value in constant.items()},
            "mjd": np.full(n, meta.mjd),
            "x": x, "y": y, "x_file": x_file, "y_file": y_file, "ra": tables.nullable(ra), "dec": tables.nullable(dec),
            **measured,
            "elongation": elongation, "fwhm": tables.nullable(fwhm),
            "flux": flux, "flux_err": flux_err,
            "flux_aperture": aperture, "flux_aperture_err": aperture_err,
            "chi2": tables.nullable(fits.chi2), "mag": tables.nullable(mag), "mag_err": tables.nullable(mag_err),
            "masked_fraction": fits.masked_fraction, "flags": flags,
            "stamp_index": np.arange(n, dtype=np.int32),
        },
        tables.CANDIDATES,
    )  # fmt: skip


def _highest_of_each_area(
    difference: Difference, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], *, sign: npt.NDArray[np.int8]
) -> npt.NDArray[np.bool_]:
    """Of peaks, highest first: the first of each sign in a saturated or streaked area, and all outside of them."""
    labels = areas_of(difference.mask, int(_ONE_EACH), columns, rows=rows)
    keep: npt.NDArray[np.bool_] = labels == 0
    keep[np.unique(labels * sign, return_index=True)[1]] = True
    return keep


def sky_positions(
    wcs: WCS | None, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return right ascension and declination (deg) of pixel positions, shape (n,); NaN without coordinates."""
    if wcs is None or len(x) == 0:
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    ra, dec = wcs.all_pix2world(x, y, 0)
    return np.mod(ra, 360.0), np.asarray(dec)
