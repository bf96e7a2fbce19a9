"""Make a training set: of simulated nights of random units, or of the exposures of an archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from flows.recorded import recorded
from flows.runner import run_all
from models import examples
from models.dataset import assign_splits
from models.errors import TooFewGroups, TooFewUnits
from models.examples import TrainingSet, join
from models.label_noise import measure_doubt
from nightsift.errors import NoExamples
from nightsift.survey import Runner, Survey
from tasks.archive_examples import Catalogues, exposure_calls, make_exposure_examples
from tasks.examples import make_examples
from tasks.logs import run_logger

Told = Callable[[int, int], None]
LEAST_PART = 0.8  # of the units asked for must have given examples, else something is wrong with the run


def make_dataset(
    out: str | Path,
    survey: Survey | None = None,
    catalogues: Catalogues | None = None,
    seed: int = 1,
    units: int = 40,
    work: str | Path | None = None,
    workers: int = 2,
    on_part: Told | None = None,
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
        How often networks are trained to find doubtful labels (`models.label_noise`); 0 leaves their column empty.

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
    on_part: Told | None,
    doubt_rounds: int,
    tracked: bool,
) -> TrainingSet:
    logger = run_logger()
    if survey is None:
        found = simulated_examples(parts, seed, units, workers, on_part, tracked)
        made: dict[str, Any] = {"from": "simulated nights of random units", "seed": seed, "units": units}
    else:
        folders = _made(
            make_exposure_examples, exposure_calls(survey, catalogues, parts, seed), workers, on_part, tracked
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


def simulated_examples(
    work: Path, seed: int, units: int, workers: int, on_unit: Told | None, tracked: bool
) -> TrainingSet:
    """Examples of random units; those that gave none are logged.

    Parameters
    ----------
    work : Path
        Folder for the examples of each unit.
    seed, units : int
        Seed, and number of units.
    workers : int
        Processes.
    on_unit : callable or None
        Called with the number of units done and of all.
    tracked : bool
        Whether Prefect sees the run.

    Returns
    -------
    TrainingSet
        All examples.

    Raises
    ------
    TooFewUnits
        If too many units gave none.
    """
    calls = [{"work": str(work), "seed": seed, "index": index} for index in range(units)]
    parts = [part for part in map(examples.read, _made(make_examples, calls, workers, on_unit, tracked)) if len(part)]
    if len(parts) < LEAST_PART * units:
        raise TooFewUnits(found=len(parts), asked=units)
    return join(parts)


def _made(task: Any, calls: Sequence[dict[str, Any]], workers: int, told: Told | None, tracked: bool) -> list[Path]:
    """Folders of the parts that were made, in order; the others are logged."""
    runner = Runner(kind="processes" if workers > 1 else "in-process", workers=workers, address="")
    folders, logger = [], run_logger()
    for number, ended in enumerate(run_all(task, calls, runner, tracked), start=1):
        if ended.error is None:
            folders.append(Path(ended.result))
        else:
            name = ended.call.get("label") or f"unit {ended.call.get('index')}"
            logger.warning("%s gave no examples: %s", name, ended.error)
        if told is not None:
            told(number, len(calls))
    return sorted(folders)
