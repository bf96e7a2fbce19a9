"""Drafts for people to check and send: a GCN circular, and a report in the layout of the Transient Name Server."""

from __future__ import annotations

import datetime as dt
import math
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from nightsift.archive.skyalert_options import ReportOptions
from nightsift.core.probabilities import probability_text
from nightsift.report.night import sexagesimal
from nightsift.skyalerts.notices.skyalert import SkyAlert
from nightsift.skyalerts.products.gather import Footprint

_ZERO = dt.datetime(1858, 11, 17)
YEAR = 365.25 * 86400.0
COLUMNS = 78
MOST_ROWS = 20
AB_MAGNITUDES = "1"
MOST_POINTS = 20
UNSET = "SET [alert.report] {}"
"""What stands where the survey file gives no number: the server refuses it."""


def chosen(ranked: pa.Table, options: ReportOptions) -> list[dict[str, Any]]:
    """Candidates worth a report: placed, real, new, unknown, within the credible region, the best first.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.skyalerts.products.rank.RANKED`, best first.
    options : ReportOptions
        How many, and what counts.

    Returns
    -------
    list of dict
        Their rows.
    """
    found = []
    for row in ranked.slice(0, 2000).to_pylist():
        level = row["credible_level"]
        real = row["p_real"] >= options.least_real and not row["flags"] and row["p_static"] >= 0.5
        new = row["p_new"] > 0.5 and not row["known"] and row["ra"] is not None
        if real and new and row["mag_first"] is not None and (level is None or level <= options.credible):
            found.append(row)
    return found[: options.most]


