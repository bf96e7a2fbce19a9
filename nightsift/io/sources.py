"""Exposures where they lie: found under folders, globs and URLs, brought to this machine, checked for completeness."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from nightsift.core.errors import SourceError
from nightsift.io.atomic import raise_if_full

Completeness = Literal["whole", "partial", "open", "unknown"]
BLOCK, CARD = 2880, 80
MOST_BLOCKS = 20_000
"""Header blocks of a file that are read at most: 57 MB."""


@dataclass(frozen=True, slots=True)
class Found:
    """An exposure that was found.

    Attributes
    ----------
    url : str
        Local path or URL.
    name : str
        File name.
    size : int
        Bytes; -1 where the server does not say.
    modified : float
        Time of the last change (s since 1970); NaN where it is not given.
    """

    url: str
    name: str
    size: int = -1
    modified: float = float("nan")


def discover(location: str | Path, pattern: str = "*.fit*") -> list[Found]:
    """Find exposures.

    Parameters
    ----------
    location : str or Path
        A file, a folder (searched with all its subfolders), a glob of files or folders, or a URL of these that
        fsspec reads (s3, http, ...).
    pattern : str, optional
        What file names must match, without regard to case; several are separated by ``|``.

    Returns
    -------
    list of Found
        Sorted by URL, each once.

    Raises
    ------
    SourceError
        If the location does not exist or cannot be listed.
    """
    import fsspec

    text = str(location)
    try:
        system, root = fsspec.core.url_to_fs(text)
        entries = _listed(system, root)
    except (OSError, ValueError, ImportError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(url=text, what=what) from error
    local = "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)
    exact = len(entries) == 1 and entries[0]["name"].rstrip("/") == root.rstrip("/")
    found = {}
    for entry in entries:
        name = PurePosixPath(entry["name"]).name
        if not name or name.startswith(".") or not (exact or _matches(name, pattern)):
            continue
        url = entry["name"] if local else system.unstrip_protocol(entry["name"])
        size = entry.get("size")
        found[url] = Found(url, name, -1 if size is None else int(size), _modified(entry))
    return [found[url] for url in sorted(found)]


def _listed(system: Any, root: str) -> list[dict[str, Any]]:
    """Files at a place, under a folder, or under everything that a glob matches."""
    places = (
        system.glob(root, detail=True).values()
        if any(sign in root for sign in "*?[") and not system.exists(root)
        else [system.info(root)]
    )
    files: list[dict[str, Any]] = []
    for place in places:
        if place["type"] == "directory" or _is_listing(system, place):
            files += [one for one in system.find(place["name"], detail=True).values() if _is_file(system, one)]
        else:
            files.append(place)
    return files


def _is_file(system: Any, entry: dict[str, Any]) -> bool:
    """A file, or a link to one: surveys often lay out their nights as links."""
    return entry["type"] == "file" or (entry["type"] != "directory" and bool(system.isfile(entry["name"])))


def _is_listing(system: Any, place: dict[str, Any]) -> bool:
    """A directory listing on a web server is a page to fsspec: recognised by its address."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return "http" in protocols and not re.search(r"\.(fits?|fts)(\.[gf]z)?$", place["name"].lower())


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatch(name.lower(), one.strip().lower()) for one in pattern.split("|"))


def _modified(entry: dict[str, Any]) -> float:
    for key in ("mtime", "LastModified", "last_modified", "modified", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return float("nan")


@contextmanager
def local_copy(url: str | Path) -> Iterator[Path]:
    """A local file with the content of a URL: itself where it is local, a temporary copy otherwise.

    Parameters
    ----------
    url : str or Path
        Local path or URL.

    Yields
    ------
    Path
        The local file; a copy is removed afterwards.

    Raises
    ------
    SourceError
        If it does not exist or cannot be fetched.
    DiskFull
        If the copy does not fit on the disk.
    """
    text = str(url)
    path = Path(text.removeprefix("file://"))
    if "://" not in text.removeprefix("file://"):
        if not path.is_file():
            raise SourceError(url=text, what="there is no such file")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="nightsift-") as folder:
        target = Path(folder) / (PurePosixPath(text).name or "exposure")
        _fetch(text, target)
        yield target


def _fetch(url: str, target: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    except (OSError, ValueError, ImportError) as error:
        raise_if_full(error, target)
        raise SourceError(url=url, what=" ".join(str(error).split()) or type(error).__name__) from error


def exposure_identity(unit: str, sha256: str) -> str:
    """Return the identity of an exposure, the same for the same unit and content (SHA-256, hexadecimal)."""
    return f"{unit}-{sha256[:16]}"


def checksum(path: str | Path) -> str:
    """Return the SHA-256 of a local file as hexadecimal digits; `SourceError` where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(url=str(path), what=error.strerror or str(error)) from error


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
