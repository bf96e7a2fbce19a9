"""The draft of a GCN circular: plain text for people to correct, sign and send."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nightsift.alerts.alert import Alert
from nightsift.alerts.products.footprint import Footprint
from nightsift.alerts.products.options import ReportOptions
from nightsift.alerts.products.words import plain, utc, warnings_of
from nightsift.report.page import sexagesimal

COLUMNS = 78
MOST_ROWS = 20


def circular(
    alert: Alert, t0: float, state: str, seen: Footprint, rows: Sequence[Mapping[str, Any]], objects: int,
    options: ReportOptions,
) -> str:  # fmt: skip
    """Write the draft of a circular.

    Parameters
    ----------
    alert : Alert
        What the notice says.
    t0 : float
        Time of the event (MJD UTC).
    state : str
        State of the alert in the archive.
    seen : Footprint
        What was observed.
    rows : sequence of mapping
        Candidates to be told, best first.
    objects : int
        Objects that were ranked.
    options : ReportOptions
        Who signs.

    Returns
    -------
    str
        Text of at most 78 columns, as far as names allow.
    """
    survey = plain(options.survey) or "[alert.report.survey]"
    warnings = warnings_of(alert, state)
    parts = ["DRAFT, not sent. Made by nightsift from its tables; to be checked by a person before anything is sent."]
    parts += [f"*** {one} *** This event calls for no circular." for one in warnings]
    found = f"{len(rows)} candidate{'' if len(rows) == 1 else 's'}" if rows else "no candidate"
    subject = f"SUBJECT: {plain(alert.sender, 60)} {alert.event}: {survey} observations, {found}\n"
    parts.append(subject)  # one line, the only place for text of the sender
    parts.append(plain(options.authors, 2000) or "[alert.report.authors] report:")
    parts += _observed(alert.event, survey, t0, seen)
    parts += _candidates(rows, objects)
    parts.append(
        "Caveats: candidates come from difference imaging; real/bogus scores are those of a neural network; "
        "magnitudes are on the system of each unit's template, not corrected for extinction; the "
        "coverage counts frames as squares of the area searched; host distances are from catalogues and may be "
        "photometric. Spectroscopy and independent photometry are needed before any association is claimed."
    )
    text = "\n\n".join(one if "\n" in one else textwrap.fill(one, COLUMNS) for one in parts)
    return text.replace("±", "+/-").replace("\n\n\n", "\n\n") + "\n"


def _observed(event: str, survey: str, t0: float, seen: Footprint) -> list[str]:
    if not seen.exposures or seen.first is None:
        return [f"No exposure after {event} ({utc(t0)} UTC) has been reduced yet."]
    units = ", ".join(plain(one, 40) for one in seen.units)
    wanted = sum(one["observed"] for one in seen.fields)
    digits = 1 if seen.area >= 1.0 else 3
    chance = "" if seen.probability is None else (
        f", which hold {100.0 * seen.probability:.1f} % of the probability of the sky map"
    )  # fmt: skip
    text = (
        f"We observed the localisation of {event} (T0 = {utc(t0, 1)} UTC) with {survey} (units {units}) from "
        f"{utc(seen.first)} UTC, {_after(seen.first - t0)}, to {utc(seen.last)} UTC. In total {seen.exposures} "
        f"exposures at {len(seen.pointings)} different pointings cover {seen.area:.{digits}f} deg2{chance}. {wanted} "
        f"of {len(seen.fields)} fields that were asked for have been observed."
    )
    depth = ", ".join(
        f"{plain(band, 20)} {limit:.1f} mag ({seconds:.0f} s)" for band, (limit, seconds) in seen.depth.items()
    )
    return [text] + ([f"Median 5-sigma limits of the differences: {depth}."] if depth else [])


def _candidates(rows: Sequence[Mapping[str, Any]], objects: int) -> list[str]:
    told = f"{objects} objects were found on the differences after the event and ranked; none was left out."
    if not rows:
        return [told + " None of them is real, new, unknown and inside the localisation at once."]
    lines = [f"{'Name':<22}{'RA':>12}{'Dec':>13}{'First UTC':>18}{'Mag':>7}{'C.L.':>6}"]
    notes = []
    for row in rows[:MOST_ROWS]:
        ra, _, dec = sexagesimal(row["ra"], row["dec"]).partition(" ")
        level = "" if row["credible_level"] is None else f"{100 * row['credible_level']:.0f}%"
        lines.append(
            f"{row['name']:<22}{ra:>12}{dec:>13}{utc(row['first_mjd'])[:16]:>18}{row['mag_first']:>7.2f}{level:>6}"
        )
        notes.append(
            f"{row['name']}: {_host(row)}; {_before(row)}." + (f" {row['reasons']}." if row["reasons"] else "")
        )
    tail = [f"{len(rows) - MOST_ROWS} more are in the table."] if len(rows) > MOST_ROWS else []
    head = f"{told} Those that are real, new, unknown and inside the localisation:"
    return [
        head,
        "\n".join(lines),
        "\n".join(textwrap.fill(one, COLUMNS, subsequent_indent="  ") for one in notes) + "\n",
        *tail,
    ]


def _host(row: Mapping[str, Any]) -> str:
    if row["host_state"] != "host":
        return {"hostless": "no catalogued galaxy near it"}.get(row["host_state"], "hosts not looked for")
    distance = f"{row['host_distance']:.0f} +/- {row['host_distance_err']:.0f} Mpc"
    return f"{row['host_separation']:.1f} arcsec from {plain(row['host_name'], 40)} ({distance})"


def _before(row: Mapping[str, Any]) -> str:
    if row["limit_mjd"] is None:
        return "no exposure before the event is deep enough"
    return f"not seen on {utc(row['limit_mjd'])[:16]} UTC to {row['limit_mag']:.1f} mag"


def _after(days: float) -> str:
    return f"{days * 24.0:.1f} h after the event" if days < 3.0 else f"{days:.1f} d after the event"
