"""``nightsift train``, ``dataset`` and ``transfer``: real/bogus models, their training sets, and their transfer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import text
from nightsift.cli.labels import read_labels, rules_asked_by
from nightsift.core.errors import ConfigurationError
from nightsift.core.probabilities import threshold_text

if TYPE_CHECKING:
    from models.training.examples import TrainingSet
    from models.transfer.unit_calibration import Threshold


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
    architecture: Annotated[str | None, typer.Option(help="Name of a file in models/network/architectures.")] = None,
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
    from models.training.release import after_training
    from models.training.train import TrainOptions

    if archive is None and not sets:
        compile_first()
    start = SEED if seed is None else seed
    folders, reduced, known = tuple(map(str, sets or ())), archive and str(archive), truth and str(truth)
    held = tuple(map(str, test or ()))
    source = Source(folders, reduced or None, known or None, units or UNITS, start, held, tuple(leave_out or ()))
    asked = {"architecture": architecture, "prevalence": prevalence}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    options = TrainOptions(epochs=epochs or EPOCHS, seed=start, **given)
    card = train_model(
        out, source, options, work=work, workers=workers or WORKERS, on_unit=_show_unit, on_epoch=_show_epoch,
        track=track,
    )  # fmt: skip
    typer.echo("\n".join(after_training(out, card, folders)))


def _show_unit(done: int, total: int) -> None:
    typer.echo(f"{done}/{total} units simulated and reduced")


def _show_epoch(epoch: int, total: int, losses: Any) -> None:
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in losses.items())
    typer.echo(f"epoch {epoch}/{total}: {figures}")


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
    from flows.training import make_dataset
    from nightsift.archive.survey import load_survey
    from tasks.examples import Catalogues

    files = {name: "" if one is None else str(one.absolute()) for name, one in
             (("truth", truth), ("orbits", orbits), ("galaxies", galaxies))}  # fmt: skip
    catalogues = Catalogues(**files, excluded=tuple(str(one.absolute()) for one in variables or ()))
    what = "exposures" if survey else "units"
    if survey and not orbits and not truth:
        typer.echo("without --orbits the minor planets of these frames count as bogus: give MPCORB.DAT")
    loaded = None if survey is None else load_survey(survey)
    compile_first(loaded)
    made = make_dataset(
        out, loaded, catalogues, seed=seed, units=units, work=work,
        workers=workers, on_part=lambda done, total: typer.echo(f"{done}/{total} {what} done"), track=track,
        doubt_rounds=doubt,
    )  # fmt: skip
    for source, count in Counter(made.table["source"].to_pylist()).most_common():
        typer.echo(f"  {source}: {count}")
    for line in _poor_in_hosts(made.card):
        typer.echo(line)
    if "label_noise" in made.card:
        doubtful = made.card["label_noise"]["doubtful"]
        counts = f"{doubtful['real']} real, {doubtful['bogus']} bogus"
        typer.echo(f"  doubtful labels: {counts} (column label_doubt; none is left out)")
    real = int(made.labels.sum())
    typer.echo(f"{len(made)} examples, {real} real and {len(made) - real} bogus, written to {out}")


def _poor_in_hosts(card: Mapping[str, Any]) -> list[str]:
    """Warn where far fewer synthetic transients than asked for lie on a galaxy."""
    put, asked = card.get("synthetic", {}), card.get("placement", {}).get("on_hosts", 0.0)
    stars, hosted = put.get("injected", 0), put.get("injected_on_galaxies")
    if hosted is None or hosted >= 0.5 * asked * stars:
        return []
    return [
        f"  only {hosted} of {stars} injected stars lie on a galaxy ({asked:.0%} asked for): few galaxies are known, "
        "give --galaxies"
    ]


def transfer(
    out: Annotated[Path, typer.Argument(help="Folder of the new model; its last part is its name.")],
    base: Annotated[str, typer.Option(help="Model to start from: name or folder.")] = "base",
    survey: Annotated[
        Path | None, typer.Option(metavar="SURVEY.toml", help="Survey whose archive holds the labelled candidates.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV or parquet file with the columns candidate_id and label (real or bogus).")
    ] = None,
    unit: Annotated[str, typer.Option(help="Only candidates of this unit.")] = "",
    stamps: Annotated[Path | None, typer.Option(help="Stamp set to learn from, instead of survey and labels.")] = None,
    strategy: Annotated[
        str, typer.Option(help="auto, frozen, head, partial, full or scratch: what part of the network learns.")
    ] = "auto",
    rule: Annotated[str, typer.Option(help='What the threshold may cost: "FPR 1e-2" or "miss 1%".')] = "FPR 1e-2",
    prevalence: Annotated[
        float | None, typer.Option(min=1e-6, max=0.999, help="Part of the candidates that is real in service.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random depends on it.")] = 0,
) -> None:
    """Fine-tune a real/bogus model on few labels of a new unit, calibrate it, and write it with its card."""
    if (stamps is None) == (survey is None or labels is None):
        raise ConfigurationError(
            file="command line", table="transfer", key="--survey, --labels, --stamps",
            what="the labelled stamps are not given, or given twice",
            advice="give --survey and --labels, or --stamps",
        )  # fmt: skip
    from models.network.store import load
    from models.transfer.transfer import TransferOptions, transfer, write_transferred
    from models.transfer.tuner import TuneOptions
    from models.transfer.unit_calibration import parse_rule
    from nightsift.io.atomic import atomic

    parse_rule(rule, "command line")
    _check_strategy(strategy)
    source = load(base, engine="keras")
    examples, where = _examples(stamps, survey, labels, size=source.recipe.size, unit=unit)
    options = TransferOptions(strategy, TuneOptions(seed=seed), prevalence=prevalence)
    found = transfer(source, examples, options, progress=_show_fits)
    made = {"by": "nightsift transfer", "from": where, "unit": unit, "seed": seed}
    model, calibration, threshold = write_transferred(
        out, found, source, examples=examples, made=made, options=options, rule=rule, unit=unit
    )
    home, path = _home_of_calibration(survey, unit, out)
    with atomic(path) as temporary:
        temporary.write_text(calibration.to_json(), encoding="utf-8")
    _report(found.curves, found.strategy, found.rounds, notes=(*found.notes, *calibration.reasons))
    for name, value in model.card["figures_held_out"].items():
        typer.echo(f"  {name.replace('_', ' ')} {text(value)}")
    if not found.rounds:
        typer.echo(f"the network is that of {source.model_id}: nightsift calibrate does the same without a new model")
    typer.echo(f"model {model.model_id} written to {out}, its calibration ({calibration.method}) to {path}")
    typer.echo(f'put into the unit file:\n\n[model]\nname = "{out.resolve()}"\ncalibration = "{path.name}"{home}')
    typer.echo(_threshold_line(threshold))
    for name in sorted(rules_asked_by(labels) - {"random"} if labels else ()):
        typer.echo(
            f"# asked for by the rule {name}, the labels are no fair draw: calibrate with others (--rule random)"
        )


def _check_strategy(strategy: str) -> None:
    from models.transfer.transfer import AUTO
    from models.transfer.tuner import STRATEGIES

    if strategy not in (AUTO, *STRATEGIES):
        raise ConfigurationError(
            file="command line", table="transfer", key="--strategy", what=f"there is no strategy '{strategy}'",
            advice=f"give one of {', '.join((AUTO, *STRATEGIES))}",
        )  # fmt: skip


def _home_of_calibration(survey: Path | None, unit: str, out: Path) -> tuple[str, Path]:
    """Where the calibration is written: beside the unit file where that is known, else beside the model."""
    if survey is not None and unit:
        from nightsift.archive.survey import load_survey

        return "", Path(load_survey(survey).load_unit(unit).file).with_name(f"{out.name}.calibration.json")
    return "  # copy it beside the unit file", out.with_name(f"{out.name}.calibration.json")


def _examples(
    stamps: Path | None, survey: Path | None, labels: Path | None, *, size: int, unit: str
) -> tuple[TrainingSet, str]:
    """The labelled stamps, and where they come from."""
    if stamps is not None:
        from models.training.examples import read

        found = read(stamps)
        if unit:
            found = found.take(_rows(found, unit))
        return found, str(stamps)
    assert survey is not None
    assert labels is not None
    from models.training.dataset import labelled_candidates
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey

    loaded = load_survey(survey)
    return labelled_candidates(Archive(loaded.archive), read_labels(labels), size, unit=unit or None), str(labels)


def _rows(found: TrainingSet, unit: str):  # type: ignore[no-untyped-def]
    import numpy as np

    units = np.asarray(found.table["unit"])
    rows = np.flatnonzero(units == unit)
    if not len(rows):
        raise ConfigurationError(
            file="command line", table="transfer", key="--unit", what=f"the stamp set has no unit {unit!r}",
            advice=f"it has {', '.join(sorted(set(units.tolist())))}",
        )  # fmt: skip
    return rows


def _show_fits(strategy: str, done: int, of: int) -> None:
    typer.echo(f"{strategy}: {done}/{of} fits")


def _report(curves: dict[str, list[float]], strategy: str, rounds: int, *, notes: tuple[str, ...]) -> None:
    for name, curve in curves.items():
        best = min(range(len(curve)), key=curve.__getitem__)
        typer.echo(f"  {name:8s} held-out loss {curve[best]:.4f} nat after {best} rounds ({curve[0]:.4f} before)")
    typer.echo(f"taken: {strategy}, {rounds} rounds")
    for note in notes:
        typer.echo(f"  {note}")


def _threshold_line(threshold: Threshold | Exception) -> str:
    from models.transfer.unit_calibration import Threshold

    if not isinstance(threshold, Threshold):
        return f"# threshold: {threshold}"
    counted = f"{threshold.low:.2%} to {threshold.high:.2%} on {threshold.examples} labels"
    return f"threshold = {threshold_text(threshold.value)}     # {threshold.rule}: {counted}"
