"""``nightsift show``: nights, ledger and candidates of an archive as tables, or what a FITS file holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.console import show_table, text
from nightsift.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz", ".fz")
LEDGER_VIEW = (
    "unit", "url", "state", "reason", "seeing", "zero_point", "limiting_mag", "align_method", "align_residual",
    "star_residual", "verdict", "n_candidates", "n_unflagged", "n_accepted", "seconds",
)  # fmt: skip
CANDIDATE_VIEW = (
    "candidate_id",
    "unit",
    "field",
    "ra",
    "dec",
    "sign",
    "snr",
    "mag",
    "mag_err",
    "score",
    "score_std",
    "flags",
)
STATES = ("done", "refused", "waiting", "failed")


def show(
    where: Annotated[Path, typer.Argument(metavar="ARCHIVE|SURVEY.toml|FILE.fits", help="What to look at.")],
    night: Annotated[str | None, typer.Option(help="One night only, as 2026-11-20.")] = None,
    unit: Annotated[str | None, typer.Option(help="One unit only.")] = None,
    best: Annotated[
        int, typer.Option(min=0, help="Candidates to list, best score first; flagged ones come last.")
    ] = 20,
    exposure: Annotated[
        str | None, typer.Option(help="Draw the subtraction of this exposure: its id, or the name of its file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File of the drawing.")] = Path("pair.png"),
    method: Annotated[str | None, typer.Option(help="Subtraction method to draw, instead of the unit's own.")] = None,
    at: Annotated[str | None, typer.Option(help="Draw only the part round this pixel, as X,Y.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of that part (pixel).")] = 200,
) -> None:
    """Show the nights, ledger and candidates of an archive, draw one subtraction, or describe a FITS file."""
    if exposure is not None:
        from nightsift.cli.pair import draw

        draw(where, exposure, out, night, unit, method, at, size)
        return
    if where.name.lower().endswith(FITS_SUFFIXES):
        _show_fits(where)
        return
    from nightsift import ledger
    from nightsift.io.parquet import read_candidates

    archive = open_archive(where)
    rows = ledger.read(archive, night, unit).to_pylist()
    if not rows:
        typer.echo(f"nothing is recorded in {where} for night {night or 'any'}, unit {unit or 'any'}")
        return
    show_nights(rows)
    if night is not None or len({row["night"] for row in rows}) == 1:
        show_ledger(rows)
    show_candidates(read_candidates(archive, night, unit), best)


def open_archive(where: Path) -> Any:
    """Archive of a survey file, or the archive that a folder is; a folder without a ledger is an error."""
    from nightsift.io.paths import Archive

    if where.suffix == ".toml":
        from nightsift.survey import load_survey

        return Archive(load_survey(where).archive)
    if not where.is_dir():
        raise ConfigurationError(
            file=str(where), table="archive", key="folder", what="no such folder",
            advice="name an archive, a survey file or a FITS file",
        )  # fmt: skip
    return Archive(where)


def show_nights(rows: list[dict[str, Any]]) -> None:
    """One line for each night and unit: how many exposures ended how; those without a night come first."""
    from nightsift.io.paths import night_title, sort_nights

    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["night"], row["unit"]), []).append(row)
    lines, nights = [], sort_nights(night for night, _ in groups)
    for key, group in sorted(groups.items(), key=lambda one: (nights.index(one[0][0]), one[0][1])):
        states = Counter(row["state"] for row in group)
        sums = [sum(row[name] or 0 for row in group) for name in ("n_candidates", "n_accepted")]
        lines.append([night_title(key[0]), key[1], len(group), *(states[state] for state in STATES), *sums])
    header = ("night", "unit", "exposures", *STATES, "candidates", "accepted")
    show_table("Nights", header, lines, right=header[2:])


def show_ledger(rows: list[dict[str, Any]]) -> None:
    """One line for each exposure, in order of unit and time."""
    rows = sorted(rows, key=lambda row: (row["unit"], row["mjd"] or 0.0, row["url"]))
    lines = [[row["url"].rsplit("/", 1)[-1] if name == "url" else row[name] for name in LEDGER_VIEW] for row in rows]
    show_table("Ledger", ["file" if name == "url" else name for name in LEDGER_VIEW], lines, right=LEDGER_VIEW[4:7])
    for row in rows:
        if row["message"]:
            typer.echo(f"{row['unit']} {row['url'].rsplit('/', 1)[-1]}: {row['message']}")


def show_row(row: Mapping[str, Any]) -> None:
    """Every column of one ledger row that holds something."""
    show_table("Ledger row", ("column", "value"), [(k, v) for k, v in row.items() if text(v) not in ("", "{}")])


def show_candidates(candidates: pa.Table, best: int) -> None:
    """Print the best candidates: those without a flag first, by score, then by signal to noise."""
    from nightsift.flags import names

    rows = candidates.select(CANDIDATE_VIEW).to_pylist()
    rows.sort(key=lambda row: (row["flags"] != 0, -(row["score"] or 0.0), -row["snr"]))
    lines = []
    for row in rows[:best]:
        position = {name: f"{row[name]:.5f}" if row[name] is not None else "" for name in ("ra", "dec")}
        lines.append(list({**row, **position, "flags": " ".join(names(row["flags"]))}.values()))
    title = f"Candidates ({len(lines)} of {len(rows)}, {sum(row['flags'] == 0 for row in rows)} without a flag)"
    show_table(title, CANDIDATE_VIEW, lines, right=CANDIDATE_VIEW[3:-1])


def _show_fits(path: Path) -> None:
    """HDUs of a FITS file and the cards of its first header with content."""
    import warnings

    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    from nightsift.errors import UnreadableFits

    try:
        with warnings.catch_warnings(), fits.open(path, memmap=False) as hdus:
            warnings.simplefilter("ignore", AstropyWarning)
            lines = [
                [
                    i,
                    one.name,
                    type(one).__name__,
                    "x".join(map(str, one.shape or ())),
                    one.header.get("BITPIX"),
                    len(one.header),
                ]
                for i, one in enumerate(hdus)
            ]
            cards = [
                (c.keyword, c.value, c.comment)
                for one in hdus
                for c in one.header.cards
                if c.keyword not in ("", "COMMENT")
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UnreadableFits(path=str(path), what=str(error)) from error
    show_table(
        str(path), ("hdu", "name", "kind", "shape (y, x)", "bits", "cards"), lines, right=("hdu", "bits", "cards")
    )
    show_table("Header", ("card", "value", "comment"), cards)
