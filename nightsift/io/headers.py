"""FITS headers as they are met: broken cards rescued, primary cards inherited, and celestial coordinates built."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.io.fits.card import Undefined
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, InvalidTransformError, SingularMatrixError, WcsError
from astropy.wcs.utils import proj_plane_pixel_scales
from astropy.wcs.wcs import NoConvergence

SCALE_TOLERANCE = 0.2  # relative; beyond it, a WCS belongs to another image
SIP_CARD = re.compile(r"^(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)$")
PV_CARD = re.compile(r"^PV[12]_\d+$")
COMMENTARY = frozenset(("COMMENT", "HISTORY", ""))
# Cards that describe their own HDU, so that another one never inherits them.
STRUCTURE = frozenset(
    (
        *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "GROUPS", "EXTEND", "END"),
        *("EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM"),
    )
)

COORDINATES = (
    "CRVAL",
    "CRPIX",
    "CTYPE",
    "CUNIT",
    "CDELT",
    "CROTA",
    "CD1_",
    "CD2_",
    "PC1_",
    "PC2_",
    "PV1_",
    "PV2_",
    "WCSAXES",
    "NAXIS",
    "ZNAXIS",
    "A_",
    "B_",
    "AP_",
    "BP_",
)


@dataclass(frozen=True, slots=True)
class CelestialWcs:
    """Coordinates of an image, if it has any.

    Attributes
    ----------
    wcs : astropy.wcs.WCS or None
        The coordinates, None where there are none or they are nonsense.
    note : str
        Why there are none, or what was left out of them; empty when all is well.
    """

    wcs: WCS | None
    note: str = ""


def celestial_wcs(
    header: fits.Header,
    shape: tuple[int, int],
    pixel_scale: float = np.nan,
    *,
    binning: int = 1,
    corner: tuple[int, int] = (0, 0),
) -> CelestialWcs:
    """Build the celestial WCS of an image.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the image.
    shape : tuple of int
        ``(ny, nx)`` of the image after trimming and binning.
    pixel_scale : float, optional
        Scale that the raw pixels should have (arcsec); NaN to accept any.
    binning : int, optional
        Raw pixels that were joined along each axis.
    corner : tuple of int, optional
        ``(x, y)`` of the first raw pixel after trimming, counted from 0.

    Returns
    -------
    CelestialWcs
        The WCS for the trimmed and binned pixels, or None with the reason.
    """
    refusal = _unfit(header)
    if refusal:
        return CelestialWcs(None, refusal)
    cards, note = _consistent(header)
    _rebin(cards, binning, corner)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(cards, naxis=2)
            wcs.wcs.set()
            wcs.array_shape = shape
            nominal = float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs)))) * 3600.0
            seen = _scale(wcs, shape)
    except (
        WcsError,
        InvalidTransformError,
        SingularMatrixError,
        NoConvergence,
        ValueError,
        TypeError,
        KeyError,
        MemoryError,
    ) as error:
        return CelestialWcs(None, f"the WCS cannot be used: {' '.join(str(error).split())[:200]}")
    if not (np.isfinite(seen) and nominal > 0 and 0.5 < seen / nominal < 2.0):
        return CelestialWcs(None, "the WCS makes no sense at the centre of the frame")
    if np.isfinite(pixel_scale) and abs(seen / binning / pixel_scale - 1.0) > SCALE_TOLERANCE:
        mismatch = f"the WCS has {seen / binning:.3f} arcsec/pixel where the unit has {pixel_scale:.3f}: left out"
        return CelestialWcs(None, mismatch)
    return CelestialWcs(wcs, note)


def _unfit(header: fits.Header) -> str:
    """Why a header has no coordinates that can be used, empty when it may have."""
    names = [str(header.get(key, "")) for key in ("CTYPE1", "CTYPE2")]
    if not (names[0].startswith("RA--") and names[1].startswith("DEC-")):
        known = any(name[:4] in ("RA--", "DEC-", "GLON", "GLAT", "ELON", "ELAT") for name in names)
        return (
            f"axes {names} are not right ascension and declination"
            if known
            else "the header has no celestial coordinates"
        )
    if str(header.get("RADESYS", header.get("RADECSYS", ""))).strip().startswith("FK4"):
        return "coordinates in the system FK4 are not supported"
    return ""


def _scale(wcs: WCS, shape: tuple[int, int]) -> float:
    """Pixel scale at the centre as it is on the sky (arcsec): the root of the area between three pixels."""
    x, y = shape[1] / 2.0, shape[0] / 2.0
    lon, lat = np.radians(wcs.all_pix2world([x, x + 1.0, x], [y, y, y + 1.0], 0))
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    area = np.linalg.norm(np.cross(points[1] - points[0], points[2] - points[0]))
    return float(np.degrees(np.sqrt(area)) * 3600.0)


def _consistent(header: fits.Header) -> tuple[fits.Header, str]:
    """Copy without what contradicts CTYPE: leftovers of SIP beside TPV and the other way round, PC beside CD."""
    cards = header.copy()
    notes = []
    ctype = str(cards.get("CTYPE1", ""))
    sip = [key for key in cards if SIP_CARD.match(key)]
    pv = [key for key in cards if PV_CARD.match(key)]
    if sip and not ctype.endswith("-SIP"):
        _drop(cards, sip)
        notes.append(f"SIP terms ignored, CTYPE1 is {ctype}")
    if pv and ctype.endswith("-SIP"):
        _drop(cards, pv)
        notes.append(f"PV terms ignored, CTYPE1 is {ctype}")
    if any(key in cards for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")):
        _drop(cards, [key for key in cards if re.match(r"^PC\d_\d$|^PC00\d00\d$|^CROTA\d$", key)])
    tables = [key for key in cards if re.match(r"^(CPDIS|CQDIS|DP|DQ|D2IM|AXISCORR)", key)]
    if tables:
        _drop(cards, tables)
        notes.append("distortion tables are not supported")
    # axes beyond the second (a degenerate cube) would make the WCS three-dimensional
    _drop(
        cards,
        [
            key
            for key in cards
            if re.match(r"^(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[3-9]$|^(CD|PC)([3-9]_\d|\d_[3-9])$|^NAXIS[3-9]$", key)
        ],
    )
    cards["NAXIS"] = 2
    if "WCSAXES" in cards:
        cards["WCSAXES"] = 2
    return cards, "; ".join(notes)


def _drop(cards: fits.Header, keys: list[str]) -> None:
    for key in set(keys):
        cards.remove(key, ignore_missing=True, remove_all=True)


def _rebin(cards: fits.Header, binning: int, corner: tuple[int, int]) -> None:
    """Shift to the first pixel after trimming, then join pixels: x' = (x - (b - 1) / 2) / b, all counted from 0."""
    if binning == 1 and corner == (0, 0):
        return
    for axis in (1, 2):
        reference = float(cards.get(f"CRPIX{axis}", 0.0)) - corner[axis - 1]
        cards[f"CRPIX{axis}"] = (reference - 1.0 - (binning - 1) / 2.0) / binning + 1.0
        matrix = [key for key in (f"CD1_{axis}", f"CD2_{axis}") if key in cards]
        for key in matrix:
            cards[key] = float(cards[key]) * binning
        if not matrix and f"CDELT{axis}" in cards:
            cards[f"CDELT{axis}"] = float(cards[f"CDELT{axis}"]) * binning
    for key in list(cards):
        term = re.match(r"^(?:A|B|AP|BP)_(\d+)_(\d+)$", key)
        if term:
            # u = b u' in raw pixels, and the correction itself is divided by b
            cards[key] = float(cards[key]) * float(binning) ** (int(term[1]) + int(term[2]) - 1)


