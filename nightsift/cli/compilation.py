"""``nightsift compile``: one process compiles the loops over pixels, one time per installation, before they are used.

Numba keeps what it compiled in a cache on disk. A record beside it says of which sources, interpreter and processor
that is, so that a command knows within milliseconds whether something is left to compile: workers that start side by
side would each compile the same. Numba also looks at the file of a loop only, not at those of the loops that it calls:
what calls a changed one is deleted here before it is compiled again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nightsift.archive.survey import Survey
    from nightsift.simulate.options import SimulationOptions

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nightsift", "subtraction", "models")
"""Those with compiled loops."""

LOOP = re.compile(r"^@.*jit\(.*cache=True", re.M)
FULL_WELL = 12_000.0
"""Full well (electrons) at which several stars of the small survey saturate."""

LONGEST_WAIT = 900.0
"""Seconds to wait for another command that compiles, before compiling beside it."""

LINE_SECONDS = 10.0
"""Between two lines of progress where the output is no terminal."""

OnLoop = Callable[[int, str], None]
"""Called with the number of loops compiled so far and the step that they are needed for."""


def compile_now(
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete everything that was compiled before.")] = False,
) -> None:
    """Compile the loops over pixels into the cache on disk, where they are not; other commands do it by themselves."""
    with _alone(typer.echo):
        if not fresh and is_compiled():
            typer.echo("all is compiled")
            return
        deleted = forget_compiled(None if fresh else changed_sources())
        if deleted:
            typer.echo(f"{deleted} compiled files deleted")
        with _Progress() as progress:
            seconds = compile_loops(progress)
        _write_record()
    typer.echo(f"compiled in {sum(seconds.values()):.0f} s")


def compile_first(survey: Survey | None = None, units: Sequence[str] = ()) -> None:
    """Check a survey, then compile what is not compiled yet, in a process of its own, before a command goes on."""
    if survey is not None:
        from tasks.steps import checked_units

        checked_units(survey, units)  # a wrong configuration is no reason to wait for minutes
    if is_compiled():
        return
    if _home() is None:
        typer.echo("compiled loops cannot be stored, so each process compiles them for some minutes", err=True)
        typer.echo("  -> set NUMBA_CACHE_DIR to a folder that can be written to", err=True)
    elif subprocess.call([sys.executable, "-P", "-m", "nightsift", "compile"]):
        typer.echo("the loops could not be compiled beforehand: nightsift doctor looks for the cause", err=True)


def is_compiled() -> bool:
    """Whether the cache holds the loops of these sources for this interpreter and processor."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return True
    record = _record()
    return record.get("made_by") == made_by(sources()) and all(map(os.path.exists, record.get("files", ())))


def sources() -> dict[str, str]:
    """Texts of the modules that have compiled loops, by their path below the root."""
    found = {}
    for path in sorted(one for package in PACKAGES for one in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if LOOP.search(text):
            found[str(path.relative_to(ROOT))] = text
    return found


def made_by(texts: Mapping[str, str]) -> dict[str, Any]:
    """What compiled code depends on: sources with the times that numba looks at, numba, Python and the processor."""
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
    times = {name: (ROOT / name).stat().st_mtime_ns for name in texts}
    spec = find_spec("numba")
    numba = (spec.origin, Path(spec.origin).stat().st_mtime_ns) if spec is not None and spec.origin else ("", 0)
    return {"sources": digests, "times": times, "numba": list(numba), "python": platform.python_version(),
            "processor": _processor()}  # fmt: skip


def changed_sources() -> set[str]:
    """Sources that are not those of the last compilation, and all that call them; empty where there was none."""
    before, texts = _record().get("made_by"), sources()
    if not before:
        return set()
    now = made_by(texts)["sources"]
    return with_callers({name for name in texts if before["sources"].get(name) not in (None, now[name])}, texts)


def with_callers(changed: set[str], texts: Mapping[str, str]) -> set[str]:
    """Add to changed modules those that import from them, and those that import from these."""
    found, waiting = set(changed), list(changed)
    while waiting:
        module = waiting.pop().removesuffix(".py").replace("/", ".")
        calls = re.compile(rf"^\s*(from {re.escape(module)} import|import {re.escape(module)}\b)", re.M)
        new = {name for name, text in texts.items() if name not in found and calls.search(text)}
        found |= new
        waiting += new
    return found


def forget_compiled(modules: set[str] | None = None) -> int:
    """Delete compiled code from the cache on disk.

    Parameters
    ----------
    modules : set of str, optional
        Only that of these sources, by their path below the root; all when None.

    Returns
    -------
    int
        Files deleted.
    """
    named = None if modules is None else {Path(name).stem for name in modules}
    found = [one for one in _cached() if named is None or one.name.partition(".")[0] in named]
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def compile_loops(on_loop: OnLoop | None = None) -> dict[str, float]:
    """Run the whole way of an exposure in a temporary folder, so that its compiled code lies in the cache on disk.

    Parameters
    ----------
    on_loop : callable, optional
        Called at the begin of each step and after each loop that was compiled.

    Returns
    -------
    dict of str to float
        Seconds by step: ``templates``, then a night by method.

    Raises
    ------
    CompilationFailed
        If an exposure of the small survey cannot be reduced.
    """
    from flows.night import night
    from flows.templates import build_templates
    from nightsift.archive.survey import Runner
    from nightsift.core.errors import CompilationFailed
    from nightsift.simulate.survey import simulate
    from subtraction.api.pairs import method_names

    here = Runner(kind="in-process", workers=1, address="")
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="nightsift-") as folder, _listening(on_loop) as begin:
        begin("a simulated night")
        survey = simulate(Path(folder), _small_survey())
        start = begin("templates")
        build_templates(survey, runner=here, track=False)
        seconds["templates"] = time.monotonic() - start
        unit = next((Path(folder) / "units").glob("*.toml"))
        text = unit.read_text()
        for method in method_names():
            start = begin(f"the method {method}")
            unit.write_text(f'{text}\n[subtraction]\nmethod = "{method}"\n')
            states = night(survey, runner=here, track=False).states
            if set(states) != {"done"}:
                raise CompilationFailed(method=method, states=states)
            seconds[method] = time.monotonic() - start
    return seconds


