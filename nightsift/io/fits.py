"""FITS images: any form in, native C-contiguous float32 and a clean header out; difference images written.

Plain, ``.gz`` and tile-compressed (``.fz``) files, one or many extensions, any byte order and integer type,
BSCALE/BZERO/BLANK, degenerate axes. What is wrong with a file becomes `UnreadableFits` with the fact.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from nightsift.core.errors import UnreadableFits
from nightsift.core.frames import Difference, FloatImage, Pair
from nightsift.core.parallel import over_rows
from nightsift.io.atomic import atomic
from nightsift.io.headers import cleaned, inherited

# Extensions that accompany an image: they are never taken for it.
COMPANIONS = frozenset(
    (
        *("MASK", "DQ", "BPM", "FLAGS", "QUALITY"),
        *("VAR", "VARIANCE", "WEIGHT", "WHT", "ERR", "ERROR", "SIGMA", "STD", "RMS", "NOISE"),
        *("COVERAGE", "EXPOSURE", "EXPTIME", "BACKGROUND", "BKG", "PSF"),
    )
)

BLOCK = 1 << 18  # pixels converted at a time: fits the caches, bounds temporaries
# Bounds for files that lie about themselves, well above any camera: a small file must not take the machine's memory.
LARGEST_FILE = 1 << 33  # bytes after decompression
LARGEST_IMAGE = 1 << 29  # pixels
MOST_HDUS = 1000
_one_at_a_time = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
class FitsImage:
    """An image as it is in a file.

    Attributes
    ----------
    data : ndarray of float32, shape (ny, nx)
        Scaled pixel values; NaN where BLANK or not a number.
    header : astropy.io.fits.Header
        Cards of the image HDU, then those of the primary HDU that it lacks.
    hdu : int
        Index of the image HDU.
    """

    data: FloatImage
    header: fits.Header
    hdu: int


def read_image(path: str | Path, hdu: int | str = "") -> FitsImage:
    """Read the image of a FITS file.

    Parameters
    ----------
    path : str or Path
        Local file: plain, gzip or tile-compressed.
    hdu : int or str, optional
        Index or EXTNAME of the image; empty to find the only one.

    Returns
    -------
    FitsImage
        Pixels as native float32, and the header.

    Raises
    ------
    UnreadableFits
        If the file is missing, truncated or no FITS file, or if the image is not there or ambiguous.
    """
    with open_fits(path, scaled=False) as hdus:
        index = _choose(hdus, hdu, path)
        one = hdus[index]
        data = _pixels(one, path)
        header = inherited(one.header, hdus[0].header) if index else cleaned(one.header)
    return FitsImage(data, header, index)


def read_header(path: str | Path, hdu: int | str = "") -> fits.Header:
    """Read the header of the image of a FITS file, without its pixels; parameters and errors as for `read_image`."""
    with open_fits(path) as hdus:
        index = _choose(hdus, hdu, path)
        one = hdus[index].header
        return inherited(one, hdus[0].header) if index else cleaned(one)


@contextmanager
def open_fits(path: str | Path, scaled: bool = True) -> Iterator[fits.HDUList]:
    """Open a FITS file; every way in which it can be unreadable becomes one error.

    Parameters
    ----------
    path : str or Path
        Local file: plain or gzip.
    scaled : bool, optional
        Whether BSCALE and BZERO are applied to the pixels; True by default.

    Yields
    ------
    astropy.io.fits.HDUList
        The HDUs.

    Raises
    ------
    UnreadableFits
        If the file is missing, truncated or no FITS file, also when that shows only while pixels are read.
    """
    path = Path(path)
    try:
        with _quiet():
            content = _decompressed(path)
            # opened here, so that it is closed here, whatever astropy makes of it
            with path.open("rb") if content is None else io.BytesIO(content) as source:
                _check_complete(source, path)
                source.seek(0)
                mapped = content is None and not scaled
                with fits.open(source, memmap=mapped, do_not_scale_image_data=not scaled, uint=scaled) as hdus:
                    yield hdus
    except UnreadableFits:
        raise
    except FileNotFoundError as error:
        raise UnreadableFits(path=str(path), what="there is no such file") from error
    except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error, fits.VerifyError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableFits(path=str(path), what=what[:300]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Astropy's remarks on headers are not for an operator: what matters becomes an error or a fact.

    The filters of warnings belong to the whole process: threads that look at headers side by side would undo each
    other's, so that they take turns.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def _decompressed(path: Path) -> bytes | None:
    """Content of a gzip file, decompressed at once (much faster than through a stream); None for a plain file."""
    content = None
    with path.open("rb") as file:
        start = file.read(80)
        if start.startswith(b"\x1f\x8b"):
            file.seek(0)
            content = _gunzip(file.read(), path)
            start = content[:80]
    if not start:
        raise UnreadableFits(path=str(path), what="it is empty")
    if not start.startswith(b"SIMPLE"):
        raise UnreadableFits(path=str(path), what=f"it starts with {start[:20]!r}, not with SIMPLE")
    return content


def _gunzip(content: bytes, path: Path) -> bytes:
    """Decompress all members of a gzip file."""
    parts: list[bytes] = []
    while content.startswith(b"\x1f\x8b"):
        member = zlib.decompressobj(wbits=31)
        room = LARGEST_FILE - sum(map(len, parts))
        try:
            parts.append(member.decompress(content, room + 1))
        except zlib.error as error:
            raise UnreadableFits(path=str(path), what=f"its gzip stream is damaged ({error})") from error
        if len(parts[-1]) > room:
            raise UnreadableFits(path=str(path), what=f"it holds more than {LARGEST_FILE} bytes when decompressed")
        if not member.eof:
            raise UnreadableFits(path=str(path), what=f"its gzip stream is truncated after {len(content)} bytes")
        content = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_complete(source: BinaryIO, path: Path) -> None:
    """Every HDU must lie within the file, which ends perhaps without padding; astropy itself only warns."""
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    # compressed images are looked at as the tables that they are, since those have their true size
    hdus = fits.open(source, memmap=False, disable_image_compression=True)
    for index, one in enumerate(hdus):
        place = one.fileinfo() if hasattr(one, "fileinfo") else None  # astropy's corrupted HDUs know no place
        if place is None:
            raise UnreadableFits(path=str(path), what=f"the header of HDU {index} is damaged")
        if index >= MOST_HDUS:
            raise UnreadableFits(path=str(path), what=f"it holds more than {MOST_HDUS} HDUs")
        end = place["datLoc"] + one.size
        if end > size:
            what = f"it is truncated: HDU {index} ends at byte {end}, the file at {size} ({end - size} bytes lacking)"
            raise UnreadableFits(path=str(path), what=what)
    hdus.close(closed=False)


def _choose(hdus: fits.HDUList, hdu: int | str, path: str | Path) -> int:
    """Index of the image asked for, or of the only one."""
    if hdu != "":
        try:
            index = int(hdus.index_of(hdu))
            one = hdus[index]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise UnreadableFits(path=str(path), what=f"there is no HDU {hdu!r}; it holds {_listing(hdus)}") from error
        if not _is_image(one):
            what = f"HDU {hdu!r} is no two-dimensional image; it holds {_listing(hdus)}"
            raise UnreadableFits(path=str(path), what=what)
        return index
    images = [index for index, one in enumerate(hdus) if _is_image(one)]
    if len(images) > 1:
        images = [index for index in images if hdus[index].name.upper() not in COMPANIONS]
    if len(images) == 1:
        return images[0]
    what = "holds no two-dimensional image"
    if images:
        what = "holds several images: name one by hdu under [image] of the unit"
    raise UnreadableFits(path=str(path), what=f"it {what}; HDUs: {_listing(hdus)}")


def _is_image(one: Any) -> bool:
    if not one.is_image or one.header.get("NAXIS", 0) < 2:
        return False
    return bool(sum(length > 1 for length in one.shape) == 2)


def _listing(hdus: fits.HDUList) -> str:
    shapes = ["x".join(map(str, reversed(one.shape))) if one.is_image else "table" for one in hdus]
    return ", ".join(f"{i} {one.name or '-'} {shapes[i] or 'empty'}" for i, one in enumerate(hdus))


def _pixels(one: Any, path: str | Path) -> FloatImage:
    """Pixels as native float32: scaled in blocks, so that no second full copy is made."""
    header = one.header
    scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
    blank = header.get("BLANK")
    if (pixels := math.prod(one.shape)) > LARGEST_IMAGE:
        what = f"its image of {'x'.join(map(str, reversed(one.shape)))} has {pixels} pixels, more than {LARGEST_IMAGE}"
        raise UnreadableFits(path=str(path), what=what)
    raw = one.data
    if raw is None:
        raise UnreadableFits(path=str(path), what="the image has no pixels")
    raw = np.asarray(raw)
    shape = [length for length in raw.shape if length > 1]
    raw = raw.reshape(shape)
    integers = raw.dtype.kind in "iu"
    out = np.empty(raw.shape, dtype=np.float32)
    rows = max(1, BLOCK // raw.shape[1])

    def band(first: int, last: int) -> None:
        for start in range(first, last, rows):
            block, target = raw[start : min(start + rows, last)], out[start : min(start + rows, last)]
            _convert(block, target, scale, zero=zero)
            if integers and isinstance(blank, int):
                target[block == blank] = np.nan

    over_rows(band, raw.shape[0], rows)
    return out


def _convert(block: npt.NDArray[Any], target: FloatImage, scale: float, *, zero: float) -> None:
    """``target = block * scale + zero``, exact for 8 and 16 bits; wider types are scaled in float64."""
    if scale == 1.0 and zero == 0.0:
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = block
    elif block.dtype.itemsize <= 2 and scale == 1.0:
        target[...] = block
        target += np.float32(zero)
    else:
        wide = block.astype(np.float64)
        wide *= scale
        wide += zero
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = wide


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
