"""VOEvents, as XML or carried over to JSON: LIGO-Virgo-KAGRA, Fermi, Swift, IceCube and all others of GCN Classic.

What an error radius means is not in a VOEvent. GCN defines it by instrument: Fermi GBM gives the statistical 68 %
radius, all others a radius of 90 % (Swift BAT's is called statistical as well, and is fixed at 3 arcmin or more).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from nightsift.archive.skyalert_options import Role
from nightsift.core.errors import BadNotice
from nightsift.skyalerts.notices import lvk, notice_values
from nightsift.skyalerts.notices.bounded import DEEPEST, Element
from nightsift.skyalerts.notices.skyalert import Coincidence, ErrorRegion, Kind, MapPlace, SkyAlert

GBM_SYSTEMATICS = ((0.9, 3.7), (0.1, 14.0))
"""Weight and 68 % radius (deg) of the systematic errors of GBM positions: Connaughton et al. 2015, ApJS 216, 32."""
SIGMA = 0.6827
UPDATE_PACKETS = (111, 112, 115, 67, 81, 174)
"""GCN packet types that bring a better position of an event: GBM flight, ground and final, XRT, UVOT, IceCube."""
NOT_A_BURST = ("Def_NOT_a_GRB", "Def_Not_a_GRB")


def of_element(root: Element, form: str, where: str) -> SkyAlert:
    """Make a sky alert of a VOEvent.

    Parameters
    ----------
    root : Element
        Its root.
    form : str
        Form of the notice.
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
    ivorn = root.attributes.get("ivorn", "")
    values = {one.attributes.get("name", ""): _value(one) for one in root.all("Param")}
    who = root.first("Who")
    date = who.first("Date") if who is not None else None
    sent = notice_values.time(date.text.strip() if date is not None else None, "its date", where)
    serial = notice_values.number_or_none(values.get("Pkt_Ser_Num"))
    revision = int(serial) if serial is not None and 0 <= serial < 1e9 else 0
    stamp = root.first("ISOTime")
    system = next((one.attributes.get("coord_system_id", "") for one in root.all("AstroCoords")), "")
    scale = system.partition("-")[0].lower() or "utc"
    t0 = (
        notice_values.time(stamp.text.strip(), "the time of the event", where, scale=scale)
        if stamp is not None
        else None
    )
    common = {"revision": revision, "sent": sent, "t0": t0, "time_scale": scale, "form": form}
    role = _role(root.attributes.get("role", ""), values)
    if "GraceID" in values:
        return _of_lvk(root, values, role, common=common, where=where)
    return _of_classic(root, values, role, ivorn=ivorn, common=common, where=where)


def of_mapping(record: Mapping[str, Any], where: str) -> Element:
    """Carry a VOEvent in JSON back to elements; `BadNotice` where it is nested too deeply."""
    return _element("VOEvent", record, 0, where=where)


def _element(name: str, content: Any, depth: int, *, where: str) -> Element:
    if depth > DEEPEST:
        raise BadNotice(where=where, what="a VOEvent that is nested too deeply")
    if not isinstance(content, Mapping):
        return Element(name, {}, "" if content is None else str(content))
    one = Element(name, {str(k): str(v) for k, v in content.items() if isinstance(v, str | int | float)})
    for key, value in content.items():
        parts = value if isinstance(value, list) else [value]
        one.children += [_element(str(key), part, depth + 1, where=where) for part in parts]
    return one


def _of_lvk(root: Element, values: Mapping[str, str], role: Role, *, common: dict[str, Any], where: str) -> SkyAlert:
    name = values["GraceID"]
    kind = lvk.kind_of(values.get("AlertType"), where)
    by_name = lvk.role_of(name, where)
    if by_name != "observation" or values.get("HardwareInj") == "1":
        role = by_name if by_name != "observation" else "mock"
    place = values.get("skymap_fits", "")
    significant = values.get("Significant")
    return SkyAlert(
        event=name, kind=kind, role=role, sender="LVK",
        significant=None if significant is None else significant == "1",
        far=notice_values.number_or_none(values.get("FAR")), classification=_group(root, "Classification"),
        properties=_group(root, "Properties"),
        instruments=tuple(filter(None, values.get("Instruments", "").split(","))),
        skymap=MapPlace(url=place[:400]) if place else None, coincidence=_coincidence(values),
        pipeline=" ".join(values[key] for key in ("Group", "Pipeline", "Search") if values.get(key)),
        url=values.get("EventPage", "")[:400], **common,
    )  # fmt: skip


