"""Training sets and real/bogus models, of simulated nights of random units or of the exposures of an archive.

Each random unit or exposure is one task; tasks exchange folder names, never pixels. Examples that are on disk are not
made again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import flow

from flows.pool import run_all
from flows.tracking import recorded
from models.training import examples
from models.training.dataset import assign_splits, collect, leave_out, with_test_set
from models.training.examples import TrainingSet, join
from models.training.release import held_out_folder, release
from models.training.split import SPLITS
from models.training.subsets import measure_doubt
from models.training.train import Progress, TrainOptions, train
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, Survey
from nightsift.core.errors import ConfigurationError, NoExamples, TooFewGroups, TooFewUnits
from nightsift.core.probabilities import threshold_text
from nightsift.core.tables import TRUTH
from tasks.examples import Catalogues, exposure_calls, make_examples, make_exposure_examples
from tasks.retry import run_logger
from tasks.steps import checked_units

UNITS = 40
SEED = 1
EPOCHS = 20
WORKERS = 2
LEAST_PART = 0.8  # of the units asked for must have given examples, else something is wrong with the run

PartProgress = Callable[[int, int], None]
"""Called with the number of units or exposures done, and of all."""


def make_dataset(
    out: str | Path,
    survey: Survey | None = None,
    catalogues: Catalogues | None = None,
    *,
    seed: int = 1,
    units: int = 40,
    work: str | Path | None = None,
    workers: int = 2,
    on_part: PartProgress | None = None,
    track: bool = True,
    doubt_rounds: int = 0,
) -> TrainingSet:
    """Make a training set and write it with its card.

    Parameters
    ----------
    out : str or Path
        Folder of the set.
    survey : Survey, optional
        Survey whose exposures are made examples of; random units are simulated without one.
    catalogues : Catalogues, optional
        What is known of the sky of the survey.
    seed : int, optional
        Everything random depends on it.
    units : int, optional
        Random units to simulate.
    work : str or Path, optional
        Folder for the parts; ``<out>-parts`` when not given. A second run takes up what is there.
    workers : int, optional
        Processes.
    on_part : callable, optional
        Called with the number of units or exposures done and of all.
    track : bool, optional
        False to run without Prefect.
    doubt_rounds : int, optional
        How often networks are trained to find doubtful labels (`models.training.subsets`); 0 leaves their column empty.

    Returns
    -------
    TrainingSet
        The set, as written.

    Raises
    ------
    TooFewUnits
        If too many simulated units gave no examples.
    NoExamples
        If no exposure of the archive gave any.
    """
    if survey is not None:
        checked_units(survey)
    out = Path(out)
    parts = Path(work) if work is not None else out.with_name(f"{out.name}-parts")
    plan = (out, survey, catalogues or Catalogues(), seed, units, parts, workers, on_part, doubt_rounds)
    return recorded(dataset, f"data set {out.name}", *plan, track=track)


def _make(
    out: Path,
    survey: Survey | None,
    catalogues: Catalogues,
    seed: int,
    units: int,
    parts: Path,
    workers: int,
    on_part: PartProgress | None,
    doubt_rounds: int,
    tracked: bool,
) -> TrainingSet:
    logger = run_logger()
    if survey is None:
        found = _simulated_examples(parts, seed, units, workers=workers, on_unit=on_part, tracked=tracked)
        made: dict[str, Any] = {"from": "simulated nights of random units", "seed": seed, "units": units}
    else:
        folders = _made(
            make_exposure_examples,
            exposure_calls(survey, catalogues, parts, seed=seed),
            workers,
            progress=on_part,
            tracked=tracked,
        )
        sets = [part for part in map(examples.read, folders) if len(part)]
        if not sets:
            raise NoExamples(survey=survey.name, exposures=len(folders))
        found = join(sets)
        made = {
            "from": f"survey {survey.name}",
            "archive": str(survey.archive),
            "seed": seed,
            **catalogues.to_mapping(),
        }
    try:
        found = assign_splits(found, seed)
    except TooFewGroups as error:
        logger.warning("the set has no split: %s", error)
    found = TrainingSet(found.stamps, found.table, {"made": made, **found.card})
    if doubt_rounds:
        found = measure_doubt(found, rounds=doubt_rounds, seed=seed)
    examples.write(out, found)
    logger.info("%d examples, %d of them real, written to %s", len(found), int(found.labels.sum()), out)
    return found


dataset = flow(name="dataset", persist_result=False, validate_parameters=False)(_make)


def _simulated_examples(
    work: Path, seed: int, units: int, *, workers: int, on_unit: PartProgress | None, tracked: bool
) -> TrainingSet:
    """Make the examples of random units; units that gave none are logged, too many of them raise TooFewUnits."""
    calls = [{"work": str(work), "seed": seed, "index": index} for index in range(units)]
    parts = [
        part
        for part in map(examples.read, _made(make_examples, calls, workers, progress=on_unit, tracked=tracked))
        if len(part)
    ]
    if len(parts) < LEAST_PART * units:
        raise TooFewUnits(found=len(parts), asked=units)
    return join(parts)


def _made(
    task: Any, calls: Sequence[dict[str, Any]], workers: int, *, progress: PartProgress | None, tracked: bool
) -> list[Path]:
    """Return the folders of the parts that were made, in order; the others are logged."""
    runner = Runner(kind="processes" if workers > 1 else "in-process", workers=workers, address="")
    folders, logger = [], run_logger()
    for number, ended in enumerate(run_all(task, calls, runner, tracked=tracked), start=1):
        if ended.error is None:
            folders.append(Path(ended.result))
        else:
            name = ended.call.get("label") or f"unit {ended.call.get('index')}"
            logger.warning("%s gave no examples: %s", name, ended.error)
        if progress is not None:
            progress(number, len(calls))
    return sorted(folders)


@dataclass(frozen=True, slots=True)
class Source:
    """Where examples come from: stamp sets, else an archive with its truth, else simulated units.

    Attributes
    ----------
    sets : tuple of str
        Folders of stamp sets (`models.training.examples`), or folders above them.
    archive, truth : str or None
        Archive of reduced nights and their truth (schema `nightsift.core.tables.TRUTH`).
    units : int
        Random units to simulate.
    seed : int
        Seed of the units, and of the split where a set has none.
    test : tuple of str
        Folders of stamp sets of other units, which become the test part; everything else is learnt from.
    leave_out : tuple of str
        Sources of examples that are not learnt from, see `models.training.dataset`.
    """

    sets: tuple[str, ...] = ()
    archive: str | None = None
    truth: str | None = None
    units: int = UNITS
    seed: int = SEED
    test: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.archive is None) != (self.truth is None):
            raise ConfigurationError(
                file="command line", table="train", key="from, truth", what="only one of them is given",
                advice="an archive can only be learnt from with its truth: give both or none",
            )  # fmt: skip
        if self.sets and self.archive is not None:
            raise ConfigurationError(
                file="command line", table="train", key="sets, archive", what="both are given",
                advice="learn from stamp sets or from an archive",
            )  # fmt: skip


def train_model(
    out: str | Path,
    source: Source | None = None,
    options: TrainOptions | None = None,
    *,
    work: str | Path | None = None,
    workers: int = WORKERS,
    on_unit: PartProgress | None = None,
    on_epoch: Progress | None = None,
    track: bool = True,
) -> dict[str, Any]:
    """Make a model from stamp sets, from reduced nights whose truth is known, or from simulated nights of random units.

    Parameters
    ----------
    out : str or Path
        Folder of the model; its last part is the name.
    source : Source, optional
        Where the examples come from; simulated units when not given.
    options : TrainOptions, optional
        How to train.
    work : str or Path, optional
        Folder for what is made on the way; ``<name>-training`` in the current folder when not given.
    workers : int, optional
        Processes that make examples, and threads that train.
    on_unit : callable, optional
        Called with the number of units done and of all units.
    on_epoch : callable, optional
        Called after each epoch, see `models.training.train.train`.
    track : bool, optional
        False to run without Prefect.

    Returns
    -------
    dict
        The card of the model.

    Raises
    ------
    ConfigurationError
        If a folder holds no stamp set.
    TooFewUnits
        If too many units gave no examples.
    TooFewGroups
        If the examples cannot be split without leaks.
    UnknownSource, NothingLeft
        If what is to be left out is not there, or leaves nothing to learn.
    """
    out, source = Path(out), source or Source()
    options = dataclasses.replace(options or TrainOptions(epochs=EPOCHS, seed=source.seed), threads=workers)
    plan = (out, source, options, Path(work or f"{out.name}-training"), workers, on_unit, on_epoch)
    return recorded(training, f"train {out.name}", *plan, track=track)


def _train(
    out: Path,
    source: Source,
    options: TrainOptions,
    work: Path,
    workers: int,
    on_unit: PartProgress | None,
    on_epoch: Progress | None,
    tracked: bool,
) -> dict[str, Any]:
    logger, is_on_disk = run_logger(), False
    made: dict[str, Any] = {"by": "nightsift train", "seed": source.seed}
    if source.sets:
        found = _read_sets(source.sets)
        made |= {"from": f"the stamp sets {', '.join(source.sets)}", "sets made from": _origins(source.sets)}
    elif source.archive is not None and source.truth is not None:
        made |= {"from": f"the archive {source.archive} with the truth in {source.truth}", "truth": source.truth}
        place = Path(source.archive).resolve()
        name = place.parent.name if place.name == "archive" else place.name
        found = collect(Archive(place), pq.read_table(source.truth, schema=TRUTH), name)
    else:
        made |= {"from": "simulated nights of random units", "units": source.units}
        found = _simulated_examples(work, source.seed, source.units, workers=workers, on_unit=on_unit, tracked=tracked)
    if source.test:
        made |= {"tested on": ", ".join(source.test)}
        found = with_test_set(found, _read_sets(source.test), source.seed)
    elif source.sets and set(SPLITS) <= set(found.table["split"].to_pylist()):
        is_on_disk = True
    else:
        found = assign_splits(found, source.seed)
    if source.leave_out:
        made |= {"not learnt from": ", ".join(source.leave_out)}
        found = leave_out(found, source.leave_out)
    logger.info("%d examples, %d of them real", len(found), int(found.labels.sum()))
    trained = train(found, options, on_epoch, checkpoint=work / "training.npz")
    card = release(out, trained, found, made=made).card
    shutil.rmtree(held_out_folder(out), ignore_errors=True)  # that of a model of this name before
    if not is_on_disk:
        test = found.part("test")
        known = {"made": made, "held_out_of": card["model_id"]}
        examples.write(held_out_folder(out), TrainingSet(test.stamps, test.table, known))
    logger.info("model %s written to %s, threshold %s", card["model_id"], out, threshold_text(card["threshold"]))
    return card


training = flow(name="training", persist_result=False, validate_parameters=False)(_train)


def _folders_of_sets(folders: tuple[str, ...]) -> list[Path]:
    return sorted({file.parent for folder in folders for file in Path(folder).rglob(examples.TABLE)})


def _origins(folders: tuple[str, ...]) -> str:
    """What stamp sets were made from, by their cards: simulated nights, surveys."""
    cards = [json.loads((one / "card.json").read_text(encoding="utf-8")) for one in _folders_of_sets(folders)]
    return ", ".join(sorted({str(card.get("made", {}).get("from", "not known")) for card in cards}))


def _read_sets(folders: tuple[str, ...]) -> TrainingSet:
    """Return all stamp sets in some folders, joined; a split that all of them have stays."""
    parts = [part for part in map(examples.read, _folders_of_sets(folders)) if len(part)]
    if not parts:
        raise ConfigurationError(
            file="command line", table="train", key="sets", what=f"there is no stamp set in {', '.join(folders)}",
            advice=f"give folders that hold {examples.TABLE}",
        )  # fmt: skip
    return examples.join(parts)
