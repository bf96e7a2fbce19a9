"""Candidates extracted from the differences of pairs whose truth is known: completeness, false ones, CPU seconds.

    python benchmarks/subtraction/extraction.py PAIR.npz... [--save FILE.npz] [--against FILE.npz] [--repeat 5]
    python benchmarks/subtraction/extraction.py --blends

A transient is found if a candidate of its sign lies within 2 pixels; a candidate farther than two FWHM from all (five
from those above S/N 30) is false. `--save` keeps the candidates, `--against` says how many of them another version of
the code, or another option, finds on the same pixels. Seconds are the least of all runs of `extract`, in one process
that keeps its memory as a worker of a night does. `--blends` extracts from drawn score maps what a difference hardly
has: crowded stars, wide faint sources, and stars on the flanks of wide ones.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from benchmarks.subtraction import fields
from benchmarks.subtraction.detections import BINS
from nightsift.core.parallel import keep_freed_memory
from nightsift.images.detection.extract import extract
from nightsift.images.detection.peaks import Significant, find_peaks, floor_of
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.unit.units import load_unit
from subtraction.api.pairs import subtract_pair

REACH = 2.0
UNIT = "goto_zip"
"""The unit whose thresholds and aperture are taken: those of the defaults."""
ZERO = ZeroPoint(25.0, 0.01, 100, 0.02)


def extracted(path: Path, method: str, repeat: int) -> tuple[dict[str, np.ndarray], fields.Truth, float]:
    """Candidates of a pair, its truth, and CPU seconds of their extraction."""
    pair, truth = fields.load(path)
    unit = load_unit(UNIT)
    difference = subtract_pair(pair, method)
    best = np.inf
    for _ in range(repeat + 1):  # the first one compiles
        began = time.process_time()
        table = extract(difference, pair, unit, zero_point=ZERO, template_id="truth")
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


def blends(size: int = 2048, stars: int = 20_000, seed: int = 3) -> dict[str, str]:
    """Parts found of close stars, and pieces of wide sources, in score maps of a Gaussian PSF of sigma 1.25 pixels."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.25)
    noise /= noise.std()
    x, y = rng.uniform(20, size - 20, (2, stars))
    snr = np.minimum(7 * rng.uniform(size=len(x)) ** (-1 / 1.2), 5000)
    found = _places(noise + _lights((size, size), x, y, snr=snr, sigma=1.25))
    distance, nearest = cKDTree(np.c_[x, y]).query(found, distance_upper_bound=2.5)
    seen = np.zeros(len(x), bool)
    seen[nearest[np.isfinite(distance)]] = True
    out = {f"stars of S/N {a}-{b}": f"{seen[(snr >= a) & (snr < b)].mean():.3f}" for a, b in ((7, 15), (15, 50))}
    gx, gy = (a.ravel() for a in np.meshgrid(*2 * (np.arange(60, size - 60, 120.0),)))
    for height, star in ((15, 0), (60, 0), (60, 20)):
        wide = _lights((size, size), gx, gy, snr=np.full(len(gx), height), sigma=7.0)
        beside = _lights((size, size), gx + 12, gy, snr=np.full(len(gx), star), sigma=1.25)
        name = f"{len(gx)} wide ones of S/N {height}" + (f" with a star of S/N {star} each" if star else "")
        out[name] = f"{len(_places(noise + wide + beside))} candidates"
    return out


def _lights(shape: tuple[int, int], x: np.ndarray, y: np.ndarray, *, snr: np.ndarray, sigma: float) -> np.ndarray:
    """What Gaussian sources look like in a score map."""
    out, half = np.zeros(shape), round(8 * sigma)
    for one_x, one_y, height in zip(x, y, snr, strict=True):
        box = (slice(max(0, round(c) - half), round(c) + half + 1) for c in (one_y, one_x))
        rows, columns = box
        j, i = np.arange(shape[0])[rows, None], np.arange(shape[1])[columns]
        out[rows, columns] += height * np.exp(-((i - one_x) ** 2 + (j - one_y) ** 2) / (4 * sigma**2))
    return out


def _places(score: np.ndarray) -> np.ndarray:
    score = score.astype(np.float32)
    peaks = find_peaks(Significant(score, np.flatnonzero(abs(score) > floor_of(5.0))), 5.0, 3)
    return np.c_[peaks.column, peaks.row][peaks.sign > 0]


def main() -> None:
    """Print what is found on each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", type=Path)
    parser.add_argument("--blends", action="store_true")
    parser.add_argument("--method", default="hotpants")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    chosen = parser.parse_args()
    if chosen.blends:
        print("\n".join(f"{name}: {value}" for name, value in blends().items()))
    keep_freed_memory()
    everything: dict[str, np.ndarray] = {}
    for path in chosen.pairs:
        rows, truth, seconds = extracted(path, chosen.method, chosen.repeat)
        everything |= {f"{path.stem}/{name}": values for name, values in rows.items()}
        line = f"{path.stem}: {len(rows['x'])} candidates, {seconds:.3f} CPU s"
        if chosen.against:
            with np.load(chosen.against) as file:
                other = {name: file[f"{path.stem}/{name}"] for name in rows}
            line += f"; {shared(rows, other)} of {len(other['x'])} there are the same"
        print(line)
        print("   " + ", ".join(f"{name} {value}" for name, value in judged(rows, truth).items()), flush=True)
    if chosen.save:
        np.savez(chosen.save, **everything)


if __name__ == "__main__":
    main()