def _of_classic(
    root: Element, values: Mapping[str, str], role: Role, *, ivorn: str, common: dict[str, Any], where: str
) -> SkyAlert:
    """A notice of GCN Classic: mission from its ivorn, ``ivo://nasa.gsfc.gcn/Fermi#GBM_Fin_Pos...``."""
    found = re.search(r"/(\w[\w.-]*)#([A-Za-z]+(?:_[A-Za-z]+)*)", ivorn)
    if found is None:
        raise BadNotice(where=where, what=f"its ivorn {ivorn!r:.80} does not say who sends it")
    mission, subject = found[1], found[2]
    trigger = next((values[key] for key in ("TrigID", "AMON_ID", "event_id", "Event_ID", "NID") if values.get(key)), "")
    if not trigger:
        raise BadNotice(where=where, what="it names no trigger: no TrigID, AMON_ID or event_id")
    packet = notice_values.number_or_none(values.get("Packet_Type"))
    kind: Kind = "update" if packet in UPDATE_PACKETS else "initial"
    remarks = []
    if any(values.get(key, "").lower() == "true" for key in NOT_A_BURST):
        remarks.append("the sender says that it is not a burst")
    if any(values.get(key, "").lower() == "true" for key in ("Retraction", "retraction")):
        kind = "retraction"
    instrument = subject.split("_")[0]
    place = next((values[key] for key in ("HealPix_URL", "skymap_fits", "LocationMap_URL") if key in values), "")
    is_map = place.lower().split("?")[0].endswith((".fits", ".fit", ".fits.gz", ".fit.gz"))
    region = _region(root, values, f"{mission} {instrument}".upper(), where=where)
    return SkyAlert(
        event=f"{mission.capitalize() if mission.isupper() else mission}-{trigger}", kind=kind, role=role,
        sender=f"{mission} {instrument}", region=region, far=_rate(root),
        skymap=MapPlace(url=place[:400]) if is_map and (region is None or "GBM" not in instrument) else None,
        url=place[:400] if not is_map else "", remarks=tuple(remarks), **common,
    )  # fmt: skip


def _rate(root: Element) -> float | None:
    """False-alarm rate in Hz; that of neutrinos is given per year."""
    for one in root.all("Param"):
        value = notice_values.number_or_none(_value(one)) if one.attributes.get("name", "").upper() == "FAR" else None
        if value is not None:
            return value / 31557600.0 if "y" in one.attributes.get("unit", "").lower() else value
    return None


def _region(root: Element, values: Mapping[str, str], sender: str, *, where: str) -> ErrorRegion | None:
    c1, c2, size = (root.first(name) for name in ("C1", "C2", "Error2Radius"))
    if c1 is None or c2 is None:
        return None
    ra, dec = (
        notice_values.number(c1.text, "right ascension", where),
        notice_values.number(c2.text, "declination", where),
    )
    radius = notice_values.number(size.text, "the error radius", where) if size is not None else 0.0
    unit = next((one.attributes.get("unit", "deg") for one in root.all("Position2D")), "deg")
    if unit not in ("deg", "degrees"):
        raise BadNotice(where=where, what=f"its position is given in {unit!r:.20}, not in degrees")
    if not radius > 0.0:
        return None  # GCN writes 0, 0 with no error where there is no position
    gbm = "GBM" in sender
    try:
        return ErrorRegion(
            ra % 360.0, dec, radius, radius, SIGMA if gbm else 0.9, systematics=GBM_SYSTEMATICS if gbm else ()
        )
    except ValueError as error:
        raise BadNotice(where=where, what=str(error)) from error


def _role(raw: str, values: Mapping[str, str]) -> Role:
    if raw in ("test", "utility") or values.get("Test_Submission", "").lower() == "true":
        return "test"
    return "mock" if raw == "prediction" or values.get("HardwareInj") == "1" else "observation"


def _coincidence(values: Mapping[str, str]) -> Coincidence | None:
    if not values.get("External_Observatory"):
        return None
    numbers = [
        notice_values.number_or_none(values.get(key))
        for key in ("Time_Difference", "Time_Sky_Position_Coincidence_FAR", "Time_Coincidence_FAR")
    ]
    delay, far, far_in_time = (math.nan if one is None else one for one in numbers)
    joint = values.get("joint_skymap_fits", "")
    return Coincidence(
        values["External_Observatory"][:60],
        values.get("External_GCN_Notice_Id", "")[:60],
        delay,
        far if math.isfinite(far) else far_in_time,
        MapPlace(url=joint[:400]) if joint else None,
    )


def _group(root: Element, name: str) -> tuple[tuple[str, float], ...]:
    groups: Iterable[Element] = (one for one in root.all("Group") if one.attributes.get("name") == name
                                 or one.attributes.get("type") == name)  # fmt: skip
    group = next(iter(groups), None)
    return (
        notice_values.pairs({one.attributes.get("name", ""): _value(one) for one in group.all("Param")})
        if group
        else ()
    )


def _value(param: Element) -> str:
    inner = param.first("Value")
    return param.attributes.get("value", inner.text.strip() if inner is not None else "")
