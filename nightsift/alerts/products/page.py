"""The page of an alert: one HTML file that needs nothing else, with all text of others escaped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from nightsift import __version__
from nightsift.alerts.alert import Alert
from nightsift.alerts.distance import mean_distance
from nightsift.alerts.products.footprint import Footprint
from nightsift.alerts.products.light_curve import light_curve
from nightsift.alerts.products.sky_figure import sky_figure
from nightsift.alerts.products.words import plain, rate, utc, warnings_of
from nightsift.alerts.skymap import SkyMap
from nightsift.alerts.targets import Target
from nightsift.flags import names
from nightsift.frames import Stamps
from nightsift.report.page import fixed, sexagesimal
from nightsift.report.pictures import strip
from nightsift.report.style import page_template, stylesheet

TEMPLATE = "alert.html.j2"
SHOWN = 24
"""Candidates with stamps."""
LISTED = 300
"""Candidates in the table; beyond, it says that there are more."""
DRAWN = 60
"""Candidates in the sky map."""
STATES = {
    "waiting": "waits for approval", "active": "is active: its fields jump the queue", "paused": "is paused",
    "stopped": "was stopped", "retracted": "was retracted",
}  # fmt: skip


def render(
    alert: Alert, target: Target, skymap: SkyMap | None, seen: Footprint, ranked: pa.Table,
    detections: Mapping[str, Mapping[str, Any]], stamps: Mapping[str, Stamps],
    problems: Sequence[str] = (), made: dt.datetime | None = None,
) -> str:  # fmt: skip
    """Write the page of an alert.

    Parameters
    ----------
    alert : Alert
        What the notice says.
    target : Target
        What the alert wants, and its state.
    skymap : SkyMap or None
        Its sky map.
    seen : Footprint
        What was observed.
    ranked : pyarrow.Table
        Schema `nightsift.alerts.products.tables.RANKED`, best first.
    detections : mapping of str to mapping
        Rows of `nightsift.tables.CANDIDATES` by candidate.
    stamps : mapping of str to Stamps
        Stamps of the best detections, by candidate.
    problems : sequence of str, optional
        What it tells besides.
    made : datetime, optional
        When the page was made; now by default.

    Returns
    -------
    str
        A complete HTML document.
    """
    page = page_template(TEMPLATE, "nightsift.alerts.products", fixed=fixed, utc=utc, percent=percent)
    rows = ranked.slice(0, LISTED).to_pylist()
    placed = [(row["ra"], row["dec"]) for row in rows[:DRAWN] if row["ra"] is not None]
    observed = [one["observed"] for one in seen.fields]
    return page.render(
        event=alert.event,
        warnings=warnings_of(alert, target.state),
        grade="bad" if warnings_of(alert, target.state) else "fair" if target.state != "active" else "good",
        sentence=sentence(target, seen, ranked),
        facts=facts(alert, target, skymap),
        link=alert.url if _is_web(alert.url) else "",
        remarks=[plain(one, 300) for one in (*problems, *alert.remarks)],
        sky=sky_figure(skymap, target.fields, observed, placed),
        seen=seen,
        t0=target.t0,
        cards=[_card(row, detections, stamps, target.t0) for row in rows[:SHOWN]],
        rows=rows,
        hidden=ranked.num_rows - len(rows),
        total=ranked.num_rows,
        sexagesimal=sexagesimal,
        style=stylesheet(),
        version=__version__,
        made=(made or dt.datetime.now(dt.UTC)).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def sentence(target: Target, seen: Footprint, ranked: pa.Table) -> str:
    """The alert in one sentence.

    Parameters
    ----------
    target : Target
        What it wants.
    seen : Footprint
        What was observed.
    ranked : pyarrow.Table
        Its candidates.

    Returns
    -------
    str
        The sentence.
    """
    clean = sum(not one for one in ranked["reasons"].to_pylist())
    covered = "" if seen.probability is None else f", {percent(seen.probability)} of the probability"
    observed = sum(one["observed"] for one in seen.fields)
    look = f"{observed} of {len(seen.fields)} fields observed ({seen.area:.1f} deg²{covered})"
    number = (
        "no candidate"
        if not ranked.num_rows
        else "1 candidate"
        if ranked.num_rows == 1
        else f"{ranked.num_rows} candidates"
    )
    tail = f", {clean} with nothing against {'it' if clean == 1 else 'them'}" if ranked.num_rows else ""
    return f"The alert {STATES[target.state]}. {look}; {number}{tail}."


def facts(alert: Alert, target: Target, skymap: SkyMap | None) -> list[tuple[str, str]]:
    """What the notice and its map say, as pairs of name and text; none is markup.

    Parameters
    ----------
    alert : Alert
        The notice.
    target : Target
        What the alert wants.
    skymap : SkyMap or None
        The map.

    Returns
    -------
    list of (str, str)
        Those that are known.
    """
    found = [
        ("Time of the event", f"{utc(target.t0, 1)} UTC"),
        ("Notice", f"{alert.kind.replace('_', ' ')}, number {target.revision}"),
        ("Sent", f"{utc(alert.sent)} UTC"), ("Sender", plain(alert.sender)),
        ("Significant", {True: "yes", False: "no", None: ""}[alert.significant]), ("False alarms", rate(alert.far)),
        ("Classes", _pairs(alert.classification)), ("Properties", _pairs(alert.properties)),
        ("Detectors", plain(", ".join(alert.instruments))), ("Pipeline", plain(alert.pipeline)),
    ]  # fmt: skip
    if alert.coincidence is not None:
        other = alert.coincidence
        found.append(
            (
                "Coincident with",
                plain(f"{other.observatory} {other.identity}, {other.delay_s:+.1f} s, {rate(other.far)}"),
            )
        )
    if skymap is not None:
        found.append(("50 % area", f"{skymap.credible_area(0.5):.1f} deg²"))
        found.append(("90 % area", f"{skymap.credible_area(0.9):.1f} deg²"))
        mean, deviation = mean_distance(skymap)
        found.append(("Distance", f"{mean:.0f} ± {deviation:.0f} Mpc" if mean == mean else "not told"))
    return [one for one in found if one[1]]


def percent(value: float | None, digits: int = 1) -> str:
    """Share as per cent.

    Parameters
    ----------
    value : float or None
        The share.
    digits : int, optional
        Digits after the point.

    Returns
    -------
    str
        Text for a table cell, a dash where there is none.
    """
    if value is None or value != value:
        return "–"
    least = 10.0**-digits
    return f"< {least:g} %" if 0.0 < 100.0 * value < 0.5 * least else f"{100.0 * value:.{digits}f} %"


def _pairs(values: Sequence[tuple[str, float]]) -> str:
    ordered = sorted(values, key=lambda one: -one[1])
    return plain(", ".join(f"{name} {percent(value, 0)}" for name, value in ordered if value >= 0.005))


def _is_web(url: str) -> bool:
    """Whether an address of a notice may be a link: no scripts, no data, no files."""
    if any(one.isspace() or ord(one) < 32 for one in url) or len(url) > 500:
        return False
    try:
        return urlsplit(url).scheme == "https" and bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _card(
    row: Mapping[str, Any], detections: Mapping[str, Mapping[str, Any]], stamps: Mapping[str, Stamps], t0: float
) -> dict[str, Any]:  # fmt: skip
    picture = strip(stamps[row["best_id"]]) if row["best_id"] in stamps else ""
    own = [detections[one] for one in row["candidate_ids"] if one in detections]
    points = [(one["mjd"], one["mag"], one["mag_err"] if one["mag_err"] is not None else float("nan"))
              for one in own if one["mag"] is not None]  # fmt: skip
    limits = [(row["limit_mjd"], row["limit_mag"])] if row["limit_mjd"] is not None else []
    return {
        **row, "picture": picture, "pixels": stamps[row["best_id"]].data.shape[1] if picture else 0,
        "position": sexagesimal(row["ra"], row["dec"]), "curve": light_curve(points, limits, t0),
        "told": [one for one in row["reasons"].split("; ") if one], "flag_names": names(row["flags"]),
        "delay": 24.0 * (row["first_mjd"] - t0),
    }  # fmt: skip
