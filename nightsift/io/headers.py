"""Headers as they are met: broken cards rescued, and the primary cards given to the image."""

from __future__ import annotations

from astropy.io import fits
from astropy.io.fits.card import Undefined

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
