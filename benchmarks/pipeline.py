"""Seconds by stage of one exposure, from file to scored candidates, for simulated frames of several sizes.

Run from a clone: ``python benchmarks/pipeline.py [1k 2k 4k large] [--model base]``. The template is built from two
frames of the same simulated sky; the first exposure of a size warms compiled code up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
from pathlib import Path

from flows.nightly import night
from flows.templates import build_templates
from nightsift.simulate import SimulationOptions, simulate
from nightsift.survey import Runner

SIZES = {"1k": (1024, 1024), "2k": (2048, 2048), "4k": (4096, 4096), "large": (6000, 8000)}
IN_PROCESS = Runner(kind="in-process", workers=1, address="")


def measure(size: str, model: str, folder: Path) -> dict[str, float]:
    import dataclasses

    tiny = SimulationOptions.preset("tiny", seed=11, visits=3)
    unit = dataclasses.replace(tiny.units[0], shape=SIZES[size])
    area = SIZES[size][0] * SIZES[size][1] / (tiny.units[0].shape[0] * tiny.units[0].shape[1])
    kinds = ("supernova", "hostless", "nuclear", "variable", "asteroid")
    more = {kind: min(getattr(tiny.transients, kind) * area, 200.0) for kind in kinds}
    options = dataclasses.replace(
        tiny, units=(unit,), template_frames=2, transients=dataclasses.replace(tiny.transients, **more)
    )
    survey = simulate(folder, options)
    for file in (folder / "units").glob("*.toml"):
        file.write_text(file.read_text().replace('name = "base"', f'name = "{model}"'))
    templates = build_templates(survey, runner=IN_PROCESS, track=False)
    summary = night(survey, runner=IN_PROCESS, track=False)
    rows = [row for row in summary.rows if row["state"] == "done"][1:]
    if not rows:
        raise SystemExit(f"{size}: no exposure was reduced: {[row['message'] for row in summary.rows]}")
    stages = [json.loads(row["stage_seconds"]) for row in rows]
    seconds = {stage: statistics.median(one[stage] for one in stages) for stage in stages[0]}
    total = statistics.median(row["seconds"] for row in rows)
    found = statistics.median(row["n_candidates"] for row in rows)
    return {**seconds, "all": total, "(its template)": templates.seconds, "candidates": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["1k", "2k"], help=f"of {', '.join(SIZES)}")
    parser.add_argument("--model", default="none", help="model that scores the candidates")
    chosen = parser.parse_args()
    table = {}
    for size in chosen.sizes:
        folder = Path(tempfile.mkdtemp(prefix="nightsift-benchmark-"))
        try:
            table[size] = measure(size, chosen.model, folder)
        finally:
            shutil.rmtree(folder)
    stages = list(dict.fromkeys(stage for seconds in table.values() for stage in seconds))
    print(f"{'seconds':<16}" + "".join(f"{size:>10}" for size in table))
    for stage in stages:
        print(f"{stage:<16}" + "".join(f"{table[size].get(stage, float('nan')):>10.2f}" for size in table))
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
