"""From the place of an exposure to a calibrated Frame."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from astropy.io import fits

from nightsift.core.errors import BadFact, ConfigurationError
from nightsift.core.frames import FloatImage, Frame, Meta
from nightsift.images.calibrate import Masters, make_frame
from nightsift.io.fits import read_image
from nightsift.io.headers import celestial_wcs
from nightsift.io.sources import checksum, exposure_identity, local_copy
from nightsift.unit.facts import Facts, read_facts
from nightsift.unit.units import Unit

FOLDER_VARIABLE = "NIGHTSIFT_CALIBRATION"
MASTERS_ADVICE = f"correct the path, or set ${FOLDER_VARIABLE} to the folder of the masters"


def load_exposure(url: str | Path, unit: Unit, night: str | None = None, *, sha256: str = "") -> Frame:
    """Read an exposure and calibrate it.

    Parameters
    ----------
    url : str or Path
        Where it is: a local path or any URL that fsspec reads.
    unit : Unit
        The telescope unit.
    night : str, optional
        Night it is filed under (``YYYY-MM-DD``); by default the one that its time falls into.
    sha256 : str, optional
        Checksum of the file where it is known already.

    Returns
    -------
    Frame
        ADU with sky; variance, mask, metadata and, where the header has them, coordinates.

    Raises
    ------
    UnreadableFits, MissingFact, BadFact, BlankFrame
        If the frame is no good.
    ConfigurationError
        If a master of the unit is missing or does not fit.
    """
    with local_copy(url) as path:
        digest = sha256 or checksum(path)
        image = read_image(path, unit.image.hdu)
    facts = read_facts(unit, image.header, str(url))
    raw, binning = _trimmed(image.data, unit.image.trim, str(url)), unit.image.binning
    shape = (raw.shape[0] // binning, raw.shape[1] // binning)
    coordinates = celestial_wcs(image.header, shape, facts.pixel_scale, binning=binning, corner=unit.image.corner)
    meta = _meta(unit, facts, night or facts.night, sha256=digest, url=str(url))
    try:
        return make_frame(
            raw,
            meta,
            _load_masters(unit, facts),
            bayer=unit.image.bayer,
            wcs=coordinates.wcs,
            sky=facts.sky,
            pedestal=facts.pedestal,
        )
    except ValueError as error:
        raise _wrong(
            unit, "masters", f"{error} ({url})", advice="name masters of the same detector window, or cut them by trim"
        ) from error


def check_masters(unit: Unit) -> None:
    """Look whether the masters that a unit names are there; `ConfigurationError` where one is not.

    Which one of a name with ``{band}`` is wanted is known with the exposure: here any band will do.
    """
    for name in ("bias", "dark", "flat", "bad_pixels"):
        if "{band}" not in getattr(unit.calibration, name):
            _place(unit, name, "")
        elif not any(Path("/").glob(str(_named(unit, name, "*")[0]).lstrip("/"))):
            raise _wrong(unit, name, f"there is no master {_named(unit, name, '{band}')[0]}", advice=MASTERS_ADVICE)


def _load_masters(unit: Unit, facts: Facts) -> Masters:
    """Read the masters that a unit names for one exposure, whose band picks the flat; each is read once per process."""
    options = unit.calibration
    bias, dark, flat, bad = (_place(unit, name, facts.band) for name in ("bias", "dark", "flat", "bad_pixels"))
    recipe = _Recipe(
        bias,
        dark,
        flat,
        options.dark_exposure,
        options.dark_includes_bias,
        options.flat_includes_bias,
        options.trim,
    )
    cards = unit.facts.exposure.cards
    return Masters(
        bias=_pixels(bias, options.trim) if bias else None,
        dark=_dark_current(recipe, cards) if dark else None,
        flat=_flat(recipe, cards) if flat else None,
        bad_pixels=_pixels(bad, options.trim) != 0 if bad else None,
        flat_min=options.flat_min,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """A master on disk; the time of its last change makes a new one be read."""

    path: Path
    hdu: int | str
    modified: int


@dataclass(frozen=True, slots=True)
class _Recipe:
    bias: _Place | None
    dark: _Place | None
    flat: _Place | None
    dark_exposure: float
    dark_includes_bias: bool
    flat_includes_bias: bool
    trim: str


def _place(unit: Unit, name: str, band: str) -> _Place | None:
    if not getattr(unit.calibration, name):
        return None
    path, hdu = _named(unit, name, band)
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise _wrong(unit, name, f"there is no master {path}", advice=MASTERS_ADVICE) from error
    return _Place(path, int(hdu) if hdu.isdigit() else hdu, modified)


def _named(unit: Unit, name: str, band: str) -> tuple[Path, str]:
    """Path and HDU of a master, for one band."""
    text = str(getattr(unit.calibration, name)).replace("{band}", band).replace("{unit}", unit.name)
    named = re.fullmatch(r"(.*?)(?:\[(\w+)\])?", text)
    file, hdu = (named[1], named[2] or "") if named else (text, "")
    path = Path(os.path.expandvars(file)).expanduser()
    return (path if path.is_absolute() else _folder(unit, name) / path), hdu


def _folder(unit: Unit, name: str) -> Path:
    folder = unit.calibration.folder or os.environ.get(FOLDER_VARIABLE, "")
    if not folder:
        advice = f"give folder under [calibration], or set ${FOLDER_VARIABLE}"
        raise _wrong(unit, name, "a relative path, and no folder to start from", advice=advice)
    path = Path(os.path.expandvars(folder)).expanduser()
    return path if path.is_absolute() else Path(unit.file).resolve().parent / path


@lru_cache(maxsize=6)
def _pixels(place: _Place, trim: str) -> FloatImage:
    return _trimmed(read_image(place.path, place.hdu).data, trim, str(place.path))


@lru_cache(maxsize=3)
def _dark_current(recipe: _Recipe, cards: tuple[str, ...]) -> FloatImage:
    """Dark current in ADU/s."""
    place = recipe.dark
    assert place is not None
    seconds = recipe.dark_exposure or _seconds(place, cards)
    current = _pixels(place, recipe.trim).copy()
    if recipe.dark_includes_bias and recipe.bias is not None:
        current -= _pixels(recipe.bias, recipe.trim)
    current /= np.float32(seconds)
    return current


@lru_cache(maxsize=3)
def _flat(recipe: _Recipe, cards: tuple[str, ...]) -> FloatImage:
    """Flat with a median of one; bias and dark are taken from a raw one."""
    place = recipe.flat
    assert place is not None
    flat = _pixels(place, recipe.trim).copy()
    if recipe.flat_includes_bias:
        if recipe.bias is not None:
            flat -= _pixels(recipe.bias, recipe.trim)
        if recipe.dark is not None:
            flat -= _dark_current(recipe, cards) * np.float32(_seconds(place, cards))
    usable = flat[np.isfinite(flat) & (flat > 0)]
    if usable.size == 0:
        what = "no pixel of the flat is positive"
        raise ConfigurationError(
            file=str(place.path), table="calibration", key="flat", what=what, advice="name another flat"
        )
    flat /= np.float32(np.median(usable))
    return flat


def _seconds(place: _Place, cards: tuple[str, ...]) -> float:
    header: fits.Header = read_image(place.path, place.hdu).header
    for card in cards:
        value = header.get(card)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
    raise ConfigurationError(
        file=str(place.path),
        table="calibration",
        key="dark_exposure",
        what=f"no exposure time in card {' or '.join(cards) or '(the exposure fact has no card)'}",
        advice="give dark_exposure (s; 1 for a rate), or flat_includes_bias = false for a finished flat",
    )


def _trimmed(data: FloatImage, section: str, where: str) -> FloatImage:
    """Cut a section out."""
    if not section:
        return data
    x1, x2, y1, y2 = (int(number) for number in re.findall(r"\d+", section))
    ny, nx = data.shape
    if not (1 <= x1 < x2 <= nx and 1 <= y1 < y2 <= ny):
        raise BadFact(
            path=where,
            fact="trim",
            unit="",
            value=section,
            expected=f"a section within {nx} x {ny} pixels",
            file="the unit file",
        )
    return np.ascontiguousarray(data[y1 - 1 : y2, x1 - 1 : x2])


def _meta(unit: Unit, facts: Facts, night: str, *, sha256: str, url: str) -> Meta:
    return Meta(
        unit=unit.name,
        field=facts.field,
        band=facts.band,
        night=night,
        exposure_id=exposure_identity(unit.name, sha256),
        mjd=facts.mjd,
        exposure_s=facts.exposure_s,
        gain=facts.gain,
        read_noise=facts.read_noise,
        saturation=facts.saturation,
        pixel_scale=facts.pixel_scale,
        ra=facts.ra if math.isfinite(facts.ra) else math.nan,
        dec=facts.dec if math.isfinite(facts.dec) else math.nan,
        path=url,
    )


def _wrong(unit: Unit, key: str, what: str, *, advice: str) -> ConfigurationError:
    return ConfigurationError(file=unit.file, table="calibration", key=key, what=what, advice=advice)
