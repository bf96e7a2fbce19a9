"""A template of images from elsewhere: grid and flux scale found, images read, the template made and written."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey
from nightsift.archive.templates import newest_template, read_template, write_template
from nightsift.core import provenance
from nightsift.core.errors import ConfigurationError, FrameError, SourceError
from nightsift.core.frames import Template
from nightsift.images.outside_images import (
    FluxScale,
    OutsideImage,
    Reference,
    import_template,
    noise_correlation,
)
from nightsift.images.resampling.reprojection import north_up_wcs
from nightsift.images.stars.stars import find_stars, typical_fwhm
from nightsift.images.templates import OPTIONS, shifted_wcs
from nightsift.io.outside_files import ImportOptions, read_outside
from nightsift.io.sources import local_copy
from nightsift.unit.units import Unit
from tasks.discover import facts_of, find_exposures
from tasks.retry import run_logger
from tasks.template import prepared

PADDING = 0.05
"""Of an exposure, added on each side of a template with its grid, so that the dithers of others fit."""

TRIES = 5
"""Exposures of a field that are looked at for its grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A template of images from elsewhere.

    Attributes
    ----------
    template : Template
        The template.
    path : Path
        Its file.
    grid : str
        Where its grid is from.
    scale : FluxScale
        How its fluxes were found.
    covered : float
        Fraction of the grid with good pixels.
    fwhm : float
        Seeing (pixel).
    correlation : float
        Noise of means over 4 x 4 pixels, in units of what independent pixels would give.
    """

    template: Template
    path: Path
    grid: str
    scale: FluxScale
    covered: float
    fwhm: float
    correlation: float


def import_images(
    survey: Survey, places: Sequence[str], unit: Unit, *, field: str, band: str, options: ImportOptions, like: str = ""
) -> Imported:
    """Make a template of images from elsewhere and write it into the archive, where it is the newest of its field.

    Parameters
    ----------
    survey : Survey
        The survey.
    places : sequence of str
        FITS images, HEALPix maps, folders of HiPS.
    unit : Unit
        Whose template it becomes.
    field, band : str
        Of which field and band.
    options : ImportOptions
        What is said of the images.
    like : str, optional
        Exposure that gives grid and flux scale; by default the newest template of the field, or else an exposure of it
        in the sources of the survey.

    Returns
    -------
    Imported
        The template and its figures.

    Raises
    ------
    ConfigurationError
        If nothing says where the field lies.
    FrameError
        If the images cannot be read, do not reach the field, or cannot be brought to the flux scale of the unit.
    """
    archive = Archive(survey.archive)
    reference, grid = _reference(survey, archive, unit, field=field, band=band, like=like)
    images: list[OutsideImage] = []
    for index, place in enumerate(places):
        with local_copy(place) as path:
            images += read_outside(path, (reference.wcs, reference.shape), options, index=index)
    if not images:
        what = f"no tile of {', '.join(Path(place).name for place in places)} lies on the field {field}"
        raise _wrong("FILE", what, "name another HiPS, or another field")
    identity = _identity(images, reference, unit)
    template, scale = import_template(images, reference, unit, template_id=identity)
    path = write_template(archive, template)
    good = template.frame.mask == 0
    return Imported(
        template, path, grid, scale, float(good.mean()), typical_fwhm(template.stars), noise_correlation(template.frame)
    )


def _identity(images: Sequence[OutsideImage], reference: Reference, unit: Unit) -> str:
    """Identity of a template: what the images hold, the grid and flux scale, the options of the unit, and the code."""
    inputs = {
        "images": [_digest(one) for one in images],
        "reference": reference.meta.exposure_id,
        "grid": [reference.wcs.to_header_string(relax=True), list(reference.shape)],
    }
    tables = {name: getattr(unit, name) for name in OPTIONS}
    key = provenance.key(inputs, tables, provenance.code_of("imported template"))
    return f"{unit.name}-{key[:16]}"


def _digest(image: OutsideImage) -> str:
    digest = hashlib.sha256(image.wcs.to_header_string(relax=True).encode())
    for plane in (image.data, image.variance, image.mask):
        digest.update(b"-" if plane is None else np.ascontiguousarray(plane).data)
    digest.update(f"{image.name} {image.gain} {image.saturation} {image.zero_point}".encode())
    return digest.hexdigest()


def _reference(
    survey: Survey, archive: Archive, unit: Unit, *, field: str, band: str, like: str
) -> tuple[Reference, str]:
    """Grid and flux scale of a field, and where they are from."""
    if like:
        return _of_exposure(like, unit, field=field, band=band), f"exposure {Path(like).name}"
    path = newest_template(archive, unit.name, field, band=band)
    if path is not None:
        old = read_template(path)
        if old.frame.wcs is not None:
            wcs, shape = old.frame.wcs, old.frame.shape
            return Reference(old.frame.meta, wcs, shape, old.frame, old.stars, old.zero_point), f"template {path.stem}"
    problems = []
    for url in _exposures(survey, unit, field=field, band=band)[:TRIES]:
        try:
            return _of_exposure(url, unit, field=field, band=band), f"exposure {Path(url).name}"
        except (FrameError, SourceError, ConfigurationError) as error:
            problems.append(str(error))
    what = f"nothing says where the field {field!r} of {unit.name} lies" + (f" ({problems[0]})" if problems else "")
    raise _wrong("--field", what, "name one of its exposures by --like, or build its template first")


def _exposures(survey: Survey, unit: Unit, *, field: str, band: str) -> list[str]:
    """Exposures of a field in the sources of a survey, those of the band first."""
    found = []
    for source, _ in survey.sources_of({unit.name: unit}):
        for place in (source.templates, source.frames):
            try:
                found += find_exposures(source, unit, place, fetch=True) if place else []
            except SourceError as error:
                run_logger().warning("%s: %s", source.unit, error)
    of_field = [one for one in found if one.field == field]
    return list(dict.fromkeys(one.url for one in sorted(of_field, key=lambda one: one.band != band)))


def _of_exposure(url: str, unit: Unit, *, field: str, band: str) -> Reference:
    """Grid and flux scale of an exposure; only the grid of one of another band."""
    frame = prepared(url, unit)
    with local_copy(url) as path:
        zero_point = facts_of(path, unit, url).zero_point
    meta = dataclasses.replace(frame.meta, field=field, band=band)
    ny, nx = frame.shape
    if frame.wcs is not None:
        x, y = round(PADDING * nx), round(PADDING * ny)
        wcs = shifted_wcs(frame.wcs, (-x, -y))
        shape = (ny + 2 * y, nx + 2 * x)
    elif math.isfinite(meta.ra + meta.dec):
        side = math.ceil((1.0 + 2.0 * PADDING) * math.hypot(*frame.shape))
        shape = (side, side)
        wcs = north_up_wcs(meta.ra, meta.dec, meta.pixel_scale, shape=shape)
    else:
        raise _wrong("--like", f"{url} has neither coordinates nor a pointing", "name another exposure of the field")
    assert wcs is not None
    if frame.meta.band != band:
        return Reference(meta, wcs, shape)
    return Reference(meta, wcs, shape, frame, find_stars(frame), zero_point)


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="command line", table="template import", key=key, what=what, advice=advice)
