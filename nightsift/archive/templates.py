"""Templates on disk: one multi-extension FITS file each (SCI, VAR, MASK, COVERAGE, STARS, SOURCES, CATALOG)."""

from __future__ import annotations

import dataclasses
import warnings
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, NoConvergence

from nightsift import __version__
from nightsift.archive.paths import Archive
from nightsift.core.errors import NoTemplate, UnreadableFits
from nightsift.core.frames import ApertureCorrection, Frame, Meta, SourceTable, Template
from nightsift.core.parallel import over_rows
from nightsift.images.stars.stars import STAR_DTYPE
from nightsift.images.template_catalogue import SOURCE_DTYPE, UNITS
from nightsift.io.atomic import atomic
from nightsift.io.fits import open_fits, read_header
from nightsift.io.headers import celestial_wcs
from nightsift.sky.sphere import separation

# One card for each field of Meta; a NaN has no card.
_CARDS = {
    "unit": "UNIT",
    "field": "FIELD",
    "band": "BAND",
    "night": "NIGHT",
    "exposure_id": "EXPID",
    "mjd": "MJD",
    "exposure_s": "EXPOSURE",
    "gain": "GAIN",
    "read_noise": "RDNOISE",
    "saturation": "SATLEVEL",
    "pixel_scale": "PIXSCALE",
    "ra": "POINTRA",
    "dec": "POINTDEC",
    "path": "SRCPATH",
}
_TEXTS = frozenset({"unit", "field", "band", "night", "exposure_id", "path"})
# Bytes of templates kept by a process: exposures of a night come field by field. Large ones would take the memory that
# subtraction needs, and the operating system keeps their files in its cache anyway.
_HELD = 300_000_000


def write_template(archive: Archive, template: Template) -> Path:
    """Write a template to its place in the archive, whole or not at all.

    Parameters
    ----------
    archive : Archive
        The archive.
    template : Template
        The template; unit, field and band of its frame say where it goes.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    meta = template.frame.meta
    path = archive.template(meta.unit, meta.field, meta.band, template_id=template.template_id)
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # long values become CONTINUE cards
        _hdus(template).writeto(temporary, overwrite=True)
    return path


def read_template(path: str | Path) -> Template:
    """Read a template.

    Parameters
    ----------
    path : str or Path
        File written by `write_template`.

    Returns
    -------
    Template
        The template.

    Raises
    ------
    UnreadableFits
        If the file is damaged or is no template.
    """
    with open_fits(path, scaled=False) as hdus:
        lacking = [name for name in ("SCI", "VAR", "MASK", "COVERAGE", "STARS", "SOURCES") if name not in hdus]
        if lacking:
            raise UnreadableFits(path=str(path), what=f"no template: it lacks the extensions {', '.join(lacking)}")
        header = hdus["SCI"].header
        data = _native(hdus["SCI"], np.float32)
        frame = Frame(
            data=data,
            variance=_native(hdus["VAR"], np.float32),
            mask=_native(hdus["MASK"], np.uint16),
            meta=_meta(header),
            wcs=celestial_wcs(header, data.shape).wcs,
            sky=float(header.get("SKY", np.nan)),
        )
        rows = hdus["SOURCES"].data
        used = np.asarray(rows["used"], dtype=bool)
        ids = [str(one) for one in rows["exposure_id"]]
        reasons = [str(one) for one in rows["reason"]]
        return Template(
            frame=frame,
            stars=_rows(hdus["STARS"].data, STAR_DTYPE),
            catalogue=_rows(hdus["CATALOG"].data, SOURCE_DTYPE) if "CATALOG" in hdus else None,
            coverage=_native(hdus["COVERAGE"], np.int16),
            template_id=str(header["TEMPLATE"]),
            zero_point=float(header.get("MAGZERO", np.nan)),
            sources=tuple(one for one, yes in zip(ids, used, strict=True) if yes),
            growth=_growth(header),
            refused=tuple((one, why) for one, why, yes in zip(ids, reasons, used, strict=True) if not yes),
            imported=str(header.get("IMPORTED", "")),
        )


def newest_template(archive: Archive, unit: str, field: str, *, band: str) -> Path | None:
    """Return the file of the newest template of a field, None where there is none."""
    return _newest(archive.templates(unit, field, band))


def find_template(archive: Archive, meta: Meta) -> Template:
    """Find the template of an exposure.

    The newest of its unit, field and band; else the newest of unit and band that contains its pointing. Small templates
    used last stay in memory, one copy per process.

    Parameters
    ----------
    archive : Archive
        The archive.
    meta : Meta
        The exposure.

    Returns
    -------
    Template
        The template; shared, not to be changed.

    Raises
    ------
    NoTemplate
        If there is none.
    UnreadableFits
        If the one there is damaged.
    """
    folder = archive.templates(meta.unit, meta.field, meta.band)
    path = _newest(folder)
    if path is None and np.isfinite(meta.ra) and np.isfinite(meta.dec):
        # Fields are folders between unit and band: <unit>/<field>/<band>.
        others = [_newest(one / folder.name) for one in folder.parent.parent.glob("*") if one != folder.parent]
        holding = [one for one in others if one is not None and _contains(one, meta.ra, meta.dec)]
        path = max(holding, key=_age_key, default=None)
    if path is None:
        raise NoTemplate(unit=meta.unit, field=meta.field, band=meta.band)
    return _CACHE.get(path)


class _Cache:
    """The templates used last, by file and the time it was written, as long as they are small."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._held: OrderedDict[tuple[str, int], Template] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path) -> Template:
        key = (str(path), path.stat().st_mtime_ns)
        # The lock is held while reading, so that threads do not read the same gigabyte twice.
        with self._lock:
            template = self._held.pop(key, None) or read_template(path)
            if _size(template) <= self._memory:
                self._held[key] = template
            while sum(_size(one) for one in self._held.values()) > self._memory:
                self._held.popitem(last=False)
            return template


