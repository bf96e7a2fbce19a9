"""``nightsift catalog``: versions of the catalogue listed, compared, promoted, gone back from and removed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.console import show_table
from nightsift.cli.show import open_archive, show_nights

if TYPE_CHECKING:
    from nightsift.io.paths import Archive

app = typer.Typer(no_args_is_help=True, help="Versions of the catalogue: what is served, and what was made beside it.")

WHERE = Annotated[Path, typer.Argument(metavar="SURVEY.toml|ARCHIVE", help="Survey file or archive.")]
NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name of a version; main is the one that nights go to.")]
SERVED = "served"


@app.command("list")
def list_versions(where: WHERE) -> None:
    """List the versions of an archive: those that are served from top to bottom, then the others."""
    from nightsift import ledger, versions
    from nightsift.io.paths import WITHOUT_NIGHT, sort_nights

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
    from nightsift import ledger, versions

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
    from nightsift import versions

    archive = open_archive(where)
    versions.find(archive, name)
    before = archive.served
    now = versions.promote(archive, name, tuple(_against(archive, name)), force)
    typer.echo(f"served from top to bottom: {', '.join(now)}" + (" (as before)" if now == before else ""))
    if now != before:
        typer.echo(f"the way back: nightsift catalog promote {where} {before[0]}")


@app.command()
def remove(where: WHERE, name: NAME) -> None:
    """Remove a version that is not served, with all its files."""
    from nightsift import versions

    versions.remove(open_archive(where), name)
    typer.echo(f"removed: {name}")


@app.command()
def compare(
    where: WHERE,
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A version, or served for what is served now.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another one.")],
    night: Annotated[str | None, typer.Option(help="One night only, as 2026-11-20.")] = None,
    unit: Annotated[str | None, typer.Option(help="One unit only.")] = None,
    distance: Annotated[float, typer.Option(min=0.0, help="Pixels between candidates at the same place.")] = 1.5,
    score: Annotated[float, typer.Option(min=0.0, help="Difference of scores that is none.")] = 0.01,
    mag: Annotated[float, typer.Option(min=0.0, help="Difference of magnitudes that is none.")] = 0.02,
    most: Annotated[int, typer.Option(min=0, help="Differences to print.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write every difference to this parquet file.")] = None,
) -> None:
    """Compare two versions: exposures that ended otherwise, candidates of one only, changed scores."""
    from nightsift.io.parquet import write_table
    from nightsift.version_comparison import Tolerance
    from nightsift.version_comparison import compare as run

    archive = open_archive(where)
    views = [_view(archive, name) for name in (first, second)]
    found = run(views[0], views[1], night, unit, Tolerance(distance, score, mag))
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
    from nightsift import versions

    return archive if name == SERVED else versions.alone(archive, name)


def _against(archive: Archive, name: str) -> list[str]:
    """Campaigns of the version that have not ended, and nights of it that are going on."""
    from nightsift import campaigns, chunk_ledger, versions
    from nightsift.tonight import nights_going_on

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
