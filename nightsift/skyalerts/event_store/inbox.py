"""Notices of sky alerts as they come, by event: duplicates, late and early ones have their place, nothing is lost.

A notice is a file under ``archive/alerts/<event>/notices``, whose name gives time, number, kind, role and digest; it is
written once and never changed. What rules an event follows from the names alone, in whatever order notices came and
however many processes took them in: no lock, and no state that could be half-written.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import ROLES
from nightsift.core.errors import BadNotice
from nightsift.io.atomic import atomic, create_exclusively
from nightsift.skyalerts.event_store.targets import folder_of
from nightsift.skyalerts.notices.notice import read_notice
from nightsift.skyalerts.notices.skyalert import KINDS, SkyAlert

Verdict = Literal["rules", "retracts", "older", "duplicate"]
SUFFIX = {"json": ".json", "avro": ".avro", "voevent": ".xml"}
SAME_SECONDS = 2.0
"""Notices of one event, kind and role made within so long are one notice in two forms."""
_NAME = re.compile(
    rf"(?P<sent>\d{{5}}\.\d{{8}})_(?P<revision>\d{{9}})_(?P<kind>{'|'.join(KINDS)})_(?P<role>{'|'.join(ROLES)})"
    r"_map(?P<map>[01])_(?P<digest>[0-9a-f]{16})\.(json|avro|xml)"
)


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """A notice in the archive.

    Attributes
    ----------
    path : Path
        Its file.
    sent : float
        When it was made (MJD UTC).
    revision : int
        Its number by its sender.
    kind, role : str
        What it is.
    has_map : bool
        Whether it brings its sky map.
    digest : str
        Beginning of its SHA-256.
    """

    path: Path
    sent: float
    revision: int
    kind: str
    role: str
    has_map: bool
    digest: str

    @property
    def order(self) -> tuple[float, int, bool]:
        """What notices of an event are sorted by: time, number, and one with its map over one without."""
        return (self.sent, self.revision, self.has_map)


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a notice that came.

    Attributes
    ----------
    alert : SkyAlert
        What it says.
    stored : StoredNotice
        Where it lies.
    verdict : str
        ``rules`` (the newest of its event), ``retracts`` (and ends it), ``older`` (stored, but a newer one rules) or
        ``duplicate``.
    """

    alert: SkyAlert
    stored: StoredNotice
    verdict: Verdict


def receive(archive: Archive, content: bytes, where: str = "") -> Received:
    """Take in a notice.

    Parameters
    ----------
    archive : Archive
        The archive.
    content : bytes
        The notice.
    where : str, optional
        What it is called in errors.

    Returns
    -------
    Received
        What it says, and what became of it.

    Raises
    ------
    BadNotice
        If it cannot be read; `refuse` keeps it with its reason.
    DiskFull
        If it does not fit.
    """
    alert = read_notice(content, where)
    digest = hashlib.sha256(content).hexdigest()[:16]
    has_map = int(alert.skymap is not None and bool(alert.skymap.content))
    name = f"{alert.sent:.8f}_{alert.revision:09d}_{alert.kind}_{alert.role}_map{has_map}_{digest}{SUFFIX[alert.form]}"
    path = folder_of(archive, alert.event) / "notices" / name
    before = notices(archive, alert.event)
    own = _stored(path)
    assert own is not None
    for one in before:
        if one.digest == own.digest or _is_the_same(one, own):
            return Received(alert, one, "duplicate")
    create_exclusively(path, content)
    newest = max(notices(archive, alert.event), key=lambda one: one.order)
    if newest.order > own.order:
        return Received(alert, own, "older")
    return Received(alert, own, "retracts" if alert.kind == "retraction" else "rules")


def notices(archive: Archive, event: str) -> list[StoredNotice]:
    """Return the stored notices of an event in their order, the one that rules last."""
    found = (_stored(path) for path in (folder_of(archive, event) / "notices").glob("*"))
    return sorted((one for one in found if one is not None), key=lambda one: one.order)


def events(archive: Archive) -> list[str]:
    """Events that the archive has notices of.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of str
        Their names, sorted.
    """
    folders = sorted((archive.root / "alerts").glob("*/notices"))
    found = []
    for folder in folders:
        newest = max((one for one in map(_stored, folder.glob("*")) if one), key=lambda one: one.order, default=None)
        if newest is not None:
            found.append(read_notice(newest.path.read_bytes(), str(newest.path)).event)
    return found


def refuse(archive: Archive, content: bytes, error: BadNotice) -> Path:
    """Keep a notice that was refused, with its reason beside it, for people to look at.

    Parameters
    ----------
    archive : Archive
        The archive.
    content : bytes
        The notice.
    error : BadNotice
        Why it was refused.

    Returns
    -------
    Path
        The file with the reason. The same notice is stored only once.
    """
    digest = hashlib.sha256(content).hexdigest()[:16]
    folder = archive.root / "alerts" / "refused"
    create_exclusively(folder / f"{digest}.notice", content[: 2**20])
    reason = folder / f"{digest}.txt"
    with atomic(reason) as temporary:
        temporary.write_text(f"{error}\n", encoding="utf-8")
    return reason


def _is_the_same(one: StoredNotice, other: StoredNotice) -> bool:
    """The same notice in another form, unless that brings the map that the first lacks."""
    near = abs(one.sent - other.sent) * 86400.0 <= SAME_SECONDS
    return near and (one.kind, one.role) == (other.kind, other.role) and one.has_map >= other.has_map


def _stored(path: Path) -> StoredNotice | None:
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    return StoredNotice(
        path, float(found["sent"]), int(found["revision"]), found["kind"], found["role"], found["map"] == "1",
        found["digest"],
    )  # fmt: skip
