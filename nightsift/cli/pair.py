"""``nightsift show --exposure``: subtract one exposure of an archive once more, in memory, and draw it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nightsift.errors import ConfigurationError

if TYPE_CHECKING:
    from nightsift.units import Unit


def draw(
    where: Path,
    exposure: str,
    out: Path,
    night: str | None,
    unit: str | None,
    method: str | None,
    at: str | None,
    size: int,
) -> None:
    """Draw science, template, difference, score, mask, anchors, kernel and PSF of one exposure; nothing is stored."""
    from nightsift import ledger
    from nightsift.cli.show import open_archive
    from nightsift.io.paths import local_copy
    from nightsift.pair_figure import draw_pair
    from tasks.reduce import Reduction, run_steps

    centre = _centre(at)
    archive = open_archive(where)
    row = _find(ledger.read(archive, night, unit).to_pylist(), exposure, where)
    loaded = _unit(where, row["unit"], method)
    reduction = Reduction({**row})
    with local_copy(row["url"]) as path:
        run_steps(reduction, path, loaded, archive)
    assert reduction.pair is not None
    assert reduction.difference is not None
    title = f"{row['unit']}  {Path(row['url']).name}  night {row['night']}"
    drawn = draw_pair(out, reduction.pair, reduction.difference, reduction.candidates, title, centre, size)
    difference = reduction.difference
    typer.echo(f"{difference.method}: {difference.verdict}, {reduction.candidates.num_rows} candidates")
    for reason in difference.reasons:
        typer.echo(f"  {reason}")
    typer.echo(f"drawn: {drawn}")


def _centre(at: str | None) -> tuple[float, float] | None:
    if at is None:
        return None
    try:
        x, y = (float(part) for part in at.split(","))
    except ValueError as error:
        raise _wrong("--at", f"{at!r} is no position", "give two pixel coordinates, as --at 812,1040") from error
    return x, y


def _find(rows: list[dict[str, Any]], exposure: str, where: Path) -> dict[str, Any]:
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
    from nightsift.survey import load_survey
    from nightsift.units import load_unit

    unit = load_survey(where).load_unit(name) if where.suffix == ".toml" else load_unit(name)
    if method is None or method == unit.subtraction.method:
        return unit
    chosen = unit.subtraction.model_copy(update={"method": method, "options": {}})
    return unit.model_copy(update={"subtraction": chosen})


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="command line", table="show", key=key, what=what, advice=advice)