def _small_survey() -> SimulationOptions:
    """A small survey that needs every loop: stars saturate and bleed, and satellites cross."""
    from nightsift.simulate.options import SimulationOptions

    tiny = SimulationOptions.preset("tiny", seed=1, visits=1)
    unit = replace(tiny.units[0], detector=replace(tiny.units[0].detector, full_well=FULL_WELL))
    return replace(tiny, units=(unit,), artefacts=replace(tiny.artefacts, streak_probability=1.0))


@contextmanager
def _listening(on_loop: OnLoop | None) -> Iterator[Callable[[str], float]]:
    """Count the loops that numba compiles inside the block; the function given begins a step and returns the time."""
    from numba.core import event

    known = {(name.removesuffix(".py").replace("/", ".")) for name in sources()}
    compiled: set[tuple[str, str]] = set()
    step = [""]

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            """Only the end of a compilation counts."""

        def on_end(self, event: Any) -> None:
            function = event.data["dispatcher"].py_func
            if function.__module__ in known:
                compiled.add((function.__module__, function.__qualname__))
                tell()

    def tell() -> None:
        if on_loop is not None:
            on_loop(len(compiled), step[0])

    def begin(name: str) -> float:
        step[0] = name
        tell()
        return time.monotonic()

    with event.install_listener("numba:compile", Listener()):
        yield begin


class _Progress:
    """Progress of the compilation: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._most = sum(len(LOOP.findall(text)) for text in sources().values())
        self._bar: Any = None
        self._step, self._next = "", 0.0

    def __enter__(self) -> _Progress:
        typer.echo("compiling loops, one time per installation and update: some minutes of one core")
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            from nightsift.cli.console import console

            columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console())
            self._bar.add_task("starting", total=self._most)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, step: str) -> None:
        line = f"{done} of up to {self._most} loops, for {step}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, description=line)
        elif step != self._step or time.monotonic() >= self._next:
            self._step, self._next = step, time.monotonic() + LINE_SECONDS
            typer.echo(f"compiling: {line}")


@contextmanager
def _alone(say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other command compiles, but not for ever; the lock of a process that dies is free at once."""
    home = _home()
    if home is None:
        yield
        return
    deadline, waits = time.monotonic() + LONGEST_WAIT, False
    with (home / "nightsift-loops.lock").open("a") as lock:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waits:
                    say("another command compiles the loops: waiting for it")
                waits = True
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        yield


def _homes() -> list[Path]:
    """Folders where the record may lie, the most wanted first: as numba chooses those of its cache."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(named)]
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba"
    return [ROOT / PACKAGES[0] / "__pycache__", users]


def _home() -> Path | None:
    """The first of these folders that can be written to, made if need be."""
    for home in _homes():
        try:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home):
                return home
        except OSError:
            continue
    return None


def _record_name() -> str:
    return f"nightsift-loops.{sys.implementation.cache_tag}.json"


def _record() -> dict[str, Any]:
    for home in _homes():
        try:
            found: dict[str, Any] = json.loads((home / _record_name()).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found
    return {}


def _write_record() -> None:
    from nightsift.io.atomic import atomic

    home = _home()
    if home is not None:
        record = {"made_by": made_by(sources()), "files": [str(one) for one in _cached() if one.suffix == ".nbi"]}
        with atomic(home / _record_name()) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")


def _cached() -> list[Path]:
    """Files of compiled code of this project, in the folders of its packages or in that of NUMBA_CACHE_DIR."""
    roots = [ROOT / name for name in PACKAGES]
    if os.environ.get("NUMBA_CACHE_DIR"):
        roots.append(Path(os.environ["NUMBA_CACHE_DIR"]))
    return [file for root in roots for pattern in ("*.nbi", "*.nbc") for file in root.rglob(pattern)]


def _processor() -> str:
    """Model and abilities of the processor, by which numba tells whose code it is, or what it is to compile for."""
    if named := os.environ.get("NUMBA_CPU_NAME"):
        return f"{named} {os.environ.get('NUMBA_CPU_FEATURES', '')}".strip()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = []
            for line in file:
                if not line.strip():
                    break
                if line.startswith(("model name", "flags", "Features", "CPU part")):
                    lines.append(line.strip())
    except OSError:
        lines = []
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()[:16]
