"""What people have at hand (arrays, `CCDData`, HDUs, FITS files) as frames with variance, mask and coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from astropy.units import Unit
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from nightsift.core.errors import BadImage
from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, Meta
from nightsift.core.robust import mad_sigma
from nightsift.images.calibrate import Masters, make_frame
from nightsift.io.fits import COMPANIONS, read_image
from nightsift.io.headers import celestial_wcs, cleaned, inherited
from nightsift.sky.sphere import number
from nightsift.unit.fact_sources import SPELLINGS

GAIN = ("EGAIN", "GAIN", "CCDGAIN")
READ_NOISE = ("RDNOISE", "READNOIS", "RON", "ENOISE")
SATURATION = ("SATURATE", "SATURAT", "SATLEVEL", "MAXLIN")
COUNTS = ("adu", "ct", "DN", "")
"""Units in which the cards above are understood, beside electrons."""

_SAMPLES = 1e6  # pixels on which the noise is measured


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """What is known of the detector that took an image; None where it is not.

    Attributes
    ----------
    gain : float or None
        Electrons per unit of the image.
    read_noise : float or None
        Read noise (electron).
    saturation : float or None
        Level at which a pixel saturates, in the unit of the image.
    """

    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None


@dataclass(slots=True, eq=False)
class _Image:
    """What an object holds by itself."""

    data: Any
    unit: Any = None
    mask: Any = None
    variance: Any = None
    wcs: WCS | None = None
    header: Mapping[str, Any] = field(default_factory=dict)


def frame_of(
    image: Any,
    facts: DetectorFacts | None = None,
    which: str = "science",
    *,
    mask: npt.ArrayLike | None = None,
    variance: npt.ArrayLike | None = None,
    otherwise: DetectorFacts | None = None,
) -> tuple[Frame, Any]:
    """Make a frame of an image in any of the forms that `subtraction.subtract` takes.

    Parameters
    ----------
    image : array, masked array, Quantity, CCDData, HDU, HDUList, str or Path
        The image; it is never changed.
    facts : DetectorFacts, optional
        Facts that count more than those of a header.
    which : str, optional
        What the image is called in errors.
    mask : array_like, shape (ny, nx), optional
        True where a pixel is bad, beside those that the image itself calls bad.
    variance : array_like, shape (ny, nx), optional
        Variance of the pixels, in the squared unit of the image, in place of the image's own.
    otherwise : DetectorFacts, optional
        Facts that count where neither `facts` nor the image have any.

    Returns
    -------
    frame : Frame
        Pixels as they are, with their sky; not finite, saturated and bad ones masked.
    unit : astropy.units.Unit
        Unit of the pixels; adu where none is known.

    Raises
    ------
    BadImage
        If the image, its mask or its variance cannot be used, or if gain and variance are both missing.
    """
    held = _held(image, which)
    data = _pixels(held.data, which)
    unit = Unit("adu") if held.unit is None else held.unit
    bad = _plane(held.mask, data.shape, "mask", which=which) != 0
    bad |= _plane(mask, data.shape, "mask", which=which) != 0
    given = held.variance if variance is None else variance
    noise = None if given is None else _plane(given, data.shape, "variance", which=which).astype(np.float32)
    known = _facts(held, facts or DetectorFacts(), otherwise or DetectorFacts(), unit=unit, which=which)
    if noise is None and known.gain is None:
        _refuse_without_gain(data, unit, which)
    meta = _meta(known, held.wcs, which)
    if noise is not None:
        plain = replace(meta, gain=1.0, read_noise=1.0)  # in the place of facts that are not needed
        return _with_variance(make_frame(data, plain, Masters(bad_pixels=bad), wcs=held.wcs), noise, meta), unit
    meta, pedestal = (meta, 0.0) if known.read_noise is not None else _by_the_sky(meta, data, bad)
    return make_frame(data, meta, Masters(bad_pixels=bad), wcs=held.wcs, pedestal=pedestal), unit


def _held(image: Any, which: str) -> _Image:
    from astropy.io import fits
    from astropy.nddata import NDData

    if isinstance(image, str | Path):
        found = read_image(image)
        return _of_header(found.data, found.header, which)
    if isinstance(image, fits.HDUList):
        return _of_list(image, which)
    if isinstance(image, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return _of_header(image.data, cleaned(image.header), which)
    if isinstance(image, NDData):
        wcs = image.wcs if isinstance(image.wcs, WCS) and image.wcs.has_celestial else None
        return _Image(image.data, image.unit, image.mask, _variance_of(image), wcs, image.meta or {})
    mask = np.ma.getmaskarray(image) if isinstance(image, np.ma.MaskedArray) else None
    unit = getattr(image, "unit", None)
    return _Image(image.value if unit is not None and hasattr(image, "value") else np.ma.getdata(image), unit, mask)


def _of_list(hdus: Any, which: str) -> _Image:
    images = [one for one in hdus if getattr(one, "is_image", False) and one.data is not None]
    if len(images) > 1:
        images = [one for one in images if one.name.upper() not in COMPANIONS]
    if len(images) != 1:
        names = ", ".join(f"{k} {one.name or '-'}" for k, one in enumerate(hdus))
        what = f"its HDU list holds {len(images) or 'no'} images ({names})"
        _refuse(which, what, advice="give one HDU, as hdus[1] or hdus['SCI']")
    header = images[0].header
    return _of_header(images[0].data, inherited(header, hdus[0].header), which)


def _of_header(data: Any, header: Any, which: str) -> _Image:
    if data is None:
        _refuse(which, "its HDU has no pixels", advice="give the HDU that holds the image")
    text = str(header.get("BUNIT", "")).strip()
    unit = Unit(SPELLINGS.get(text, text), parse_strict="silent") if text else None
    shape = tuple(length for length in np.shape(data) if length > 1)
    wcs = celestial_wcs(header, (shape[0], shape[1])).wcs if len(shape) == 2 else None
    return _Image(data, unit, wcs=wcs, header=header)


def _variance_of(image: Any) -> Any:
    """Variance of the pixels of an image by its uncertainty of any kind, in the squared unit of the image."""
    if image.uncertainty is None or image.uncertainty.uncertainty_type not in ("std", "var", "ivar"):
        return None
    from astropy.nddata import VarianceUncertainty

    found = image.uncertainty.represent_as(VarianceUncertainty)
    if found.unit is None or image.unit is None:
        return found.array
    return (found.array * found.unit).to_value(image.unit**2)


def _pixels(data: Any, which: str) -> FloatImage:
    values = np.asarray(data)
    if values.dtype.kind not in "iuf":
        kind = "a Pair" if hasattr(data, "science") else f"of the type {values.dtype}"
        advice = "frames that are paired already: subtraction.subtract_pair" if kind == "a Pair" else "give numbers"
        _refuse(which, f"it is {kind}", advice=advice)
    shape = tuple(length for length in values.shape if length > 1)
    if len(shape) != 2:
        _refuse(which, f"it has the shape {values.shape}", advice="give two dimensions, (ny, nx)")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.reshape(shape), dtype=np.float32)


def _plane(values: Any, shape: tuple[int, ...], name: str, *, which: str) -> npt.NDArray[Any]:
    if values is None or values is np.ma.nomask:
        return np.zeros(shape, dtype=np.bool_)
    plane = np.asarray(values)
    if plane.squeeze().shape != shape:
        _refuse(which, f"its {name} has the shape {plane.shape}, its pixels {shape}", advice="give them alike")
    return plane.reshape(shape)


def _facts(held: _Image, facts: DetectorFacts, otherwise: DetectorFacts, *, unit: Any, which: str) -> DetectorFacts:
    """Facts by keyword, then by header, then by those of the other image."""
    in_electrons = unit == Unit("electron")
    if in_electrons and facts.gain not in (None, 1, 1.0):
        what = f"its pixels are electrons, and gain={facts.gain:g} is given"
        _refuse(which, what, advice="leave gain away, or give the image in adu")
    header = held.header if in_electrons or unit.to_string() in COUNTS else {}
    gain, noise, level = (
        _card(header, cards, name, given=given, which=which)
        for cards, name, given in (
            (GAIN, "gain", facts.gain), (READ_NOISE, "read_noise", facts.read_noise),
            (SATURATION, "saturation", facts.saturation),
        )
    )  # fmt: skip
    if in_electrons:
        # such cards are about the camera, which counts in ADU
        level = facts.saturation or (level * (gain or 1.0) if level else None)
        return DetectorFacts(1.0, noise, level)
    return DetectorFacts(
        *(
            _positive(one if one is not None else other, name, which)
            for one, other, name in (
                (gain, otherwise.gain, "gain"), (noise, otherwise.read_noise, "read_noise"),
                (level, otherwise.saturation, "saturation"),
            )
        )
    )  # fmt: skip


def _card(
    header: Mapping[str, Any], cards: tuple[str, ...], name: str, *, given: float | None, which: str
) -> float | None:
    if given is not None:
        return float(given)
    for card in cards:
        if card in header:
            value = number(header[card])
            if value is None or not (value > 0 or (value == 0 and name == "read_noise")):
                _refuse(which, f"its card {card} reads {header[card]!r}", advice=f"give {_keyword(name, which)}=")
            return value
    return None


def _positive(value: float | None, name: str, which: str) -> float | None:
    if value is not None and not (value > 0 or (value == 0 and name == "read_noise")):
        _refuse(which, f"{name} is {value}", advice="give a positive number")
    return value


def _keyword(name: str, which: str) -> str:
    return name if which == "science" else f"{which}_{name}"


def _refuse_without_gain(data: FloatImage, unit: Any, which: str) -> NoReturn:
    level, sigma = _sky_and_noise(data)
    seen = level / sigma**2 if sigma > 0 else math.nan
    guess = f"; about {seen:.3g} if all its sky is light" if 0.05 < seen < 20.0 else ""
    per = unit.to_string() or "unit"
    advice = (
        f"give {_keyword('gain', which)}= (electrons per {per}{guess}; 1 if it holds electrons), or "
        f"{_keyword('variance', which)}= (an image)"
    )
    _refuse(which, "its noise is not known: it comes with neither gain nor uncertainty", advice=advice)


def _refuse(which: str, what: str, *, advice: str) -> NoReturn:
    raise BadImage(which=which, what=what, advice=advice)


def _meta(facts: DetectorFacts, wcs: WCS | None, which: str) -> Meta:
    scale = math.nan if wcs is None else 3600.0 * float(np.mean(proj_plane_pixel_scales(wcs.celestial)))
    return Meta(
        unit="image", field="", band="", night="", exposure_id=which, mjd=math.nan, exposure_s=1.0,
        gain=math.nan if facts.gain is None else facts.gain, read_noise=facts.read_noise or 0.0,
        saturation=math.inf if facts.saturation is None else facts.saturation, pixel_scale=scale,
        path=f"the {which} image",
    )  # fmt: skip


def _sky_and_noise(data: FloatImage) -> tuple[float, float]:
    """Median of an image, and the noise of a pixel.

    By the differences of neighbours, blind to gradients, or by the darker half, blind to stars: the smaller of both.
    """
    step = max(1, int(np.sqrt(data.size / _SAMPLES)))
    rows = data[::step]
    steps = (rows[:, 1:] - rows[:, :-1])[:, ::step]
    steps = steps[np.isfinite(steps)]
    values = rows[:, ::step]
    values = values[np.isfinite(values)]
    if not len(steps):
        return math.nan, math.nan
    low, level = (float(one) for one in np.percentile(values, (15.8655, 50.0)))
    return level, min(mad_sigma(steps, 0.0) / math.sqrt(2.0), level - low)


def _by_the_sky(meta: Meta, data: FloatImage, bad: npt.NDArray[np.bool_]) -> tuple[Meta, float]:
    """Read noise and pedestal with which the noise of the sky is that seen.

    What the photons of the sky leave of its noise is read noise; where they would make more noise than there is, part
    of its level is no light but a pedestal.
    """
    level, sigma = _sky_and_noise(np.where(bad, np.float32(np.nan), data))
    rest = sigma**2 - max(level, 0.0) / meta.gain
    if rest >= 0:
        return replace(meta, read_noise=meta.gain * math.sqrt(rest)), 0.0
    return meta, level - sigma**2 * meta.gain if rest < 0 else 0.0


def _with_variance(frame: Frame, variance: FloatImage, meta: Meta) -> Frame:
    wrong = ~(np.isfinite(variance) & (variance > 0))
    good = ~wrong & (frame.mask == 0)
    if not good.any():
        _refuse(meta.exposure_id, "no good pixel has a positive variance", advice="check its uncertainty")
    plane = np.where(wrong, np.median(variance[good]), variance).astype(np.float32)
    mask = np.where(wrong, frame.mask | np.uint16(Mask.NONFINITE.value), frame.mask)
    return Frame(frame.data, plane, mask, meta, wcs=frame.wcs)