def _size(template: Template) -> int:
    frame = template.frame
    return int(frame.data.nbytes + frame.variance.nbytes + frame.mask.nbytes + template.coverage.nbytes)


_CACHE = _Cache(_HELD)


def _newest(folder: Path) -> Path | None:
    files = [one for one in folder.glob("*.fits") if not one.name.startswith(".")]
    return max(files, key=_age_key, default=None)


def _age_key(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def _contains(path: Path, ra: float, dec: float) -> bool:
    """Whether a pointing lies on a template; without WCS, within a quarter of its width from its own pointing."""
    header = read_header(path, "SCI")
    shape = (int(header["NAXIS2"]), int(header["NAXIS1"]))
    wcs = celestial_wcs(header, shape).wcs
    if wcs is not None:
        return _on_frame(wcs, shape, ra, dec=dec)
    ra0, dec0, scale = (float(header.get(card, np.nan)) for card in ("POINTRA", "POINTDEC", "PIXSCALE"))
    return separation(ra, dec, ra0, dec0) < 0.25 * min(shape) * scale / 3600.0


def _on_frame(wcs: WCS, shape: tuple[int, int], ra: float, *, dec: float) -> bool:
    size = np.array([shape[1], shape[0]], dtype=np.float64)
    sky = np.array([[ra, dec]])
    rough = wcs.wcs_world2pix(sky, 0)[0]
    # Far away the distortion has no inverse, so it is left out at first.
    if not bool(np.all((rough > -size) & (rough < 2 * size))):  # False for NaN
        return False
    try:
        xy = wcs.all_world2pix(sky, 0)[0]
    except NoConvergence:
        return False
    return bool(np.all((xy >= -0.5) & (xy <= size - 0.5)))


def _hdus(template: Template) -> fits.HDUList:
    frame = template.frame
    header = fits.Header() if frame.wcs is None else frame.wcs.to_header(relax=True)
    for card in ("MJDREF", "DATE-OBS", "MJD-OBS", "DATE-AVG", "MJD-AVG"):  # of one exposure, not of the template
        header.remove(card, ignore_missing=True)
    for name, value in dataclasses.asdict(frame.meta).items():
        if isinstance(value, str) or np.isfinite(value):
            header[_CARDS[name]] = value
    header["TEMPLATE"] = (template.template_id, "identity: sources, options, code")
    header["NFRAMES"] = (len(template.sources), "frames averaged, see SOURCES")
    if template.imported:
        header["IMPORTED"] = template.imported
    header["BUNIT"] = "adu"
    growth = template.growth or ApertureCorrection()
    if template.growth is not None:
        header["APCORN"] = (growth.n_stars, "stars that APCOR was measured on")
        header["APCORWHY"] = (growth.reason, "why there is no APCOR")
    header["CREATOR"] = f"nightsift {__version__}"
    for card, value, comment in (
        ("MAGZERO", template.zero_point, "[mag] magnitude of 1 adu"),
        ("APCOR", growth.value, "[mag] total flux over that of STARS, positive"),
        ("APCORERR", growth.error, "[mag] its standard error"),
        ("SKY", frame.sky, "[adu] sky level of the best frame, subtracted"),
    ):
        if np.isfinite(value):
            header[card] = (value, comment)
    used, refused = template.sources, template.refused
    sources = np.array(
        [(one, True, "") for one in used] + [(one, False, why) for one, why in refused],
        dtype=[
            ("exposure_id", f"S{max([1, *(len(one.encode()) for one in (*used, *(r[0] for r in refused)))])}"),
            ("used", "?"),
            ("reason", f"S{max([1, *(len(why.encode()) for _, why in refused)])}"),
        ],
    )
    catalogue = [] if template.catalogue is None else [_catalogue_hdu(template.catalogue)]
    return fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(frame.data, header, name="SCI"),
            fits.ImageHDU(frame.variance, name="VAR"),
            fits.ImageHDU(frame.mask.astype(np.int16), name="MASK"),  # 8 bits used: no offset for unsigned needed
            fits.ImageHDU(template.coverage.astype(np.int16), name="COVERAGE"),
            fits.BinTableHDU(template.stars, name="STARS"),
            fits.BinTableHDU(sources, name="SOURCES"),
            *catalogue,
        ]
    )


