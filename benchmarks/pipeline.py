"""Wall and processor seconds by stage of one exposure, from file to scored candidates, for frames of several sizes.

Run from a clone: ``python benchmarks/pipeline.py [1k 2k 4k large] [--model base] [--repeat 3]``. The template is built
from two frames of the same simulated sky; a first run of each size warms compiled code up and is not counted. Of the
others the fastest counts, stage by stage, because other work on the machine only ever adds. Memory is the largest
resident size of this process so far, which does not draw the survey itself; so sizes should go from small to large.
The floor is what reading the pixels of all three files once, and touching every plane of two frames and a difference
once, takes here.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from flows.templates import build_templates
from nightsift.io.paths import Archive
from nightsift.simulate import SimulationOptions, simulate
from nightsift.survey import Runner
from nightsift.units import load_unit
from tasks.reduce import Reduction, reduce_file

SIZES = {"1k": (1024, 1024), "2k": (2048, 2048), "4k": (4096, 4096), "large": (6000, 8000)}
IN_PROCESS = Runner(kind="in-process", workers=1, address="")
KINDS = ("supernova", "hostless", "nuclear", "variable", "asteroid")
Times = dict[str, tuple[float, float]]


def prepare(size: str, model: str, folder: Path) -> tuple[Path, Path]:
    """Simulate a survey of one field and build its template; its exposure and its folder of units."""
    tiny = SimulationOptions.preset("tiny", seed=11, visits=1)
    unit = dataclasses.replace(tiny.units[0], shape=SIZES[size])
    area = SIZES[size][0] * SIZES[size][1] / (tiny.units[0].shape[0] * tiny.units[0].shape[1])
    more = {kind: min(getattr(tiny.transients, kind) * area, 200.0) for kind in KINDS}
    transients = dataclasses.replace(tiny.transients, **more)
    survey = simulate(folder, dataclasses.replace(tiny, units=(unit,), template_frames=2, transients=transients))
    for file in (folder / "units").glob("*.toml"):
        file.write_text(file.read_text().replace('name = "base"', f'name = "{model}"'))
    build_templates(survey, runner=IN_PROCESS, track=False)
    return next((folder / "nights").rglob("*.fits")), folder / "units"


def reduce_once(exposure: Path, units: Path, archive: Archive) -> tuple[Times, Reduction]:
    """Reduce an exposure anew; wall and processor seconds of each stage and of the whole."""
    unit = load_unit(next(units.glob("*.toml")).stem, [units])
    began, busy = time.perf_counter(), time.process_time()
    done = reduce_file(str(exposure), unit, archive, redo=True)
    times = {stage: (wall, done.clock.cpu[stage]) for stage, wall in done.clock.seconds.items()}
    times["all"] = (time.perf_counter() - began, time.process_time() - busy)
    if done.row["state"] != "done":
        raise SystemExit(f"{exposure.name}: {done.row['message']}")
    return times, done


def floor(exposure: Path, shape: tuple[int, int]) -> tuple[float, float]:
    """Seconds to read the exposure and a template once and to write the planes of two frames and a difference."""
    began, busy = time.perf_counter(), time.process_time()
    np.fromfile(exposure, dtype=np.uint8)
    planes = [np.full(shape, 1.0, dtype=np.float32) for _ in range(7)]  # data and variance of three, and the score
    masks = [np.zeros(shape, dtype=np.uint16) | np.uint16(1) for _ in range(3)]
    assert planes[0].shape == masks[0].shape
    return time.perf_counter() - began, time.process_time() - busy


def measure(size: str, model: str, repeat: int, folder: Path) -> tuple[Times, int, float]:
    """Best times of each stage, number of candidates, and peak memory so far (GB)."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:  # its memory is not that of the way measured
        exposure, units = apart.submit(prepare, size, model, folder).result()
    archive = Archive(folder / "archive")
    reduce_once(exposure, units, archive)
    runs = [reduce_once(exposure, units, archive) for _ in range(repeat)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    best = {
        stage: (min(times[stage][0] for times, _ in runs), min(times[stage][1] for times, _ in runs))
        for stage in runs[0][0]
    }
    best["(floor)"] = floor(exposure, SIZES[size])
    return best, int(runs[-1][1].row["n_candidates"]), peak


def main() -> None:
    """Print one table, wall and processor seconds of each size side by side."""
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
    stages = list(dict.fromkeys(stage for times, _, _ in table.values() for stage in times))
    print(f"wall / CPU s on {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<16}" + "".join(f"{size:>16}" for size in table))
    for stage in stages:
        cells = (times.get(stage, (np.nan, np.nan)) for times, _, _ in table.values())
        print(f"{stage:<16}" + "".join(f"{f'{wall:.2f} / {cpu:.2f}':>16}" for wall, cpu in cells))
    print(f"{'candidates':<16}" + "".join(f"{found:>16d}" for _, found, _ in table.values()))
    print(f"{'peak memory GB':<16}" + "".join(f"{peak:>16.2f}" for _, _, peak in table.values()))


if __name__ == "__main__":
    main()
