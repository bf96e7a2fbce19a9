"""``nightsift show``: nights, ledger and candidates of an archive, one subtraction as a figure, or a FITS file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import night_given, nothing_recorded, show_table, text
from nightsift.core.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from nightsift.core.rows import LedgerRow
    from nightsift.unit.units import Unit

FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz", ".fz")
LEDGER_VIEW = (
    "unit", "url", "state", "reason", "seeing", "zero_point", "limiting_mag", "align_method", "align_residual",
    "star_residual", "verdict", "n_candidates", "n_unflagged", "n_accepted", "seconds",
)  # fmt: skip

CANDIDATE_VIEW = (
    "candidate_id",
    "field",
    "ra",
    "dec",
    "x_file",
    "y_file",
    "sign",
    "snr",
    "mag",
    "mag_err",
    "score",
    "score_std",
    "flags",
)
CANDIDATE_TITLES = [{"score_std": "log odds"}.get(name, name) for name in CANDIDATE_VIEW]

MOST_VERDICTS = 5
"""Differences that are not good whose reasons are printed."""

STATES = ("done", "refused", "waiting", "failed")


def show(
    where: Annotated[Path, typer.Argument(metavar="ARCHIVE|SURVEY.toml|FILE.fits", help="What to look at.")],
    night: Annotated[str | None, typer.Option(callback=night_given, help="One night only, as 2026-11-20.")] = None,
    unit: Annotated[str | None, typer.Option(help="One unit only.")] = None,
    best: Annotated[
        int, typer.Option(min=0, help="Candidates to list, best score first; flagged ones come last.")
    ] = 20,
    exposure: Annotated[
        str | None, typer.Option(help="Draw the subtraction of this exposure: its id, or the name of its file.")
    ] = None,
    chart: Annotated[
        str | None, typer.Option(help="Draw finding charts of this candidate, its exposure beside its template.")
    ] = None,
    width: Annotated[float, typer.Option(min=0.05, max=600.0, help="Side of a finding chart (arcmin).")] = 5.0,
    out: Annotated[Path | None, typer.Option(help="File of the drawing; pair.png or chart.png by default.")] = None,
    method: Annotated[str | None, typer.Option(help="Subtraction method to draw, instead of the unit's own.")] = None,
    at: Annotated[str | None, typer.Option(help="Draw only the part round this pixel, as X,Y.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of that part (pixel).")] = 200,
) -> None:
    """Show the nights, ledger and candidates of an archive, draw one subtraction, or describe a FITS file."""
    if chart is not None:
        draw_chart(where, chart, out or Path("chart.png"), width=width)
        return
    if exposure is not None:
        draw(where, exposure, out or Path("pair.png"), night=night, unit=unit, method=method, at=at, size=size)
        return
    if where.name.lower().endswith(FITS_SUFFIXES):
        _show_fits(where)
        return
    from nightsift.archive import ledger
    from nightsift.archive.candidates import read_candidates

    archive = open_archive(where)
    rows = ledger.read(archive, night, unit).to_pylist()
    if not rows:
        raise nothing_recorded(archive, night, unit)
    show_nights(rows)
    if night is not None or len({row["night"] for row in rows}) == 1:
        show_ledger(rows)
    show_candidates(read_candidates(archive, night, unit), best)


def open_archive(where: Path) -> Any:
    """Archive of a survey file, or the archive that a folder is; a folder without a ledger is an error."""
    from nightsift.archive.paths import Archive

    if where.suffix == ".toml":
        from nightsift.archive.survey import load_survey

        return Archive(load_survey(where).archive)
    if not where.is_dir():
        raise ConfigurationError(
            file=str(where), table="archive", key="folder", what="no such folder",
            advice="name an archive, a survey file or a FITS file",
        )  # fmt: skip
    archive = Archive(where)
    if not archive.nights(undated=True) and not (archive.home / "templates").is_dir():
        raise ConfigurationError(
            file=str(where), table="archive", key="folder", what="this folder is no archive: it has no ledger",
            advice="name the folder that the survey file calls archive, or the survey file itself",
        )  # fmt: skip
    return archive


def show_nights(rows: list[dict[str, Any]]) -> None:
    """One line for each night and unit: how many exposures ended how; those without a night come first."""
    from nightsift.archive.paths import night_title, sort_nights

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
    doubtful = [row for row in rows if row["verdict"] not in (None, "", "good")]
    for row in rows:
        if row["message"]:
            typer.echo(f"{row['unit']} {row['url'].rsplit('/', 1)[-1]}: {row['message']}")
    for row in doubtful[:MOST_VERDICTS]:
        typer.echo(f"{row['unit']} {row['url'].rsplit('/', 1)[-1]} is {row['verdict']}: {row['verdict_reasons']}")
    if doubtful:
        more = f"{len(doubtful) - MOST_VERDICTS} more are; " if len(doubtful) > MOST_VERDICTS else ""
        typer.echo(f"{more}their candidates carry the flag SUSPECT_FRAME; docs/operating.md lists usual causes")


def show_row(row: Mapping[str, Any]) -> None:
    """Every column of one ledger row that holds something."""
    show_table("Ledger row", ("column", "value"), [(k, v) for k, v in row.items() if text(v) not in ("", "{}")])


def show_candidates(candidates: pa.Table, best: int) -> None:
    """Print the best candidates: those without a flag first, by score, then by signal to noise."""
    from nightsift.core.flags import names
    from nightsift.core.probabilities import LEGEND, log_odds_text

    rows = candidates.select(CANDIDATE_VIEW).to_pylist()
    rows.sort(key=lambda row: (row["flags"] != 0, -(row["score"] or 0.0), -row["snr"]))
    lines = []
    for row in rows[:best]:
        digits = {"ra": 5, "dec": 5, "x_file": 1, "y_file": 1}
        position = {name: "" if row[name] is None else f"{row[name]:.{most}f}" for name, most in digits.items()}
        odds = {"score_std": log_odds_text(row["score"], row["score_std"])}
        lines.append(list({**row, **position, **odds, "flags": " ".join(names(row["flags"]))}.values()))
    title = f"Candidates ({len(lines)} of {len(rows)}, {sum(row['flags'] == 0 for row in rows)} without a flag)"
    show_table(title, CANDIDATE_TITLES, lines, right=CANDIDATE_TITLES[2:-1])
    if lines:
        typer.echo(LEGEND)


def _show_fits(path: Path) -> None:
    """HDUs of a FITS file and the cards of its first header with content."""
    import warnings

    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    from nightsift.core.errors import UnreadableFits

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


def draw(
    where: Path,
    exposure: str,
    out: Path,
    *,
    night: str | None,
    unit: str | None,
    method: str | None,
    at: str | None,
    size: int,
) -> None:
    """Draw science, template, difference, score, mask, anchors, kernel and PSF of one exposure; nothing is stored."""
    from nightsift.archive import ledger
    from nightsift.io.sources import local_copy
    from nightsift.report.pair_figure import draw_pair
    from tasks.reduce import Reduction, run_steps
    from tasks.steps import check_unit

    centre = _centre(at)
    archive = open_archive(where)
    row = _find(ledger.read(archive, night, unit).to_pylist(), exposure, where)
    loaded = check_unit(_unit(where, row["unit"], method))
    compile_first()
    reduction = Reduction(row.copy())
    with local_copy(row["url"]) as path:
        run_steps(reduction, path, loaded, archive=archive)
    assert reduction.pair is not None
    assert reduction.difference is not None
    title = f"{row['unit']}  {Path(row['url']).name}  night {row['night']}"
    drawn = draw_pair(
        out,
        reduction.pair,
        reduction.difference,
        candidates=reduction.candidates,
        title=title,
        centre=centre,
        size=size,
    )
    difference = reduction.difference
    typer.echo(f"{difference.method}: {difference.verdict}, {reduction.candidates.num_rows} candidates")
    for reason in difference.reasons:
        typer.echo(f"  {reason}")
    typer.echo(f"drawn: {drawn}")


def draw_chart(where: Path, candidate: str, out: Path, *, width: float) -> None:
    """Draw finding charts of a candidate: its exposure and its template, north up."""
    from nightsift.archive import ledger
    from nightsift.core import tables
    from nightsift.io.parquet import read_table
    from nightsift.report.finding_chart import finding_chart, write_charts
    from tasks.template import aligned

    archive = open_archive(where)
    row = _find(ledger.read(archive).to_pylist(), candidate.rpartition("-")[0], where)
    path = archive.candidates(row["night"], row["unit"], row["exposure_id"])
    found = [one for one in read_table(path, tables.CANDIDATES).to_pylist() if one["candidate_id"] == candidate]
    if not found or found[0]["ra"] is None:
        what = "is not among them" if not found else "has no sky position: its template has no coordinates"
        raise _wrong("--chart", f"{candidate} {what}", f"nightsift show {where} lists the candidates")
    science, template = aligned(row["url"], _unit(where, row["unit"], None), archive)
    place = (found[0]["ra"], found[0]["dec"])
    named = ((science, f"{row['unit']} {science.meta.band} {row['night']}"), (template.frame, "template"))
    charts = [finding_chart(one, place, 60.0 * width, title=candidate, caption=text) for one, text in named]
    typer.echo(f"drawn: {write_charts(out, charts)}")


def _centre(at: str | None) -> tuple[float, float] | None:
    if at is None:
        return None
    try:
        x, y = (float(part) for part in at.split(","))
    except ValueError as error:
        raise _wrong("--at", f"{at!r} is no position", "give two pixel coordinates, as --at 812,1040") from error
    return x, y


def _find(rows: list[LedgerRow], exposure: str, where: Path) -> LedgerRow:
    """The one exposure with this identity or file name."""
    found = [row for row in rows if exposure in (row["exposure_id"], row["url"], Path(row["url"]).name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise _wrong(str(where), f"no exposure {exposure!r} is recorded", f"nightsift show {where} lists them")
    names = ", ".join(row["exposure_id"] for row in found)
    raise _wrong(str(where), f"{len(found)} exposures are called {exposure!r}", f"name one of {names}")


def _unit(where: Path, name: str, method: str | None) -> Unit:
    """The unit as the survey knows it, perhaps with another method (at that method's own options)."""
    from nightsift.archive.survey import load_survey
    from nightsift.unit.units import load_unit

    unit = load_survey(where).load_unit(name) if where.suffix == ".toml" else load_unit(name)
    if method is None or method == unit.subtraction.method:
        return unit
    chosen = unit.subtraction.model_copy(update={"method": method, "options": {}})
    return unit.model_copy(update={"subtraction": chosen})


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="command line", table="show", key=key, what=what, advice=advice)
