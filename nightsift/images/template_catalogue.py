"""Sources of a deep frame with their extended light: Kron ellipses, half-light radii, positions on the sky.

photutils finds the pixels above the sky (`detect_sources`) and measures (`SourceCatalog`). In between, the stars found
on the frame divide the pixels. sep's deblending finds 0.25 to 0.57 of the stars of a crowd that they find 0.59 to 0.89
of, and photutils' own needs scikit-image.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.ndimage import gaussian_filter

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, SourceTable, StarTable
from nightsift.images.stars.stars import NO_LIGHT, typical_fwhm

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from photutils.segmentation import SourceCatalog

SOURCE_DTYPE = np.dtype(
    [
        ("x", "f8"), ("y", "f8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f4"), ("flux_err", "f4"), ("area", "i4"),
        ("a", "f4"), ("b", "f4"), ("theta", "f4"), ("kron", "f4"), ("radius", "f4"), ("flag", "i4"),
    ]
)  # fmt: skip
"""A source: position of the star of the same row (pixel; deg, NaN without a WCS), flux within its Kron ellipse and
error (ADU), pixels above the sky, standard deviations of their light along the axes and direction of the major one
(pixel, a >= b; rad, from x towards y), semi-axes of the Kron ellipse over a and b, half-light radius (pixel; the seeing
is in it) and `Mask` bits under the source. NaN where nothing could be measured."""

UNITS = {
    "x": "pixel", "y": "pixel", "ra": "deg", "dec": "deg", "flux": "adu", "flux_err": "adu", "area": "pixel",
    "a": "pixel", "b": "pixel", "theta": "rad", "radius": "pixel",
}  # fmt: skip

THRESHOLD = 2.5
"""Signal-to-noise ratio, under a Gaussian as wide as the seeing, of the pixels of a source."""

LEAST_AREA = 5

KRON = (2.5, 1.4)
"""Kron ellipse in Kron radii, and least Kron radius in a and b."""


def template_catalogue(frame: Frame, stars: StarTable) -> SourceTable:
    """Measure the extended light of the stars and galaxies of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted, such as that of a template.
    stars : ndarray of STAR_DTYPE, shape (n,)
        Its stars and galaxies (`nightsift.images.stars.stars.find_stars`).

    Returns
    -------
    ndarray of SOURCE_DTYPE, shape (n,)
        One source a star, in the same order.
    """
    out = np.zeros(len(stars), SOURCE_DTYPE)
    for name in ("flux", "flux_err", "a", "b", "theta", "kron", "radius"):
        out[name] = np.nan
    out["x"], out["y"] = stars["x"], stars["y"]
    out = with_sky_positions(out, frame.wcs)
    fwhm = typical_fwhm(stars)
    if not np.isfinite(fwhm):
        return out
    hidden = (frame.mask & NO_LIGHT) != 0
    labels = _divide(frame, stars, fwhm, hidden=hidden)
    if not labels.any():
        return out
    measured = _measure(frame, labels, hidden)
    row = np.asarray(measured.labels) - 1
    out["area"][row] = np.bincount(labels.ravel(), minlength=len(stars) + 1)[1:][row]
    out["flux"][row], out["flux_err"][row] = measured.kron_flux, measured.kron_flux_err
    out["a"][row], out["b"][row] = measured.semimajor_axis.value, measured.semiminor_axis.value
    out["theta"][row] = measured.orientation.to_value("rad")
    out["kron"][row], out["radius"][row] = KRON[0] * measured.kron_radius.value, measured.flux_radius(0.5).value
    inside, bits = labels.ravel() > 0, frame.mask.ravel()
    for bit in Mask:
        touched = np.bincount(labels.ravel()[inside & ((bits & np.uint16(bit.value)) != 0)], minlength=len(stars) + 1)
        out["flag"][touched[1:] > 0] |= bit.value
    return out


def with_sky_positions(sources: SourceTable, wcs: WCS | None) -> SourceTable:
    """Return sources with their positions on the sky by a WCS, NaN without one."""
    out = sources.copy()
    out["ra"], out["dec"] = (np.nan, np.nan) if wcs is None else wcs.all_pix2world(out["x"], out["y"], 0)
    return out


def _measure(frame: Frame, labels: npt.NDArray[np.int32], hidden: npt.NDArray[np.bool_]) -> SourceCatalog:
    from photutils.segmentation import SegmentationImage, SourceCatalog

    error = np.sqrt(np.where(hidden, np.float32(1.0), frame.variance))
    data = np.where(hidden, np.float32(0.0), frame.data)
    return SourceCatalog(data, SegmentationImage(labels), error=error, mask=hidden, kron_params=KRON)


def _divide(frame: Frame, stars: StarTable, fwhm: float, *, hidden: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Label the pixels above the sky by the row, counted from 1, of the star whose hill they lie on; 0 elsewhere."""
    from photutils.segmentation import detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning

    sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
    light = gaussian_filter(np.where(hidden, np.float32(0.0), frame.data), sigma)
    noise = gaussian_filter(np.where(hidden, np.float32(0.0), frame.variance), sigma / np.sqrt(2.0))
    light /= np.sqrt(np.maximum(noise, 1e-30) / (4.0 * np.pi * sigma**2))
    labels = np.zeros(frame.shape, dtype=np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        above = None if hidden.all() else detect_sources(light, THRESHOLD, LEAST_AREA, mask=hidden)
    if above is None:
        return labels
    columns = np.clip(np.rint(stars["x"]).astype(np.int64), 0, frame.shape[1] - 1)
    rows = np.clip(np.rint(stars["y"]).astype(np.int64), 0, frame.shape[0] - 1)
    # Of two on one pixel the brighter stays: it is written last.
    labels[rows[::-1], columns[::-1]] = np.arange(len(stars), 0, -1)
    labels[above.data == 0] = 0
    pixels = np.flatnonzero(above.data)
    _flood(pixels[np.argsort(-light.ravel()[pixels], kind="stable")], light, labels, len(stars))
    return labels


@njit(cache=True, nogil=True)
def _flood(order: npt.NDArray[np.int64], light: FloatImage, labels: npt.NDArray[np.int32], count: int) -> None:
    """Give pixels, the brightest first, to the hill of their brightest neighbour; one without a star joins the next."""
    ny, nx = light.shape
    hill = np.arange(count + len(order) + 1)
    new = count
    for pixel in order:
        row, column = pixel // nx, pixel % nx
        own, highest = labels[row, column], -np.inf
        for j in range(max(0, row - 1), min(ny, row + 2)):
            for i in range(max(0, column - 1), min(nx, column + 2)):
                if labels[row, column] == 0 and labels[j, i] > 0 and light[j, i] > highest:
                    own, highest = labels[j, i], light[j, i]
        if own == 0:
            new += 1
            own = new
        while hill[own] != own:
            own = hill[own]
        for j in range(max(0, row - 1), min(ny, row + 2)):
            for i in range(max(0, column - 1), min(nx, column + 2)):
                other = labels[j, i]
                while hill[other] != other:
                    other = hill[other]
                if other == 0 or other == own:
                    continue
                if other > count:
                    hill[other] = own
                elif own > count:
                    hill[own] = other
                    own = other
        labels[row, column] = own
    for pixel in order:
        row, column = pixel // nx, pixel % nx
        own = labels[row, column]
        while hill[own] != own:
            own = hill[own]
        labels[row, column] = own if own <= count else 0
