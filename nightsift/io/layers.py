"""Versions of a catalogue as layers: which are served, and in which order they are looked into.

A version that was made by a campaign lies in a folder of its own beside the catalogue that grows night by night, which
is called `main` and lies in the archive itself. One small file names the versions that are served. It is replaced as
a whole, so that a reader finds the old list or the new one and never a part of either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nightsift.errors import BadTable
from nightsift.io.atomic import atomic

MAIN = "main"
"""The catalogue that lies in the archive itself: nights are written there."""

POINTER = "served.json"
RECORD = "version.json"

Layers = tuple[tuple[str, Path], ...]


def layers_of(root: Path) -> tuple[Path, Layers]:
    """Find the archive that a folder belongs to, and the versions to be read.

    Parameters
    ----------
    root : Path
        Folder of an archive, or of one of its versions.

    Returns
    -------
    home : Path
        Folder of the archive.
    layers : tuple of (str, Path)
        Name and folder of each version, uppermost first: those that are served, or the one that was named.

    Raises
    ------
    BadTable
        If the file that names them is damaged.
    """
    if root.parent.name == "versions" and (root / RECORD).is_file():
        return root.parent.parent, ((root.name, root),)
    return root, tuple((name, root if name == MAIN else root / "versions" / name) for name in served(root))


def served(home: Path) -> tuple[str, ...]:
    """Names of the versions that an archive serves, uppermost first.

    Parameters
    ----------
    home : Path
        Folder of the archive.

    Returns
    -------
    tuple of str
        `main` comes last.

    Raises
    ------
    BadTable
        If the file that names them is damaged.
    """
    return tuple(str(name) for name in pointer(home)["served"])


def pointer(home: Path) -> dict[str, Any]:
    """Content of the file that names the served versions.

    Parameters
    ----------
    home : Path
        Folder of the archive.

    Returns
    -------
    dict
        With `served`, names from top to bottom, and `history`, what was served when.

    Raises
    ------
    BadTable
        If it is damaged.
    """
    path = home / "versions" / POINTER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {"served": [MAIN], "history": []}
    except (OSError, ValueError) as error:
        raise BadTable(path=str(path), what=str(error)) from error
    names = content.get("served") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or names[-1] != MAIN or len(set(names)) != len(names):
        raise BadTable(path=str(path), what="it does not name the served versions, of which main is the last")
    return dict(content)


def serve(home: Path, names: Sequence[str], entry: Mapping[str, Any]) -> None:
    """Name the versions that are served from now on, in one step.

    Parameters
    ----------
    home : Path
        Folder of the archive.
    names : sequence of str
        From top to bottom; `main` is the last.
    entry : mapping
        What the history tells of it.
    """
    history = [*pointer(home)["history"], dict(entry)]
    text = json.dumps({"served": list(names), "history": history}, indent=1)
    with atomic(home / "versions" / POINTER) as temporary:
        temporary.write_text(text, encoding="utf-8")