def _catalogue_hdu(catalogue: SourceTable) -> fits.BinTableHDU:
    hdu = fits.BinTableHDU(catalogue, name="CATALOG")
    for number, name in enumerate(SOURCE_DTYPE.names or (), 1):
        if name in UNITS:
            hdu.header[f"TUNIT{number}"] = UNITS[name]
    return hdu


def _growth(header: fits.Header) -> ApertureCorrection | None:
    if "APCORN" not in header:
        return None
    value, error = (float(header.get(card, np.nan)) for card in ("APCOR", "APCORERR"))
    return ApertureCorrection(value, error, int(header["APCORN"]), str(header.get("APCORWHY", "")))


def _native(hdu: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A plane of a file in memory, in native byte order; read in pieces, for what is mapped counts as memory."""
    place, (ny, nx) = hdu.fileinfo(), hdu.shape
    path = place["file"].name
    pixels = None if path else np.asarray(hdu.data)  # it was decompressed into memory
    stored = np.dtype(fits.BITPIX2DTYPE[hdu.header["BITPIX"]]).newbyteorder(">")
    out = np.empty((ny, nx), dtype=dtype)

    def band(first: int, last: int) -> None:
        for start in range(first, last, 64):
            part = slice(start, min(start + 64, last))
            if pixels is not None:
                out[part] = pixels[part]
                continue
            begin = place["datLoc"] + start * nx * stored.itemsize
            out[part] = np.fromfile(path, stored, out[part].size, offset=begin).reshape(-1, nx)

    over_rows(band, ny, 64)
    return out


def _rows(rows: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    out = np.zeros(len(rows), dtype=dtype)
    for name in dtype.names or ():
        out[name] = rows[name]
    return out


def _meta(header: fits.Header) -> Meta:
    values = {
        name: str(header.get(card, "")) if name in _TEXTS else float(header.get(card, np.nan))
        for name, card in _CARDS.items()
    }
    return Meta(**values)  # type: ignore[arg-type]
