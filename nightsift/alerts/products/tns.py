"""A report of candidates in the layout of the bulk reports of the Transient Name Server; it is not sent anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from nightsift.alerts.products.options import ReportOptions
from nightsift.alerts.products.words import plain, utc

AB_MAGNITUDES = "1"
MOST_POINTS = 20
UNSET = "SET [alert.report] {}"
"""What stands where the survey file tells no number: the server refuses it."""


def chosen(ranked: pa.Table, options: ReportOptions) -> list[dict[str, Any]]:
    """Candidates worth a report: placed, real, new, unknown, within the credible region, the best first.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.alerts.products.tables.RANKED`, best first.
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


def tns_report(
    rows: Sequence[Mapping[str, Any]], detections: Mapping[str, Mapping[str, Any]],
    exposures: Mapping[str, Mapping[str, Any]], event: str, options: ReportOptions,
) -> dict[str, Any]:  # fmt: skip
    """Write the bulk report of astronomical transients ("AT report").

    Parameters
    ----------
    rows : sequence of mapping
        Candidates (see `chosen`).
    detections : mapping of str to mapping
        Rows of `nightsift.tables.CANDIDATES` by candidate.
    exposures : mapping of str to mapping
        Rows of `nightsift.tables.LEDGER` by exposure.
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
        reports[str(number)] = _report(row, points, exposures, event, options)
    return {"at_report": reports}


def _report(
    row: Mapping[str, Any], points: Sequence[Mapping[str, Any]], exposures: Mapping[str, Mapping[str, Any]],
    event: str, options: ReportOptions,
) -> dict[str, Any]:  # fmt: skip
    error = {"error": f"{options.position_error:.2f}", "units": "arcsec"}
    survey = f"{options.survey} " if options.survey else ""
    remarks = (
        f"Candidate counterpart of {event}, rank {row['rank']}; real/bogus {_number(row['score'], 2) or 'not known'}."
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
        **_instrument(one["unit"], one["band"], exposure.get("exposure_s"), options),
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
        **_instrument(exposure.get("unit", ""), exposure.get("band"), exposure.get("exposure_s"), options),
        "archiveid": "", "archival_remarks": "",
    }  # fmt: skip


def _instrument(unit: str, band: str | None, seconds: float | None, options: ReportOptions) -> dict[str, str]:
    return {
        "filter_value": options.filters.get(band or "") or UNSET.format(f"filters: {band}"),
        "instrument_value": options.instrument_of(unit) or UNSET.format(f"unit: {unit}"),
        "exptime": _number(seconds, 0), "observer": "", "comments": "",
    }  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
