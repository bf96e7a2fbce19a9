"""Write the products of a sky alert into its folder of the archive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import RankingOptions, ReportOptions, default_ranking, default_report
from nightsift.archive.templates import newest_template, read_template
from nightsift.core.errors import UnreadableFits
from nightsift.core.frames import Stamps
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_stamps, write_table
from nightsift.report.finding_chart import finding_chart
from nightsift.report.pictures import png
from nightsift.skyalerts.event_store.targets import Target, folder_of
from nightsift.skyalerts.notices.skyalert import SkyAlert
from nightsift.skyalerts.products.gather import Footprint, Gathered, footprint_of, gather
from nightsift.skyalerts.products.page import SHOWN, render_page
from nightsift.skyalerts.products.rank import Catalogues, rank_candidates
from nightsift.skyalerts.products.reports import chosen, circular, tns_report
from nightsift.skyalerts.skymaps.skymap import SkyMap

CHARTS = 12
"""Candidates with finding charts: each costs the page some 60 kB."""

CHART_WIDTH = 300.0
"""Side of a finding chart (arcsec)."""


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """What was written.

    Attributes
    ----------
    folder : Path
        ``archive/alerts/<event>/<revision>``.
    table, page, report, circular : Path
        Ranked candidates (parquet), page (HTML), report in the layout of the Transient Name Server (JSON), and the
        draft of a circular (text).
    latest : Path
        The same page at the place that does not change with the revision.
    ranked : pyarrow.Table
        The ranked candidates, schema `nightsift.skyalerts.products.rank.RANKED`.
    gathered : Gathered
        What was read, to be handed in again the next time.
    """

    folder: Path
    table: Path
    page: Path
    report: Path
    circular: Path
    latest: Path
    ranked: pa.Table
    gathered: Gathered


def write_products(
    archive: Archive, alert: SkyAlert, skymap: SkyMap | None, *, target: Target, catalogues: Catalogues | None = None,
    ranking: RankingOptions | None = None, report: ReportOptions | None = None, known: Gathered | None = None,
    problems: Sequence[str] = (),
) -> Products:  # fmt: skip
    """Rank the candidates of a sky alert and write table, page, report and circular; each is there whole or not at all.

    Parameters
    ----------
    archive : Archive
        The archive.
    alert : SkyAlert
        What the notice says.
    skymap : SkyMap or None
        Its sky map; None for a retraction.
    target : Target
        What the sky alert wants: fields with their probabilities, state, revision.
    catalogues : Catalogues, optional
        Galaxies, variables, minor planets; read once.
    ranking, report : RankingOptions, ReportOptions, optional
        The tables ``[alert.ranking]`` and ``[alert.report]``.
    known : Gathered, optional
        What was read the last time for this event: only new files are read.
    problems : sequence of str, optional
        What the page says besides.

    Returns
    -------
    Products
        What was written.

    Raises
    ------
    BadTable
        If a file of the archive is damaged.
    DiskFull
        If it does not fit.
    """
    ranking, report = ranking or default_ranking(), report or default_report()
    catalogues = catalogues or Catalogues()
    gathered = gather(archive, target.t0, target.fields, history_days=ranking.history_days, known=known)
    ranked = rank_candidates(gathered, skymap, catalogues, options=ranking)
    seen = footprint_of(gathered.exposures, target.t0, target.fields, probability=target.probability, skymap=skymap)
    return _write(
        archive,
        alert,
        skymap,
        target=target,
        gathered=gathered,
        ranked=ranked,
        seen=seen,
        report=report,
        problems=problems,
    )


def _write(
    archive: Archive, alert: SkyAlert, skymap: SkyMap | None, *, target: Target, gathered: Gathered, ranked: pa.Table,
    seen: Footprint, report: ReportOptions, problems: Sequence[str],
) -> Products:  # fmt: skip
    folder = folder_of(archive, target.event) / f"{target.revision:03d}"
    made = Products(
        folder, folder / "candidates.parquet", folder / "index.html", folder / "report.json", folder / "circular.txt",
        folder.parent / "alert.html", ranked, gathered,
    )  # fmt: skip
    rows = chosen(ranked, report)
    detections = _detections(gathered, ranked, rows)
    exposures = {one["exposure_id"]: one for one in gathered.exposures.to_pylist()}
    write_table(made.table, ranked)
    content = tns_report(rows, detections, exposures, event=target.event, options=report)
    _write_text(made.report, json.dumps(content, indent=1, ensure_ascii=False))
    _write_text(
        made.circular,
        circular(alert, target.t0, target.state, seen=seen, rows=rows, objects=ranked.num_rows, options=report),
    )
    stamps = _best_stamps(archive, ranked, detections)
    page = render_page(
        alert, target, skymap, seen=seen, ranked=ranked, detections=detections, stamps=stamps,
        charts=_charts(archive, ranked, detections), problems=problems,
    )  # fmt: skip
    _write_text(made.page, page)
    _write_text(made.latest, page)
    return made


def _best_stamps(archive: Archive, ranked: pa.Table, detections: Mapping[str, Mapping[str, Any]]) -> dict[str, Stamps]:
    """Stamps of the best detections of the candidates that are shown; those without a stamp file are left out."""
    found = {}
    for one in ranked["best_id"].slice(0, SHOWN).to_pylist():
        row = detections[one]
        path = archive.stamps(row["night"], row["unit"], row["exposure_id"])
        if path.is_file():
            _, found[one] = read_stamps(path, [row["stamp_index"]])
    return found


def _charts(archive: Archive, ranked: pa.Table, detections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Finding charts of the best candidates from their templates; those whose template has no coordinates have none."""
    places: dict[Path, list[Mapping[str, Any]]] = {}
    for one in ranked["best_id"].slice(0, CHARTS).to_pylist():
        row = detections[one]
        path = newest_template(archive, row["unit"], row["field"], band=row["band"])
        if path is not None and row["ra"] is not None and row["dec"] is not None:
            places.setdefault(path, []).append(row)
    found = {}
    for path, rows in places.items():  # one template at a time is held
        try:
            frame = read_template(path).frame
        except UnreadableFits:
            continue
        for row in rows if frame.wcs is not None else ():
            place, caption = (row["ra"], row["dec"]), f"template {row['unit']} {row['band']}"
            chart = finding_chart(frame, place, CHART_WIDTH, caption=caption, pixels=300)
            found[row["candidate_id"]] = png(chart)
    return found


def _detections(gathered: Gathered, ranked: pa.Table, reported: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Detections of the candidates that are shown or reported."""
    shown = ranked.slice(0, SHOWN)
    wanted = {one for ids in shown["candidate_ids"].to_pylist() for one in ids} | set(shown["best_id"].to_pylist())
    wanted |= {one for row in reported for one in row["candidate_ids"]}
    some = pc.is_in(gathered.candidates["candidate_id"], pa.array(sorted(wanted), pa.string()))
    return {row["candidate_id"]: row for row in gathered.candidates.filter(some).to_pylist()}


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
