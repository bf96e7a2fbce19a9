"""``nightsift doctor``: is this installation fit to run a night.

One check per function; each says what it found and what to do. What is heavy or known to break (Prefect's server,
TensorFlow, the model) is tried in a process of its own: it is really imported, and a crash there does not end the
examination.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from nightsift.core.errors import ConfigurationError

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
State = Literal["ok", "warn", "fail"]
PYTHON_RANGE = ((3, 11), (3, 14))
DISK_WARN_GB, DISK_FAIL_GB = 20.0, 1.0
TRIAL_SECONDS = 180.0
SERVER_TRIAL = "from prefect.server.api.server import create_app; create_app(ephemeral=True); print('its server loads')"
FLOW_TRIAL = "import flows.night; print('the flows load')"
# Loading a model scores its golden stamps and compares.
MODEL_TRIAL = (
    "from models.network.store import load, model_id; load({0!r}); print(model_id({0!r}), 'gives its golden scores')"
)

TENSORFLOW_TRIAL = "import tensorflow as tf, keras; print('TensorFlow', tf.__version__, 'Keras', keras.__version__)"


def doctor(
    archive: Annotated[Path, typer.Option(help="Folder where products would go: its disk is looked at.")] = Path(),
    quick: Annotated[bool, typer.Option(help="Leave out what imports TensorFlow and Prefect.")] = False,
) -> None:
    """Check Python, dependencies, Prefect, TensorFlow, disk, cores, caches, units and the model; say what to do."""
    from rich.text import Text

    from nightsift.cli.console import console

    out = console()
    failed = 0
    for one in run_checks(archive, quick):
        failed += one.state == "fail"
        out.print(Text(f"{one.state:<4} ", style=STYLES[one.state]), Text(f"{one.name}: {one.found}"), sep="")
        if one.advice:
            out.print(Text(f"     -> {one.advice}"))
    raise typer.Exit(1 if failed else 0)


@dataclass(frozen=True, slots=True)
class Check:
    """Outcome of one check.

    Attributes
    ----------
    name : str
        What was looked at.
    state : {"ok", "warn", "fail"}
        ``fail`` means that a night cannot run.
    found : str
        What was found.
    advice : str
        What to do, empty when nothing is to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def run_checks(archive: Path, quick: bool = False) -> Iterator[Check]:
    """Examine the installation, one check after the other.

    Parameters
    ----------
    archive : Path
        Folder where products would go.
    quick : bool, optional
        Leave out what imports TensorFlow and Prefect (several seconds each).

    Yields
    ------
    Check
        Each outcome as soon as it is known.
    """
    yield check_python(sys.version_info[:2])
    yield check_dependencies()
    yield check_cores()
    yield check_disk(archive)
    yield check_numba_cache()
    yield from check_units()
    if not quick:
        advice = "install what the lock file names: make install (Prefect needs fastapi below 0.151)"
        yield try_out("Prefect", SERVER_TRIAL, advice)
        yield try_out("flows", FLOW_TRIAL, "install nightsift again: make install")
        yield try_out("TensorFlow", TENSORFLOW_TRIAL, "install what the lock file names: make install")
        for model in named_models():
            yield try_out(f"model {model}", MODEL_TRIAL.format(model), "make it again: nightsift train --help")


def check_python(version: tuple[int, int]) -> Check:
    """Check the version of Python.

    Parameters
    ----------
    version : tuple of int
        Major and minor version.

    Returns
    -------
    Check
        ``fail`` outside the supported range.
    """
    found = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if PYTHON_RANGE[0] <= version < PYTHON_RANGE[1]:
        return Check("Python", "ok", found)
    return Check("Python", "fail", found, "use Python 3.11, 3.12 or 3.13 (TensorFlow has no wheels for others)")


