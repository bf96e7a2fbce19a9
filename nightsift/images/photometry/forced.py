"""Forced photometry: fluxes of both signs and upper limits at given positions, whatever was detected there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.core import tables
from nightsift.core.flags import Flag
from nightsift.core.frames import Difference, FloatImage
from nightsift.images.photometry.candidate_flags import CHI2, FROM_MASK, MASKED_FRACTION, PSF_ERROR
from nightsift.images.photometry.difference_photometry import ZeroPoint, fluxes_at, noise_factor
from nightsift.images.photometry.psf_photometry import PsfFluxes

# Signal-to-noise ratio below which a magnitude means nothing and only the limit is given.
DETECTED = 3.0
# Positions are moved to a peak only where it is beyond doubt: a weaker one may be a peak of the noise.
CERTAIN = 10.0
LIMITS = (3, 5)

Float64 = npt.NDArray[np.float64]


def forced_photometry(
    difference: Difference,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    zero_point: ZeroPoint | None = None,
    recentre: float = 0.0,
) -> pa.Table:
    """Measure a difference at given positions, by default held fixed.

    A position that is not fitted has no bias towards peaks of the noise: fluxes scatter around the truth, negative ones
    included, which is what light curves and limits need.

    Parameters
    ----------
    difference : Difference
        The difference.
    x, y : ndarray, shape (n,)
        Positions (pixel); those outside the frame or not finite get a row without flux.
    zero_point : ZeroPoint, optional
        Zero point of the science frame, for magnitudes.
    recentre : float, optional
        How far (pixel) a position may move to the peak of the score next to it, where that peak has a signal-to-noise
        ratio above ten; 0 to hold all. For coordinates worse than a fifth of the seeing.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.tables.FORCED`, one row per position in the order given. ``limit_k`` is
        ``max(flux, 0) + k flux_err``: the flux that a source cannot exceed but for a fluctuation of k sigma.
        Magnitudes are those of ``|flux|`` where the signal-to-noise ratio reaches 3.

    Raises
    ------
    ValueError
        If the positions are not two lists of one length.
    """
    at_x, at_y = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (x, y))
    if at_x.ndim != 1 or at_x.shape != at_y.shape:
        raise ValueError(f"x and y must be lists of equal length, got {at_x.shape} and {at_y.shape}")
    known = np.isfinite(at_x) & np.isfinite(at_y)
    if recentre > 0:
        at_x, at_y = _recentred(difference.score, at_x, at_y, known=known, reach=recentre)
    fits = fluxes_at(
        difference, np.where(known, at_x, -1e6), np.where(known, at_y, -1e6), factor=noise_factor(difference)
    )
    flux, error = fits.flux.astype(np.float64), fits.flux_err.astype(np.float64)
    measured = np.isfinite(flux) & (error > 0) & np.isfinite(error)
    snr = np.divide(flux, error, out=np.full(len(flux), np.nan), where=measured)
    columns: dict[str, npt.NDArray[np.floating]] = {
        "flux": flux, "flux_err": error, "snr": snr, "chi2": fits.chi2.astype(np.float64),
    }  # fmt: skip
    for k in LIMITS:
        columns[f"limit_{k}"] = np.maximum(flux, 0.0) + k * error
    if zero_point is not None:
        columns["mag"], columns["mag_err"] = (
            np.where(np.abs(snr) >= DETECTED, a, np.nan) for a in zero_point.magnitudes(flux, error)
        )
        for k in LIMITS:
            columns[f"mag_limit_{k}"] = zero_point.magnitudes(columns[f"limit_{k}"], error)[0]
    rows = {name: _nullable(np.where(measured, values, np.nan)) for name, values in columns.items()}
    flags = _flags(difference, at_x, at_y, fits=fits, snr=snr)
    rows |= {"x": _nullable(at_x), "y": _nullable(at_y), "masked_fraction": fits.masked_fraction, "flags": flags}
    return tables.table(rows, tables.FORCED)


def _recentred(
    score: FloatImage, x: Float64, y: Float64, *, known: npt.NDArray[np.bool_], reach: float
) -> tuple[Float64, Float64]:
    """Positions moved to the certain peak of the score nearest to each, if there is one within reach."""
    ny, nx = score.shape
    x, y = x.copy(), y.copy()
    for n in np.flatnonzero(known):
        c0, c1 = max(1, int(np.floor(x[n] - reach))), min(nx - 1, int(np.ceil(x[n] + reach)) + 1)
        r0, r1 = max(1, int(np.floor(y[n] - reach))), min(ny - 1, int(np.ceil(y[n] + reach)) + 1)
        if c0 >= c1 or r0 >= r1:
            continue
        size = np.abs(score[r0:r1, c0:c1])
        j, i = np.unravel_index(int(np.argmax(size)), size.shape)
        row, column = r0 + int(j), c0 + int(i)
        near = np.abs(score[row - 1 : row + 2, column - 1 : column + 2]).astype(np.float64)
        if near[1, 1] < CERTAIN or near[1, 1] < near.max():
            continue
        dx, dy = _vertex(near[1]), _vertex(near[:, 1])
        if np.hypot(column + dx - x[n], row + dy - y[n]) <= reach:
            x[n], y[n] = column + dx, row + dy
    return x, y


def _vertex(values: Float64) -> float:
    """Maximum of the parabola through three values, from the middle one."""
    bend = float(values[0] - 2.0 * values[1] + values[2])
    return 0.5 * float(values[0] - values[2]) / bend if bend < 0 else 0.0


def _flags(difference: Difference, x: Float64, y: Float64, *, fits: PsfFluxes, snr: Float64) -> npt.NDArray[np.int32]:
    flags = np.zeros(len(x), dtype=np.int32)
    ny, nx = difference.shape
    half = difference.psf.size // 2
    inside = (x >= half) & (y >= half) & (x <= nx - 1 - half) & (y <= ny - 1 - half)
    flags[~inside] |= Flag.EDGE.value
    for bit, flag in FROM_MASK:
        flags[(fits.bits & np.uint16(bit.value)) != 0] |= flag.value
    flags[~(fits.masked_fraction <= MASKED_FRACTION)] |= Flag.MASKED.value
    flags[snr < -DETECTED] |= Flag.NEGATIVE.value
    known = np.isfinite(fits.chi2) & np.isfinite(snr)
    flags[known & (fits.chi2 > CHI2 + (PSF_ERROR * np.nan_to_num(snr)) ** 2)] |= Flag.BAD_FIT.value
    if difference.verdict != "good":
        flags |= Flag.SUSPECT_FRAME.value
    return flags


def _nullable(values: npt.NDArray[np.floating]) -> pa.Array:
    return pa.array(np.asarray(values), mask=~np.isfinite(values))
