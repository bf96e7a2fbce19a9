"""The plan of a sky alert: operators' orders, the state that follows from them, and the fields that are wanted.

An order is a small file ``archive/alerts/<event>/orders/<time>.json``, written once: whoever gives it, by a command or
from the Prefect UI, at the same time as others or not, nothing is overwritten and all of it can be read later.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import SkyAlertOptions
from nightsift.archive.survey import Survey
from nightsift.core.configuration import closest
from nightsift.core.errors import BadAlertFile, NoLocalisation, NoSuchAlert
from nightsift.io.atomic import atomic, create_exclusively
from nightsift.io.parquet import read_table, write_table
from nightsift.site.site import Site
from nightsift.sky.fields import SkyField
from nightsift.skyalerts.event_store.inbox import StoredNotice, events, notices
from nightsift.skyalerts.event_store.targets import State, Target, folder_of, write_target
from nightsift.skyalerts.notices.notice import read_notice_file
from nightsift.skyalerts.notices.skyalert import SkyAlert
from nightsift.skyalerts.planning.field_ranking import FIELDS, rank_fields
from nightsift.skyalerts.planning.tilings import read_tiling, template_fields
from nightsift.skyalerts.skymaps.skymap import SkyMap, mean_distance, skymap_of
from nightsift.skyalerts.skymaps.skymap_file import read_skymap
from nightsift.unit.units import Unit

Action = Literal["approve", "pause", "resume", "stop", "add-field", "exclude-unit", "include-unit"]
ACTIONS: tuple[Action, ...] = ("approve", "pause", "resume", "stop", "add-field", "exclude-unit", "include-unit")


@dataclass(frozen=True, slots=True)
class Order:
    """One order.

    Attributes
    ----------
    action : str
        What to do: ``approve``, ``pause``, ``resume``, ``stop``, ``add-field``, ``exclude-unit``, ``include-unit``.
    subject : str
        Field or unit, where the action needs one.
    by : str
        Who gave it.
    at : str
        When, UTC.
    """

    action: Action
    subject: str = ""
    by: str = ""
    at: str = ""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"an order is one of {', '.join(ACTIONS)}, got {self.action!r:.40}")
        if self.action.endswith(("-field", "-unit")) != bool(self.subject):
            raise ValueError(f"the order {self.action} {'takes no' if self.subject else 'needs a'} subject")


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """What a sky alert wants, and why.

    Attributes
    ----------
    alert : SkyAlert
        What the notice that rules says.
    skymap : SkyMap or None
        Its sky map; None for a retraction.
    fields : pyarrow.Table
        Schema `nightsift.skyalerts.planning.field_ranking.FIELDS`.
    target : Target
        What was written for those who order exposures.
    why : str
        Why the sky alert is in its state.
    """

    alert: SkyAlert
    skymap: SkyMap | None
    fields: pa.Table
    target: Target
    why: str


def make_plan(
    survey: Survey, archive: Archive, event: str, *, fields: Sequence[SkyField], sites: Mapping[str, Site], now: float
) -> Planned:
    """Rank the fields of an event by all that the archive holds of it, and write what it wants.

    Parameters
    ----------
    survey : Survey
        The survey.
    archive : Archive
        The archive.
    event : str
        The event.
    fields : sequence of SkyField
        Fields (see `fields_of`).
    sites : mapping of str to Site
        Where the units stand (see `sites_of`).
    now : float
        From when on fields are to be observed (MJD UTC).

    Returns
    -------
    Planned
        The plan, as it was written.

    Raises
    ------
    NoSuchAlert, NoLocalisation, BadSkyMap, BadAlertFile
        If there is nothing to plan by.
    """
    alert, notice = ruling(archive, event)
    while True:
        given = orders(archive, event)
        planned = _planned(survey, archive, alert, notice=notice, fields=fields, sites=sites, now=now)
        _write_plan(archive, planned)
        if len(orders(archive, event)) == len(given):  # otherwise an order came while it was worked out
            return planned


def ruling(archive: Archive, event: str) -> tuple[SkyAlert, StoredNotice]:
    """Return what the newest notice of an event says, and the stored notice; `NoSuchAlert` where there is none."""
    found = notices(archive, event)
    if not found:
        advice = closest(event, events(archive))
        raise NoSuchAlert(event=event, archive=str(archive.root), advice=advice)
    return read_notice_file(found[-1].path), found[-1]


def map_of(alert: SkyAlert, given: Path | None = None) -> SkyMap:
    """Sky map of a sky alert: one that was given or fetched, that in the notice, or that of its error region.

    Parameters
    ----------
    alert : SkyAlert
        The sky alert.
    given : Path, optional
        File that goes before all else.

    Returns
    -------
    SkyMap
        The map.

    Raises
    ------
    NoLocalisation
        If there is none.
    BadSkyMap
        If it cannot be read.
    """
    if given is not None and given.is_file():
        return read_skymap(given)
    if alert.skymap is not None and alert.skymap.content:
        return read_skymap(alert.skymap.content, f"in the notice of {alert.event}")
    if alert.region is not None:
        return skymap_of(alert.region)
    what = f"its map lies at {alert.skymap.url}" if alert.skymap is not None else "the notice gives none"
    raise NoLocalisation(event=alert.event, what=what)


def map_path(archive: Archive, event: str, notice: StoredNotice) -> Path:
    """Return the file, there or not, of the map that was given beside a notice or fetched."""
    return folder_of(archive, event) / "maps" / f"{notice.digest}.fits"


def fields_of(survey: Survey, archive: Archive, units: Sequence[str]) -> tuple[SkyField, ...]:
    """Return the fields of a survey: its tile grids, or where it names none, those that it has templates of."""
    if survey.alert.tilings:
        return tuple(field for tiling in survey.alert.tilings for field in read_tiling(tiling))
    return template_fields(archive, units)


def sites_of(survey: Survey, units: Mapping[str, Unit]) -> dict[str, Site]:
    """Where the units of a survey stand: at the site that their source names, or as their unit file says.

    Parameters
    ----------
    survey : Survey
        The survey.
    units : mapping of str to Unit
        Its units.

    Returns
    -------
    dict of str to Site
        Site by unit; a unit of unknown latitude is left out.
    """
    sites = {}
    for name, unit in units.items():
        source = next((one for one in survey.sources if one.unit in (name, unit.file)), None)
        site = survey.sites.get(source.site, unit.site) if source is not None else unit.site
        if site.latitude is not None:
            sites[name] = site
    return sites


def give_order(archive: Archive, event: str, action: Action, *, subject: str = "", by: str = "") -> Order:
    """Give an order.

    Parameters
    ----------
    archive : Archive
        The archive.
    event : str
        The event.
    action : str
        What to do.
    subject : str, optional
        Field or unit.
    by : str, optional
        Who gives it.

    Returns
    -------
    Order
        The order.
    """
    order = Order(action, subject, by[:80], f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    folder = folder_of(archive, event) / "orders"
    while not create_exclusively(
        folder / f"{time.time_ns():020d}-{os.urandom(3).hex()}.json", json.dumps(asdict(order)).encode()
    ):
        continue
    return order


def orders(archive: Archive, event: str) -> list[Order]:
    """Orders given about an event.

    Parameters
    ----------
    archive : Archive
        The archive.
    event : str
        The event.

    Returns
    -------
    list of Order
        In the order in which they were given.

    Raises
    ------
    BadAlertFile
        If one cannot be read: an order to stop must not be overlooked.
    """
    found = []
    for path in sorted((folder_of(archive, event) / "orders").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(Order(**content))
        except (OSError, ValueError, TypeError) as error:
            raise BadAlertFile(path=str(path), what=" ".join(str(error).split())) from error
    return found


def excluded_units(given: Iterable[Order]) -> tuple[str, ...]:
    """Return the units that operators have taken out and not put back."""
    out: dict[str, bool] = {}
    for one in given:
        if one.action in ("exclude-unit", "include-unit"):
            out[one.subject] = one.action == "exclude-unit"
    return tuple(unit for unit, is_out in out.items() if is_out)


def added_fields(given: Iterable[Order]) -> tuple[str, ...]:
    """Return the names of the fields that operators have added, without repeats."""
    return tuple(dict.fromkeys(one.subject for one in given if one.action == "add-field"))


def decide(alert: SkyAlert, area: float, options: SkyAlertOptions, *, given: Iterable[Order]) -> tuple[State, str]:
    """Decide what state a sky alert is in.

    Parameters
    ----------
    alert : SkyAlert
        What the notice that rules says.
    area : float
        Area that holds 90 % (deg2).
    options : SkyAlertOptions
        Which sky alerts are acted on without asking.
    given : iterable of Order
        What operators ordered.

    Returns
    -------
    state : str
        ``active``, ``waiting``, ``paused``, ``stopped`` or ``retracted``.
    why : str
        Why, in words for people.
    """
    if alert.kind == "retraction":
        return "retracted", "its sender has retracted it"
    actions = {one.action: one for one in given}
    if stop := actions.get("stop"):
        return "stopped", f"stopped by {stop.by or 'an operator'} at {stop.at}"
    last = next((one for one in reversed(list(given)) if one.action in ("pause", "resume")), None)
    if last is not None and last.action == "pause":
        return "paused", f"paused by {last.by or 'an operator'} at {last.at}"
    doubt = needs_approval(alert, area, options)
    if doubt and "approve" not in actions:
        return "waiting", f"waits for approval: {doubt}"
    if approve := actions.get("approve"):
        return "active", f"approved by {approve.by or 'an operator'} at {approve.at}"
    return "active", "acted on without asking"


def needs_approval(alert: SkyAlert, area: float, options: SkyAlertOptions) -> str:
    """Why a sky alert is not acted on without asking.

    Parameters
    ----------
    alert : SkyAlert
        What the notice that rules says.
    area : float
        Area that holds 90 % (deg2).
    options : SkyAlertOptions
        Which sky alerts are acted on without asking.

    Returns
    -------
    str
        The reason; empty where it is acted on.
    """
    if alert.role not in options.roles:
        return f"it is a {alert.role} notice"
    if options.approval:
        return "every alert does ([alert] approval)"
    if options.significant and alert.significant is False:
        return "its sender does not call it significant"
    if alert.far is not None and alert.far > options.far:
        return f"its false-alarm rate {alert.far:.2g} Hz is above {options.far:.2g} Hz"
    if area > options.largest_area:
        return f"its 90 % area {area:.0f} deg2 is above {options.largest_area:.0f} deg2"
    return next(iter(alert.remarks), "") if any("not a burst" in one for one in alert.remarks) else ""


def _write_plan(archive: Archive, planned: Planned) -> None:
    """Write the fields and the target of a sky alert, the target last."""
    folder = folder_of(archive, planned.alert.event)
    write_table(folder / "fields.parquet", planned.fields)
    with atomic(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(_summary_of(planned), indent=1), encoding="utf-8")
    write_target(archive, planned.target)


def _summary_of(planned: Planned) -> dict[str, Any]:
    """What there is to know of a sky alert at a glance, as plain values."""
    alert, skymap = planned.alert, planned.skymap
    mean, deviation = mean_distance(skymap) if skymap is not None else (float("nan"), float("nan"))
    return {
        "event": alert.event, "kind": alert.kind, "role": alert.role, "revision": alert.revision,
        "sender": alert.sender, "sent_mjd": alert.sent, "t0_mjd": planned.target.t0, "far_hz": alert.far,
        "significant": alert.significant, "classification": dict(alert.classification),
        "properties": dict(alert.properties), "instruments": list(alert.instruments), "pipeline": alert.pipeline,
        "url": alert.url, "state": planned.target.state, "why": planned.why, "remarks": list(alert.remarks),
        "area_50_deg2": skymap.credible_area(0.5) if skymap is not None else None,
        "area_90_deg2": skymap.credible_area(0.9) if skymap is not None else None,
        "distance_mpc": mean if mean == mean else None, "distance_std_mpc": deviation if mean == mean else None,
        "fields": len(planned.target.fields),
        "probability": planned.fields["cumulative"].drop_null().to_pylist()[-1:] or [0.0],
        "coincidence": f"{alert.coincidence.observatory} {alert.coincidence.identity}" if alert.coincidence else "",
    }  # fmt: skip


def _planned(
    survey: Survey, archive: Archive, alert: SkyAlert, *, notice: StoredNotice, fields: Sequence[SkyField],
    sites: Mapping[str, Site], now: float,
) -> Planned:  # fmt: skip
    given, folder = orders(archive, alert.event), folder_of(archive, alert.event)
    t0 = alert.t0 if alert.t0 is not None else _time_before(archive, alert)
    skymap, table, area = None, FIELDS.empty_table(), 0.0
    if alert.kind == "retraction":
        known = folder / "fields.parquet"
        table = read_table(known, FIELDS) if known.is_file() else table
    else:
        skymap = map_of(alert, map_path(archive, alert.event, notice))
        area = skymap.credible_area(0.9)
        table = rank_fields(skymap, fields, sites, start=max(now, t0), options=survey.alert, wanted=added_fields(given))
    state, why = decide(alert, area, survey.alert, given=given)
    by_name = {(one.grid, one.name): one for one in fields}
    rows = [row for row in table.to_pylist() if row["rank"] is not None] if state != "retracted" else []
    rows = [row for row in rows if (row["grid"], row["field"]) in by_name]
    target = Target(
        event=alert.event, t0=t0, until=t0 + survey.alert.hours / 24.0, state=state,
        fields=tuple(by_name[row["grid"], row["field"]] for row in rows),
        probability=tuple(row["probability"] for row in rows), excluded=excluded_units(given),
        revision=len(notices(archive, alert.event)),
    )  # fmt: skip
    return Planned(alert, skymap, table, target, why)


def _time_before(archive: Archive, retraction: SkyAlert) -> float:
    """Time of the event by the notices before its retraction; that of the retraction where there are none."""
    for one in reversed(notices(archive, retraction.event)[:-1]):
        t0 = read_notice_file(one.path).t0
        if t0 is not None:
            return t0
    return retraction.sent
