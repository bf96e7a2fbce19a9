"""The page of a sky alert: one HTML file that needs nothing else, with all text of others escaped."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from nightsift import __version__
from nightsift.core.flags import names
from nightsift.core.frames import Stamps
from nightsift.core.probabilities import LEGEND, log_odds_text, probability_text
from nightsift.report.night import fixed, sexagesimal
from nightsift.report.pictures import page_template, strip, stylesheet
from nightsift.skyalerts.event_store.targets import Target
from nightsift.skyalerts.notices.skyalert import SkyAlert
from nightsift.skyalerts.products.gather import Footprint
from nightsift.skyalerts.products.reports import plain, rate, utc, warnings_of
from nightsift.skyalerts.products.sky_figure import sky_figure
from nightsift.skyalerts.skymaps.skymap import SkyMap, mean_distance

WIDTH, HEIGHT = 248.0, 84.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 8.0, 8.0, 20.0
POINT, LIMIT, EVENT, INK = "#0072b2", "#8a949e", "#d55e00", "#5b6671"
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


def render_page(
    alert: SkyAlert, target: Target, skymap: SkyMap | None, *, seen: Footprint, ranked: pa.Table,
    detections: Mapping[str, Mapping[str, Any]], stamps: Mapping[str, Stamps], charts: Mapping[str, str] | None = None,
    problems: Sequence[str] = (), made: dt.datetime | None = None,
) -> str:  # fmt: skip
    """Write the page of a sky alert.

    Parameters
    ----------
    alert : SkyAlert
        What the notice says.
    target : Target
        What the sky alert wants, and its state.
    skymap : SkyMap or None
        Its sky map.
    seen : Footprint
        What was observed.
    ranked : pyarrow.Table
        Schema `nightsift.skyalerts.products.rank.RANKED`, best first.
    detections : mapping of str to mapping
        Rows of `nightsift.core.tables.CANDIDATES` by candidate.
    stamps : mapping of str to Stamps
        Stamps of the best detections, by candidate.
    charts : mapping of str to str, optional
        Finding charts of the best detections as data URIs, by candidate.
    problems : sequence of str, optional
        What it says besides.
    made : datetime, optional
        When the page was made; now by default.

    Returns
    -------
    str
        A complete HTML document.
    """
    page = page_template(
        TEMPLATE, "nightsift.skyalerts.products", fixed=fixed, utc=utc, percent=percent, odds=log_odds_text,
        chance=probability_text,
    )  # fmt: skip
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
        sky=sky_figure(skymap, target.fields, observed, places=placed),
        seen=seen,
        t0=target.t0,
        cards=[
            {**_card(row, detections, stamps, t0=target.t0), "chart": (charts or {}).get(row["best_id"], "")}
            for row in rows[:SHOWN]
        ],
        rows=rows,
        hidden=ranked.num_rows - len(rows),
        total=ranked.num_rows,
        legend=LEGEND,
        sexagesimal=sexagesimal,
        style=stylesheet(),
        version=__version__,
        made=(made or dt.datetime.now(dt.UTC)).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def sentence(target: Target, seen: Footprint, ranked: pa.Table) -> str:
    """The sky alert in one sentence.

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


def facts(alert: SkyAlert, target: Target, skymap: SkyMap | None) -> list[tuple[str, str]]:
    """What the notice and its map say, as pairs of name and text; none is markup.

    Parameters
    ----------
    alert : SkyAlert
        The notice.
    target : Target
        What the sky alert wants.
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
        found.append(("Distance", f"{mean:.0f} ± {deviation:.0f} Mpc" if mean == mean else "not given"))
    return [one for one in found if one[1]]


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as per cent, a dash where there is none."""
    if value is None or value != value:
        return "–"
    least = 10.0**-digits
    return f"< {least:g} %" if 0.0 < 100.0 * value < 0.5 * least else f"{100.0 * value:.{digits}f} %"


