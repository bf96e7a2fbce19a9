"""Images from elsewhere as they are found: FITS images with what accompanies them, HEALPix maps, folders of HiPS."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from nightsift.core.errors import UnreadableFits
from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.images.outside_images import OutsideImage
from nightsift.images.resampling.reprojection import circle
from nightsift.io.fits import open_fits, read_image
from nightsift.io.headers import celestial_wcs
from nightsift.io.healpix_tiles import Grid, read_healpix, read_hips
from nightsift.io.sources import checksum

Noise = Literal["variance", "weight", "sigma"]

NOISE: dict[str, Noise] = {
    **dict.fromkeys(("VAR", "VARIANCE"), "variance"),
    **dict.fromkeys(("WEIGHT", "WHT", "WT", "IVAR", "INVVAR", "IVM"), "weight"),
    **dict.fromkeys(("ERR", "ERROR", "SIGMA", "STD", "RMS", "NOISE"), "sigma"),
}
"""What an extension of this name says of the noise; a weight is an inverse variance."""

MASKS = ("MASK", "DQ", "BPM", "FLAGS", "QUALITY", "MASKBITS", "DQMASK")
NO_IMAGE = ("COVERAGE", "EXPOSURE", "EXPTIME", "BACKGROUND", "BKG", "PSF", "EXPMAP")
ENDINGS = (".fits", ".fits.fz", ".fits.gz", ".fit", ".fit.gz", ".fz")
BESIDE: dict[str, Noise] = {
    "wt": "variance",  # the weights of Pan-STARRS are variances
    "weight": "weight", "wht": "weight", "invvar": "weight", "ivar": "weight",
    "var": "variance", "variance": "variance", "rms": "sigma", "err": "sigma",
}  # fmt: skip
"""Words of file names beside an image, and what they say of the noise."""

ZERO_POINTS = ("MAGZERO", "ZP", "MAGZPT", "ZEROPNT", "PHOTZP", "MAGZP")
_ASINH = 2.5 * math.log10(math.e)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a person says of images from elsewhere, instead of what is found in and beside them.

    Attributes
    ----------
    noise : tuple of str
        Files of their noise, one for each image.
    noise_kind : str
        What these hold: "variance", "weight" (inverse variance) or "sigma"; empty to go by their names.
    masks : tuple of str
        Files of their masks, one for each image; a pixel is good at 0.
    ignored_bits : int
        Mask bits that do no harm.
    hdu : str
        Name or number of the image; empty for all of a file.
    gain : float
        Electrons in one unit of the images; NaN to go by the header.
    zero_point : float
        Magnitude of one unit of the images; NaN to go by the header.
    """

    noise: tuple[str, ...] = ()
    noise_kind: str = ""
    masks: tuple[str, ...] = ()
    ignored_bits: int = 0
    hdu: str = ""
    gain: float = math.nan
    zero_point: float = math.nan


def read_outside(path: Path, grid: Grid, options: ImportOptions, *, index: int = 0) -> list[OutsideImage]:
    """Read all images of a file or folder.

    Parameters
    ----------
    path : Path
        A FITS file of images or of a HEALPix map, or the folder of a HiPS.
    grid : tuple of (WCS, tuple of int)
        What part of the sky is wanted: coordinates and shape ``(ny, nx)``.
    options : ImportOptions
        What is said of them.
    index : int, optional
        Place of the file among those given, which is that of its noise and mask in `options`.

    Returns
    -------
    list of OutsideImage
        The images; none of a HiPS without a tile there.

    Raises
    ------
    UnreadableFits
        If there is no image with coordinates.
    """
    if path.is_dir():
        return read_hips(path, grid, options.gain, zero_point=options.zero_point)
    with open_fits(path) as hdus:
        maps = [k for k, one in enumerate(hdus) if "NSIDE" in one.header or one.header.get("PIXTYPE") == "HEALPIX"]
        planes = [(k, one.name.upper()) for k, one in enumerate(hdus) if one.is_image and len(one.shape) >= 2]
        own = {"SCI", "VAR", "MASK", "SOURCES"} <= {one.name for one in hdus}
    if maps:
        return [read_healpix(path, maps[0], grid, gain=options.gain, zero_point=options.zero_point)]
    accompanying = {*NOISE, *MASKS, *NO_IMAGE}
    wanted = [int(options.hdu) if options.hdu.isdigit() else options.hdu] if options.hdu else []
    images = wanted or [k for k, name in planes if name not in accompanying]
    if not images:
        raise UnreadableFits(path=str(path), what="it holds no image, no HEALPix map and no HiPS")
    label = f"{path.name} sha256:{checksum(path)[:12]}"
    found = []
    for number, hdu in enumerate(images):
        noise = _noise(path, [k for k in planes if k[1] in NOISE], number, total=len(images), options=options, at=index)
        mask = _mask(path, [k for k in planes if k[1] in MASKS], number, total=len(images), options=options, at=index)
        name = f"{label}[{hdu}]" if len(images) > 1 else label
        bits = None if mask is None else _bits(mask, options.ignored_bits, own)
        found.append(_image(path, hdu, options, name=name, noise=noise, mask=bits))
    return found


