"""Candidates extracted from the differences of pairs whose truth is known: completeness, false ones, CPU seconds.

    python benchmarks/subtraction/extraction.py PAIR.npz... [--save FILE.npz] [--against FILE.npz] [--repeat 5]

A transient is found if a candidate of its sign lies within 2 pixels; a candidate farther than two FWHM from all (five
from those above S/N 30) is false. `--save` keeps the candidates, `--against` says how many of them another version of
the code, or another option, finds on the same pixels. Seconds are the least of all runs of `extract`, in one process
that keeps its memory as a worker of a night does.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.subtraction import fields
from benchmarks.subtraction.detections import BINS
from nightsift.core.parallel import keep_freed_memory
from nightsift.images.detection.extract import extract
from nightsift.images.photometry.difference_photometry import ZeroPoint
from subtraction.api import subtract

REACH = 2.0
UNIT: Any = SimpleNamespace(
    detection=SimpleNamespace(threshold=5.0, min_pixels=3, aperture=1.5), stamps=SimpleNamespace(size=31)
)
ZERO = ZeroPoint(25.0, 0.01, 100, 0.02)


def extracted(path: Path, method: str, repeat: int) -> tuple[dict[str, np.ndarray], fields.Truth, float]:
    """Candidates of a pair, its truth, and CPU seconds of their extraction."""
    pair, truth = fields.load(path)
    difference = subtract(pair, method)
    best = np.inf
    for _ in range(repeat + 1):  # the first one compiles
        began = time.process_time()
        table = extract(difference, pair, UNIT, zero_point=ZERO, template_id="truth")
        best = min(best, time.process_time() - began)
    names = ("x", "y", "sign", "snr", "flags", "flux_aperture")
    return {name: table[name].to_numpy() for name in names}, truth, best


def judged(rows: dict[str, np.ndarray], truth: fields.Truth) -> dict[str, str]:
    """Found of all transients by S/N, and false candidates with and without a flag."""
    one = truth.transients
    distance = np.hypot(rows["x"][:, None] - one["x"], rows["y"][:, None] - one["y"])
    right = rows["sign"][:, None] == np.sign(one["flux"])
    found = ((distance < REACH) & right).any(axis=0)
    near = (distance < np.where(one["snr"] < 30, 2.0, 5.0) * truth.science.fwhm).any(axis=1)
    out = {}
    for low, high in itertools.pairwise(BINS):
        chosen = (one["snr"] >= low) & (one["snr"] < high)
        out[f"S/N {low}-{high}"] = f"{found[chosen].sum()}/{chosen.sum()}"
    flagged = (rows["flags"] & ~512) != 0  # NEGATIVE is no fault
    out["false, no flag"], out["false, flag"] = str((~near & ~flagged).sum()), str((~near & flagged).sum())
    return out


def shared(rows: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> int:
    """How many candidates of another table are at the same place, to a hundredth of a pixel, with the same sign."""
    places = [set(zip(t["x"].round(2), t["y"].round(2), t["sign"], strict=True)) for t in (rows, other)]
    return len(places[0] & places[1])


def main() -> None:
    """Print what is found on each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--method", default="hotpants")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    chosen = parser.parse_args()
    keep_freed_memory()
    kept: dict[str, np.ndarray] = {}
    for path in chosen.pairs:
        rows, truth, seconds = extracted(path, chosen.method, chosen.repeat)
        kept |= {f"{path.stem}/{name}": values for name, values in rows.items()}
        line = f"{path.stem}: {len(rows['x'])} candidates, {seconds:.3f} CPU s"
        if chosen.against:
            with np.load(chosen.against) as file:
                other = {name: file[f"{path.stem}/{name}"] for name in rows}
            line += f"; {shared(rows, other)} of {len(other['x'])} there are the same"
        print(line)
        print("   " + ", ".join(f"{name} {value}" for name, value in judged(rows, truth).items()), flush=True)
    if chosen.save:
        np.savez(chosen.save, **kept)


if __name__ == "__main__":
    main()
