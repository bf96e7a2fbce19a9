"""Notices of LIGO-Virgo-KAGRA in the form that the topic ``igwn.gwalert`` and the Avro files share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from nightsift.archive.skyalert_options import Role
from nightsift.core.errors import BadNotice
from nightsift.skyalerts.notices import notice_values
from nightsift.skyalerts.notices.skyalert import Coincidence, Kind, MapPlace, SkyAlert

KINDS: dict[str, Kind] = {
    "EARLYWARNING": "early_warning",
    "PRELIMINARY": "preliminary",
    "INITIAL": "initial",
    "UPDATE": "update",
    "RETRACTION": "retraction",
}
SUPEREVENT = re.compile(r"([MT]?S|E)\d{6}[a-z]{1,4}\d?")
"""Superevents: S real, MS of a mock data challenge, TS a test."""


def of_record(record: Mapping[str, Any], form: str, where: str) -> SkyAlert:
    """Make a sky alert of a notice in the form of ``igwn.gwalert``.

    Parameters
    ----------
    record : mapping
        Its content.
    form : str
        ``json`` or ``avro``.
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
    name = str(record.get("superevent_id") or "")
    kind = kind_of(record.get("alert_type"), where)
    sent = notice_values.time(record.get("time_created"), "time_created", where)
    urls = record.get("urls")
    url = str(urls.get("gracedb", ""))[:400] if isinstance(urls, Mapping) else ""
    event = record.get("event")
    role = role_of(name, where)
    if not isinstance(event, Mapping):
        if kind != "retraction":
            raise BadNotice(where=where, what=f"a notice of the kind {kind} without its event")
        return SkyAlert(name, 0, kind, role, sent, None, "utc", "LVK", url=url, form=form)
    search = str(event.get("search") or "")
    content = notice_values.from_base64(event.get("skymap"), where)
    instruments = event.get("instruments")
    significant = event.get("significant")
    return SkyAlert(
        event=name, revision=0, kind=kind, role="mock" if search == "MDC" and role == "observation" else role,
        sent=sent, t0=notice_values.time(event.get("time"), "the time of the event", where), time_scale="utc",
        sender="LVK",
        significant=significant if isinstance(significant, bool) else None,
        far=notice_values.number_or_none(event.get("far")),
        classification=notice_values.pairs(event.get("classification")),
        properties=notice_values.pairs(event.get("properties")),
        instruments=tuple(str(one)[:8] for one in instruments[:8]) if isinstance(instruments, list) else (),
        skymap=MapPlace(content) if content else None, coincidence=_coincidence(record.get("external_coinc"), where),
        pipeline=" ".join(str(event[key])[:40] for key in ("group", "pipeline", "search") if event.get(key)),
        url=url, form=form,
    )  # fmt: skip


def kind_of(raw: Any, where: str) -> Kind:
    """Return the kind of a notice by the word of LIGO-Virgo-KAGRA, in any case; `BadNotice` for no such word."""
    word = str(raw).upper().replace("_", "").replace("-", "")
    if word not in KINDS:
        raise BadNotice(where=where, what=f"alert_type reads {raw!r:.40}, not one of {', '.join(KINDS)}")
    return KINDS[word]


def role_of(superevent: str, where: str) -> Role:
    """Return the role of a superevent by its name; `BadNotice` where it is no such name."""
    if not SUPEREVENT.fullmatch(superevent):
        raise BadNotice(where=where, what=f"superevent_id reads {superevent!r:.40}, which is no superevent")
    return "mock" if superevent.startswith("M") else "test" if superevent.startswith("T") else "observation"


def _coincidence(raw: Any, where: str) -> Coincidence | None:
    if not isinstance(raw, Mapping):
        return None
    joint = notice_values.from_base64(raw.get("combined_skymap"), where)
    far = notice_values.number_or_none(raw.get("time_sky_position_coincidence_far"))
    if far is None:
        far = notice_values.number_or_none(raw.get("time_coincidence_far"))
    delay = notice_values.number_or_none(raw.get("time_difference"))
    return Coincidence(
        str(raw.get("observatory") or "")[:60],
        str(raw.get("gcn_notice_id") or "")[:60],
        math.nan if delay is None else delay,
        math.nan if far is None else far,
        MapPlace(joint) if joint else None,
    )
