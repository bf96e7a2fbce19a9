"""Train a real/bogus model: simulate units, reduce their nights, label what was found, learn, evaluate, write.

Each random unit is one task; tasks exchange folder names, never pixels. A unit whose examples are on disk is not made
again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import flow

from flows.runner import run_all
from flows.server import tracking
from models import examples
from models.dataset import assign_splits, collect
from models.errors import TooFewUnits
from models.examples import TrainingSet
from models.release import release
from models.train import Progress, TrainOptions, train
from nightsift.errors import ConfigurationError
from nightsift.io.paths import Archive
from nightsift.survey import Runner
from nightsift.tables import TRUTH
from tasks.examples import make_examples
from tasks.logs import run_logger

UNITS = 40
SEED = 1
EPOCHS = 20
WORKERS = 2
LEAST_PART = 0.8  # of the units asked for must have given examples, else something is wrong with the run


def train_model(
    out: str | Path,
    seed: int = SEED,
    units: int = UNITS,
    archive: str | Path | None = None,
    truth: str | Path | None = None,
    work: str | Path | None = None,
    epochs: int = EPOCHS,
    workers: int = WORKERS,
    on_unit: Callable[[int, int], None] | None = None,
    on_epoch: Progress | None = None,
    track: bool = True,
) -> dict[str, Any]:
    """Make a model on simulated nights of random units, or on reduced nights whose truth is known.

    Parameters
    ----------
    out : str or Path
        Folder of the model; its last part is the name.
    seed : int, optional
        Everything random depends on it.
    units : int, optional
        Random units to simulate.
    archive, truth : str or Path, optional
        Archive of reduced nights and their truth (schema `nightsift.tables.TRUTH`), instead of simulating.
    work : str or Path, optional
        Folder for what is made on the way; ``<name>-training`` in the current folder when not given.
    epochs : int, optional
        Most epochs.
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
        If only one of `archive` and `truth` is given.
    TooFewUnits
        If too many units gave no examples.
    TooFewGroups
        If the examples cannot be split without leaks.
    """
    if (archive is None) != (truth is None):
        raise ConfigurationError(
            file="command line", table="train", key="from, truth", what="only one of them is given",
            advice="an archive can only be learnt from with its truth: give both or none",
        )  # fmt: skip
    out = Path(out)
    plan = (out, seed, units, archive, truth, Path(work or f"{out.name}-training"), epochs, workers, on_unit, on_epoch)
    if not track:
        return _train(*plan, tracked=False)
    with tracking() as tracked:
        if not tracked:
            return _train(*plan, tracked=False)
        return training.with_options(flow_run_name=f"train {out.name}")(*plan, tracked=True)


def _train(
    out: Path,
    seed: int,
    units: int,
    archive: str | Path | None,
    truth: str | Path | None,
    work: Path,
    epochs: int,
    workers: int,
    on_unit: Callable[[int, int], None] | None,
    on_epoch: Progress | None,
    tracked: bool,
) -> dict[str, Any]:
    logger = run_logger()
    if archive is None or truth is None:
        made = {"from": "simulated nights of random units", "by": "nightsift train", "seed": seed, "units": units}
        found = _simulated(work, seed, units, workers, on_unit, tracked)
    else:
        made = {"from": str(archive), "truth": str(truth), "seed": seed}
        found = collect(Archive(Path(archive)), pq.read_table(truth, schema=TRUTH), Path(archive).resolve().name)
    found = assign_splits(found, seed)
    logger.info("%d examples, %d of them real", len(found), int(found.labels.sum()))
    trained = train(found, TrainOptions(epochs=epochs, seed=seed, threads=workers), on_epoch, work / "training.npz")
    card = release(out, trained, found, made).card
    logger.info("model %s written to %s, threshold %.3f", card["model_id"], out, card["threshold"])
    return card


training = flow(name="training", persist_result=False, validate_parameters=False)(_train)


def _simulated(
    work: Path, seed: int, units: int, workers: int, on_unit: Callable[[int, int], None] | None, tracked: bool
) -> TrainingSet:
    """Examples of all units that gave some; the others are logged."""
    calls = [{"work": str(work), "seed": seed, "index": index} for index in range(units)]
    runner = Runner(kind="processes" if workers > 1 else "in-process", workers=workers, address="")
    folders, logger = [], run_logger()
    for number, ended in enumerate(run_all(make_examples, calls, runner, tracked), start=1):
        if ended.error is None:
            folders.append(Path(ended.result))
        else:
            logger.warning("unit %d gave no examples: %s", ended.call["index"], ended.error)
        if on_unit is not None:
            on_unit(number, units)
    parts = [part for part in map(examples.read, sorted(folders)) if len(part)]
    if len(parts) < LEAST_PART * units:
        raise TooFewUnits(found=len(parts), asked=units)
    return examples.join(parts)
