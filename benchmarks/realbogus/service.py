"""Stamps a second of the shipped model through the public `predict`: one pass, twenty samples, and Keras beside.

    python benchmarks/realbogus/service.py --out FOLDER

Scores the same stamps in turns, so that a busy machine slows all of them alike, and gives the best and the median turn.
Times are of the wall; those of the processor (all threads) tell what a quiet machine of as many cores would do. The
parts of one pass are timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = 20
GOALS = {"one": 6000.0, "samples": 0.5, "keras": 2.0}


def stamps(folder: Path | None, number: int, size: int) -> Any:
    """Stamps of a labelled set where one is given, drawn ones elsewhere."""
    from models.training import examples
    from nightsift.core.frames import Stamps

    if folder is not None:
        parts = sorted(path.parent for path in folder.glob(f"**/{examples.TABLE}"))
        found = examples.join([examples.read(part) for part in parts]).stamps
        rows = np.arange(number) % len(found)
        return Stamps(found.data[rows], found.mask[rows])
    rng = np.random.default_rng(1)
    data = rng.normal(0, 5, (number, size, size, 3)).astype(np.float32)
    return Stamps(data, rng.random((number, size, size)) < 0.01)


def clocked(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def parts_of_a_pass(given: Any, sign: Any, classifier: Any) -> dict[str, float]:
    """Processor microseconds a stamp of the steps of one pass, in one thread."""
    import onnxruntime

    from models.network.inputs import prepare
    from models.network.normalise import normalise
    from models.network.sampling import draw_gates
    from models.network.store import find

    folder, n = find(classifier.name), min(len(given), 1024)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    trunk, head = (onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options) for name in ("trunk", "head"))
    data, mask = prepare(type(given)(given.data[:n], given.mask[:n]), sign[:n], classifier.recipe)
    planes = normalise(data, mask, classifier.recipe)
    batches = [planes[i : i + 64] for i in range(0, n, 64)]
    features = [trunk.run(None, {trunk.get_inputs()[0].name: batch})[0] for batch in batches]
    names = [one.name for one in head.get_inputs()]

    def heads(samples: int) -> Callable[[], object]:
        gates = draw_gates(classifier.gates, samples, 0)
        return lambda: [head.run(None, dict(zip(names, [f, *gates], strict=True))) for f in features]

    steps: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare(type(given)(given.data[:n], given.mask[:n]), sign[:n], classifier.recipe),
        "normalise": lambda: normalise(data, mask, classifier.recipe),
        "trunk": lambda: [trunk.run(None, {trunk.get_inputs()[0].name: batch}) for batch in batches],
        "head, 1 sample": heads(1),
        f"head, {SAMPLES} samples": heads(SAMPLES),
    }
    return {name: 1e6 * min(clocked(step)[1] for _ in range(5)) / n for name, step in steps.items()}


def in_turns(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of each way, one after the other in each turn; a first turn is not counted."""
    for run in ways.values():
        run()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, run in ways.items():
            found[name].append(clocked(run))
    return found


def rates(turns: dict[str, list[tuple[float, float]]], n: int, threads: int) -> list[dict[str, Any]]:
    """Stamps a second of each way."""
    rows = []
    for name, times in turns.items():
        walls, cpus = zip(*times, strict=True)
        speed = {"best": n / min(walls), "median": n / statistics.median(walls), "per_cpu_second": n / min(cpus)}
        rows.append({"way": name, **speed, "cores": threads})
    return rows


def ratio(turns: dict[str, list[tuple[float, float]]], fast: str, slow: str) -> float:
    """How many times as long one way takes as another, median over turns."""
    return statistics.median(b[0] / a[0] for a, b in zip(turns[fast], turns[slow], strict=True))


def tell(rows: list[dict[str, Any]], ratios: dict[str, float], parts: dict[str, float]) -> None:
    """Tables on stdout, and whether the goals are met."""
    print(f"{'':32s}{'best/s':>10s}{'median/s':>10s}{'per CPU s':>11s}")
    for row in rows:
        print(f"{row['way']:32s}{row['best']:10,.0f}{row['median']:10,.0f}{row['per_cpu_second']:11,.0f}")
    for name, value in ratios.items():
        print(f"{name:32s}{value:10.2f}   (median over turns)")
    for name, value in parts.items():
        print(f"{name:32s}{value:10.1f} us of one core a stamp")
    goals = {
        "one pass >= 6000/s": rows[0]["best"] >= GOALS["one"],
        "20 samples >= half of it": ratios["20 samples over one pass"] >= GOALS["samples"],
        ">= 2 x Keras predict": ratios["one pass over Keras predict"] >= GOALS["keras"],
    }
    for name, met in goals.items():
        print(f"{name:32s}{'met' if met else 'missed':>10s}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--stamps", type=Path, help="folder of labelled sets; drawn stamps otherwise")
    parser.add_argument("--number", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from models.network.store import load, predict

    onnx = load(arguments.model, threads=arguments.threads, engine="onnx")
    keras = load(arguments.model, threads=arguments.threads, engine="keras")
    given = stamps(arguments.stamps, arguments.number, onnx.recipe.size)
    sign, one, many = np.ones(len(given), dtype=np.int8), "ONNX, 1 sample", f"ONNX, {SAMPLES} samples"
    ways: dict[str, Callable[[], object]] = {
        one: lambda: predict(given, sign, onnx, samples=1),
        many: lambda: predict(given, sign, onnx, samples=SAMPLES),
        "Keras predict": lambda: keras.network.predict([given.data, given.mask], batch_size=256, verbose=0),
        "Keras, our sampler, 1 sample": lambda: predict(given, sign, keras, samples=1),
    }
    turns = in_turns(ways, arguments.turns)
    rows = rates(turns, len(given), arguments.threads)
    ratios = {
        "one pass over Keras predict": ratio(turns, one, "Keras predict"),
        "20 samples over one pass": ratio(turns, many, one),
    }
    parts, load_average = parts_of_a_pass(given, sign, onnx), os.getloadavg()[0]
    print(f"{onnx.model_id}, {len(given)} stamps, {arguments.threads} threads, load average {load_average:.1f}")
    tell(rows, ratios, parts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    numbers = {"model": onnx.model_id, "rows": rows, "ratios": ratios, "parts_us": parts, "load_average": load_average}
    (arguments.out / "service.json").write_text(json.dumps(numbers, indent=1))
    draw(rows, parts, arguments.out / "service.png", arguments.threads)


def draw(rows: list[dict[str, Any]], parts: dict[str, float], path: Path, threads: int) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    from nightsift.report.plots import COLOURS, STYLE

    with matplotlib.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
        figure = Figure(figsize=(9.4, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        names = [row["way"] for row in rows][::-1]
        left.barh(names, [row["best"] for row in rows][::-1], color=COLOURS[0], height=0.55)
        left.plot(
            [row["median"] for row in rows][::-1], names, "D", color=COLOURS[1], markersize=4, label="median turn"
        )
        left.axvline(GOALS["one"], color="#9aa3ad", linestyle="--")
        left.set_title(f"Stamps a second, {threads} threads (best turn, diamond: median, dashed: goal)")
        right.barh(list(parts)[::-1], list(parts.values())[::-1], color=COLOURS[2], height=0.55)
        right.set_title("Microseconds of one core a stamp")
        for axis in (left, right):
            axis.grid(visible=False, axis="y")
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