def check_dependencies(distribution: str = "nightsift") -> Check:
    """Compare the installed dependencies with what the package asks for.

    Parameters
    ----------
    distribution : str, optional
        The installed distribution whose requirements are read.

    Returns
    -------
    Check
        ``fail`` with the list of those absent or of a wrong version.
    """
    from packaging.requirements import Requirement

    try:
        asked = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return Check("dependencies", "fail", f"{distribution} is not installed", "install it: make install")
    wrong, right = [], 0
    for one in map(Requirement, asked):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is absent")
            continue
        if one.specifier.contains(version, prereleases=True):
            right += 1
        else:
            wrong.append(f"{one.name} {version} is not {one.specifier}")
    if wrong:
        return Check("dependencies", "fail", "; ".join(wrong), "install what the lock file names: make install")
    return Check("dependencies", "ok", f"{right} of the versions asked for")


def check_cores() -> Check:
    """Count the cores and look at how many threads BLAS would take.

    Returns
    -------
    Check
        ``warn`` where several worker processes would fight over the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if cores > 1 and threads != "1":
        found = f"{cores}, OMP_NUM_THREADS is {threads}"
        return Check("cores", "warn", found, "unset OMP_NUM_THREADS: exposures are reduced side by side already")
    return Check("cores", "ok", str(cores))


def check_disk(archive: Path) -> Check:
    """Look at the space left where products would go.

    Parameters
    ----------
    archive : Path
        The folder; it need not exist yet.

    Returns
    -------
    Check
        ``fail`` when the disk is as good as full or cannot be written to.
    """
    folder = archive.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    found = f"{free:.0f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} cannot be written to", "choose another archive, or correct its rights")
    if free < DISK_FAIL_GB:
        return Check("disk", "fail", found, "make room: exposures would fail")
    if free < DISK_WARN_GB:
        return Check("disk", "warn", found, "make room: stamps take about 40 kB a candidate")
    return Check("disk", "ok", found)


def check_numba_cache() -> Check:
    """Find out whether compiled code can be stored between runs.

    Returns
    -------
    Check
        ``warn`` when every process would compile again (tens of seconds).
    """
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parents[1] / "images" / "__pycache__")
    probe = folder if folder.exists() else folder.parent
    try:
        with tempfile.TemporaryFile(dir=probe):
            return Check("numba cache", "ok", str(folder))
    except OSError as error:
        found = f"{probe} cannot be written to ({error.strerror})"
        return Check(
            "numba cache", "warn", found, "set NUMBA_CACHE_DIR to a folder that can be: code is compiled anew otherwise"
        )


def check_units() -> Iterator[Check]:
    """Read every unit file that ships.

    Yields
    ------
    Check
        One line for all good units, one for each wrong one.
    """
    from nightsift.unit.units import list_units, load_unit

    good = []
    for name in list_units():
        try:
            good.append(load_unit(name).name)
        except ConfigurationError as error:
            yield Check(f"unit {name}", "fail", str(error), "correct its file")
    yield Check("units", "ok" if good else "warn", ", ".join(good) or "none ships")


def named_models() -> list[str]:
    """Find out which real/bogus models the good unit files name.

    Returns
    -------
    list of str
        Their names, sorted.
    """
    from nightsift.unit.units import list_units, load_unit

    names = set()
    for name in list_units():
        with suppress(ConfigurationError):  # check_units has reported it
            names.add(load_unit(name).model.name)
    return sorted(names)


def try_out(name: str, code: str, advice: str) -> Check:
    """Run a few lines of Python in a process of their own.

    Parameters
    ----------
    name : str
        Name of the check.
    code : str
        The lines; what they print last is reported.
    advice : str
        What to do if they fail.

    Returns
    -------
    Check
        ``fail`` with the last line of the error.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=TRIAL_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return Check(
            name, "fail", f"no answer within {TRIAL_SECONDS:.0f} s", "is the machine overloaded or the disk slow?"
        )
    lines = re.findall(r"[^\n]*\S[^\n]*", done.stdout if done.returncode == 0 else done.stderr)
    last = lines[-1].strip() if lines else f"exit code {done.returncode}"
    return Check(name, "ok", last) if done.returncode == 0 else Check(name, "fail", last, advice)
