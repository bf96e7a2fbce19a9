"""Train a real/bogus model: simulate units, reduce their nights, label what was found, learn, evaluate, write.

Each random unit is one task; tasks exchange folder names, never pixels. A unit whose examples are on disk is not made
again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import flow

from flows.dataset import simulated_examples
from flows.recorded import recorded
from models import examples
from models.dataset import assign_splits, collect, with_test_set
from models.examples import TrainingSet
from models.leave_out import leave_out
from models.release import release
from models.split import SPLITS
from models.train import Progress, TrainOptions, train
from nightsift.errors import ConfigurationError
from nightsift.io.paths import Archive
from nightsift.tables import TRUTH
from tasks.logs import run_logger

UNITS = 40
SEED = 1
EPOCHS = 20
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Source:
    """Where examples come from: stamp sets, else an archive with its truth, else simulated units.

    Attributes
    ----------
    sets : tuple of str
        Folders of stamp sets (`models.examples`), or folders above them.
    archive, truth : str or None
        Archive of reduced nights and their truth (schema `nightsift.tables.TRUTH`).
    units : int
        Random units to simulate.
    seed : int
        Seed of the units, and of the split where a set has none.
    test : tuple of str
        Folders of stamp sets of other units, which become the test part; everything else is learnt from.
    leave_out : tuple of str
        Sources of examples that are not learnt from, see `models.leave_out`.
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
    work: str | Path | None = None,
    workers: int = WORKERS,
    on_unit: Callable[[int, int], None] | None = None,
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
        Called after each epoch, see `models.train.train`.
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
    on_unit: Callable[[int, int], None] | None,
    on_epoch: Progress | None,
    tracked: bool,
) -> dict[str, Any]:
    logger = run_logger()
    made: dict[str, Any] = {"by": "nightsift train", "seed": source.seed}
    if source.sets:
        made |= {"from": ", ".join(source.sets)}
        found = _read_sets(source.sets)
    elif source.archive is not None and source.truth is not None:
        made |= {"from": source.archive, "truth": source.truth}
        archive = Path(source.archive)
        found = collect(Archive(archive), pq.read_table(source.truth, schema=TRUTH), archive.resolve().name)
    else:
        made |= {"from": "simulated nights of random units", "units": source.units}
        found = simulated_examples(work, source.seed, source.units, workers, on_unit, tracked)
    if source.test:
        made |= {"tested on": ", ".join(source.test)}
        found = with_test_set(found, _read_sets(source.test), source.seed)
    elif not source.sets or not set(SPLITS) <= set(found.table["split"].to_pylist()):
        found = assign_splits(found, source.seed)
    if source.leave_out:
        made |= {"not learnt from": ", ".join(source.leave_out)}
        found = leave_out(found, source.leave_out)
    logger.info("%d examples, %d of them real", len(found), int(found.labels.sum()))
    trained = train(found, options, on_epoch, work / "training.npz")
    card = release(out, trained, found, made).card
    logger.info("model %s written to %s, threshold %.3f", card["model_id"], out, card["threshold"])
    return card


training = flow(name="training", persist_result=False, validate_parameters=False)(_train)


def _read_sets(folders: tuple[str, ...]) -> TrainingSet:
    """All stamp sets in some folders, joined; a split that all of them have is kept."""
    found = sorted({file.parent for folder in folders for file in Path(folder).rglob(examples.TABLE)})
    parts = [part for part in map(examples.read, found) if len(part)]
    if not parts:
        raise ConfigurationError(
            file="command line", table="train", key="sets", what=f"there is no stamp set in {', '.join(folders)}",
            advice=f"give folders that hold {examples.TABLE}",
        )  # fmt: skip
    return examples.join(parts)
