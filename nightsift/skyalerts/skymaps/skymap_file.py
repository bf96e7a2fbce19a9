"""Sky maps from FITS files that come from outside: bounded in bytes, rows and columns, whatever they claim."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.core.errors import BadSkyMap
from nightsift.skyalerts.skymaps.skymap import FINEST, Cells, SkyMap, Values, make_skymap, merge_equal

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU

LARGEST = 640 * 2**20
"""Bytes, packed or not: a flat map of nside 1024 with distances in double precision has 384 MiB."""
MOST_CELLS = 12 * 1024**2
"""Cells of a map: those of a flat one of nside 1024."""
MOST_HDUS = 8
PROBABILITY = ("PROBDENSITY", "PROB", "PROBABILITY", "PROBABILIT")
LAYERS = ("DISTMU", "DISTSIGMA", "DISTNORM")
NUMBERS = "BIJKED"


def read_skymap(source: bytes | str | Path, where: str = "") -> SkyMap:
    """Read a sky map, multi-order or flat, packed by gzip or not.

    Parameters
    ----------
    source : bytes, str or Path
        The file, or its content.
    where : str, optional
        What it is called in errors; its path by default.

    Returns
    -------
    SkyMap
        The map; a flat one merged into the large cells that it was drawn from.

    Raises
    ------
    BadSkyMap
        If it cannot be read, is too large, is not in equatorial coordinates, or holds no probability on the sky.
    """
    where = where or ("in the notice" if isinstance(source, bytes) else str(source))
    content = unpack(_bytes(source, where), where)
    from astropy.io import fits
    from astropy.io.fits.verify import VerifyError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about the file is reported by the errors below
        try:
            with fits.open(io.BytesIO(content), memmap=False, disable_image_compression=True) as hdus:
                return _of_table(_table(hdus, len(content), where), where)
        except BadSkyMap:
            raise
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, VerifyError,
                MemoryError, UnicodeError) as error:  # fmt: skip
            what = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadSkyMap(where=where, what=f"no FITS table: {what}") from error


def unpack(content: bytes, where: str) -> bytes:
    """Unpack what is packed by gzip, up to a bound.

    Parameters
    ----------
    content : bytes
        The file.
    where : str
        What it is called in errors.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    BadSkyMap
        If it is damaged or becomes too large.
    """
    if len(content) > LARGEST:
        raise BadSkyMap(where=where, what=f"{len(content)} bytes are more than {LARGEST}")
    if not content.startswith(b"\x1f\x8b"):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(content, LARGEST)
    except zlib.error as error:
        raise BadSkyMap(where=where, what=f"its gzip packing is damaged ({error})") from error
    if not unpacker.eof:
        what = "unpacked it is larger than" if len(text) >= LARGEST else "it breaks off before"
        raise BadSkyMap(where=where, what=f"{what} {LARGEST if len(text) >= LARGEST else 'its end'}")
    return text


def _bytes(source: bytes | str | Path, where: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        path = Path(source)
        if path.stat().st_size > LARGEST:
            raise BadSkyMap(where=where, what=f"{path.stat().st_size} bytes are more than {LARGEST}")
        return path.read_bytes()
    except OSError as error:
        raise BadSkyMap(where=where, what=error.strerror or str(error)) from error


def _table(hdus: Any, size: int, where: str) -> BinTableHDU:
    """The first table with a column of probability, looked at by its header only."""
    for number in range(MOST_HDUS):
        try:
            hdu = hdus[number]
        except IndexError:
            break
        header = hdu.header
        if header.get("XTENSION", "").strip() != "BINTABLE":
            continue
        names = {str(header.get(f"TTYPE{k + 1}", "")).strip().upper() for k in range(int(header.get("TFIELDS", 0)))}
        if not names & set(PROBABILITY):
            continue
        if int(header["NAXIS1"]) * int(header["NAXIS2"]) > size - hdu.fileinfo()["datLoc"]:
            raise BadSkyMap(where=where, what=f"it claims {header['NAXIS2']} rows and is too short for them")
        return hdu
    raise BadSkyMap(where=where, what=f"no table has a column called {' or '.join(PROBABILITY)}")


def _of_table(hdu: BinTableHDU, where: str) -> SkyMap:
    header = hdu.header
    system = str(header.get("COORDSYS", "C")).strip().upper()
    if system not in ("C", "ICRS", "CELESTIAL", "EQUATORIAL", "FK5", "J2000", "Q"):
        raise BadSkyMap(where=where, what=f"its coordinates are {system}, not equatorial")
    columns = {column.name.strip().upper(): column for column in hdu.columns}
    for name in columns:
        form = str(columns[name].format)
        if form.lstrip("0123456789")[:1] not in NUMBERS or len(form.lstrip("0123456789")) != 1:
            raise BadSkyMap(where=where, what=f"column {name} has the format {form}, not numbers")
    name = next(one for one in PROBABILITY if one in columns)
    repeat = int(str(columns[name].format)[:-1] or 1)
    if int(header["NAXIS2"]) * repeat > MOST_CELLS:
        cells = int(header["NAXIS2"]) * repeat
        raise BadSkyMap(where=where, what=f"{cells} cells are more than {MOST_CELLS}: take the multi-order map")
    layers = tuple(_column(hdu, one) for one in LAYERS) if all(one in columns for one in LAYERS) else None
    if layers is not None:
        layers = (np.nan_to_num(layers[0], nan=np.inf, posinf=np.inf, neginf=-np.inf), *layers[1:])
    values = _column(hdu, name)
    if "UNIQ" in columns:
        return _of_uniq(_whole(hdu, "UNIQ"), values, name == "PROBDENSITY", layers=layers, where=where)
    scheme = str(header.get("ORDERING", "")).strip().upper()
    pixels = next((_whole(hdu, one) for one in ("PIXEL", "IPIX") if one in columns), None)
    return _of_flat(
        values, name == "PROBDENSITY", layers, scheme=scheme, nside=header.get("NSIDE"), pixels=pixels, where=where
    )


def _of_uniq(uniq: Cells, values: Values, is_density: bool, *, layers: Any, where: str) -> SkyMap:
    if ((uniq < 4) | (uniq >= 4 ** (FINEST + 2))).any():
        raise BadSkyMap(where=where, what="its UNIQ column holds numbers that are no cells")
    from astropy_healpix import uniq_to_level_ipix

    level, pixel = (np.asarray(one, dtype=np.int64) for one in uniq_to_level_ipix(uniq))
    probability = values * (4.0 * np.pi / (12.0 * 4.0**level)) if is_density else values
    return make_skymap(level, pixel, probability, layers=layers, where=where)


def _of_flat(
    values: Values, is_density: bool, layers: Any, *, scheme: str, nside: Any, pixels: Cells | None, where: str
) -> SkyMap:
    if scheme not in ("NESTED", "RING"):
        raise BadSkyMap(where=where, what=f"its ORDERING is {scheme or 'missing'}, neither NUNIQ, NESTED nor RING")
    count = len(values) if pixels is None else 12 * int(nside or 0) ** 2
    level = round(np.log2(max(count / 12.0, 1.0)) / 2.0)
    if count != 12 * 4**level:
        raise BadSkyMap(where=where, what=f"{count} pixels are no HEALPix sky")
    if pixels is not None and ((pixels < 0) | (pixels >= count)).any():
        raise BadSkyMap(where=where, what="its PIXEL column holds numbers that are no pixels")
    if scheme == "RING":
        pixels = np.arange(count) if pixels is None else pixels
        from astropy_healpix.healpy import ring2nest

        pixels = np.asarray(ring2nest(2**level, pixels), dtype=np.int64)
    per_pixel = 4.0 * np.pi / count
    values = values * per_pixel if is_density else values
    if pixels is not None and len(pixels) != count:
        return make_skymap(np.full(len(pixels), level, dtype=np.int64), pixels, values, layers=layers, where=where)
    planes = [values, *(layers or ())]
    if pixels is not None:  # into the NESTED order
        order = np.argsort(pixels)
        planes = [one[order] for one in planes]
    depth, cell, sample = merge_equal(level, tuple(planes), where)
    probability = planes[0][sample] * 4.0 ** (level - depth)
    sampled = tuple(one[sample] for one in planes[1:]) if layers else None
    return make_skymap(depth, cell, probability, layers=sampled, where=where)


def _column(hdu: BinTableHDU, name: str) -> Values:
    return np.asarray(hdu.data[name], dtype=np.float64).ravel()


def _whole(hdu: BinTableHDU, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(hdu.data[name]).astype(np.int64).ravel()
