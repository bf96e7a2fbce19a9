"""How fast the factory of training sets works, and what it makes: rate, magnitudes, host offsets, a gallery.

    python benchmarks/realbogus/factory.py --out DIR [--units 5] [--visits 4] [--workers 2]

Frames of random units are simulated into DIR/frames first, which is not timed. Then their examples are made as
``nightsift dataset`` does, templates included, from frames on disk to sets on disk, and the rate is measured by the
clock, and by the processor time used, which does not depend on what else the machine does. Needs minutes; 20,000
examples at the defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import numpy as np

from models.training import examples
from models.training.examples import TrainingSet
from nightsift.archive.survey import load_survey
from nightsift.core.robust import nan_mad_sigma
from nightsift.simulate.survey import simulate
from tasks.examples import harvest, survey_options

ORDER = ("detected", "minor_planet", "injected", "transplanted", "random", "galaxy_residual", "galaxy_pixel")
COLOURS = dict(zip(ORDER, ("#1f77b4", "#17becf", "#2ca02c", "#9467bd", "#d62728", "#ff7f0e", "#7f7f7f"), strict=True))
GOAL = 400_000


def make_frames(folder: Path, seed: int, index: int, visits: int) -> Path:
    survey = folder / f"unit-{index:03d}" / "nightsift.toml"
    if not survey.is_file():
        simulate(survey.parent, dataclasses.replace(survey_options(seed, index), visits=visits))
    return survey


def make_set(survey: Path, out: Path) -> dict[str, Any]:
    shutil.rmtree(survey.parent / "archive", ignore_errors=True)
    begin, used = time.perf_counter(), time.process_time()
    found = harvest(load_survey(survey), survey.parent.name)
    examples.write(out, found)
    return {"examples": len(found), "seconds": time.perf_counter() - begin, "processor": time.process_time() - used}


def timed(surveys: list[Path], out: Path, workers: int) -> dict[str, Any]:
    """All sets, by so many processes; compiled code is loaded from its cache, which counts."""
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        rows = list(pool.map(make_set, surveys, [out / one.parent.name for one in surveys]))
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    n = sum(row["examples"] for row in rows)
    return {
        "examples": n, "workers": workers, "wall_s": wall, "processor_s": processor,
        "per_hour_by_clock": 3600 * n / wall, "per_hour_two_free_cores": 2 * 3600 * n / processor,
        "load": os.getloadavg()[0], "units": rows,
    }  # fmt: skip


def picture(found: TrainingSet, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = {name: np.array(found.table[name].to_pylist(), dtype=object) for name in found.table.schema.names}
    source = columns["source"]
    figure = plt.figure(figsize=(13, 10.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 2.04))
    left, middle, right = top.subplots(1, 3)
    snr = columns["snr"].astype(float)
    bins = np.geomspace(0.5, 300, 36)
    for name in ORDER:
        left.hist(
            np.clip(snr[source == name], 0.5, 300), bins, histtype="step", color=COLOURS[name], label=name, lw=1.6
        )
    left.set(xscale="log", xlabel="signal-to-noise ratio in the difference", ylabel="examples")
    left.legend(frameon=False, fontsize=8, loc="upper right")
    offset = columns["host_offset"].astype(float)
    for name in ("injected", "transplanted", "galaxy_pixel"):
        middle.hist(offset[source == name], np.linspace(0, 5, 21), histtype="step", color=COLOURS[name], lw=1.6)
    middle.set(xlabel="offset from the galaxy (half-light radii)", ylabel="examples")
    mag, true = columns["mag"].astype(float), columns["true_mag"].astype(float)
    shown = np.isin(source, ["injected", "transplanted"]) & np.isfinite(mag)
    right.plot(true[shown], (mag - true)[shown], ",", color="0.3", alpha=0.5)
    right.axhline(0, color="k", lw=0.8)
    right.set(xlabel="magnitude put in", ylabel="measured - put in (mag)", ylim=(-1.2, 1.2))
    gallery(found, source, bottom)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def gallery(found: TrainingSet, source: np.ndarray, figure: Any, each: int = 5) -> None:
    """Science, template and difference of some examples of every source."""
    rng = np.random.default_rng(1)
    axes = figure.subplots(len(ORDER), 3 * each)
    for row, name in zip(axes, ORDER, strict=True):
        some = rng.permutation(np.flatnonzero(source == name))[:each]
        for k in range(each):
            for plane in range(3):
                axis = row[3 * k + plane]
                axis.set(xticks=[], yticks=[])
                if k >= len(some):
                    axis.axis("off")
                    continue
                stamp = np.where(found.stamps.mask[some[k]], np.nan, found.stamps.data[some[k], ..., plane])
                noise = nan_mad_sigma(found.stamps.data[some[k], ..., 2], 0.0)
                level = np.nanmedian(stamp) if np.isfinite(stamp).any() else 0.0
                axis.imshow(stamp - level, origin="lower", cmap="gray", vmin=-3 * noise, vmax=8 * noise)
                axis.set_facecolor("#5a2a2a")
                if name == ORDER[0]:
                    axis.set_title(("sci", "tmpl", "diff")[plane], fontsize=7, pad=2)
        row[0].set_ylabel(name.replace("_", "\n"), fontsize=8, color=COLOURS[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--units", type=int, default=5)
    parser.add_argument("--visits", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11)
    asked = parser.parse_args()
    surveys = [make_frames(asked.out / "frames", asked.seed, k, asked.visits) for k in range(asked.units)]
    found = timed(surveys, asked.out / "sets", asked.workers)
    whole = examples.join([examples.read(asked.out / "sets" / one.parent.name) for one in surveys])
    found["counts"] = {name: dict(Counter(whole.table[name].to_pylist())) for name in ("source", "label", "reduction")}
    found["synthetic"], found["left_out"] = whole.card["synthetic"], whole.card["left_out"]
    found["goal_per_hour"] = GOAL
    (asked.out / "factory.json").write_text(json.dumps(found, indent=2, default=str))
    picture(whole, asked.out / "factory.png")
    print(f"{found['examples']} examples of {asked.units} units, {asked.workers} processes, load {found['load']:.1f}")
    print(f"  by the clock        {found['wall_s']:8.0f} s  {found['per_hour_by_clock']:12,.0f} an hour")
    print(
        f"  by processor time   {found['processor_s']:8.0f} s  {found['per_hour_two_free_cores']:12,.0f} an hour on two"
    )
    for name, count in found["counts"]["source"].items():
        print(f"  {name:16s} {count}")
    for name, count in {**found["synthetic"], **found["left_out"]}.items():
        print(f"  {name:20s} {count}")


if __name__ == "__main__":
    main()
