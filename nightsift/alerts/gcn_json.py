"""Notices in the JSON schema that all new GCN topics share: Swift, Fermi, Einstein Probe, IceCube, SVOM and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nightsift.alerts import told
from nightsift.alerts.alert import Alert, ErrorRegion, Kind, MapPlace, Role
from nightsift.alerts.errors import BadNotice
from nightsift.alerts.voevent import GBM_SYSTEMATICS

KINDS: dict[str, Kind] = {
    "initial": "initial",
    "subsequent": "update",
    "update": "update",
    "retraction": "retraction",
}
ROLES: dict[str, Role] = {"test": "test", "injection": "mock", "commanded": "test", "planned": "test"}
CONTAINMENT = 0.9
"""Where a notice does not say what its error holds, the schema says 90 %."""


def of_record(record: Mapping[str, Any], where: str) -> Alert:
    """Make an alert of a notice in the unified schema.

    Parameters
    ----------
    record : mapping
        Its content.
    where : str
        What it is called in errors.

    Returns
    -------
    Alert
        The alert.

    Raises
    ------
    BadNotice
        If something that an alert needs is missing or makes no sense.
    """
    sender = sender_of(record)
    kind = KINDS.get(str(record.get("alert_type", "initial")).lower())
    if kind is None:
        raise BadNotice(where=where, what=f"alert_type reads {record['alert_type']!r:.40}")
    trigger = record.get("trigger_time")
    t0 = told.time(trigger, "trigger_time", where) if trigger is not None else None
    remarks = []
    created = record.get("alert_datetime")
    if created is None:
        remarks.append("it does not say when it was made: taken as the time of the event")
        created = trigger
    sent = told.time(created, "alert_datetime", where)
    serial = told.number_or_none(record.get("record_number"))
    content = told.from_base64(record.get("healpix_file"), where)
    place = str(record.get("healpix_url") or "")[:400]
    page = str(record.get("data_archive_page") or "")[:400]
    return Alert(
        event=_event(record, sender, where), revision=int(serial) if serial is not None and 0 <= serial < 1e9 else 0,
        kind=kind, role=ROLES.get(str(record.get("alert_tense", "current")).lower(), "observation"), sent=sent, t0=t0,
        time_scale="utc", sender=sender, far=told.number_or_none(record.get("far")),
        classification=told.pairs(record.get("classification")),
        instruments=(str(record.get("instrument") or "")[:40],), region=_region(record, sender, where),
        skymap=MapPlace(content, place) if content or place else None, url=page, form="json",
        remarks=tuple(remarks),
    )  # fmt: skip


def sender_of(record: Mapping[str, Any]) -> str:
    """Mission and instrument of a notice: as told, otherwise from the place of its schema.

    Parameters
    ----------
    record : mapping
        Its content.

    Returns
    -------
    str
        Such as ``"Einstein Probe WXT"``.
    """
    place = re.search(r"/notices/([\w./-]+)\.schema\.json", str(record.get("$schema", "")))
    parts = place[1].split("/") if place else []
    mission = str(record.get("mission") or (parts[0].replace("_", " ").title() if parts else "unknown"))
    instrument = str(record.get("instrument") or (parts[1].upper() if len(parts) > 2 else ""))
    return f"{mission} {instrument}".strip()[:60]


def _event(record: Mapping[str, Any], sender: str, where: str) -> str:
    """Mission and trigger number, otherwise the name of the event, otherwise its time."""
    mission = re.sub(r"[^A-Za-z0-9]+", "", sender.rpartition(" ")[0] or sender)
    for key in ("id", "event_name", "ref_ID"):
        told_names = record.get(key)
        first = told_names[0] if isinstance(told_names, list) and told_names else told_names
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
    ra, dec = told.number(record["ra"], "ra", where), told.number(record["dec"], "dec", where)
    raw = record.get("ra_dec_error")
    if raw is None:
        return None
    sizes = [told.number(one, "ra_dec_error", where) for one in (raw[:3] if isinstance(raw, list) else [raw])]
    if not sizes:
        return None
    containment = told.number_or_none(record.get("containment_probability"))
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
