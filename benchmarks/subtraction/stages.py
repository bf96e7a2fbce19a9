"""CPU seconds of each stage of a subtraction on synthetic pairs.

    python benchmarks/subtraction/stages.py 1024 2048 8000x6000

Everything is compiled by a small pair first, so that the figures are those of the second exposure of a night.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import subtraction.finish as finish
import subtraction.methods.hotpants as hotpants
from nightsift.core.frames import Frame, Meta, Pair
from nightsift.images.stars.stars import find_stars
from subtraction.api.pairs import subtract_pair
from subtraction.psf.fit import fit_psf

STAGES = {
    hotpants: (
        "choose_anchors",
        "grow_saturated",
        "_fit",
        "make_filters",
        "grow_by_kernel",
        "unite",
        "difference",
        "finish",
    ),
    finish: (
        "sky_blocks",
        "subtract_polynomial",
        "star_sums",
        "fit_star_faults",
        "add_model_error",
        "matched_filter",
        "sample_score",
        "_unevenness",
    ),
}


def draw(shape: tuple[int, int], rng: np.random.Generator, per_pixel: float = 2e-4) -> Pair:
    """Draw a pair of Gaussian star fields with seeings of 4.2 and 3.2 pixels that grow by a tenth to the corners."""
    ny, nx = shape
    n = int(per_pixel * ny * nx)
    x, y, flux = rng.uniform(0, nx, n), rng.uniform(0, ny, n), 300.0 * rng.pareto(0.8, n).clip(0.1, 300)
    meta = Meta("bench", "field", "V", "2026-11-20", "bench-0", 61000.0, 60.0, 1.5, 6.0, 60_000.0, 1.0)
    frames = []
    for fwhm, depth in ((4.2, 1.0), (3.2, 8.0)):
        light = np.full(shape, 200.0, dtype=np.float32)
        yy, xx = np.mgrid[-15:16, -15:16]
        for sx, sy, f in zip(x, y, flux, strict=True):
            sigma = fwhm / 2.3548 * (1 + 0.05 * ((2 * sx / nx - 1) ** 2 + (2 * sy / ny - 1) ** 2))
            j, i = round(sy), round(sx)
            if 15 <= j < ny - 15 and 15 <= i < nx - 15:
                r2 = (xx + i - sx) ** 2 + (yy + j - sy) ** 2
                light[j - 15 : j + 16, i - 15 : i + 16] += f / (2 * np.pi * sigma**2) * np.exp(-r2 / (2 * sigma**2))
        variance = light / (1.5 * depth) + 16.0 / depth
        data = light + np.sqrt(variance) * rng.standard_normal(shape, dtype=np.float32) - np.float32(200.0)
        mask = np.where(data > 60_000.0, np.uint16(2), np.uint16(0))
        frames.append(Frame(data.astype(np.float32), variance.astype(np.float32), mask, meta))
    return Pair(frames[0], frames[1])


def timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """Wrap a function so that its CPU time, over all threads, is added up."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

    return call


def measure(shape: tuple[int, int], seconds: dict[str, float]) -> None:
    """Time one pair and print its stages."""
    pair = draw(shape, np.random.default_rng(1))
    start = time.perf_counter()
    pair = Pair(pair.science.replace(psf=fit_psf(pair.science, find_stars(pair.science))), pair.template)
    psf_seconds = time.perf_counter() - start
    seconds.clear()
    before = time.process_time()
    start = time.perf_counter()
    difference = subtract_pair(pair)
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{shape[1]}x{shape[0]}: {wall:.2f} s wall, {cpu:.2f} s CPU, peak {peak:.2f} GB")
    print(f"   before: stars and PSF {psf_seconds:.2f}")
    print("   " + ", ".join(f"{name.strip('_')} {value:.2f}" for name, value in seconds.items()))
    sigma = difference.metrics["noise_scale"]
    print(f"   {difference.verdict}; score sigma before scaling {sigma:.3f}")


def main() -> None:
    """Read sizes from the command line and time them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["1024", "2048", "4096", "8000x6000"])
    sizes = [tuple(int(n) for n in (size.split("x") * 2)[:2])[::-1] for size in parser.parse_args().sizes]
    subtract_pair(draw((512, 512), np.random.default_rng(2), 1e-3))
    seconds: dict[str, float] = {}
    for module, names in STAGES.items():
        for name in names:
            setattr(module, name, timed(getattr(module, name), name, seconds))
    for size in sizes:
        measure((size[0], size[1]), seconds)


if __name__ == "__main__":
    main()
