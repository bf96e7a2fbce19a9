"""Notices of any form, recognised by content, as one `SkyAlert`; the JSON schema that new GCN topics share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightsift.archive.skyalert_options import Role
from nightsift.core.errors import BadNotice
from nightsift.skyalerts.notices import lvk, notice_values, voevent
from nightsift.skyalerts.notices.bounded import LARGEST, read_avro, read_json, read_xml
from nightsift.skyalerts.notices.skyalert import ErrorRegion, Kind, MapPlace, SkyAlert
from nightsift.skyalerts.notices.voevent import GBM_SYSTEMATICS

KINDS: dict[str, Kind] = {
    "initial": "initial",
    "subsequent": "update",
    "update": "update",
    "retraction": "retraction",
}

ROLES: dict[str, Role] = {"test": "test", "injection": "mock", "commanded": "test", "planned": "test"}
CONTAINMENT = 0.9
"""Where a notice does not say what its error holds, the schema says 90 %."""


def read_notice(content: bytes, where: str = "") -> SkyAlert:
    """Read a notice: JSON (LIGO-Virgo-KAGRA, the schema of GCN, a VOEvent carried over), Avro or VOEvent XML.

    Parameters
    ----------
    content : bytes
        The notice.
    where : str, optional
        What it is called in errors, such as its file.

    Returns
    -------
    SkyAlert
        What it says; nothing is fetched.

    Raises
    ------
    BadNotice
        If it is damaged, too large, or lacks what a sky alert needs.
    """
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        if content.startswith(b"Obj\x01"):
            return lvk.of_record(read_avro(content, where)[0], "avro", where)
        if start.startswith(b"<"):
            root = read_xml(content, where)
            if root.name != "VOEvent":
                raise BadNotice(where=where, what=f"XML of the kind {root.name!r:.40}, not VOEvent")
            return voevent.of_element(root, "voevent", where)
        if start.startswith((b"{", b"[")):
            return _of_json(content, where)
    except BadNotice as error:
        if error.facts["where"]:
            raise
        raise BadNotice(where=where, what=error.facts["what"]) from error
    what = "it is empty" if not start else "it is neither JSON, Avro nor XML"
    raise BadNotice(where=where, what=what)


def read_notice_file(path: str | Path) -> SkyAlert:
    """Read a notice from a file; `BadNotice` where it cannot be read, or is no notice."""
    return read_notice(notice_bytes(path), str(path))


def notice_bytes(path: str | Path) -> bytes:
    """Content of a notice's file, bounded.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    BadNotice
        If it cannot be read or is too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BadNotice(where=str(path), what=f"{size} bytes are more than the {LARGEST} that a notice may have")
        return path.read_bytes()
    except OSError as error:
        raise BadNotice(where=str(path), what=error.strerror or str(error)) from error


def _of_json(content: bytes, where: str) -> SkyAlert:
    record = read_json(content, where)
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    if not isinstance(record, Mapping):
        raise BadNotice(where=where, what="JSON that is no notice")
    if "superevent_id" in record:
        return lvk.of_record(record, "json", where)
    if "ivorn" in record:
        return voevent.of_element(voevent.of_mapping(record, where), "json", where)
    if "trigger_time" in record or "notices" in str(record.get("$schema", "")):
        return _of_unified(record, where)
    raise BadNotice(where=where, what="JSON that is neither of LIGO-Virgo-KAGRA nor of the schema of GCN")