def _image(
    path: Path, hdu: int | str, options: ImportOptions, *, name: str, noise: FloatImage | None, mask: MaskImage | None
) -> OutsideImage:
    one = read_image(path, hdu)
    header = one.header
    shape = (int(one.data.shape[0]), int(one.data.shape[1]))
    for what, plane in (("noise", noise), ("mask", mask)):
        if plane is not None and plane.shape != shape:
            raise UnreadableFits(path=str(path), what=f"its {what} has the shape {plane.shape}, the image {shape}")
    gain = options.gain if math.isfinite(options.gain) else _first(header, ("GAIN", "EGAIN", "CELL.GAIN"))
    saturation = math.nan if mask is not None else _first(header, ("SATURATE", "SATLEVEL", "CELL.SATURATION"))
    return OutsideImage(
        name=name,
        data=_linear(one.data, header),
        wcs=_coordinates(header, shape, path),
        variance=noise,
        mask=mask,
        gain=gain if gain > 0 else math.nan,
        saturation=saturation if saturation > 0 else math.inf,
        zero_point=options.zero_point if math.isfinite(options.zero_point) else _zero_point(header),
    )


def _coordinates(header: fits.Header, shape: tuple[int, int], path: Path) -> WCS:
    """Celestial coordinates of any system; those in right ascension and declination as of any exposure."""
    found = celestial_wcs(header, shape)
    if found.wcs is not None:
        return found.wcs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        try:
            wcs = WCS(header, naxis=2)
            if wcs.has_celestial and bool(np.isfinite(circle(wcs, shape)[:2]).all()):
                wcs.array_shape = shape
                return wcs
        except (ValueError, TypeError, KeyError, MemoryError) as error:
            raise UnreadableFits(path=str(path), what=f"its coordinates cannot be used: {error}") from error
    raise UnreadableFits(path=str(path), what=f"it cannot be placed on the sky: {found.note}")


def _linear(data: FloatImage, header: fits.Header) -> FloatImage:
    """Fluxes; Pan-STARRS stores the inverse hyperbolic sine of them (BOFFSET, BSOFTEN)."""
    offset, softening = _first(header, ("BOFFSET",)), _first(header, ("BSOFTEN",))
    if not math.isfinite(offset + softening):
        return data
    return np.asarray(offset + softening * 2.0 * np.sinh(data / np.float32(_ASINH)), dtype=np.float32)


def _first(header: fits.Header, cards: Sequence[str]) -> float:
    for card in cards:
        value = header.get(card)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return math.nan


def _zero_point(header: fits.Header) -> float:
    """Magnitude of one unit of the pixels, NaN where the header has none."""
    found = _first(header, ZERO_POINTS)
    if math.isfinite(found):
        return found
    if "nanomagg" in str(header.get("BUNIT", "")).lower():
        return 22.5
    # Pan-STARRS: magnitude of one count a second
    return _first(header, ("FPA.ZP",)) + 2.5 * math.log10(max(_first(header, ("EXPTIME",)), 1e-9))


