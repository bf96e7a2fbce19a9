"""``nightsift train``: make a real/bogus model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nightsift.errors import ConfigurationError


def train(
    out: Annotated[
        Path, typer.Argument(help="Folder of the new model; its last part is the name that unit files give.")
    ],
    seed: Annotated[int | None, typer.Option(help="Everything random depends on it.")] = None,
    units: Annotated[int | None, typer.Option(min=1, help="Random units to simulate.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training part at most.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for the examples; a second run takes up what is there.")
    ] = None,
    sets: Annotated[
        list[Path] | None, typer.Option(help="Learn from the stamp sets in this folder instead; may be repeated.")
    ] = None,
    archive: Annotated[Path | None, typer.Option(help="Learn from this archive instead of simulating.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Table of the truth of that archive.")] = None,
    test: Annotated[
        list[Path] | None,
        typer.Option(help="Stamp sets of other units, to be tested on; the rest is learnt from. May be repeated."),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Name of a file in models/architectures.")] = None,
    prevalence: Annotated[
        float | None, typer.Option(min=1e-6, max=0.999, help="Part of the candidates that is real where scores hold.")
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Source of examples not to be learnt from, but tested on: a value of the column source, "
            "'synthetic' or 'real-but-minor-planets'. May be repeated."
        ),
    ] = None,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run.")] = True,
) -> None:
    """Train a real/bogus model on simulated nights or on stamp sets, evaluate it and write it with its card."""
    if (archive is None) != (truth is None):
        raise ConfigurationError(
            file="command line", table="train", key="--archive, --truth", what="only one of the two was given",
            advice="give both to learn from reduced nights, or neither to simulate",
        )  # fmt: skip
    from flows.training import EPOCHS, SEED, UNITS, WORKERS, Source, train_model
    from models.train import TrainOptions

    start = SEED if seed is None else seed
    folders, reduced, told = tuple(map(str, sets or ())), archive and str(archive), truth and str(truth)
    held = tuple(map(str, test or ()))
    source = Source(folders, reduced or None, told or None, units or UNITS, start, held, tuple(leave_out or ()))
    asked = {"architecture": architecture, "prevalence": prevalence}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    options = TrainOptions(epochs=epochs or EPOCHS, seed=start, **given)
    card = train_model(out, source, options, work, workers or WORKERS, _tell_unit, _tell_epoch, track)
    typer.echo(f"model {card['model_id']} written to {out}, threshold {card['threshold']:.3f}")


def _tell_unit(done: int, total: int) -> None:
    typer.echo(f"{done}/{total} units simulated and reduced")


def _tell_epoch(epoch: int, total: int, losses: Any) -> None:
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in losses.items())
    typer.echo(f"epoch {epoch}/{total}: {told}")