def light_curve(points: Sequence[tuple[float, float, float]], limits: Sequence[tuple[float, float]], t0: float) -> str:
    """Draw magnitudes over hours or days after the event.

    Parameters
    ----------
    points : sequence of (float, float, float)
        Time (MJD UTC), magnitude and its error.
    limits : sequence of (float, float)
        Time and 5-sigma limit of exposures that do not show the object.
    t0 : float
        Time of the event.

    Returns
    -------
    str
        An SVG element; empty without a finite magnitude.
    """
    good = [one for one in points if math.isfinite(one[0] + one[1])]
    upper = [one for one in limits if math.isfinite(one[0] + one[1])]
    if not good:
        return ""
    times = [t0, *(one[0] for one in good)]
    scale, unit = (24.0, "h") if max(times) - t0 < 2.0 else (1.0, "d")
    hours = [(one - t0) * scale for one in times]
    span = max(max(hours) - min(hours), 0.2)
    low, high = min(hours) - (0.36 if upper else 0.06) * span, max(hours) + 0.06 * span
    mags = [one[1] for one in (*good, *upper)]
    bright, faint = min(mags) - 0.25, max(mags) + (0.6 if upper else 0.25)

    def x(mjd: float) -> float:  # what lies before the axis is drawn at its beginning
        part = ((mjd - t0) * scale - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * max(part, 0.04)

    def y(mag: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (mag - bright) / (faint - bright)

    parts = [_frame(x, y, (low, high), mags=(bright, faint), unit=unit, t0=t0, scale=scale)]
    for t, m in upper:
        parts.append(f'<path d="M{x(t) - 4:.1f} {y(m):.1f}h8l-4 6z" fill="none" stroke="{LIMIT}"/>')
        parts.append(f'<text x="{x(t) + 6:.1f}" y="{y(m) + 4:.1f}" font-size="9" fill="{LIMIT}">{_when(t - t0)}</text>')
    for t, m, error in good:
        bar = min(error, 1.0) if math.isfinite(error) else 0.0
        top, bottom = max(y(m - bar), TOP), min(y(m + bar), HEIGHT - BOTTOM)
        parts.append(f'<path d="M{x(t):.1f} {top:.1f}V{bottom:.1f}" stroke="{POINT}"/>')
        parts.append(f'<circle cx="{x(t):.1f}" cy="{y(m):.1f}" r="2.6" fill="{POINT}"/>')
    label = f"Light curve: {len(good)} magnitudes, {len(upper)} limits"
    box = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{label}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="inherit">{"".join(parts)}</svg>'


def _frame(
    x: Callable[[float], float], y: Callable[[float], float], times: tuple[float, float], *, mags: tuple[float, float],
    unit: str, t0: float, scale: float,
) -> str:  # fmt: skip
    """Axes, labels of their ends, and a line at the event."""
    bottom = HEIGHT - BOTTOM
    text = f'font-size="9.5" fill="{INK}"'
    parts = [
        f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#b9c1c9"/>',
        f'<path d="M{x(t0):.1f} {TOP}V{bottom}" stroke="{EVENT}" stroke-dasharray="2 2"/>',
    ]
    parts += [
        f'<text x="{LEFT - 4}" y="{y(mag) + 3:.1f}" text-anchor="end" {text}>{mag:g}</text>' for mag in _ticks(*mags, 3)
    ]
    for time in _ticks(max(times[0], 0.0), times[1], 4):
        place = x(t0 + time / scale)
        word = f"{time:g} {unit}".replace("-", "−")
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - 6}" text-anchor="middle" {text}>{word}</text>')
    return "".join(parts)


def _when(days: float) -> str:
    """Time before or after the event."""
    text = f"{days * 24.0:.0f} h" if abs(days) < 2.0 else f"{days:.0f} d"
    return text.replace("-", "−")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two ends."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1.0, 2.0, 5.0, 10.0) if one * power >= rough)
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]


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
    row: Mapping[str, Any], detections: Mapping[str, Mapping[str, Any]], stamps: Mapping[str, Stamps], *, t0: float
) -> dict[str, Any]:  # fmt: skip
    picture = strip(stamps[row["best_id"]]) if row["best_id"] in stamps else ""
    own = [detections[one] for one in row["candidate_ids"] if one in detections]
    points = [(one["mjd"], one["mag"], one["mag_err"] if one["mag_err"] is not None else float("nan"))
              for one in own if one["mag"] is not None]  # fmt: skip
    limits = [(row["limit_mjd"], row["limit_mag"])] if row["limit_mjd"] is not None else []
    return {
        **row, "picture": picture, "pixels": stamps[row["best_id"]].data.shape[1] if picture else 0,
        "position": sexagesimal(row["ra"], row["dec"]), "curve": light_curve(points, limits, t0),
        "against": [one for one in row["reasons"].split("; ") if one], "flag_names": names(row["flags"]),
        "delay": 24.0 * (row["first_mjd"] - t0),
    }  # fmt: skip