def _noise(
    path: Path, planes: list[tuple[int, str]], number: int, *, total: int, options: ImportOptions, at: int
) -> FloatImage | None:
    """Variance of an image, or what is proportional to it: as given, in an extension, or in a file beside it."""
    if options.noise:
        place = Path(options.noise[at])
        return _variance(place, _only(place, number, total), str(options.noise_kind or _kind_of(place)))
    if planes:
        hdu, name = _paired(path, planes, number, total=total)
        return _variance(path, hdu, NOISE[name])
    for word, kind in BESIDE.items():
        if (beside := _beside(path, word)) is not None:
            return _variance(beside, _only(beside, number, total), kind)
    return None


def _mask(
    path: Path, planes: list[tuple[int, str]], number: int, *, total: int, options: ImportOptions, at: int
) -> FloatImage | None:
    if options.masks:
        place = Path(options.masks[at])
        return read_image(place, _only(place, number, total)).data
    if planes:
        return read_image(path, _paired(path, planes, number, total=total)[0]).data
    for word in ("mask", "maskbits", "flags", "dqmask", "dq"):
        if (beside := _beside(path, word)) is not None:
            return read_image(beside, _only(beside, number, total)).data
    return None


def _paired(path: Path, planes: list[tuple[int, str]], number: int, *, total: int) -> tuple[int, str]:
    """The extension that accompanies an image: the only one of its kind, or that at the same place among as many."""
    planes = [one for one in planes if one[1] == planes[0][1]]
    if len(planes) != total:
        names = ", ".join(name for _, name in planes)
        raise UnreadableFits(path=str(path), what=f"it holds {total} images and {names}: name an image by --hdu")
    return planes[number]


def _only(path: Path, number: int, total: int) -> int | str:
    """HDU of a file that belongs to an image: the only image, or that at the same place among as many."""
    with open_fits(path) as hdus:
        planes = [k for k, one in enumerate(hdus) if one.is_image and len(one.shape) >= 2]
    if len(planes) != total:
        raise UnreadableFits(path=str(path), what=f"it holds {len(planes)} images where the file beside has {total}")
    return planes[number]


def _kind_of(path: Path) -> Noise:
    words = re.split(r"[._-]", path.name.lower())
    kinds = [BESIDE[word] for word in words if word in BESIDE]
    if not kinds:
        raise UnreadableFits(path=str(path), what="its name does not say what noise it holds: give --noise-kind")
    return kinds[-1]


def _variance(path: Path, hdu: int | str, kind: str) -> FloatImage:
    one = read_image(path, hdu)
    plane = _linear(one.data, one.header)
    if kind == "sigma":
        return np.where(plane > 0, plane * plane, np.float32(np.nan))
    if kind == "weight":
        return np.divide(1.0, plane, out=np.full_like(plane, np.nan), where=plane > 0)
    return plane


def _bits(plane: FloatImage, ignored: int, own: bool) -> MaskImage:
    """Mask of ours from that of others: whatever has a bit that does harm is a defect."""
    values = np.where(np.isfinite(plane), plane, 1.0).astype(np.int64) & ~ignored
    if own:
        return values.astype(np.uint16)
    return np.where(values != 0, np.uint16(Mask.DEFECT.value), np.uint16(0)).astype(np.uint16)


def _beside(path: Path, word: str) -> Path | None:
    """A file of the same name but for a word: a-image-r.fits and a-invvar-r.fits, or a.fits and a.wt.fits."""
    ending = next((one for one in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(one)), "")
    stem = path.name[: len(path.name) - len(ending)]
    stems = [f"{stem}{mark}{word}" for mark in "._-"]
    if re.search(r"(^|[._-])image($|[._-])", stem):
        stems.insert(0, re.sub(r"(^|[._-])image($|[._-])", rf"\g<1>{word}\g<2>", stem))
    places = [path.with_name(one + ending) for one in stems for ending in ENDINGS]
    return next((one for one in places if one.is_file()), None)
