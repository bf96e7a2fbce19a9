"""Catalogue of the sources of any image by sep: windowed centres, shapes, half-light radii, Kron fluxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sep
from astropy.wcs import WCS

from nightsift.core import tables
from nightsift.core.errors import BlankFrame, DetectionFailed
from nightsift.core.flags import Mask, SourceFlag
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.tables import Column
from nightsift.images.detection.extract import sky_positions
from nightsift.images.detection.segmentation import Labels, Sources, segment

Float64 = npt.NDArray[np.float64]

# The Kron ellipse, its integration radius and the least radius of a circle instead of it (pixel): those of SExtractor.
KRON_FACTOR, KRON_REACH, KRON_LEAST = 2.5, 6.0, 1.75

# With more of its pixels above the threshold an image has no sky to tell sources from.
MOST_ABOVE = 0.4

# An area of more pixels is one source: to divide it would take minutes.
LARGEST_AREA = 250_000

_KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)
_NO_LIGHT = np.uint16(0xFFFF & ~(Mask.SATURATED.value | Mask.BLEED.value | Mask.BRIGHT_STAR.value))
_SIGMA_OF_FWHM = 2.35482
_POGSON = 2.5 / np.log(10.0)


_I, _F, _D, _BY = pa.int32(), pa.float32(), pa.float64(), "nightsift.images.detection.catalogue"
SOURCE_COLUMNS = (
    Column("number", _I, "", "running number, from 1, brightest first", _BY),
    Column("x", _D, "pixel", "windowed column, 0 at the first pixel, as trimmed and binned by a unit", _BY),
    Column("y", _D, "pixel", "windowed row, 0 at the first pixel, as trimmed and binned by a unit", _BY),
    Column("ra", _D, "deg", "right ascension, ICRS", _BY, True),
    Column("dec", _D, "deg", "declination, ICRS", _BY, True),
    Column("flux", _F, "adu", "Kron flux", _BY),
    Column("flux_err", _F, "adu", "its standard deviation", _BY),
    Column("snr", _F, "", "flux over its error", _BY),
    Column("mag", _F, "mag", "magnitude of the Kron flux", _BY, True),
    Column("mag_err", _F, "mag", "its standard deviation, without the zero point's", _BY, True),
    Column("flux_isophotal", _F, "adu", "sum of the pixels above the threshold", _BY),
    Column("peak", _F, "adu", "highest pixel", _BY),
    Column("area", _I, "pixel", "pixels above the threshold", _BY),
    Column("x_isophotal", _D, "pixel", "first moment of the pixels above the threshold", _BY),
    Column("y_isophotal", _D, "pixel", "first moment of the pixels above the threshold", _BY),
    Column("semimajor", _F, "pixel", "standard deviation along the major axis", _BY),
    Column("semiminor", _F, "pixel", "standard deviation along the minor axis", _BY),
    Column("theta", _F, "deg", "direction of the major axis, from x towards y", _BY),
    Column("fwhm", _F, "pixel", "full width at half maximum of a Gaussian of these axes", _BY),
    Column("half_light_radius", _F, "pixel", "circle with half of the Kron flux", _BY, True),
    Column("kron_radius", _F, "", "semi-axes of the Kron aperture over those of the source; 0 for a circle", _BY),
    Column("flags", _I, "", "bits of nightsift.core.flags.SourceFlag", _BY),
)
SOURCES = tables.schema(SOURCE_COLUMNS, "sources")


def source_catalogue(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage | None = None,
    *,
    threshold: float = 3.0,
    min_pixels: int = 5,
    contrast: float = 0.005,
    wcs: WCS | None = None,
    zero_point: float = np.nan,
    where: str = "the image",
) -> pa.Table:
    """Find the sources of an image and measure each.

    The image is smoothed by a kernel of 3 x 3 pixels to find sources, not to measure them; of a source's neighbours no
    pixel counts.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Image without its background (ADU).
    variance : ndarray of float32, shape (ny, nx)
        Variance of `data` (ADU^2).
    mask : ndarray of uint16, shape (ny, nx), optional
        Bits of `nightsift.core.flags.Mask`. Saturated and bled pixels are light and flagged, halos of bright stars
        used, all others not.
    threshold : float, optional
        Least signal-to-noise ratio of a pixel of a source in the smoothed image.
    min_pixels : int, optional
        Least number of its pixels.
    contrast : float, optional
        Least part of a group's flux that a source of its own has.
    wcs : astropy.wcs.WCS, optional
        Celestial coordinates; without them ra and dec are null.
    zero_point : float, optional
        Magnitude of 1 ADU; where it is NaN magnitudes are null.
    where : str, optional
        What the image is, for errors.

    Returns
    -------
    pyarrow.Table
        One row a source, brightest first, schema `SOURCES`.

    Raises
    ------
    BlankFrame
        If no pixel is usable.
    DetectionFailed
        If most of the image lies above the threshold, or sep cannot do it.
    """
    bits = np.zeros(np.shape(data), np.uint16) if mask is None else mask
    usable = ((bits & _NO_LIGHT) == 0) & np.isfinite(data) & (variance > 0) & np.isfinite(variance)
    if not usable.any():
        raise BlankFrame(where=where, what="no pixel of it is usable")
    data = np.where(usable, data, np.float32(0.0)).astype(np.float32)
    noise = np.sqrt(np.where(usable, variance, np.float32(1.0))).astype(np.float32)
    n_above = int(np.count_nonzero(data > np.float32(threshold) * noise))
    if n_above > MOST_ABOVE * usable.sum():
        what = f"{n_above / usable.sum():.0%} of its pixels lie above {threshold:g} sigma"
        raise DetectionFailed(where=where, what=what)
    masked = (~usable).astype(np.uint8)
    found, labels = segment(
        data, threshold, n_above=n_above, where=where, min_pixels=min_pixels, contrast=contrast,
        largest_area=LARGEST_AREA, noise=noise, mask=masked, kernel=_KERNEL, clean=True,
    )  # fmt: skip
    saturated = labels[(bits & np.uint16(Mask.SATURATED.value | Mask.BLEED.value)) != 0]
    columns = _measure(found, labels, data, noise=noise, mask=masked)
    columns["flags"] |= _flags(found, saturated)
    order = np.argsort(-columns["flux"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    return tables.table(
        {
            "number": np.arange(1, len(order) + 1, dtype=np.int32),
            **columns,
            **_on_sky(columns["x"], columns["y"], wcs),
            **_magnitudes(columns["flux"], columns["flux_err"], zero_point),
            "half_light_radius": tables.nullable(columns["half_light_radius"]),
        },
        SOURCES,
    )


def _measure(found: Sources, labels: Labels, data: FloatImage, **planes: Any) -> dict[str, npt.NDArray[Any]]:
    """Measure all sources, each without the pixels of the others."""
    noise, mask = planes["noise"], planes["mask"]
    own = {"mask": mask, "segmap": labels, "seg_id": np.arange(1, len(found) + 1, dtype=np.int32)}
    x, y = found["x"], found["y"]
    a, b = (np.maximum(found[axis], 1 / np.sqrt(12)) for axis in ("a", "b"))
    theta = np.clip(np.nan_to_num(found["theta"]), -np.pi / 2, np.pi / 2)
    kron, _ = sep.kron_radius(data, x, y, a, b, theta, KRON_REACH, **own)
    circle = ~(kron * np.sqrt(a * b) >= KRON_LEAST)
    factor = np.where(circle, 1.0, KRON_FACTOR * kron)
    wide, narrow = (np.where(circle, KRON_LEAST, axis) for axis in (a, b))
    flux, error, bits = sep.sum_ellipse(data, x, y, wide, narrow, theta, factor, err=noise, subpix=0, **own)
    flux, error = (np.where(np.isfinite(flux + error), one, 0.0) for one in (flux, error))
    half_light, _ = sep.flux_radius(data, x, y, KRON_REACH * a, 0.5, normflux=flux, **own)
    half_light = np.where((flux > 0) & (half_light > 0), half_light, np.nan)
    width = 2.0 / _SIGMA_OF_FWHM * np.where(np.isfinite(half_light), half_light, np.sqrt(a * b) * 1.1774)
    x_window, y_window, failed = sep.winpos(data, x, y, width, mask=mask)
    moved = np.hypot(x_window - x, y_window - y)
    good = np.isfinite(moved) & (failed & ~sep.APER_HASMASKED & ~sep.APER_TRUNC == 0) & (moved <= np.maximum(2 * a, 1))
    flags = (
        SourceFlag.MASKED * (bits & sep.APER_HASMASKED != 0) + SourceFlag.CIRCLE * circle + SourceFlag.NO_WINDOW * ~good
    )
    return {
        "x": np.where(good, x_window, x), "y": np.where(good, y_window, y),
        "x_isophotal": x, "y_isophotal": y,
        "flux": flux, "flux_err": error, "snr": np.divide(flux, error, out=np.zeros_like(flux), where=error > 0),
        "flux_isophotal": found["flux"], "peak": found["peak"], "area": found["npix"].astype(np.int32),
        "semimajor": a, "semiminor": b, "theta": np.rad2deg(theta),
        "fwhm": 2 * np.sqrt(np.log(2.0) * (a**2 + b**2)),
        "half_light_radius": half_light, "kron_radius": np.where(circle, 0.0, factor),
        "flags": flags.astype(np.int32),
    }  # fmt: skip


def _flags(found: Sources, saturated: Labels) -> npt.NDArray[np.int32]:
    numbers = np.arange(1, len(found) + 1)
    flags: npt.NDArray[np.int64] = (
        SourceFlag.EDGE * (found["flag"] & sep.OBJ_TRUNC != 0)
        + SourceFlag.DEBLENDED * (found["flag"] & sep.OBJ_MERGED != 0)
        + SourceFlag.SATURATED * np.isin(numbers, saturated)
        + SourceFlag.UNDIVIDED * (found["npix"] > LARGEST_AREA)
    )
    return flags.astype(np.int32)


def _on_sky(x: Float64, y: Float64, wcs: WCS | None) -> dict[str, pa.Array]:
    ra, dec = sky_positions(wcs, x, y)
    return {"ra": tables.nullable(ra), "dec": tables.nullable(dec)}


def _magnitudes(flux: Float64, error: Float64, zero_point: float) -> dict[str, pa.Array]:
    positive = flux > 0
    safe = np.where(positive, flux, 1.0)
    mag = np.where(positive, zero_point - 2.5 * np.log10(safe), np.nan)
    mag_err = np.where(np.isfinite(mag), _POGSON * error / safe, np.nan)
    return {"mag": tables.nullable(mag.astype(np.float32)), "mag_err": tables.nullable(mag_err.astype(np.float32))}
