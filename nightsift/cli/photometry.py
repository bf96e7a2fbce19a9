"""``nightsift photometry``: measure positions on every exposure of an archive that covers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.console import LineProgress, show_table
from nightsift.errors import BadTable, ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

VIEW = ("name", "mjd", "unit", "band", "flux", "flux_err", "snr", "mag", "mag_err", "mag_limit_5", "flags", "verdict")

RECENTRE = 1.5
"""How far a position may move (pixel)."""


def photometry(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    ra: Annotated[float | None, typer.Option(help="Right ascension, ICRS (deg).")] = None,
    dec: Annotated[float | None, typer.Option(help="Declination, ICRS (deg).")] = None,
    positions: Annotated[
        Path | None, typer.Option(help="Table of positions, .csv or .parquet: ra, dec and, if wanted, name.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the light curves, .parquet or .csv.")] = None,
    night: Annotated[str | None, typer.Option(help="One night only, as 2026-11-20.")] = None,
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
    from nightsift.survey import load_survey

    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise _wrong("--out", f"{out} is neither .parquet nor .csv", "name a file that ends in one of them")
    survey, places = load_survey(where), _positions(ra, dec, positions)
    from flows.photometry import light_curves

    with LineProgress("exposures", _line) as progress:
        curves, problems = light_curves(survey, places, night, unit, progress, RECENTRE if recentre else 0.0, track)
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    if out is None:
        _show(curves)
    else:
        _write(curves, out)
        typer.echo(f"{curves.num_rows} points: {out}")
    raise typer.Exit(1 if problems else 0)


def _line(row: dict[str, Any]) -> str:
    return f"{row['unit']} {row['url'].rsplit('/', 1)[-1]} {row['state']} {row['n_points']} points"


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="nightsift photometry", table="command line", key=key, what=what, advice=advice)


def _positions(ra: float | None, dec: float | None, file: Path | None) -> list[Any]:
    """Positions from the command line and from a table."""
    from tasks.photometry import Position

    if (ra is None) != (dec is None) or (ra is None and file is None):
        raise _wrong("--ra, --dec, --positions", "no position", "give both --ra and --dec, or a table with --positions")
    given = [] if ra is None or dec is None else [("target", ra, dec)]
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
    from nightsift.flags import names

    rows = curves.select(VIEW).to_pylist()
    lines = [list({**row, "flags": " ".join(names(row["flags"]))}.values()) for row in rows]
    show_table(f"Light curves ({len(rows)} points)", VIEW, lines, right=VIEW[4:10])