def circular(
    alert: SkyAlert, t0: float, state: str, *, seen: Footprint, rows: Sequence[Mapping[str, Any]], objects: int,
    options: ReportOptions,
) -> str:  # fmt: skip
    """Write the draft of a circular.

    Parameters
    ----------
    alert : SkyAlert
        What the notice says.
    t0 : float
        Time of the event (MJD UTC).
    state : str
        State of the sky alert in the archive.
    seen : Footprint
        What was observed.
    rows : sequence of mapping
        Candidates to report, best first.
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
    parts += _observed(alert.event, survey, t0, seen=seen)
    parts += _candidates(rows, objects)
    parts.append(
        "Caveats: candidates come from difference imaging; real/bogus scores are those of a neural network; "
        "magnitudes are on the system of each unit's template, not corrected for extinction; the "
        "coverage counts frames as squares of the area searched; host distances are from catalogues and may be "
        "photometric. Spectroscopy and independent photometry are needed before any association is claimed."
    )
    text = "\n\n".join(one if "\n" in one else textwrap.fill(one, COLUMNS) for one in parts)
    return text.replace("±", "+/-").replace("\n\n\n", "\n\n") + "\n"


def tns_report(
    rows: Sequence[Mapping[str, Any]], detections: Mapping[str, Mapping[str, Any]],
    exposures: Mapping[str, Mapping[str, Any]], *, event: str, options: ReportOptions,
) -> dict[str, Any]:  # fmt: skip
    """Write the bulk report of astronomical transients ("AT report").

    Parameters
    ----------
    rows : sequence of mapping
        Candidates (see `chosen`).
    detections : mapping of str to mapping
        Rows of `nightsift.core.tables.CANDIDATES` by candidate.
    exposures : mapping of str to mapping
        Rows of `nightsift.core.tables.LEDGER` by exposure.
    event : str
        The event.
    options : ReportOptions
        Numbers of groups, instruments and filters. What is not set stands in the report as a placeholder that names it.

    Returns
    -------
    dict
        What is to be written as JSON.
    """
    reports = {}
    for number, row in enumerate(rows):
        points = [detections[one] for one in row["candidate_ids"] if one in detections]
        points = [one for one in points if one["mag"] is not None and math.isfinite(one["mag"])]
        reports[str(number)] = _report(row, points, exposures, event=event, options=options)
    return {"at_report": reports}


def utc(mjd: float | None, digits: int = 0) -> str:
    """Time as people write it.

    Parameters
    ----------
    mjd : float or None
        MJD UTC.
    digits : int, optional
        Digits of the second.

    Returns
    -------
    str
        ``2026-11-20 06:00:00``; empty without a time, or one that no calendar has.
    """
    if mjd is None or not math.isfinite(mjd) or not -600000.0 < mjd < 2900000.0:
        return ""
    whole = round(mjd * 86400.0 * 10**digits)
    moment = _ZERO + dt.timedelta(seconds=whole // 10**digits)
    tail = f".{whole % 10**digits:0{digits}d}" if digits else ""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + tail


def rate(far: float | None) -> str:
    """False-alarm rate in words.

    Parameters
    ----------
    far : float or None
        Rate (Hz).

    Returns
    -------
    str
        ``one in 31.7 years``; empty where it is unknown.
    """
    if far is None or not math.isfinite(far) or far <= 0.0:
        return ""
    years = 1.0 / (far * YEAR)
    if years < 1.0 / 12.0:
        return f"one in {1.0 / (far * 86400.0):.3g} days"
    if years < 1.0:
        return f"one in {12.0 * years:.3g} months"
    return f"one in {years:.3g} years"


def plain(text: str, most: int = 200) -> str:
    """Return text of others as one line of at most `most` characters, without control characters."""
    clean = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in text[: 4 * most])
    line = " ".join(clean.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def warnings_of(alert: SkyAlert, state: str) -> list[str]:
    """Return what must be seen first, in capitals: a retraction, a test or mock event; empty for a real event."""
    warnings = ["RETRACTED"] if alert.kind == "retraction" or state == "retracted" else []
    return warnings + {"observation": [], "mock": ["MOCK EVENT"], "test": ["TEST"]}[alert.role]


def _observed(event: str, survey: str, t0: float, *, seen: Footprint) -> list[str]:
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
    ranked = f"{objects} objects were found on the differences after the event and ranked; none was left out."
    if not rows:
        return [ranked + " None of them is real, new, unknown and inside the localisation at once."]
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
    head = f"{ranked} Those that are real, new, unknown and inside the localisation:"
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


def _report(
    row: Mapping[str, Any], points: Sequence[Mapping[str, Any]], exposures: Mapping[str, Mapping[str, Any]],
    *, event: str, options: ReportOptions,
) -> dict[str, Any]:  # fmt: skip
    error = {"error": f"{options.position_error:.2f}", "units": "arcsec"}
    survey = f"{options.survey} " if options.survey else ""
    remarks = (
        f"Candidate counterpart of {event}, rank {row['rank']}; real/bogus "
        f"{'not known' if row['score'] is None else probability_text(row['score'])}."
    )
    if row["host_state"] == "host":
        remarks += f" Near {row['host_name']}, {row['host_separation']:.1f} arcsec, {row['host_distance']:.0f} Mpc."
    return {
        "ra": {"value": f"{row['ra']:.6f}", **error},
        "dec": {"value": f"{row['dec']:+.6f}", **error},
        "reporting_group_id": options.reporting_group or UNSET.format("reporting_group"),
        "discovery_data_source_id": options.data_source or UNSET.format("data_source"),
        "reporter": plain(options.authors) or UNSET.format("authors"),
        "discovery_datetime": utc(row["first_mjd"], 1),
        "at_type": options.at_type,
        "host_name": row["host_name"],
        "host_redshift": "",
        "transient_redshift": "",
        "internal_name": plain(survey + row["name"]),
        "internal_name_format": {"prefix": plain(options.survey), "year_format": "", "postfix": ""},
        "remarks": plain(remarks, 400),
        "proprietary_period_groups": [],
        "proprietary_period": {"proprietary_period_value": "0", "proprietary_period_units": "days"},
        "non_detection": _non_detection(row, exposures, options),
        "photometry": {"photometry_group": {
            str(k): _point(one, exposures.get(one["exposure_id"], {}), options)
            for k, one in enumerate(points[:MOST_POINTS])
        }},
        "related_files": {},
    }  # fmt: skip


def _point(one: Mapping[str, Any], exposure: Mapping[str, Any], options: ReportOptions) -> dict[str, str]:
    return {
        "obsdate": utc(one["mjd"], 1), "flux": _number(one["mag"], 2), "flux_error": _number(one["mag_err"], 2),
        "limiting_flux": _number(exposure.get("limiting_mag"), 2), "flux_units": AB_MAGNITUDES,
        **_instrument(one["unit"], one["band"], exposure.get("exposure_s"), options=options),
    }  # fmt: skip


def _non_detection(
    row: Mapping[str, Any], exposures: Mapping[str, Mapping[str, Any]], options: ReportOptions
) -> dict[str, str]:
    """The last exposure before the event that would have shown it, or the statement that there is none."""
    if row["limit_mjd"] is None:
        return {"archiveid": "0", "archival_remarks": "no earlier exposure of this survey is deep enough"}
    same = (one for one in exposures.values() if one["mjd"] == row["limit_mjd"])
    exposure = next(same, {})
    return {
        "obsdate": utc(row["limit_mjd"], 1), "limiting_flux": _number(row["limit_mag"], 2), "flux_units": AB_MAGNITUDES,
        **_instrument(exposure.get("unit", ""), exposure.get("band"), exposure.get("exposure_s"), options=options),
        "archiveid": "", "archival_remarks": "",
    }  # fmt: skip


def _instrument(unit: str, band: str | None, seconds: float | None, *, options: ReportOptions) -> dict[str, str]:
    return {
        "filter_value": options.filters.get(band or "") or UNSET.format(f"filters: {band}"),
        "instrument_value": options.instrument_of(unit) or UNSET.format(f"unit: {unit}"),
        "exptime": _number(seconds, 0), "observer": "", "comments": "",
    }  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