def _of_unified(record: Mapping[str, Any], where: str) -> SkyAlert:
    """Make a sky alert of a notice in the unified schema.

    Parameters
    ----------
    record : mapping
        Its content.
    where : str
        What it is called in errors.

    Returns
    -------
    SkyAlert
        The sky alert.

    Raises
    ------
    BadNotice
        If something that a sky alert needs is missing or makes no sense.
    """
    sender = _sender_of(record)
    kind = KINDS.get(str(record.get("alert_type", "initial")).lower())
    if kind is None:
        raise BadNotice(where=where, what=f"alert_type reads {record['alert_type']!r:.40}")
    trigger = record.get("trigger_time")
    t0 = notice_values.time(trigger, "trigger_time", where) if trigger is not None else None
    remarks = []
    created = record.get("alert_datetime")
    if created is None:
        remarks.append("it does not say when it was made: taken as the time of the event")
        created = trigger
    sent = notice_values.time(created, "alert_datetime", where)
    serial = notice_values.number_or_none(record.get("record_number"))
    content = notice_values.from_base64(record.get("healpix_file"), where)
    place = str(record.get("healpix_url") or "")[:400]
    page = str(record.get("data_archive_page") or "")[:400]
    return SkyAlert(
        event=_event(record, sender, where), revision=int(serial) if serial is not None and 0 <= serial < 1e9 else 0,
        kind=kind, role=ROLES.get(str(record.get("alert_tense", "current")).lower(), "observation"), sent=sent, t0=t0,
        time_scale="utc", sender=sender, far=notice_values.number_or_none(record.get("far")),
        classification=notice_values.pairs(record.get("classification")),
        instruments=(str(record.get("instrument") or "")[:40],), region=_region(record, sender, where),
        skymap=MapPlace(content, place) if content or place else None, url=page, form="json",
        remarks=tuple(remarks),
    )  # fmt: skip


def _sender_of(record: Mapping[str, Any]) -> str:
    """Mission and instrument of a notice, as given or from the place of its schema: ``"Einstein Probe WXT"``."""
    place = re.search(r"/notices/([\w./-]+)\.schema\.json", str(record.get("$schema", "")))
    parts = place[1].split("/") if place else []
    mission = str(record.get("mission") or (parts[0].replace("_", " ").title() if parts else "unknown"))
    instrument = str(record.get("instrument") or (parts[1].upper() if len(parts) > 2 else ""))
    return f"{mission} {instrument}".strip()[:60]


def _event(record: Mapping[str, Any], sender: str, where: str) -> str:
    """Mission and trigger number, otherwise the name of the event, otherwise its time."""
    mission = re.sub(r"[^A-Za-z0-9]+", "", sender.rpartition(" ")[0] or sender)
    for key in ("id", "event_name", "ref_ID"):
        names = record.get(key)
        first = names[0] if isinstance(names, list) and names else names
        if isinstance(first, str | int) and str(first).strip():
            name = re.sub(r"[^A-Za-z0-9_.:+-]+", "_", str(first).strip())
            return name if name.lower().startswith(mission.lower()) else f"{mission}-{name}"
    trigger = record.get("trigger_time")
    if not isinstance(trigger, str):
        raise BadNotice(where=where, what="it names neither an event nor its time")
    return f"{mission}-{re.sub(r'[^0-9T.]+', '', trigger)}"


def _region(record: Mapping[str, Any], sender: str, where: str) -> ErrorRegion | None:
    if record.get("ra") is None or record.get("dec") is None:
        return None
    ra, dec = notice_values.number(record["ra"], "ra", where), notice_values.number(record["dec"], "dec", where)
    raw = record.get("ra_dec_error")
    if raw is None:
        return None
    sizes = [notice_values.number(one, "ra_dec_error", where) for one in (raw[:3] if isinstance(raw, list) else [raw])]
    if not sizes:
        return None
    containment = notice_values.number_or_none(record.get("containment_probability"))
    lacking = "GBM" in sender.upper() and not record.get("systematic_included")
    minor = sizes[1] if len(sizes) > 1 else sizes[0]
    turn = 0.0 if sizes[0] >= minor else 90.0
    try:
        return ErrorRegion(
            ra % 360.0, dec, max(sizes[0], minor), min(sizes[0], minor),
            CONTAINMENT if containment is None else containment, (sizes[2] if len(sizes) > 2 else 0.0) + turn,
            GBM_SYSTEMATICS if lacking else (),
        )  # fmt: skip
    except ValueError as error:
        raise BadNotice(where=where, what=str(error)) from error
