"""Difference images kept for people to look at: science, template and difference with their planes in one file."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from nightsift.frames import Difference, Pair
from nightsift.io.atomic import atomic


def write_difference(folder: str | Path, pair: Pair, difference: Difference) -> Path:
    """Write a difference with the pair that it was made from.

    Parameters
    ----------
    folder : str or Path
        Folder of the file; made if needed.
    pair : Pair
        Science and template on one grid.
    difference : Difference
        Their difference.

    Returns
    -------
    Path
        ``<exposure_id>.fits`` with the extensions SCIENCE, TEMPLATE, DIFFERENCE, VARIANCE, SCORE (S/N) and MASK; opens
        in any FITS viewer.

    Raises
    ------
    DiskFull
        If it does not fit.
    """
    path = Path(folder) / f"{pair.science.meta.exposure_id}.fits"
    planes = {
        "SCIENCE": pair.science.data,
        "TEMPLATE": pair.template.data,
        "DIFFERENCE": difference.data,
        "VARIANCE": difference.variance,
        "SCORE": difference.score,
        "MASK": difference.mask,
    }
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # long values become CONTINUE cards
        coordinates = fits.Header() if pair.science.wcs is None else pair.science.wcs.to_header(relax=True)
        images = [fits.ImageHDU(np.asarray(plane), coordinates, name=name) for name, plane in planes.items()]
        fits.HDUList([_primary(pair, difference), *images]).writeto(temporary, overwrite=True)
    return path


def _primary(pair: Pair, difference: Difference) -> fits.PrimaryHDU:
    meta = pair.science.meta
    primary = fits.PrimaryHDU()
    cards: dict[str, tuple[str | float, str]] = {
        "UNIT": (meta.unit, "telescope unit"),
        "FIELD": (meta.field, "sky field"),
        "BAND": (meta.band, "filter"),
        "NIGHT": (meta.night, "local date of the evening"),
        "EXPID": (meta.exposure_id, "identity of the exposure"),
        "TEMPLATE": (pair.template.meta.exposure_id, "identity of the template's best frame"),
        "MJD": (meta.mjd, "[d] mid-exposure time, UTC"),
        "METHOD": (difference.method, "subtraction method"),
        "CONVOLVE": (difference.convolved, "frame that was convolved"),
        "KERNSUM": (difference.kernel_sum, "flux scale from template to science"),
        "VERDICT": (difference.verdict, "good, suspect or bad"),
    }
    for card, (value, comment) in cards.items():
        if isinstance(value, str):
            value = value.encode("ascii", "backslashreplace").decode()
        elif not math.isfinite(value):
            continue
        primary.header[card] = (value, comment)
    return primary
