"""``nightsift transfer``: carry a real/bogus model over to a new unit with few labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightsift.cli.calibration import read_labels, rules_asked_by
from nightsift.errors import ConfigurationError

if TYPE_CHECKING:
    from models.examples import TrainingSet
    from models.thresholds import Threshold


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
            what="the labelled stamps are not told, or told twice",
            advice="give --survey and --labels, or --stamps",
        )  # fmt: skip
    from models.store import load
    from models.thresholds import parse_rule
    from models.transfer import TransferOptions, transfer
    from models.transfer_release import write_transferred
    from models.tuner import TuneOptions
    from nightsift.io.atomic import atomic

    parse_rule(rule, "command line")
    _check_strategy(strategy)
    source = load(base, engine="keras")
    examples, where = _examples(stamps, survey, labels, source.recipe.size, unit)
    options = TransferOptions(strategy, TuneOptions(seed=seed), prevalence=prevalence)
    found = transfer(source, examples, options, _tell)
    made = {"by": "nightsift transfer", "from": where, "unit": unit, "seed": seed}
    model, calibration, threshold = write_transferred(out, found, source, examples, made, options, rule, unit)
    home, path = _home_of_calibration(survey, unit, out)
    with atomic(path) as temporary:
        temporary.write_text(calibration.to_json(), encoding="utf-8")
    _report(found.curves, found.strategy, found.rounds, (*found.notes, *calibration.reasons))
    for name, value in model.card["figures_held_out"].items():
        typer.echo(f"  {name.replace('_', ' ')} {value if isinstance(value, str) else format(value, '.4f')}")
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
    from models.transfer import AUTO
    from models.tuned_parts import STRATEGIES

    if strategy not in (AUTO, *STRATEGIES):
        raise ConfigurationError(
            file="command line", table="transfer", key="--strategy", what=f"there is no strategy '{strategy}'",
            advice=f"give one of {', '.join((AUTO, *STRATEGIES))}",
        )  # fmt: skip


def _home_of_calibration(survey: Path | None, unit: str, out: Path) -> tuple[str, Path]:
    """Where the calibration is written: beside the unit file where that is known, else beside the model."""
    if survey is not None and unit:
        from nightsift.survey import load_survey

        return "", Path(load_survey(survey).load_unit(unit).file).with_name(f"{out.name}.calibration.json")
    return "  # copy it beside the unit file", out.with_name(f"{out.name}.calibration.json")


def _examples(
    stamps: Path | None, survey: Path | None, labels: Path | None, size: int, unit: str
) -> tuple[TrainingSet, str]:
    """The labelled stamps, and where they come from."""
    if stamps is not None:
        from models.examples import read

        found = read(stamps)
        if unit:
            found = found.take(_rows(found, unit))
        return found, str(stamps)
    assert survey is not None
    assert labels is not None
    from models.labelled import labelled_candidates
    from nightsift.io.paths import Archive
    from nightsift.survey import load_survey

    loaded = load_survey(survey)
    return labelled_candidates(Archive(loaded.archive), read_labels(labels), size, unit or None), str(labels)


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


def _tell(strategy: str, done: int, of: int) -> None:
    typer.echo(f"{strategy}: {done}/{of} fits")


def _report(curves: dict[str, list[float]], strategy: str, rounds: int, notes: tuple[str, ...]) -> None:
    for name, curve in curves.items():
        best = min(range(len(curve)), key=curve.__getitem__)
        typer.echo(f"  {name:8s} held-out loss {curve[best]:.4f} nat after {best} rounds ({curve[0]:.4f} before)")
    typer.echo(f"taken: {strategy}, {rounds} rounds")
    for note in notes:
        typer.echo(f"  {note}")


def _threshold_line(threshold: Threshold | Exception) -> str:
    from models.thresholds import Threshold

    if not isinstance(threshold, Threshold):
        return f"# threshold: {threshold}"
    counted = f"{threshold.low:.2%} to {threshold.high:.2%} on {threshold.examples} labels"
    return f"threshold = {threshold.value:.4f}     # {threshold.rule}: {counted}"
