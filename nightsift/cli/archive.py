"""``nightsift catalog``: versions of the catalogue; ``nightsift photometry``: light curves at given positions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import LineProgress, night_given, nothing_recorded, show_table
from nightsift.cli.show import open_archive, show_nights
from nightsift.core.errors import BadTable, ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from nightsift.archive.paths import Archive

app = typer.Typer(no_args_is_help=True, help="Versions of the catalogue: what is served, and what was made beside it.")
WHERE = Annotated[Path, typer.Argument(metavar="SURVEY.toml|ARCHIVE", help="Survey file or archive.")]
NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name of a version; main is the one that nights go to.")]
SERVED = "served"
VIEW = ("name", "mjd", "unit", "band", "flux", "flux_err", "snr", "mag", "mag_err", "mag_limit_5", "flags", "verdict")
RECENTRE = 1.5
"""How far a position may move (pixel)."""


@app.command("list")
def list_versions(where: WHERE) -> None:
    """List the versions of an archive: those that are served from top to bottom, then the others."""
    from nightsift.archive import ledger, versions
    from nightsift.archive.paths import WITHOUT_NIGHT, sort_nights

    archive = open_archive(where)
    lines = []
    for one in versions.known(archive):
        rows = ledger.read(versions.alone(archive, one.name))
        states = Counter(rows["state"].to_pylist())
        place = "" if one.place is None else "on top" if one.place == 0 else "below"
        candidates = sum(number or 0 for number in rows["n_candidates"].to_pylist())
        undated = sum(night == WITHOUT_NIGHT for night in rows["night"].to_pylist())
        nights = sort_nights(set(rows["night"].to_pylist()) - {WITHOUT_NIGHT})
        lines.append([one.name, place, one.created, one.code, nights[0] if nights else "", nights[-1] if nights else "",
                      len(nights), len(rows), undated, states["done"], candidates])  # fmt: skip
    header = ("version", "served", "created", "code", "first night", "last night", "nights", "exposures",
              "without a night", "done", "candidates")  # fmt: skip
    show_table("Versions", header, lines, right=header[6:])


@app.command()
def show(where: WHERE, name: NAME) -> None:
    """Show what a version was made by and what each of its nights holds."""
    from nightsift.archive import ledger, versions

    archive = open_archive(where)
    one = versions.find(archive, name)
    facts = {"version": one.name, "created": one.created, "code": one.code, "folder": archive.version(name),
             "served": "no" if one.place is None else f"yes, place {one.place + 1} from the top"}  # fmt: skip
    facts |= {f"model of {unit}": model for unit, model in one.models.items()}
    facts |= {f"recipe of {unit}": recipe[:16] for unit, recipe in one.recipes.items()}
    show_table("Version", ("fact", "value"), list(facts.items()))
    show_nights(ledger.read(versions.alone(archive, name)).to_pylist())


@app.command()
def promote(
    where: WHERE,
    name: NAME,
    force: Annotated[bool, typer.Option("--force", help="Serve it whatever speaks against it.")] = False,
) -> None:
    """Serve a version, in one step; one that is served already is gone back to. That is the way back, too."""
    from nightsift.archive import versions

    archive = open_archive(where)
    versions.find(archive, name)
    before = archive.served
    now = versions.promote(archive, name, tuple(_reasons_against(archive, name)), force=force)
    typer.echo(f"served from top to bottom: {', '.join(now)}" + (" (as before)" if now == before else ""))
    if now != before:
        typer.echo(f"the way back: nightsift catalog promote {where} {before[0]}")


@app.command()
def remove(where: WHERE, name: NAME) -> None:
    """Remove a version that is not served, with all its files."""
    from nightsift.archive import versions

    versions.remove(open_archive(where), name)
    typer.echo(f"removed: {name}")


@app.command()
def compare(
    where: WHERE,
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A version, or served for what is served now.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another one.")],
    night: Annotated[str | None, typer.Option(callback=night_given, help="One night only, as 2026-11-20.")] = None,
    unit: Annotated[str | None, typer.Option(help="One unit only.")] = None,
    distance: Annotated[float, typer.Option(min=0.0, help="Pixels between candidates at the same place.")] = 1.5,
    score: Annotated[float, typer.Option(min=0.0, help="Difference of scores that is none.")] = 0.01,
    mag: Annotated[float, typer.Option(min=0.0, help="Difference of magnitudes that is none.")] = 0.02,
    most: Annotated[int, typer.Option(min=0, help="Differences to print.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write every difference to this parquet file.")] = None,
) -> None:
    """Compare two versions: exposures that ended otherwise, candidates of one only, changed scores."""
    from nightsift.archive.versions import Tolerance
    from nightsift.archive.versions import compare as run
    from nightsift.io.parquet import write_table

    archive = open_archive(where)
    views = [_view(archive, name) for name in (first, second)]
    found = run(views[0], views[1], night, unit=unit, within=Tolerance(distance, score, mag))
    kinds = Counter(found.rows["kind"].to_pylist())
    typer.echo(
        f"{len(found.nights)} nights, {found.exposures} exposures in both; candidates: {found.same} the same, "
        f"{kinds['changed']} changed, {kinds['first only']} only in {first}, {kinds['second only']} only in {second}; "
        f"{kinds['state']} exposures ended otherwise"
    )
    columns = [name for name in found.rows.column_names if name not in ("exposure_id", "message")]
    rows = sorted(found.rows.to_pylist(), key=_weight, reverse=True)
    if rows and most:
        lines = [[row[name] for name in (*columns, "message")] for row in rows[:most]]
        show_table(f"Differences ({len(lines)} of {len(rows)}, the largest first)", (*columns, "message"), lines)
    if out is not None:
        write_table(out, found.rows)
        typer.echo(f"all differences: {out}")


def _weight(row: dict[str, Any]) -> tuple[bool, float]:
    """States first, then by how much of a score has changed; a candidate that is gone has lost all of it."""
    return row["kind"] == "state", abs((row["score"] or 0.0) - (row["other_score"] or 0.0))


def _view(archive: Archive, name: str) -> Archive:
    from nightsift.archive import versions

    return archive if name == SERVED else versions.alone(archive, name)


def _reasons_against(archive: Archive, name: str) -> list[str]:
    """Campaigns of the version that have not ended, and nights of it that are going on."""
    from nightsift.archive import versions
    from nightsift.archive.night_status import nights_going_on
    from nightsift.backfill import campaigns, chunk_ledger

    reasons = []
    for one in campaigns.names(archive):
        if campaigns.read(archive, one).version != name:
            continue
        states = Counter(chunk_ledger.read(archive, one)["state"].to_pylist())
        left = states["planned"] + states["running"]
        if left or states["failed"]:
            reasons.append(f"campaign {one} has {left} chunks to do and {states['failed']} failed ones")
    held = set(versions.alone(archive, name).nights())
    reasons += [f"night {night}, which it holds, is going on" for night in nights_going_on(archive) if night in held]
    return reasons


def photometry(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    ra: Annotated[str | None, typer.Option(help="Right ascension, ICRS: 150.1163 (deg) or 10:00:27.9 (h).")] = None,
    dec: Annotated[str | None, typer.Option(help="Declination, ICRS: 2.2058 or +02:12:20.9 (deg).")] = None,
    positions: Annotated[
        Path | None, typer.Option(help="Table of positions, .csv or .parquet: ra, dec and, if wanted, name.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the light curves, .parquet or .csv.")] = None,
    night: Annotated[str | None, typer.Option(callback=night_given, help="One night only, as 2026-11-20.")] = None,
    unit: Annotated[str | None, typer.Option(help="One unit only.")] = None,
    recentre: Annotated[
        bool,
        typer.Option(
            help="On exposures where a peak above 10 sigma lies within 1.5 pixel of a position, measure there."
        ),
    ] = False,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run.")] = False,
) -> None:
    """Measure positions on every exposure of an archive: fluxes of both signs, errors and upper limits.

    Positions are held fixed, and are as good as the coordinates of the templates: half a FWHM off costs 29 % of the
    flux. --recentre mends that where the source is bright; fainter points stay where they are, and their fluxes too
    low. Better coordinates for the templates, or positions from the table of candidates, mend it everywhere.
    """
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey

    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise _wrong("--out", f"{out} is neither .parquet nor .csv", "name a file that ends in one of them")
    survey, places = load_survey(where), _positions(ra, dec, positions)
    compile_first(survey)
    from flows.photometry import light_curves

    with LineProgress("exposures", _line) as progress:
        curves, problems = light_curves(
            survey, places, night, unit=unit, progress=progress, recentre=RECENTRE if recentre else 0.0, track=track
        )
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    if out is None:
        _show(curves)
    else:
        _write(curves, out)
        typer.echo(f"{curves.num_rows} points: {out}")
    missed = [one for one in places if one.name not in set(curves["name"].to_pylist())]
    for line in _outside(Archive(survey.archive), missed, night, unit=unit):
        typer.echo(f"not measured: {line}", err=True)
    raise typer.Exit(1 if problems or missed else 0)


def _outside(archive: Archive, places: list[Any], night: str | None, *, unit: str | None) -> list[str]:
    """Say where the nearest exposure lies of each position that is on none."""
    from nightsift.archive import ledger
    from nightsift.sky.sphere import separation

    rows = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
    if not rows and places:
        raise nothing_recorded(archive, night, unit)
    known = {(row["field"], row["unit"]): (row["ra"], row["dec"]) for row in rows if row["ra"] is not None}
    lines = []
    for one in places:
        name = f"{one.name} ({one.ra:.5f} {one.dec:+.5f}) lies on none of {len(rows)} exposures"
        near = min(
            ((separation(ra, dec, one.ra, one.dec), *key, ra, dec) for key, (ra, dec) in known.items()), default=None
        )
        if near is None:
            lines.append(f"{name}: they have no coordinates; see [template] catalogue in docs/units.md")
            continue
        distance, field, of, ra, dec = near
        lines.append(f"{name}; the nearest field is {field} of {of} at {ra:.5f} {dec:+.5f}, {distance:.2f} deg away")
    return lines


def _line(row: dict[str, Any]) -> str:
    return f"{row['unit']} {row['url'].rsplit('/', 1)[-1]} {row['state']} {row['n_points']} points"


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="nightsift photometry", table="command line", key=key, what=what, advice=advice)


def angle(text: str, option: str) -> float:
    """Degrees of a coordinate as people write it: with colons or letters, a right ascension is in hours."""
    from astropy.coordinates import Angle

    hours = option == "--ra"
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(Angle(text, unit="hourangle" if hours else "deg").deg)
    except (ValueError, TypeError) as error:
        example = "150.1163 (degrees) or 10:00:27.9 (hours)" if hours else "2.2058 or +02:12:20.9 (degrees)"
        raise _wrong(option, f"'{text}' is no angle", f"write it as {example}") from error


def _positions(ra: str | None, dec: str | None, file: Path | None) -> list[Any]:
    """Positions from the command line and from a table."""
    from tasks.photometry import Position

    if (ra is None) != (dec is None) or (ra is None and file is None):
        raise _wrong("--ra, --dec, --positions", "no position", "give both --ra and --dec, or a table with --positions")
    given: list[tuple[str, Any, Any]] = []
    if ra is not None and dec is not None:
        given.append(("target", angle(ra, "--ra"), angle(dec, "--dec")))
    if file is not None:
        table = _read(file)
        names = table["name"].to_pylist() if "name" in table.column_names else range(1, table.num_rows + 1)
        given += list(zip(map(str, names), table["ra"].to_pylist(), table["dec"].to_pylist(), strict=True))
    for name, one_ra, one_dec in given:
        if not (one_ra is not None and one_dec is not None and 0 <= one_ra <= 360 and -90 <= one_dec <= 90):
            raise _wrong("position", f"{name}: ra {one_ra}, dec {one_dec}", "degrees: ra 0 to 360, dec -90 to 90")
    return [Position(name, float(one_ra), float(one_dec)) for name, one_ra, one_dec in given]


def _read(file: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        table = csv.read_csv(file) if file.suffix == ".csv" else parquet.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadTable(path=str(file), what=str(error)) from error
    missing = [name for name in ("ra", "dec") if name not in table.column_names]
    if missing:
        raise BadTable(path=str(file), what=f"no column {' or '.join(missing)} among {table.column_names}")
    return table


def _write(curves: pa.Table, out: Path) -> None:
    from pyarrow import csv

    from nightsift.io.atomic import atomic
    from nightsift.io.parquet import write_table

    if out.suffix == ".parquet":
        write_table(out, curves)
        return
    with atomic(out) as temporary:
        csv.write_csv(curves, temporary)


def _show(curves: pa.Table) -> None:
    from nightsift.core.flags import names

    rows = curves.select(VIEW).to_pylist()
    lines = [list({**row, "flags": " ".join(names(row["flags"]))}.values()) for row in rows]
    show_table(f"Light curves ({len(rows)} points)", VIEW, lines, right=VIEW[4:10])
