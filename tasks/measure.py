"""Ledger columns measured by each stage; values that are not finite become null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.core.errors import PoorCoverage
from nightsift.core.frames import Difference, Frame, Pair, StarTable
from nightsift.core.robust import mad_sigma
from nightsift.core.rows import LedgerRow
from nightsift.images.photometry.difference_photometry import ZeroPoint, limiting_magnitude, searched_area
from nightsift.images.registration.align import Alignment
from nightsift.images.stars.shapes import star_shapes
from nightsift.images.stars.stars import typical_fwhm
from nightsift.unit.units import Unit


def of_frame(frame: Frame) -> LedgerRow:
    """Return the columns of the facts of a frame.

    Parameters
    ----------
    frame : Frame
        As read.

    Returns
    -------
    dict
        Ledger columns.
    """
    meta = frame.meta
    return _finite(
        {
            "night": meta.night,
            "field": meta.field,
            "band": meta.band,
            "mjd": meta.mjd,
            "exposure_s": meta.exposure_s,
            "ra": meta.ra,
            "dec": meta.dec,
        }
    )


def of_sky(frame: Frame) -> LedgerRow:
    """Return the columns of a background-subtracted frame: sky and its robust rms (ADU)."""
    ny, nx = frame.shape
    step = max(1, int(math.sqrt(ny * nx / 250_000)))
    sample = frame.data[::step, ::step][frame.mask[::step, ::step] == 0]
    rms = mad_sigma(sample) if sample.size else math.nan
    return _finite({"sky": float(frame.sky), "sky_rms": rms})


def of_stars(frame: Frame, stars: StarTable) -> LedgerRow:
    """Return the columns of the stars of a frame.

    Parameters
    ----------
    frame : Frame
        The frame.
    stars : ndarray of STAR_DTYPE
        Its stars.

    Returns
    -------
    dict
        Ledger columns.
    """
    shapes = star_shapes(frame, stars)
    return _finite(
        {
            "n_stars": len(stars),
            "seeing": typical_fwhm(stars) * frame.meta.pixel_scale,
            "core_width": shapes.core_width,
            "ellipticity": shapes.ellipticity,
            "width_gradient": shapes.width_gradient,
        }
    )


def of_pair(pair: Pair, alignment: Alignment) -> LedgerRow:
    """Return the columns of the alignment with the template; the position is that of the frame's centre.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.
    alignment : Alignment
        How they were brought there.

    Returns
    -------
    dict
        Ledger columns.
    """
    columns: dict[str, Any] = {
        "align_method": alignment.method,
        "align_matched": int(alignment.matched),
        "align_residual": float(alignment.residual),
        "coverage": float(pair.coverage),
    }
    if pair.science.wcs is not None:
        ny, nx = pair.science.shape
        ra, dec = pair.science.wcs.all_pix2world((nx - 1) / 2.0, (ny - 1) / 2.0, 0)
        columns |= {"ra": float(ra), "dec": float(dec)}
    return _finite(columns)


def require_coverage(pair: Pair, unit: Unit) -> None:
    """Raise PoorCoverage where the template covers less of the frame than ``[template] min_coverage``."""
    if pair.coverage < unit.template.min_coverage:
        where = pair.science.meta.path
        raise PoorCoverage(coverage=float(pair.coverage), where=where, needed=unit.template.min_coverage)


def of_difference(difference: Difference, pair: Pair) -> LedgerRow:
    """Return the columns of a difference.

    Parameters
    ----------
    difference : Difference
        The difference.
    pair : Pair
        What it was made of.

    Returns
    -------
    dict
        Ledger columns.
    """
    return _finite(
        {
            "method": difference.method,
            "method_choice": difference.choice or None,
            "convolved": difference.convolved,
            "kernel_sum": float(difference.kernel_sum),
            "star_residual": float(difference.metrics.get("star_residual", math.nan)),
            "verdict": difference.verdict,
            "verdict_reasons": "; ".join(difference.reasons),
            "area": searched_area(difference, pair.science),
        }
    )


def of_calibration(zero: ZeroPoint, difference: Difference) -> LedgerRow:
    """Return the columns of the zero point and of the depth (mag) that the noise of the difference allows."""
    depth = limiting_magnitude(difference, zero, 5.0)
    return _finite({"zero_point": zero.value, "aperture_correction": zero.correction, "limiting_mag": depth})


def of_candidates(candidates: pa.Table, threshold: float) -> LedgerRow:
    """Return the columns that count candidates; those of `threshold` and above without a flag are accepted."""
    unflagged = candidates.filter(pc.equal(candidates["flags"], 0))
    accepted = pc.sum(pc.greater_equal(unflagged["score"], threshold)).as_py() or 0
    return {"n_candidates": candidates.num_rows, "n_unflagged": unflagged.num_rows, "n_accepted": int(accepted)}


def _finite(columns: Mapping[str, Any]) -> LedgerRow:
    columns = {
        name: None if isinstance(value, float | np.floating) and not math.isfinite(value) else value
        for name, value in columns.items()
    }
    return cast(LedgerRow, columns)
