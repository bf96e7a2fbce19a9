"""``nightsift alert``: plan, run and listen for sky alerts, show their state, and give orders about them."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import open_survey, show_table
from nightsift.core.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from nightsift.skyalerts.notices.skyalert import SkyAlert
    from nightsift.skyalerts.planning.planning import Action
    from nightsift.skyalerts.skymaps.skymap import SkyMap

SURVEY = Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")]
EVENT = Annotated[str, typer.Argument(metavar="EVENT", help="Name of the event, as nightsift alert status shows it.")]
FIELD = Annotated[str, typer.Argument(metavar="FIELD", help="Name of the field in its grid.")]
UNIT = Annotated[str, typer.Argument(metavar="UNIT", help="Name of the unit.")]
app = typer.Typer(no_args_is_help=True, help="Sky alerts: ranked fields, their exposures first, ranked candidates.")


def approve(where: SURVEY, event: EVENT) -> None:
    """Let a waiting sky alert go ahead."""
    _give(where, event, "approve")


def pause(where: SURVEY, event: EVENT) -> None:
    """Let exposures of a sky alert wait like all others until it is resumed."""
    _give(where, event, "pause")


def resume(where: SURVEY, event: EVENT) -> None:
    """Go on with a paused sky alert."""
    _give(where, event, "resume")


def stop(where: SURVEY, event: EVENT) -> None:
    """End a sky alert for good: nothing jumps the queue for it any more."""
    _give(where, event, "stop")


def add_field(where: SURVEY, event: EVENT, field: FIELD) -> None:
    """Put a field first, whatever its probability."""
    _give(where, event, "add-field", subject=field)


def exclude_unit(where: SURVEY, event: EVENT, unit: UNIT) -> None:
    """Take a unit out of a sky alert."""
    _give(where, event, "exclude-unit", subject=unit)


def include_unit(where: SURVEY, event: EVENT, unit: UNIT) -> None:
    """Put a unit back that was taken out."""
    _give(where, event, "include-unit", subject=unit)


def _give(where: Path, event: str, action: Action, *, subject: str = "") -> None:
    """Give an order, and let the target of the sky alert follow at once, whether or not anything listens."""
    from flows.skyalert import order

    typer.echo(order(str(where), event, action, subject=subject, by=getpass.getuser()))


app.command("approve")(approve)


app.command("pause")(pause)


app.command("resume")(resume)


app.command("stop")(stop)


app.command("add-field")(add_field)


app.command("exclude-unit")(exclude_unit)


app.command("include-unit")(include_unit)


@app.command("plan")
def plan(
    what: Annotated[Path, typer.Argument(metavar="NOTICE|SKYMAP", help="Notice (JSON, Avro, XML) or sky map (FITS).")],
    survey: Annotated[Path | None, typer.Option(help="Survey file: its grids, templates and sites.")] = None,
    tiling: Annotated[Path | None, typer.Option(help="Tile grid, instead of those of a survey.")] = None,
    width: Annotated[
        float, typer.Option(min=0.0, max=90.0, help="Width of its fields (deg), where no file beside it says.")
    ] = 0.0,
    sky_map: Annotated[Path | None, typer.Option(help="Sky map of a notice that brings none.")] = None,
    latitude: Annotated[
        float | None, typer.Option(min=-90.0, max=90.0, help="Site, instead of the survey's (deg, north).")
    ] = None,
    longitude: Annotated[
        float | None, typer.Option(min=-180.0, max=360.0, help="Site, instead of the survey's (deg, east).")
    ] = None,
    at: Annotated[str | None, typer.Option(help="From when on, as 2026-11-20T21:00 UTC; now by default.")] = None,
    fields: Annotated[int | None, typer.Option(min=1, help="Fields wanted.")] = None,
    shown: Annotated[int, typer.Option(min=0, help="Fields printed.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write the fields as parquet.")] = None,
) -> None:
    """Rank the fields of a sky alert or a sky map. Nothing is started, asked or stored."""
    import numpy as np

    from nightsift.io.parquet import write_table
    from nightsift.site.site import Site
    from nightsift.skyalerts.planning.field_ranking import rank_fields

    if (latitude is None) != (longitude is None):
        raise ConfigurationError(
            file="nightsift alert plan", table="command line", key="--latitude, --longitude",
            what="one without the other", advice="give both, or neither to take the sites of the survey",
        )  # fmt: skip
    alert, skymap = _read(what, sky_map)
    options, known, sites = _grids(survey, tiling, width)
    if latitude is not None and longitude is not None:
        sites = {"": Site(latitude=latitude, longitude=longitude)}
    if fields is not None:
        options = options.model_copy(update={"fields": fields})
    start = moment(at)
    _show_skyalert(alert, skymap)
    if skymap is None:
        raise typer.Exit(0)
    table = rank_fields(skymap, known, sites, start=start, options=options)
    ranked = table.filter(np.asarray(table["rank"].is_valid()))
    lost = table.num_rows - ranked.num_rows
    show_fields(ranked.slice(0, shown))
    total = ranked["cumulative"].to_pylist()[-1] if ranked.num_rows else 0.0
    typer.echo(f"{ranked.num_rows} fields hold {total:.1%}; {lost} more would be wanted but cannot be observed")
    if not sites:
        typer.echo("no site is known: every field counts as observable", err=True)
    if out is not None:
        write_table(out, table)
        typer.echo(f"fields: {out}")


@app.command("run")
def run(
    where: SURVEY,
    notice: Annotated[Path, typer.Argument(metavar="NOTICE", help="Notice (JSON, Avro, XML).")],
    sky_map: Annotated[Path | None, typer.Option(help="Sky map of a notice that brings none.")] = None,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run; without, nothing is started or asked.")] = True,
) -> None:
    """Take in one notice: rank fields, reduce what there is of them, rank candidates, write the page."""
    from flows.skyalert_listener import run_notice
    from nightsift.skyalerts.event_store.targets import folder_of
    from nightsift.skyalerts.notices.notice import notice_bytes

    survey, archive = open_survey(where)
    compile_first(survey)
    event = run_notice(survey, notice_bytes(notice), str(notice), sky_map=sky_map, track=track, progress=typer.echo)
    folder = folder_of(archive, event)
    typer.echo(f"page: {folder / 'alert.html'}")
    typer.echo(f"tables and drafts: {max(folder.glob('[0-9][0-9][0-9]'), default=folder)}")


@app.command("listen")
def listen(
    where: SURVEY,
    track: Annotated[bool, typer.Option(help="Let Prefect see the runs; without, nothing is started or asked.")] = True,
) -> None:
    """Listen for notices, from the folder and the topics that the survey file names, until it is stopped."""
    import os
    import signal

    from flows.skyalert_listener import listen as keep_listening
    from tasks.skyalert import sources_of

    survey, _ = open_survey(where)
    compile_first(survey)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        keep_listening(
            survey, sources_of(survey, os.environ), track, progress=lambda line: typer.echo(f"{_stamp()} {line}")
        )
    except KeyboardInterrupt:
        typer.echo("stopped; started again, it goes on with every alert that still runs", err=True)
        raise typer.Exit(0) from None


@app.command("status")
def status(where: SURVEY) -> None:
    """Show the sky alerts of the archive and their state."""
    import json

    from nightsift.skyalerts.event_store.inbox import events, notices
    from nightsift.skyalerts.event_store.targets import damaged_targets, folder_of

    survey, archive = open_survey(where)
    rows = []
    for event in events(archive):
        known = notices(archive, event)
        path = folder_of(archive, event) / "summary.json"
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        rows.append(
            (event, known[-1].kind, len(known), said.get("state", "not planned"), said.get("area_90_deg2"),
             said.get("fields"), (said.get("probability") or [None])[0], said.get("why", ""))
        )  # fmt: skip
    header = ("event", "newest notice", "notices", "state", "90 % area (deg2)", "fields", "probability", "why")
    show_table(f"alerts of {survey.name}", header, rows, right=header[4:7])
    for problem in damaged_targets(archive):
        typer.echo(f"problem: {problem}", err=True)
    listener = archive.root / "alerts" / "listener.json"
    if listener.is_file():
        known_state = json.loads(listener.read_text(encoding="utf-8"))
        typer.echo(f"listener: process {known_state['pid']}, last look {known_state['at']}")
        for problem in known_state["problems"]:
            typer.echo(f"problem: {problem}", err=True)
    refused = len(list((archive.root / "alerts" / "refused").glob("*.txt")))
    if refused:
        typer.echo(f"{refused} notices were refused; reasons: {archive.root / 'alerts' / 'refused'}")


def show_fields(table: pa.Table) -> None:
    """Print ranked fields."""
    header = (
        "rank",
        "grid",
        "field",
        "ra",
        "dec",
        "probability",
        "adds",
        "cumulative",
        "best (UTC)",
        "altitude",
        "Moon",
    )
    rows = [
        (one["rank"], one["grid"], one["field"], f"{one['ra']:.3f}", f"{one['dec']:+.3f}", f"{one['probability']:.4f}",
         f"{one['gain']:.4f}", f"{one['cumulative']:.4f}", _clock(one["best_mjd"]), _degrees(one["altitude"]),
         _degrees(one["moon_distance"]))
        for one in table.to_pylist()
    ]  # fmt: skip
    show_table("fields, best first", header, rows, right=(*header[3:8], *header[9:]))


def _read(what: Path, sky_map: Path | None) -> tuple[SkyAlert | None, SkyMap | None]:
    """A notice with its map, or a map alone."""
    from nightsift.skyalerts.notices.notice import notice_bytes, read_notice
    from nightsift.skyalerts.planning.planning import map_of
    from nightsift.skyalerts.skymaps.skymap_file import read_skymap

    if what.name.lower().endswith((".fits", ".fit", ".fits.gz", ".fit.gz", ".fits,0", ".fits,1")):
        return None, read_skymap(what)
    alert = read_notice(notice_bytes(what), str(what))
    return alert, map_of(alert, sky_map) if alert.kind != "retraction" else None


def _grids(survey: Path | None, tiling: Path | None, width: float) -> tuple[Any, Any, dict[str, Any]]:
    from nightsift.archive.skyalert_options import Tiling, default_skyalert
    from nightsift.skyalerts.planning.planning import fields_of, sites_of
    from nightsift.skyalerts.planning.tilings import read_tiling

    if survey is None and tiling is None:
        raise ConfigurationError(
            file="nightsift alert plan", table="command line", key="--survey, --tiling", what="no fields to rank",
            advice="name a survey file, or a tile grid with --tiling and the width of its fields with --width",
        )  # fmt: skip
    if tiling is not None:
        grid = read_tiling(Tiling(name=tiling.stem, file=str(tiling), width=width))  # type: ignore[call-arg]
        if survey is None:
            return default_skyalert(), grid, {}
    assert survey is not None
    opened, archive = open_survey(survey)
    units = opened.load_units()
    known = grid if tiling is not None else fields_of(opened, archive, tuple(units))
    return opened.alert, known, sites_of(opened, units)


def moment(at: str | None) -> float:
    """MJD of a moment as it is typed; now where none is."""
    from nightsift.core.times import mjd_of, moment_of

    try:
        asked = moment_of(at) if at else datetime.now(UTC)
    except ValueError as error:
        raise ConfigurationError(
            file="nightsift alert plan", table="command line", key="--at", what=f"{at!r} is no time",
            advice="write it as 2026-11-20T21:00",
        ) from error  # fmt: skip
    return mjd_of(asked)


def _show_skyalert(alert: SkyAlert | None, skymap: SkyMap | None) -> None:
    from nightsift.skyalerts.skymaps.skymap import mean_distance

    if alert is not None:
        rate = f", false-alarm rate {alert.far:.2g} Hz" if alert.far is not None else ""
        kind = alert.kind.replace("_", " ")
        typer.echo(f"{alert.event}: {kind} of {alert.sender}{rate}, {alert.likeliest_class or 'no class given'}")
        if alert.role != "observation":
            typer.echo(f"this is a {alert.role} notice")
        if alert.t0 is not None:
            typer.echo(f"event at {_clock(alert.t0)} UTC, notice at {_clock(alert.sent)} UTC")
        if alert.coincidence is not None:
            typer.echo(f"coincident with {alert.coincidence.observatory} {alert.coincidence.identity}")
        for remark in alert.remarks:
            typer.echo(f"remark: {remark}")
    if skymap is None:
        typer.echo("retracted: no fields are wanted")
        return
    mean, deviation = mean_distance(skymap)
    far = f", distance {mean:.0f} +/- {deviation:.0f} Mpc" if mean == mean else ""
    typer.echo(
        f"50 % within {skymap.credible_area(0.5):.4g} deg2, 90 % within {skymap.credible_area(0.9):.4g} deg2{far}"
    )


def _stamp() -> str:
    return f"{datetime.now(UTC):%H:%M:%S}"


def _clock(mjd: float | None) -> str:
    from datetime import timedelta

    return "" if mjd is None else f"{datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=mjd):%Y-%m-%d %H:%M:%S}"


def _degrees(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
