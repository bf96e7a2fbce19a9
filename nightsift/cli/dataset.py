"""``nightsift dataset``: make a training set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def dataset(
    out: Annotated[Path, typer.Argument(help="Folder of the new set.")],
    survey: Annotated[
        Path | None, typer.Option(help="Survey file whose exposures are used; random units are simulated without one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random depends on it.")] = 1,
    units: Annotated[int, typer.Option(min=1, help="Random units to simulate.")] = 40,
    orbits: Annotated[Path | None, typer.Option(help="Orbits of minor planets, as MPCORB.DAT or .gz.")] = None,
    galaxies: Annotated[
        Path | None, typer.Option(help="Galaxies with sizes (parquet); those of the templates by default.")
    ] = None,
    variables: Annotated[
        list[Path] | None,
        typer.Option(help="Variables, active galaxies or stars (parquet or CSV): detections there are no bogus."),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Truth of a simulated survey.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for the parts; a second run takes up what is there.")
    ] = None,
    doubt: Annotated[
        int, typer.Option(min=0, help="Rounds of networks trained to find doubtful labels; 0 for none.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run.")] = True,
) -> None:
    """Make a training set without people: synthetic transients, minor planets, false detections, galaxies."""
    from flows.dataset import make_dataset
    from nightsift.survey import load_survey
    from tasks.archive_examples import Catalogues

    files = {name: "" if one is None else str(one.absolute()) for name, one in
             (("truth", truth), ("orbits", orbits), ("galaxies", galaxies))}  # fmt: skip
    catalogues = Catalogues(**files, excluded=tuple(str(one.absolute()) for one in variables or ()))
    what = "exposures" if survey else "units"
    if survey and not orbits and not truth:
        typer.echo("without --orbits the minor planets of these frames count as bogus: give MPCORB.DAT")
    made = make_dataset(
        out, None if survey is None else load_survey(survey), catalogues, seed, units, work, workers,
        lambda done, total: typer.echo(f"{done}/{total} {what} done"), track, doubt,
    )  # fmt: skip
    for source, count in Counter(made.table["source"].to_pylist()).most_common():
        typer.echo(f"  {source}: {count}")
    for line in _poor_in_hosts(made.card):
        typer.echo(line)
    if "label_noise" in made.card:
        told = made.card["label_noise"]["doubtful"]
        typer.echo(
            f"  doubtful labels: {told['real']} real, {told['bogus']} bogus (column label_doubt; none is left out)"
        )
    real = int(made.labels.sum())
    typer.echo(f"{len(made)} examples, {real} real and {len(made) - real} bogus, written to {out}")


def _poor_in_hosts(card: Mapping[str, Any]) -> list[str]:
    """Said where far fewer synthetic transients than wished stand on a galaxy."""
    put, wished = card.get("synthetic", {}), card.get("placement", {}).get("on_hosts", 0.0)
    stars, hosted = put.get("injected", 0), put.get("injected_on_galaxies")
    if hosted is None or hosted >= 0.5 * wished * stars:
        return []
    return [
        f"  only {hosted} of {stars} injected stars stand on a galaxy ({wished:.0%} wished): few galaxies are known, "
        "give --galaxies"
    ]
