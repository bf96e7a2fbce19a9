"""Starts 64 nights in as many processes at the same moment: ``python -m tests.drills.many SURVEY RUNS OUT``.

Everything is imported once, before the processes part, so that they begin together and the machine is not busy with
starting Python. Each run is told one exposure, each exposure is told to several runs.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from flows.night import night
from nightsift.archive.survey import Runner, Survey, load_survey
from nightsift.io.sources import discover

HERE = Runner(kind="in-process", workers=1, address="")


def of_one_exposure(survey: Survey, file: str) -> Survey:
    """The survey with one frame."""
    return survey.model_copy(update={"sources": (survey.sources[0].model_copy(update={"pattern": file}),)})


def one_run(survey: Survey, file: str, together: Any, out: Path) -> None:
    """Reduce one exposure as a night of its own, and write down how that ended."""
    together.wait()
    try:
        summary = night(of_one_exposure(survey, file), runner=HERE)
        told: dict[str, Any] = {"states": summary.states, "tracked": summary.tracked, "error": ""}
    except Exception as error:  # noqa: BLE001 - it is what this drill is about
        told = {"states": {}, "tracked": None, "error": f"{type(error).__name__}: {error}"}
    out.write_text(json.dumps(told))


def main(file: str, runs: int, out: str) -> None:
    """Start the runs and wait for them."""
    survey, fork = load_survey(file), multiprocessing.get_context("fork")
    frames = sorted(Path(one.url).name for one in discover(survey.sources[0].frames, survey.sources[0].pattern))
    together = fork.Barrier(runs)
    started = [
        fork.Process(target=one_run, args=(survey, frames[n % len(frames)], together, Path(out) / f"{n}.json"))
        for n in range(runs)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
