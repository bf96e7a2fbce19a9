"""Whether a night is going on: what is less urgent makes room for it."""

from __future__ import annotations

import json
import time
from typing import Literal

from nightsift.io.paths import Archive

DuringNight = Literal["pause", "narrow", "go-on"]

FRESH_SECONDS = 600.0
"""A night that was not heard of for so long is not going on: its process was killed, or the machine is off."""

ENDED = {"closed", "stopped", "done", "ended", "idle", "failed"}


def nights_going_on(archive: Archive) -> list[str]:
    """Nights that are being observed and reduced, as their watch tells under ``ARCHIVE/status``.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of str
        Night labels, sorted; a status that cannot be read or has not changed for a while tells of none.
    """
    nights = set()
    for path in (archive.home / "status").rglob("[!.]*.json"):
        try:
            if time.time() - path.stat().st_mtime > FRESH_SECONDS:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("night") and content.get("state") not in ENDED:
            nights.add(str(content["night"]))
    return sorted(nights)
