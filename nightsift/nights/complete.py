"""Whether a FITS file is all there, by its own headers: a frame that is still being written is not."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

Completeness = Literal["whole", "partial", "open", "unknown"]

BLOCK, CARD = 2880, 80
MOST_BLOCKS = 20_000
"""Header blocks of a file that are read at most: 57 MB."""


def completeness(path: str | Path) -> Completeness:
    """Judge the length of a FITS file by its headers; no pixel is read.

    Parameters
    ----------
    path : str or Path
        Local file, not compressed as a whole.

    Returns
    -------
    str
        ``"whole"``: nothing is missing and nothing can follow. ``"open"``: nothing is missing, but further extensions
        may follow. ``"partial"``: a header or data are cut off. ``"unknown"``: the file is not of this form.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        position, first, extends = 0, True, False
        for _ in range(MOST_BLOCKS):
            header = _header(file, first)
            if header is None:
                return "unknown" if first and size >= BLOCK else "partial"
            if not header:
                return "partial"
            extends = extends or header.get("EXTEND") == "T" or not first
            position = file.tell() + _data_length(header)
            if position > size:
                return "partial"
            if position == size:
                return "open" if extends else "whole"
            file.seek(position)
            first = False
    return "unknown"


def _header(file: BinaryIO, first: bool) -> dict[str, str] | None:
    """Cards of the next header; empty where it is cut off, None where there is none."""
    cards: dict[str, str] = {}
    for number in range(MOST_BLOCKS):
        block = file.read(BLOCK)
        if number == 0 and block[:6] != (b"SIMPLE" if first else b"XTENSI"):
            return None
        if len(block) < BLOCK:
            return {}
        for start in range(0, BLOCK, CARD):
            card = block[start : start + CARD].decode("ascii", "replace")
            name = card[:8].rstrip()
            if name == "END":
                return cards or {"END": ""}
            if card[8:10] == "= ":
                cards.setdefault(name, card[10:].partition("/")[0].strip())
    return None


def _data_length(header: dict[str, str]) -> int:
    """Bytes of data that follow, with their padding (FITS standard 4.0, equations 1 and 2)."""

    def number(name: str, default: int) -> int:
        text = header.get(name, "")
        return int(text) if text.lstrip("+-").isdecimal() else default

    axes = [number(f"NAXIS{n}", 0) for n in range(1, min(number("NAXIS", 0), 999) + 1)]
    groups = header.get("GROUPS") == "T" and axes[:1] == [0]
    pixels = 1 if axes else 0
    for length in axes[1:] if groups else axes:
        pixels *= max(length, 0)
    size = abs(number("BITPIX", 8)) // 8 * number("GCOUNT", 1) * (number("PCOUNT", 0) + pixels) if axes else 0
    return -(-max(size, 0) // BLOCK) * BLOCK
