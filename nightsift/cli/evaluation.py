"""``nightsift evaluate``: a model on labelled sets, as one page; ``nightsift monitor``: drift of units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import night_given, nothing_recorded, show_table
from nightsift.core.errors import ConfigurationError
from nightsift.core.probabilities import probability_text

if TYPE_CHECKING:
    from models.training.examples import TrainingSet

PARTS = ("auto", "all", "train", "validation", "test")
VIEW = ("night", "unit", "state", "message", "p_value", "q_value", "exposures", "candidates")


def evaluate(
    model: Annotated[str, typer.Argument(help="Name or folder of the model.")],
    sets: Annotated[
        list[Path] | None,
        typer.Option(
            "--set",
            help="Folder of a labelled set, or of several; may be given several times. By default the examples that "
            "nightsift train set apart for this model.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("evaluation.html"),
    against: Annotated[
        list[str] | None,
        typer.Option(help="Another model, drawn beside: one trained without synthetic transients, say."),
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="Part of the sets: train, validation, test or all; auto takes the test part if there is one."
        ),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Threshold to judge at; the one on the model's card by default."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Dropout samples.")] = 20,
    learn: Annotated[
        int,
        typer.Option(min=0, help="Epochs of the networks of a learning curve, trained on the train part; 0 for none."),
    ] = 0,
) -> None:
    """Evaluate a model on labelled stamps that it was not trained on: one HTML page with figures and worst errors."""
    import json

    from models.network.store import load
    from nightsift.io.atomic import atomic
    from nightsift.report.model_pages import render_evaluation

    whole = read_sets(sets) if sets else read_held_out(model)
    chosen, part_name = choose_part(whole, part)
    models = []
    for place, name in enumerate([model, *(against or [])]):
        classifier = load(name)
        models.append(describe(classifier, chosen, threshold if place == 0 else None, samples=samples))
        if models[-1]["name"] in [one["name"] for one in models[:-1]]:  # two models of one name in two folders
            models[-1]["name"] = f"{classifier.model_id} ({place})"
        typer.echo(_summary_line(models[-1]))
    if learn:
        models[0]["learning"] = _learn(whole, classifier_options(model), learn)
    real = int(chosen.labels.sum())
    about = f"{len(chosen)} examples ({real} real, {len(chosen) - real} bogus) of {part_name}."
    with atomic(out) as temporary:
        temporary.write_text(
            render_evaluation(models, chosen.stamps, about, notes=notes_on(chosen, part_name)), encoding="utf-8"
        )
    numbers = [
        {key: one[key] for key in ("name", "model_id", "threshold", "headline", "units", "learning")} for one in models
    ]
    with atomic(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2, default=float) + "\n", encoding="utf-8")
    typer.echo(f"page: {out}, its numbers: {out.with_suffix('.json')}")


def _summary_line(one: dict[str, Any]) -> str:
    auc, missed, fpr = (row["value"] for row in one["headline"][:3])
    return (
        f"{one['model_id']}: AUC {probability_text(auc, 4)}, at {probability_text(one['threshold'])} "
        f"{missed:.2%} missed, FPR {fpr:.2%}"
    )


def read_sets(folders: list[Path]) -> TrainingSet:
    """All sets of some folders as one."""
    from models.training import examples

    found = []
    for folder in folders:
        own = [folder] if (folder / examples.TABLE).is_file() else sorted(
            path.parent for path in folder.glob(f"*/{examples.TABLE}")
        )  # fmt: skip
        if not own:
            raise _wrong(
                "--set", f"{folder} holds no {examples.TABLE}", "name a folder that nightsift dataset or train made"
            )
        found += [examples.read(one) for one in own]
    return examples.join(found) if len(found) > 1 else found[0]


def read_held_out(model: str) -> TrainingSet:
    """The examples that a model was tested on when it was trained, which it has not learnt from."""
    from models.network.store import find, model_id
    from models.training import examples
    from models.training.release import held_out_folder

    folder, identity = held_out_folder(find(model)), model_id(model)
    if not (folder / examples.TABLE).is_file():
        raise _wrong("--set", f"there is no set that {identity} was tested on in {folder}", "name a set with --set")
    found = examples.read(folder)
    if found.card.get("held_out_of") != identity:
        of = found.card.get("held_out_of", "no model")
        raise _wrong(
            "--set", f"the examples in {folder} were set apart for {of}, not for {identity}", "name another set"
        )
    return found


def choose_part(whole: TrainingSet, part: str) -> tuple[TrainingSet, str]:
    """The part to be judged, and how it is called."""
    if part not in PARTS:
        raise _wrong("--part", f"'{part}' is no part", f"choose one of {', '.join(PARTS)}")
    names = set(whole.table["split"].to_pylist())
    if part == "auto":
        part = "test" if "test" in names else "all"
    if part == "all":
        return whole, "the whole set"
    if part not in names:
        raise _wrong("--part", f"the set has no part '{part}', but {', '.join(sorted(names))}", "choose one of these")
    return whole.part(part), f"the part '{part}' of the set"


def notes_on(chosen: TrainingSet, part_name: str) -> list[str]:
    """What the reader of the page must know."""
    notes = []
    if "whole" in part_name:
        notes.append("The set is not divided into parts: the figures hold only if the model was not trained on it.")
    return notes


def describe(classifier: Any, chosen: TrainingSet, threshold: float | None, *, samples: int) -> dict[str, Any]:
    """Everything that the page shows of one model."""
    from models.training import evaluation as curves
    from models.training import evaluation as e

    one = e.evaluate(classifier, chosen, threshold, samples=samples)
    return {
        "name": one.name, "model_id": one.model_id, "threshold": one.threshold, "headline": e.headline(one),
        "confusion": e.confusion(one), "units": e.by_unit(one), "curves": curves.threshold_curves(one),
        "risk": curves.risk_curves(one),
        "recovery": {
            "snr": curves.recovery(one, "snr", curves.SNR_EDGES), "mag": curves.recovery(one, "mag"),
            "host_offset": curves.recovery(one, "host_offset", curves.OFFSET_EDGES),
        },
        "reliability": tuple(curves.reliability_bins(scores, one.labels) for scores in (one.scores, one.calibrated)),
        "worst": e.worst(one), "learning": [],
        "examples": {"labels": one.labels, "scores": one.scores, "spread": one.spread, "columns": one.columns},
    }  # fmt: skip


def classifier_options(model: str) -> Any:
    """How the model was trained, by its card."""
    from models.network.inputs import Recipe
    from models.network.store import load
    from models.training.train import TrainOptions

    card = load(model).card["training"]
    return TrainOptions(
        architecture=card["architecture"], network=card["network"], recipe=Recipe.from_mapping(card["recipe"]),
        batch=card["batch"], learning_rate=card["learning_rate"], prevalence=card["prevalence"], seed=card["seed"],
    )  # fmt: skip


def _learn(whole: TrainingSet, options: Any, epochs: int) -> list[dict[str, float]]:
    import dataclasses

    from models.training.dataset import assign_splits
    from models.training.subsets import learning_curve

    if len(set(whole.table["split"].to_pylist())) < 3:
        whole = assign_splits(whole, options.seed)

    def show_networks(done: int, total: int) -> None:
        typer.echo(f"learning curve: {done}/{total} networks")

    return learning_curve(whole, dataclasses.replace(options, epochs=epochs, threads=2), progress=show_networks)


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="nightsift evaluate", table="command line", key=key, what=what, advice=advice)


def monitor(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    night: Annotated[
        str | None, typer.Option(callback=night_given, help="One night only, as 2026-11-20; all by default.")
    ] = None,
    unit: Annotated[list[str] | None, typer.Option(help="Unit to judge; may be given several times.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Nights of a new calibration set; the first ten by default."),
    ] = None,
    inject: Annotated[
        int, typer.Option(min=0, help="Exposures of each night that sources are injected into and reduced again.")
    ] = 1,
    rate: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="False alarms per unit-night that are accepted.")
    ] = 0.005,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run.")] = True,
) -> None:
    """Judge what is new or changed against each unit's calibration set; exit code 1 when something drifted."""
    nights = _span(reference) if reference is not None else None
    from flows.monitoring import monitor as run
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    archive = Archive(survey.archive)
    if night is not None and night not in archive.nights():
        raise nothing_recorded(archive, night)
    compile_first(survey)
    summary = run(where, night, unit, reference=nights, inject=inject, rate=rate, progress=_show_state, track=track)
    left = {row["unit"]: row["message"] for row in summary.rows if row["state"] == "unjudged"}
    made = set(summary.judged)
    judged = sum(row["state"] != "unjudged" for row in summary.rows if (row["unit"], row["night"]) in made)
    before = len(summary.rows) - len(made)
    more = f", {before} stand as they were" if before else ""
    typer.echo(f"{judged} unit-nights judged{more}, {len(summary.drifted)} drifted")
    if summary.undated:
        typer.echo(f"  not judged: {summary.undated} exposures without a night")
    for name, why in left.items():  # the latest reason of each unit
        typer.echo(f"  not judged: {name}{f', {why}' if why else ''}")
    if summary.drifted:
        show_table("Drifted", VIEW, [[row.get(name) for name in VIEW] for row in summary.drifted], right=VIEW[4:])
    for problem in summary.problems:
        typer.echo(f"problem: {problem}", err=True)
    for one, path in list(summary.pages.items())[-1:]:
        typer.echo(f"page of {one}: {path}")
    raise typer.Exit(summary.exit_code)


def _span(text: str) -> tuple[str, str]:
    first, colon, last = text.partition(":")
    if not colon or not first or not last or first > last:
        raise ConfigurationError(
            file="nightsift monitor", table="command line", key="--reference", what=f"'{text}' is no span of nights",
            advice="give it as 2026-11-01:2026-11-14",
        )  # fmt: skip
    return first, last


def _show_state(unit: str, night: str, state: str) -> None:
    typer.echo(f"{night} {unit}: {state}")
