"""From what the archive holds of an event to the fields that are wanted: without a server, in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from nightsift.alerts.alert import Alert
from nightsift.alerts.circle import skymap_of
from nightsift.alerts.distance import mean_distance
from nightsift.alerts.errors import NoLocalisation, NoSuchAlert
from nightsift.alerts.inbox import Kept, events, notices
from nightsift.alerts.notice import read_notice_file
from nightsift.alerts.orders import added_fields, decide, excluded_units, orders
from nightsift.alerts.rank import rank_fields
from nightsift.alerts.skymap import SkyMap
from nightsift.alerts.skymap_file import read_skymap
from nightsift.alerts.tables import FIELDS
from nightsift.alerts.targets import Target, folder_of, write_target
from nightsift.alerts.tilings import read_tiling, template_fields
from nightsift.configuration import closest
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_table, write_table
from nightsift.io.paths import Archive
from nightsift.site.site import Site
from nightsift.sky.fields import SkyField
from nightsift.survey import Survey
from nightsift.units import Unit


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """What an alert wants, and why.

    Attributes
    ----------
    alert : Alert
        What the notice that rules says.
    skymap : SkyMap or None
        Its sky map; None for a retraction.
    fields : pyarrow.Table
        Schema `nightsift.alerts.tables.FIELDS`.
    target : Target
        What was written for those who order exposures.
    why : str
        Why the alert is in its state.
    """

    alert: Alert
    skymap: SkyMap | None
    fields: pa.Table
    target: Target
    why: str


def ruling(archive: Archive, event: str) -> tuple[Alert, Kept]:
    """What the newest notice of an event says.

    Parameters
    ----------
    archive : Archive
        The archive.
    event : str
        The event.

    Returns
    -------
    alert : Alert
        What it says; a retraction that repeats no time has that of the notices before it.
    kept : Kept
        Where it lies.

    Raises
    ------
    NoSuchAlert
        If the archive has no notice of it.
    """
    found = notices(archive, event)
    if not found:
        advice = closest(event, events(archive))
        raise NoSuchAlert(event=event, archive=str(archive.root), advice=advice)
    return read_notice_file(found[-1].path), found[-1]


def map_of(alert: Alert, given: Path | None = None) -> SkyMap:
    """Sky map of an alert: one that was given or fetched, that in the notice, or that of its error region.

    Parameters
    ----------
    alert : Alert
        The alert.
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
    what = f"its map lies at {alert.skymap.url}" if alert.skymap is not None else "the notice tells none"
    raise NoLocalisation(event=alert.event, what=what)


def map_path(archive: Archive, event: str, kept: Kept) -> Path:
    """Where the map of a notice lies that was given beside it or fetched.

    Parameters
    ----------
    archive : Archive
        The archive.
    event : str
        The event.
    kept : Kept
        The notice.

    Returns
    -------
    Path
        The file, there or not.
    """
    return folder_of(archive, event) / "maps" / f"{kept.digest}.fits"


def fields_of(survey: Survey, archive: Archive, units: Sequence[str]) -> tuple[SkyField, ...]:
    """Fields of a survey: its tile grids, or where it names none, those that it has templates of.

    Parameters
    ----------
    survey : Survey
        The survey.
    archive : Archive
        The archive.
    units : sequence of str
        Its units.

    Returns
    -------
    tuple of SkyField
        The fields.

    Raises
    ------
    BadTiling
        If a grid cannot be read.
    """
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
        Site by unit; a unit whose latitude nobody tells is left out.
    """
    sites = {}
    for name, unit in units.items():
        source = next((one for one in survey.sources if one.unit in (name, unit.file)), None)
        site = survey.sites.get(source.site, unit.site) if source is not None else unit.site
        if site.latitude is not None:
            sites[name] = site
    return sites


def make_plan(
    survey: Survey, archive: Archive, event: str, fields: Sequence[SkyField], sites: Mapping[str, Site], now: float
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
    alert, kept = ruling(archive, event)
    while True:
        given = orders(archive, event)
        planned = _planned(survey, archive, alert, kept, fields, sites, now)
        write_plan(archive, planned)
        if len(orders(archive, event)) == len(given):  # otherwise an order came while it was worked out
            return planned


def write_plan(archive: Archive, planned: Planned) -> None:
    """Write the fields and the wants of an alert, the wants last.

    Parameters
    ----------
    archive : Archive
        The archive.
    planned : Planned
        The plan.
    """
    folder = folder_of(archive, planned.alert.event)
    write_table(folder / "fields.parquet", planned.fields)
    with atomic(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary_of(planned), indent=1), encoding="utf-8")
    write_target(archive, planned.target)


def summary_of(planned: Planned) -> dict[str, Any]:
    """What there is to know of an alert at a glance.

    Parameters
    ----------
    planned : Planned
        The plan.

    Returns
    -------
    dict
        Plain values.
    """
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
    survey: Survey, archive: Archive, alert: Alert, kept: Kept, fields: Sequence[SkyField],
    sites: Mapping[str, Site], now: float,
) -> Planned:  # fmt: skip
    given, folder = orders(archive, alert.event), folder_of(archive, alert.event)
    t0 = alert.t0 if alert.t0 is not None else _time_before(archive, alert)
    skymap, table, area = None, FIELDS.empty_table(), 0.0
    if alert.kind == "retraction":
        known = folder / "fields.parquet"
        table = read_table(known, FIELDS) if known.is_file() else table
    else:
        skymap = map_of(alert, map_path(archive, alert.event, kept))
        area = skymap.credible_area(0.9)
        table = rank_fields(skymap, fields, sites, max(now, t0), survey.alert, added_fields(given))
    state, why = decide(alert, area, survey.alert, given)
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


def _time_before(archive: Archive, retraction: Alert) -> float:
    """Time of the event by the notices before its retraction; that of the retraction where there are none."""
    for one in reversed(notices(archive, retraction.event)[:-1]):
        t0 = read_notice_file(one.path).t0
        if t0 is not None:
            return t0
    return retraction.sent
