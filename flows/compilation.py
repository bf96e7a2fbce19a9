"""Compile the loops over pixels before they are needed: a small survey, reduced once with every method."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.nightly import night
from flows.templates import build_templates
from nightsift.errors import CompilationFailed
from nightsift.simulate import SimulationOptions, simulate
from nightsift.survey import Runner
from subtraction import method_names

HERE = Runner(kind="in-process", workers=1, address="")


PACKAGES = ("nightsift", "subtraction", "models")


def forget_compiled() -> int:
    """Delete the compiled code of this project from the cache on disk.

    Numba looks at the file of a function, not at those of the functions that were compiled into it: after an update of
    some files old code could go on running.

    Returns
    -------
    int
        Files deleted.
    """
    roots = [Path(folder) for name in PACKAGES for folder in import_module(name).__path__]
    if os.environ.get("NUMBA_CACHE_DIR"):
        roots.append(Path(os.environ["NUMBA_CACHE_DIR"]))
    found = [file for root in roots for pattern in ("*.nbi", "*.nbc") for file in root.rglob(pattern)]
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def compile_loops(on_step: Callable[[str, float], None] | None = None) -> dict[str, float]:
    """Run the whole way of an exposure in a temporary folder, so that its compiled code lies in the cache on disk.

    Parameters
    ----------
    on_step : callable, optional
        Called after each step with its name and its seconds.

    Returns
    -------
    dict of str to float
        Seconds by step: ``templates``, then a night by method.

    Raises
    ------
    CompilationFailed
        If an exposure of the small survey cannot be reduced.
    """
    seconds: dict[str, float] = {}

    def done(step: str, start: float) -> None:
        seconds[step] = time.monotonic() - start
        if on_step is not None:
            on_step(step, seconds[step])

    with TemporaryDirectory(prefix="nightsift-") as folder:
        survey = simulate(Path(folder), SimulationOptions.preset("tiny", seed=1, visits=1))
        start = time.monotonic()
        build_templates(survey, runner=HERE, track=False)
        done("templates", start)
        unit = next((Path(folder) / "units").glob("*.toml"))
        text = unit.read_text()
        for method in method_names():
            start = time.monotonic()
            unit.write_text(f'{text}\n[subtraction]\nmethod = "{method}"\n')
            states = night(survey, runner=HERE, track=False).states
            if set(states) != {"done"}:
                raise CompilationFailed(method=method, states=states)
            done(method, start)
    return seconds
