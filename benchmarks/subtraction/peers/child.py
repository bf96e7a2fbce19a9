"""Run one peer on one pair in a process of its own.

python -m benchmarks.subtraction.peers.child NAME PAIR OUT THREADS        (in the root of a clone)
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time

import numpy as np


def cost() -> tuple[float, float]:
    """Wall clock and CPU seconds of this process, its threads and its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Print one line of JSON, write the products."""
    name, pair, out, threads = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.subtraction.peers.{name}")
    reason = module.available()
    if reason or pair == "-":
        print(json.dumps({"reason": reason}))
        return
    os.environ["OMP_NUM_THREADS"] = threads
    with np.load(pair) as file:
        planes = {key: file[key] for key in file.files if key not in ("stars", "galaxies", "transients")}
    if hasattr(module, "warm_up"):
        module.warm_up(int(threads))
    began = cost()
    done = module.run(planes, int(threads))
    ended = cost()
    arrays = {"difference": done.difference, "variance": done.variance, "mask": done.mask}
    for key in ("score", "psf"):
        if getattr(done, key) is not None:
            arrays[key] = getattr(done, key)
    np.savez(out, **arrays)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    usage = {"wall_s": ended[0] - began[0], "cpu_s": ended[1] - began[1], "peak_gb": peak / 1e6}
    print(json.dumps({**usage, "convolved": done.convolved, "reason": ""}))


if __name__ == "__main__":
    main()
