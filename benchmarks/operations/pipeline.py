"""Wall and processor seconds, and memory, by stage of one exposure, from file to scored candidates, at several sizes.

    python benchmarks/operations/pipeline.py [1k 2k 4k large] [--model base] [--repeat 3]

One process simulates the survey, builds the template from two frames of the same sky and reduces once, which compiles
the loops. Another one then does what a worker of a night does: it reduces, again and again. Of its runs after the first
the fastest counts, stage by stage, because other work on the machine only ever adds. Memory is the largest resident
size of that process, libraries and compiled code included, while a stage runs in any of its runs. The floor is what
reading the pixels of all three files once, and touching every plane of two frames and a difference once, takes here.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from flows.templates import build_templates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner
from nightsift.core.parallel import keep_freed_memory
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from nightsift.unit.units import load_unit
from tasks.reduce import reduce_file
from tasks.steps import Stopwatch

SIZES = {"1k": (1024, 1024), "2k": (2048, 2048), "4k": (4096, 4096), "large": (6000, 8000)}
IN_PROCESS = Runner(kind="in-process", workers=1, address="")
KINDS = ("supernova", "hostless", "nuclear", "variable", "asteroid")
Times = dict[str, tuple[float, float]]
Peaks = dict[str, float]
Given = TypeVar("Given")


def prepare(size: str, model: str, folder: Path) -> tuple[Path, Path]:
    """Simulate a survey of one field, build its template, reduce it once; its exposure and its folder of units."""
    tiny = SimulationOptions.preset("tiny", seed=11, visits=1)
    unit = dataclasses.replace(tiny.units[0], shape=SIZES[size])
    area = SIZES[size][0] * SIZES[size][1] / (tiny.units[0].shape[0] * tiny.units[0].shape[1])
    more = {kind: min(getattr(tiny.transients, kind) * area, 200.0) for kind in KINDS}
    transients = dataclasses.replace(tiny.transients, **more)
    survey = simulate(folder, dataclasses.replace(tiny, units=(unit,), template_frames=2, transients=transients))
    for file in (folder / "units").glob("*.toml"):
        file.write_text(file.read_text().replace('name = "base"', f'name = "{model}"'))
    build_templates(survey, runner=IN_PROCESS, track=False)
    exposure = next((folder / "nights").rglob("*.fits"))
    timed_reduction(exposure, folder / "units", Archive(folder / "archive"))
    return exposure, folder / "units"


@contextmanager
def watched_memory(peaks: dict[str, float]) -> Iterator[None]:
    """Note the largest resident size (GB) of every stage that is timed meanwhile."""
    timed = Stopwatch.timed

    @contextmanager
    def watched(clock: Stopwatch, stage: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
        try:
            with timed(clock, stage):
                yield
        finally:
            peaks[stage] = max(peaks.get(stage, 0.0), resident("VmHWM"))

    Stopwatch.timed = watched  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Stopwatch.timed = timed  # type: ignore[method-assign]


def resident(name: str) -> float:
    """Resident size of this process now (VmRSS) or at its largest (VmHWM), in GB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")) / 1e6


def timed_reduction(exposure: Path, units: Path, archive: Archive) -> tuple[Times, int]:
    """Reduce an exposure anew; wall and processor seconds of each stage and of the whole, and candidates found."""
    unit = load_unit(next(units.glob("*.toml")).stem, [units])
    began, busy = time.perf_counter(), time.process_time()
    done = reduce_file(str(exposure), unit, archive, redo=True)
    times = {stage: (wall, done.clock.cpu[stage]) for stage, wall in done.clock.seconds.items()}
    times["all"] = (time.perf_counter() - began, time.process_time() - busy)
    if done.row["state"] != "done":
        raise SystemExit(f"{exposure.name}: {done.row['message']}")
    return times, int(done.row["n_candidates"])


def reduce_often(exposure: Path, units: Path, archive: Archive, repeat: int) -> tuple[list[Times], int, Peaks]:
    """Reduce an exposure again and again in this process; times of all runs, candidates, and peak memory by stage."""
    peaks = {"(before)": resident("VmRSS")}
    keep_freed_memory()  # as the workers of a night
    with watched_memory(peaks):
        runs = [timed_reduction(exposure, units, archive) for _ in range(repeat + 1)]
    peaks["all"] = max(peaks.values())
    return [times for times, _ in runs], runs[-1][1], peaks


def floor(exposure: Path, shape: tuple[int, int]) -> tuple[float, float]:
    """Seconds to read the exposure and a template once and to write the planes of two frames and a difference."""
    began, busy = time.perf_counter(), time.process_time()
    np.fromfile(exposure, dtype=np.uint8)
    planes = [np.full(shape, 1.0, dtype=np.float32) for _ in range(7)]  # data and variance of three, and the score
    masks = [np.zeros(shape, dtype=np.uint16) | np.uint16(1) for _ in range(3)]
    assert planes[0].shape == masks[0].shape
    return time.perf_counter() - began, time.process_time() - busy


def apart(function: Callable[..., Given], *arguments: object) -> Given:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(size: str, model: str, repeat: int, folder: Path) -> tuple[Times, int, Peaks]:
    """Best times of each stage, number of candidates, and peak memory by stage (GB)."""
    exposure, units = apart(prepare, size, model, folder)
    (first, *runs), found, peaks = apart(reduce_often, exposure, units, Archive(folder / "archive"), repeat)
    best = {stage: (min(r[stage][0] for r in runs), min(r[stage][1] for r in runs)) for stage in runs[0]}
    best["(first)"] = first["all"]
    best["(floor)"] = floor(exposure, SIZES[size])
    return best, found, peaks


def main() -> None:
    """Print one table; wall and processor seconds and memory of each size side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["1k", "2k"], help=f"of {', '.join(SIZES)}")
    parser.add_argument("--model", default="none", help="model that scores the candidates")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    chosen = parser.parse_args()
    table = {}
    for size in chosen.sizes:
        folder = Path(tempfile.mkdtemp(prefix="nightsift-benchmark-"))
        try:
            table[size] = measure(size, chosen.model, chosen.repeat, folder)
        finally:
            shutil.rmtree(folder)
    stages = list(dict.fromkeys(stage for times, _, peaks in table.values() for stage in (*times, *peaks)))
    print(f"wall / CPU s, peak GB on {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<12}" + "".join(f"{size:>22}" for size in table))
    for stage in stages:
        cells = ((times.get(stage, (np.nan, np.nan)), peaks.get(stage, np.nan)) for times, _, peaks in table.values())
        print(f"{stage:<12}" + "".join(f"{f'{wall:.2f} / {cpu:.2f}, {peak:.2f}':>22}" for (wall, cpu), peak in cells))
    print(f"{'candidates':<12}" + "".join(f"{found:>22d}" for _, found, _ in table.values()))


if __name__ == "__main__":
    main()