def inherited(header: fits.Header, primary: fits.Header) -> fits.Header:
    """Image header, then the primary cards that it lacks; structure and coordinates are not inherited.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the image HDU.
    primary : astropy.io.fits.Header
        Header of the primary HDU.

    Returns
    -------
    astropy.io.fits.Header
        The merged header.
    """
    merged = cleaned(header)
    known = set(merged)
    for card in cleaned(primary).cards:
        key = card.keyword
        if key in known or key in STRUCTURE or key.startswith(COORDINATES):
            continue
        merged.append(card)
    return merged


def cleaned(header: fits.Header) -> fits.Header:
    """Copy of a header in which every value can be read: broken cards keep their text, undefined ones are left out.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The header.

    Returns
    -------
    astropy.io.fits.Header
        The copy, without comments and history.
    """
    clean = fits.Header()
    for card in header.cards:
        if card.keyword in COMMENTARY:
            continue
        try:
            value = card.value
        except (fits.VerifyError, ValueError):
            value = _rescued(card.image)
        if isinstance(value, Undefined):
            continue
        try:
            clean.append((card.keyword, value, ""), end=True)
        except ValueError:
            clean.append((card.keyword, str(value).encode("ascii", "replace").decode(), ""), end=True)
    return clean


def _rescued(image: str) -> str:
    """Text of a card that breaks the standard, such as a text without quotes."""
    _, _, rest = image.partition("=")
    return (
        "".join(letter if letter.isprintable() else " " for letter in rest.partition(" /")[0])
        .strip()
        .strip("'")
        .strip()
    )
